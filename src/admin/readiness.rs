//! Is the proxy ready: can it serve now, and could it start again from what lies on the disk?

use serde_json::{Map, Value, json};

use super::Admin;
use super::standing::Part;
use crate::clock::UnixSeconds;

/// One thing that must be in order.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// In plain words that name no path, host or person; `None` when it is in order.
    pub(super) trouble: Option<String>,
}

/// All of them, in the order in which they are shown.
pub(super) fn checks(admin: &Admin) -> Vec<Check> {
    let now = UnixSeconds::now();
    let parts = Part::ALL
        .into_iter()
        .map(|part| Check { name: part.as_str(), trouble: admin.standing.trouble_with(part, now) });
    let journal = Check { name: "journal", trouble: journal(admin) };
    let draining = admin.drain.has_started().then(|| "the proxy is going down and takes no new clients".to_owned());
    parts.chain([journal, Check { name: "serving", trouble: draining }]).collect()
}

fn journal(admin: &Admin) -> Option<String> {
    let journal = &admin.proxy.journal;
    let health = journal.health();
    if health.refusing.is_some() {
        return Some("its lines cannot be written, so requests are refused; the log says why".to_owned());
    }
    (health.in_flight >= journal.in_flight_max())
        .then(|| "it has no room for another request, so requests are refused".to_owned())
}

/// The body of `/readyz`, and whether everything is in order.
pub(super) fn report(checks: &[Check]) -> (bool, Value) {
    let ready = checks.iter().all(|check| check.trouble.is_none());
    let member = |check: &Check| {
        let value = match &check.trouble {
            None => json!({ "ok": true }),
            Some(why) => json!({ "ok": false, "why": why }),
        };
        (check.name.to_owned(), value)
    };
    (ready, json!({ "ready": ready, "checks": checks.iter().map(member).collect::<Map<_, _>>() }))
}
