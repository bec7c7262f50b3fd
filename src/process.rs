//! What must not leave this process but through its sockets: its memory, a core, a page in swap, a panic's words.
//!
//! All of it is the best that the system allows, and none of it is needed for the proxy to be right: root can read
//! everything anyway.

use std::io::Write as _;
use std::panic::PanicHookInfo;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

/// Keeps other processes of this user from reading this one's memory, and the system from writing a core of it. Gives
/// back the limit that cores had, for the command that this process may start.
pub fn conceal() -> Option<u64> {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "other processes of this user can read this one's memory");
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).ok()?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard).ok()?;
    Some(soft)
}

/// Has a write beyond a limit of file sizes (`ulimit -f`) fail as on a full disk (`EFBIG`), where the system would end the
/// process. To be called inside the runtime.
///
/// A handler and not "ignore": it is gone from a command that is started, where the limit means what it always does.
///
/// # Errors
/// When the system takes no handler.
pub fn survive_file_limit() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // The handler stays when its receiver is gone.
    signal(SignalKind::from_raw(Signal::SIGXFSZ as i32)).map(drop)
}

/// Gives a command the limit for cores that it would have had.
pub fn allow_core(soft: u64) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, soft.min(hard), hard);
    }
}

/// Keeps what is in memory now out of swap: called when secrets have been read. False where the system does not allow it.
///
/// Only what is mapped already is locked, and only pages that are in use (`MCL_ONFAULT`): memory of a later burst goes
/// back to the system as before, and no allocation can fail for it. A limit of locked memory below the size of the whole
/// process (8 MiB is common) does not allow that; `ulimit -l unlimited`, `LimitMEMLOCK=infinity` or `CAP_IPC_LOCK` does.
#[cfg(target_os = "linux")]
#[must_use]
pub fn lock_memory() -> bool {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    // mlockall(2); without it the whole address space would be made resident.
    const MCL_ONFAULT: i32 = 4;
    let locked = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::from_bits_retain(MCL_ONFAULT));
    if let Err(error) = locked {
        tracing::debug!(%error, "memory cannot be locked: what is in it may reach swap");
    }
    locked.is_ok()
}

/// Elsewhere nothing is locked: the address space cannot be locked page by page as it comes into use.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn lock_memory() -> bool {
    false
}

/// From now on a panic says where it was and not what: its words may hold what a request or a file held.
pub fn hush_panics(program: &'static str) {
    std::panic::set_hook(Box::new(move |panic| tell(program, panic)));
}

fn tell(program: &str, panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{program}: error: a defect at {place}; the connection or command it was in has ended");
    let trace = std::backtrace::Backtrace::capture();
    if trace.status() == std::backtrace::BacktraceStatus::Captured {
        let _ = writeln!(stderr, "{trace}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "sk-canary-0123456789";
    const INSIDE: &str = "NARROWS_TEST_PANIC";

    /// A hook is one for a process, and the harness has its own: so this test is also the process that it looks at.
    #[test]
    fn a_panic_tells_its_place_and_not_its_words() {
        if std::env::var_os(INSIDE).is_some() {
            hush_panics("narrows");
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let ended = runtime.block_on(async { tokio::spawn(async { panic!("{WORDS}") }).await });
            // One task has ended; whoever waited for it goes on.
            assert!(ended.expect_err("a panic").is_panic());
            return;
        }
        let own = std::env::current_exe().expect("a path");
        let name = "process::tests::a_panic_tells_its_place_and_not_its_words";
        let mut command = std::process::Command::new(own);
        command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").env("RUST_BACKTRACE", "1");
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("narrows: error: a defect at src/process.rs:"), "{said}");
        assert!(!said.contains(WORDS), "{said}");
    }
}
