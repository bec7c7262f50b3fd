//! What is in `deploy/`, played for real: podman runs the pods and podman-compose the composition, from images that buildah
//! makes of nothing. An agent has variables and certificates, Narrows is beside it, and an origin wants the real key.
//! Then the agent looks for that key, and for a way around.
//!
//! The images have this build's binaries with the libraries that they are linked to, because a static build would
//! compile everything again; `deploy/image` makes both kinds. This program plays the origin and the agents too.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod closed;
mod compose;
mod dockerfile;
mod images;
mod inside;
mod manifests;
mod place;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use images::Images;
use inside::{ORIGIN, PLACEHOLDER, secret};
use place::Place;

/// The roles of this program inside containers; nothing outside.
#[test]
fn role() {
    inside::play();
}

/// What the origin of an agent that found nothing says it saw.
pub(crate) fn assert_used_the_key_and_found_none(said: &str) {
    assert!(said.contains("the agent found nothing"), "{said}");
    let saw: BTreeSet<&str> = said.lines().filter_map(|line| Some(line.split_once("origin saw ")?.1)).collect();
    let (through, around) = (format!("/v1/items Bearer {}", secret()), format!("/v1/around Bearer {PLACEHOLDER}"));
    assert_eq!(saw, BTreeSet::from([through.as_str(), around.as_str()]), "{said}");
}

#[test]
fn an_agent_in_a_pod_uses_the_key_and_cannot_find_it() {
    let Some(images) = Images::get("pod") else { return };
    let Some(python) = manifests::python("pod") else { return };
    let place = Place::new(&images);
    place.fill(ORIGIN, "");
    let pod = place.rendered(&python, "ordinary");
    place.podman(&["play", "kube", "--network", "none", &pod]);

    let ended = place.podman_allowed_to_fail(&["wait", "agent-agent"]);
    let said = place.logs();
    assert_eq!(ended.stdout.trim(), "0", "{said}");
    assert_used_the_key_and_found_none(&said);
    // What its probes run.
    place.podman(&["exec", "agent-narrows", "/bin/capctl", "admin", "alive"]);
    place.podman(&["exec", "agent-narrows", "/bin/capctl", "admin", "ready"]);

    // SIGTERM drains, and the status says that it was no accident.
    place.podman(&["kill", "--signal", "TERM", "agent-narrows"]);
    assert_eq!(place.podman(&["wait", "agent-narrows"]).stdout.trim(), "0", "{}", place.logs());
}
