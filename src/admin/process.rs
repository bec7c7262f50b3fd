//! What the system says of this process, under the names that Prometheus' own clients use.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// As far as the system tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) cpu: Option<Duration>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) fds_open: Option<u64>,
    pub(super) fds_max: Option<u64>,
}

impl Usage {
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().and_then(|usage| {
            let part = |time: nix::sys::time::TimeVal| {
                let micros = u64::try_from(time.tv_usec()).ok()?;
                Some(Duration::from_secs(u64::try_from(time.tv_sec()).ok()?) + Duration::from_micros(micros))
            };
            Some(part(usage.user_time())? + part(usage.system_time())?)
        });
        // The folder that is read is open too.
        let fds_open = fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1));
        Self {
            cpu,
            resident_bytes: kib("VmRSS"),
            virtual_bytes: kib("VmSize"),
            fds_open,
            fds_max: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}
