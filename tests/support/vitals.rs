//! What the system says of a running process (Linux).

use std::time::Duration;

/// A clock tick of `/proc/PID/stat`: a hundredth of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// One process, looked at from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vitals {
    pid: u32,
}

impl Vitals {
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// Resident memory now.
    pub(crate) fn resident_kib(self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory that there ever was.
    pub(crate) fn peak_kib(self) -> u64 {
        self.status("VmHWM:")
    }

    /// Processor time so far, of all threads.
    pub(crate) fn cpu(self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u32 = [11, 12].map(|at: usize| fields[at].parse::<u32>().unwrap()).iter().sum();
        TICK * ticks
    }

    /// Open files and sockets.
    pub(crate) fn descriptors(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }

    /// Fails when the process does not come to rest although nothing is asked of it any more: it may work off what came,
    /// for some windows; a loop would fill them all.
    #[track_caller]
    pub(crate) fn assert_idle(self, what: &str) {
        const WINDOW: Duration = Duration::from_millis(200);
        const WINDOWS: u32 = 10;
        let rests = || {
            let before = self.cpu();
            std::thread::sleep(WINDOW);
            self.cpu().saturating_sub(before) < WINDOW / 4
        };
        assert!((0..WINDOWS).any(|_| rests()), "{what}: it works on with nothing to do");
    }

    fn status(self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
