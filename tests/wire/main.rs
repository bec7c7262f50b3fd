//! The real daemon, byte by byte: an agent that writes what it likes on one side, origins that do on the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod authority;
mod certificates;
mod descriptors;
mod destinations;
mod ends;
mod floods;
mod framing;
mod h2;
mod hostile;
mod liars;
mod lifecycle;
mod listener;
mod log;
mod memory;
mod names;
mod plain;
mod pseudo;
mod scrub;
mod shares;
mod smuggling;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod traced;
mod unread;
mod upstream;
mod upstream_floods;
mod waits;

use support::agent::Agent;
use support::ca::Alpn;
use support::daemon::{Daemon, Holder, TestEnv};
use support::origin::Origin;
use support::raw::{RawOrigin, Step};

pub(crate) const SECRET: &str = "sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys";

pub(crate) const HOST: &str = "api.acme.test";

/// A proxy, a holder who may do everything at [`HOST`], and an origin.
pub(crate) struct World<O = Origin> {
    pub(crate) daemon: Daemon,
    pub(crate) env: TestEnv,
    pub(crate) origin: O,
    pub(crate) holder: Holder,
    pub(crate) agent: Agent,
}

impl World {
    pub(crate) fn new(alpn: Alpn) -> Self {
        Self::with(alpn, &["acme"])
    }

    pub(crate) fn with(alpn: Alpn, allow: &[&str]) -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], alpn);
        env.acme(SECRET, &origin);
        origin.put("/v1/items", "text/plain", "items");
        Self::started(env, origin, allow)
    }
}

impl World<RawOrigin> {
    /// The same with an origin that plays `steps` on every connection.
    pub(crate) fn raw(steps: Vec<Step>) -> Self {
        let mut env = TestEnv::new();
        let origin = RawOrigin::https(&env.ca, &[HOST], steps);
        env.acme_at(SECRET, origin.addr);
        Self::started(env, origin, &["acme"])
    }
}

impl<O> World<O> {
    pub(crate) fn started(env: TestEnv, origin: O, allow: &[&str]) -> Self {
        let daemon = env.start();
        let holder = env.mint("holder", allow);
        let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
        Self { daemon, env, origin, holder, agent }
    }
}
