//! Memory is bounded by configuration: `docs/hardening.md` has the sum, and here an agent tries to get past it.

use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{
    DATA, END_HEADERS, Fate, Flooder, HEADERS, field, frame, get, initial_window, request, stream,
};
use crate::support::origin::Origin;
use crate::support::vitals::Vitals;
use crate::{HOST, SECRET, World};

const STALL: Duration = Duration::from_millis(300);
const TUNNELS: u64 = 8;
const REQUESTS: u64 = 16;
/// Of the sum in `docs/hardening.md`.
const CONNECTION_KIB: u64 = 512;
const REQUEST_KIB: u64 = 3 * 1024;
/// What the allocator keeps and the runtime needs, whatever is configured.
const OTHER_KIB: u64 = 8 * 1024;
/// As many streams as one connection may have.
const STREAMS: usize = 128;
/// Bodies that nobody takes: what a stream's window lets in.
const UPLOADS: usize = 3;
const UPLOAD_FRAMES: usize = 64;

/// Uploads that no upstream reads, and downloads with long heads that the agent does not read.
fn greedy(uploads: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..uploads {
        let head = request("POST", HOST, "/hang");
        bytes.extend(frame(HEADERS, END_HEADERS, stream(number), &head));
        bytes.extend(frame(DATA, 0, stream(number), &[b'x'; 16 * 1024 - 256]).repeat(UPLOAD_FRAMES));
    }
    let padding = field("x-padding", &[b'x'; 12_000]);
    for number in uploads..STREAMS {
        let mut download = get(stream(number), HOST, "/bytes/10000000");
        let length = u32::try_from(download.len() - 9 + padding.len()).unwrap().to_be_bytes();
        download[..3].copy_from_slice(&length[1..]);
        bytes.extend([download, padding.clone()].concat());
    }
    bytes
}

#[test]
fn what_an_authority_makes_the_proxy_hold_stays_below_the_documented_sum() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], alpn);
        env.acme(SECRET, &origin);
        env.setting(&format!(
            "[limits]\nconnections_max = 32\nauthority_tunnels_max = {TUNNELS}\nauthority_requests_max = {REQUESTS}\n"
        ));
        origin.put("/v1/items", "text/plain", "items");
        let world = World::started(env, origin, &["acme"]);
        let innocent = world.env.mint("innocent", &["acme"]);
        let innocent = Agent::new(&world.env, &world.daemon, Some(&innocent.presentation()));
        assert_eq!(innocent.get(HOST, "/v1/items").status(), 200);
        let vitals = Vitals::of(world.daemon.pid());
        let before = vitals.peak_kib();

        let held: Vec<Flooder> = (0..TUNNELS)
            .map(|number| {
                let mut flooder = Flooder::with(&world.agent, HOST, &initial_window(10));
                // Only one tunnel has room for more than one request.
                let uploads = if number == 0 { UPLOADS } else { 0 };
                let fate = flooder.flood(&greedy(uploads), STALL);
                // Content that comes for a refused upload ends its connection.
                assert!(uploads > 0 || fate == Fate::Open, "tunnel {number} over {alpn:?}: {fate:?}");
                flooder
            })
            .collect();
        let refused = world.env.journal_line(|line| line["code"] == "overloaded" && line["event"] == "request");
        assert_eq!(refused["status"], 503, "{refused}");
        assert_eq!(innocent.get(HOST, "/v1/items").status(), 200);
        vitals.assert_idle("all that may be held is held");
        let grown = vitals.peak_kib().saturating_sub(before);
        let most = TUNNELS * CONNECTION_KIB + (REQUESTS + TUNNELS) * REQUEST_KIB + OTHER_KIB;
        println!("{alpn:?}: grown by {grown} KiB of {most}");
        assert!(grown < most, "{alpn:?}: {grown} KiB, and the sum is {most}");
        drop(held);
    }
}
