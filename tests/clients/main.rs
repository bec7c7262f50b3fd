//! The real daemon under real clients, by both carriers. Each must show three things: the origin saw the real secret in its
//! place, the client never did, and a denial reaches the person who reads the client's output.
//!
//! A client that is not on the machine is skipped with one line, or fails where `NARROWS_REQUIRE_CLIENTS=1` promised it.
//! `tests/clients/install` puts the ones in place that the machine's packages do not have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod carrier;
mod curl;
mod git;
mod node;
mod packages;
mod python;
mod sdk;
mod story;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::ca::Alpn;
use support::client::{Ran, run};
use support::daemon::{Daemon, Holder, TestEnv};
use support::origin::Origin;

/// What must be seen at the origin and nowhere else.
pub(crate) const SECRET: &str = "sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys";

/// What the origin answers where the capability allows: proof that the answer came through.
pub(crate) const MARKER: &str = "answer-from-the-origin";

/// Every name that a test's origin has a certificate for.
const NAMES: [&str; 7] = [
    "api.acme.test",
    "github.com",
    "api.github.com",
    "api.openai.com",
    "api.anthropic.com",
    "packages.acme.test",
    "other.acme.test",
];

/// How a client gets its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// `capctl run -- CLIENT`: a forwarder proves possession on each CONNECT.
    Run,
    /// `eval "$(capctl env)"; CLIENT`: the variables hold a presentation.
    Env,
}

pub(crate) const CARRIERS: [Carrier; 2] = [Carrier::Run, Carrier::Env];

/// One origin, one running proxy, one holder.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) env: TestEnv,
    pub(crate) origin: Origin,
    pub(crate) holder: Holder,
}

impl World {
    /// A world whose holder may read `/v1` of `acme`, and use its WebSocket and its gRPC.
    pub(crate) fn new(alpn: Alpn) -> Self {
        Self::with(alpn, &["acme:read path=/v1", "acme:write path=/ws", "acme:write path=/grpc"], |env, origin| {
            env.acme(SECRET, origin);
        })
    }

    pub(crate) fn with(alpn: Alpn, allow: &[&str], prepare: impl FnOnce(&mut TestEnv, &Origin)) -> Self {
        let mut env = TestEnv::by_capctl();
        let origin = Origin::https(&env.ca, &NAMES, alpn);
        origin.put("/v1/items", "application/json", format!("{{\"items\":\"{MARKER}\"}}"));
        prepare(&mut env, &origin);
        let daemon = env.start();
        let holder = env.mint_by_capctl("holder", allow);
        Self { daemon, env, origin, holder }
    }

    /// `program` under a carrier; arguments and variables that are added go to the program.
    pub(crate) fn under(&self, carrier: Carrier, program: &Path) -> Command {
        let mut command = match carrier {
            Carrier::Run => {
                let mut command = self.env.command();
                command.arg("run").arg("--cap").arg(&self.holder.capability).arg("--key").arg(&self.holder.key);
                command.arg("--");
                command
            }
            Carrier::Env => {
                let mut command = self.env.shell(
                    "variables=$(\"$CAPCTL\" env --proxy \"$AT\" --cap \"$CAP\" --key \"$KEY\") || exit 9
                    eval \"$variables\"; exec \"$@\"",
                );
                command.env("CAPCTL", env!("CARGO_BIN_EXE_capctl")).env("AT", format!("http://{}", self.daemon.addr));
                command.env("CAP", &self.holder.capability).env("KEY", &self.holder.key);
                command
            }
        };
        command.arg(program);
        command
    }

    /// Checks one client with both carriers. `prepare` adds what the client needs before the method and the URL.
    pub(crate) fn check(&self, program: &Path, prepare: impl Fn(&mut Command)) {
        for carrier in CARRIERS {
            let request = |method: &str, path: &str| {
                let mut command = self.under(carrier, program);
                prepare(&mut command);
                run(command.args([method, &format!("https://api.acme.test{path}")]), b"")
            };
            let before = self.origin.seen().len();
            request("GET", "/v1/items").says(MARKER).never_says(SECRET);
            self.saw_bearer(before, "/v1/items");
            let before = self.origin.seen().len();
            refused(request("GET", "/v2/private"));
            refused(request("POST", "/v1/items"));
            assert_eq!(self.origin.seen().len(), before, "{carrier:?}: a denied request reached the origin");
        }
    }

    /// The origin saw exactly one request more than `before`, with the secret in its place and nothing of ours.
    #[track_caller]
    pub(crate) fn saw_bearer(&self, before: usize, path: &str) {
        let seen = self.origin.seen();
        assert_eq!(seen.len(), before + 1, "one request was to reach the origin: {seen:#?}");
        let last = seen.last().unwrap();
        assert_eq!(last.path, path);
        assert_eq!(last.host, "api.acme.test");
        assert_eq!(last.header("authorization"), Some(&*format!("Bearer {SECRET}")));
        let ours = last.headers.keys().find(|name| name.as_str().starts_with("proxy-"));
        assert_eq!(ours, None, "a header for the proxy reached the origin");
    }
}

/// A denial was read by a person: its code, and the line that would allow it.
#[track_caller]
pub(crate) fn refused(ran: Ran) {
    ran.says("capability_denied").says("capctl").never_says(MARKER).never_says(SECRET);
}

/// A script that belongs to these tests.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A gRPC client: one message, a stream, a failure of the origin's own, a denial.
pub(crate) fn check_grpc(world: &World, program: &Path, prepare: impl Fn(&mut Command)) {
    for carrier in CARRIERS {
        let call = |kind: &str, path: &str| {
            let mut command = world.under(carrier, program);
            prepare(&mut command);
            run(command.args([kind, &format!("https://api.acme.test{path}")]), b"").never_says(SECRET)
        };
        let before = world.origin.seen().len();
        call("Unary", "/grpc/Unary").says("OK hello");
        world.saw_bearer(before, "/grpc/Unary");
        call("Stream", "/grpc/Stream").says("OK hello hello hello");
        call("Unary", "/grpc/Fail").says("not today");
        let before = world.origin.seen().len();
        call("Unary", "/other/Unary").says("capability_denied");
        assert_eq!(world.origin.seen().len(), before, "{carrier:?}: a denied call reached the origin");
    }
}
