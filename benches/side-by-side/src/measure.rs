//! What a process costs, as the kernel counts it, and what a client waits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// Columns of `/proc/stat` in which nothing is done, and the unit of all of them.
const IDLE_COLUMN: usize = 3;
const IO_WAIT_COLUMN: usize = 4;
const TICK_MS: u64 = 10;

/// Which core does what. On a machine with one core everything shares it, and the rates say little.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The origin and the load.
    pub(crate) load: usize,
    /// The proxy that is measured.
    pub(crate) proxy: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("which cores may be used is not told")?;
        let mut usable = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let load = usable.next().context("no core may be used")?;
        Ok(Self { load, proxy: usable.next().unwrap_or(load) })
    }

    pub(crate) const fn shared(self) -> bool {
        self.load == self.proxy
    }
}

/// Keeps the calling thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("a core cannot be chosen")
}

/// Has the calling thread, and what it starts from now on, give way at once to others on its core (`SCHED_IDLE`, `sched(7)`).
pub(crate) fn give_way() -> anyhow::Result<()> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
        .map_err(|error| anyhow!("no priority is lowered: {error}"))
}

/// Lets this process, and what it starts from now on, have as many open files as it is allowed; returns how many.
pub(crate) fn raise_open_files() -> anyhow::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Nanoseconds of a clock that all processes share.
pub(crate) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

/// A process and its descendants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree(pub(crate) u32);

impl Tree {
    /// User and system time so far, exact to the nanosecond; that of descendants that have ended is not in it.
    pub(crate) fn cpu(self) -> Duration {
        self.members().into_iter().filter_map(cpu_of).sum()
    }

    /// Time on a core of the threads of the process itself that have this name.
    pub(crate) fn threads_cpu(self, name: &str) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        let named = tasks
            .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        // `Documentation/scheduler/sched-stats.rst`: the first field is the time on a core, in nanoseconds.
        let spent = named.filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse().ok()
        });
        spent.map(Duration::from_nanos).sum()
    }

    /// Resident memory now, in KiB.
    pub(crate) fn resident_kib(self) -> u64 {
        self.members().into_iter().filter_map(|pid| status_kib(pid, "VmRSS:")).sum()
    }

    /// The most resident memory since [`Tree::forget_peak`], in KiB.
    pub(crate) fn peak_kib(self) -> u64 {
        self.members().into_iter().filter_map(|pid| status_kib(pid, "VmHWM:")).sum()
    }

    /// Lets the peak start from what is resident now.
    pub(crate) fn forget_peak(self) {
        for pid in self.members() {
            // `man 5 proc`: 5 resets the peak resident set size. A process of another user keeps its old peak.
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    fn members(self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, parent_of(pid)?)))
            .collect();
        let mut members = vec![self.0];
        let mut next = 0;
        while let Some(parent) = members.get(next).copied() {
            members.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        members
    }
}

fn cpu_of(pid: u32) -> Option<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    Some(clock_gettime(clock).ok()?.into())
}

/// The fourth field of `/proc/PID/stat`; the second is a name in parentheses that may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// The waits of one window, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Waits(Vec<u64>);

impl Waits {
    pub(crate) fn add(&mut self, wait_ns: u64) {
        self.0.push(wait_ns);
    }

    pub(crate) const fn count(&self) -> usize {
        self.0.len()
    }

    /// In microseconds, for each of the given shares; `None` when nothing was waited for.
    pub(crate) fn percentiles_us<const N: usize>(mut self, shares: [f64; N]) -> Option<[f64; N]> {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1)?;
        Some(shares.map(|share| self.0[(last as f64 * share).round() as usize] as f64 / 1_000.0))
    }
}

/// What this machine did beside this bench, in cores.
#[derive(Debug)]
pub(crate) struct Others {
    since: Instant,
    busy: Duration,
    own: Duration,
}

impl Others {
    pub(crate) fn watch() -> Self {
        Self { since: Instant::now(), busy: machine_busy(), own: own_cpu() }
    }

    /// The cores that others kept busy since then, on average.
    pub(crate) fn cores(&self) -> f64 {
        let busy = machine_busy().saturating_sub(self.busy);
        let own = own_cpu().saturating_sub(self.own);
        busy.saturating_sub(own).as_secs_f64() / self.since.elapsed().as_secs_f64()
    }
}

/// Of this process, its descendants, and those that have ended.
fn own_cpu() -> Duration {
    let ended = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |ended| {
        let micros = [ended.user_time(), ended.system_time()].map(|time| time.num_microseconds());
        Duration::from_micros(micros.iter().sum::<i64>().unsigned_abs())
    });
    Tree(std::process::id()).cpu() + ended
}

/// The first line of `/proc/stat`, less its idle columns, in ticks of 10 ms.
fn machine_busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let columns = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: u64 = columns
        .take(8)
        .enumerate()
        .filter(|(column, _)| ![IDLE_COLUMN, IO_WAIT_COLUMN].contains(column))
        .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * TICK_MS)
}
