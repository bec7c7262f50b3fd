//! `narrows`: the proxy, in the foreground.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use narrows::daemon::{self, Daemon, LoadError, Passed, Serve, StartError, Wrong, log, notify};
use narrows::process;
use narrows::store::{Home, mounted};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Example: narrows --check && narrows
///
/// Serves the home's configuration until SIGTERM or SIGINT, then drains and exits 0; a second one cuts what still runs. A
/// change of the configuration or of the store takes effect without a restart, and at once after SIGHUP.
#[derive(Debug, Parser)]
#[command(name = "narrows", version)]
struct Args {
    /// The folder that holds everything [default: $NARROWS_HOME, else the platform's data folder]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// A folder of files that others mount, such as a Secret: the home is made with links to them
    #[arg(long, value_name = "DIR")]
    mounted: Option<PathBuf>,
    /// Reports everything that a start would refuse, and what would not work, and exits: 0 when there is nothing, else 1
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    process::hush_panics("narrows");
    let args = Args::parse();
    let home = match Home::locate(args.home.as_deref()) {
        Ok(home) => home,
        Err(error) => return fail(&error, error.hint()),
    };
    if let Some(folder) = args.mounted {
        match mounted::link(&home, &folder) {
            Ok(gone) => gone.iter().for_each(|name| say(&has_left(name, &folder))),
            Err(error) => return fail(&error, error.hint()),
        }
    }
    if args.check {
        return check(&home);
    }
    // Before there is a second thread.
    let passed = match Passed::take() {
        Ok(passed) => passed,
        Err(error) => return fail(&error, None),
    };
    log::start();
    harden();
    let code = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(&home, passed)),
        Err(error) => fail(&error, None),
    };
    log::finish();
    code
}

async fn run(home: &Home, passed: Passed) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(&error, None),
    };
    if let Err(error) = process::survive_file_limit() {
        return fail(&error, None);
    }
    let daemon = match Daemon::start(home, Serve::Passed(passed)).await {
        Ok(daemon) => daemon,
        Err(error) => {
            if let StartError::Load(LoadError::Config(problems)) = &error {
                for problem in problems {
                    say(&problem.to_string());
                }
            }
            return fail(&error, error.hint());
        }
    };
    if let Some(first) = daemon.listening().first() {
        say(&format!("listening on {first}"));
    }
    for other in daemon.listening().iter().skip(1) {
        tracing::info!("also listening on {other}");
    }
    let at = daemon.listening().first().map_or_else(String::new, |first| format!("\nSTATUS=listening on {first}"));
    notify(&format!("READY=1{at}"));
    signals.end(|| daemon.read_again()).await;
    tracing::info!("draining");
    notify("STOPPING=1\nSTATUS=requests under way may end");
    if !daemon.stop_or_cut(signals.end(|| ())).await {
        tracing::warn!("some requests were cut: at the drain's deadline, or by a second signal");
    }
    ExitCode::SUCCESS
}

/// What a person or a service manager says to the process.
struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        // They mean nothing here, and must not end the process. The handler stays when its receiver is gone.
        for none in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            signal(none).map(drop)?;
        }
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the process is to end.
    async fn end(&mut self, read_again: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => read_again(),
            }
        }
    }
}

/// The process holds secrets and a socket or two for each client: nobody but root may look into it or have its core, and
/// it may open as many descriptors, and keep as much out of swap, as the system lets it.
fn harden() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    process::conceal();
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    for more in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_MEMLOCK] {
        if let Ok((_, hard)) = getrlimit(more) {
            let _ = setrlimit(more, hard, hard);
        }
    }
}

fn check(home: &Home) -> ExitCode {
    let wrong = daemon::check(home);
    for Wrong { what, hint } in &wrong {
        say(what);
        if let Some(hint) = hint {
            say(&format!("narrows: hint: {hint}"));
        }
    }
    if wrong.is_empty() {
        say("the configuration is good");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn has_left(name: &OsStr, folder: &Path) -> String {
    format!("{} has left {}: it is not linked any more", name.display(), folder.display())
}

fn say(text: &str) {
    log::say(Level::INFO, text);
}

fn fail(error: &dyn std::error::Error, hint: Option<String>) -> ExitCode {
    log::say(Level::ERROR, &format!("narrows: error: {error}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        log::say(Level::ERROR, &format!("narrows: error: because {error}"));
        cause = error.source();
    }
    if let Some(hint) = hint {
        log::say(Level::ERROR, &format!("narrows: hint: {hint}"));
    }
    ExitCode::FAILURE
}
