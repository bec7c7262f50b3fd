//! `narrows`: the proxy, in the foreground.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use narrows::config::Config;
use narrows::daemon::{Daemon, LoadError, Passed, Serve, StartError, holdings, log, notify, server_end};
use narrows::process;
use narrows::store::{Home, SecretStore, mounted};
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Example: narrows --check && narrows
///
/// Serves the home's configuration until SIGTERM or SIGINT, then drains and exits 0. A change of the configuration or
/// of the store takes effect without a restart.
#[derive(Debug, Parser)]
#[command(name = "narrows", version)]
struct Args {
    /// The folder that holds everything [default: $NARROWS_HOME, else the platform's data folder]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// A folder of files that others mount, such as a Secret: the home is made with links to them
    #[arg(long, value_name = "DIR")]
    mounted: Option<PathBuf>,
    /// Reports every problem of the configuration and exits: 0 when there is none, else 1
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
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return fail(&std::io::Error::other("signals cannot be handled"), None);
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
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    notify("STOPPING=1\nSTATUS=requests under way may end");
    if !daemon.stop().await {
        tracing::warn!("some requests were cut at the drain's deadline");
    }
    ExitCode::SUCCESS
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
    let problems = match Config::load(home) {
        Ok(config) => match SecretStore::new(home).list() {
            Ok(stored) => {
                if let Err(error) = holdings(&config).and_then(|_| server_end(&config, None)) {
                    return fail(&error, error.hint());
                }
                config.check(&stored)
            }
            Err(error) => return fail(&error, error.hint()),
        },
        Err(problems) => problems,
    };
    for problem in &problems {
        say(&problem.to_string());
    }
    if problems.is_empty() {
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
