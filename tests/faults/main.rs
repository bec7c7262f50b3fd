//! Faults against the real daemon: killed under load, refused by the disk, out of room, out of time.
//!
//! `tests/faults/run` is the long form (a hundred kills); `cargo test --test faults` the short one. What is promised and
//! how each promise is attacked: `docs/journal.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

mod clock;
mod descriptors;
mod disk;
mod home;
mod kill;
mod load;
mod panic;
mod power;
mod queries;
mod strace;
#[path = "../support/mod.rs"]
mod support;
mod syscalls;

use support::agent::Agent;
use support::ca::Alpn;
use support::client::run;
use support::daemon::{Daemon, TestEnv};
use support::origin::Origin;

pub(crate) const HOST: &str = "api.acme.test";

/// True in the long form.
pub(crate) fn is_long() -> bool {
    std::env::var("NARROWS_FAULTS").is_ok_and(|form| form == "long")
}

/// A home with one service, its origin, and a holder who may do everything there below `/` but `/denied`.
pub(crate) struct World {
    pub(crate) env: TestEnv,
    pub(crate) origin: Origin,
    pub(crate) credentials: String,
}

impl World {
    pub(crate) fn new(alpn: Alpn) -> Self {
        Self::with(alpn, "")
    }

    /// With more settings in the configuration.
    pub(crate) fn with(alpn: Alpn, settings: &str) -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], alpn);
        env.acme("sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys", &origin);
        if !settings.is_empty() {
            env.setting(settings);
        }
        env.write_config();
        let allow = ["acme path=/bytes", "acme path=/chunked", "acme path=/status", "acme path=/v1", "acme path=/hang"];
        let holder = env.mint("holder", &allow);
        let credentials = holder.presentation();
        Self { env, origin, credentials }
    }

    pub(crate) fn agent(&self, daemon: &Daemon) -> Agent {
        Agent::new(&self.env, daemon, Some(&self.credentials))
    }

    /// `capctl audit verify` on the whole journal.
    #[track_caller]
    pub(crate) fn verify(&self) {
        run(self.env.command().args(["audit", "verify"]), b"").succeeded();
    }
}
