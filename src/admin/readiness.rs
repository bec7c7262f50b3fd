//! Is the proxy ready: can it serve now, and could it start again from what lies on the disk?

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Admin;
use super::standing::Part;
use crate::clock::UnixSeconds;
use crate::proxy::{Dead, Held};

/// One thing that must be in order.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// In plain words that name no path, host or person; `None` when it is in order.
    pub(super) trouble: Option<String>,
}

/// All of them, in the order in which they are shown.
pub(super) fn checks(admin: &Admin) -> Vec<Check> {
    let now = UnixSeconds::now();
    let parts = Part::ALL.into_iter().map(|part| {
        let trouble = admin.standing.trouble_with(part, now).or_else(|| match part {
            Part::Store => store(admin),
            Part::Listeners => listeners(admin, now),
            Part::Configuration | Part::Revocations | Part::Authority => None,
        });
        Check { name: part.as_str(), trouble }
    });
    let journal = Check { name: "journal", trouble: journal(admin) };
    let draining = admin.drain.has_started().then(|| "the proxy is going down and takes no new clients".to_owned());
    parts.chain([journal, Check { name: "serving", trouble: draining }]).collect()
}

/// One secret that is missing is one service's affair; where none is there, the store is.
fn store(admin: &Admin) -> Option<String> {
    let snapshot = admin.proxy.live.snapshot();
    let named: BTreeSet<_> = snapshot.router().services().iter().filter_map(|service| service.credential()).collect();
    let missing = snapshot.missing_secrets().len();
    (missing > 0 && missing == named.len())
        .then(|| "none of the secrets that services name is there; capctl secret set stores one".to_owned())
}

fn listeners(admin: &Admin, now: UnixSeconds) -> Option<String> {
    let dead = |held: Held| {
        let why = match held.dead? {
            Dead::Invalid => "does not hold, or is of no root in [roots]",
            Dead::Revoked => "is revoked",
            Dead::Expired => "has expired",
        };
        Some(format!("the capability of listener \"{}\" {why}", held.name))
    };
    let dead: Vec<String> = admin.proxy.listeners(now).into_iter().filter_map(dead).collect();
    (!dead.is_empty()).then(|| format!("{}, so nobody is served there", dead.join(", and ")))
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
