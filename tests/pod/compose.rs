//! `deploy/compose.yaml`, run by podman-compose: its pod, by other means.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::assert_used_the_key_and_found_none;
use crate::images::{Images, LONG};
use crate::inside::ORIGIN;
use crate::place::Place;
use crate::support::client::{Ran, installed, run, run_within, skip};

/// What the test adds: no network, its own agent, and an origin beside it.
const MORE: &str = r#"
services:
  narrows:
    network_mode: none
  agent:
    image: localhost/narrows-test:latest
    environment: { NARROWS_TEST_ROLE: agent }
  origin:
    image: localhost/narrows-test:latest
    environment: { NARROWS_TEST_ROLE: origin }
    network_mode: "service:narrows"
    volumes: ["../origin:/origin:ro"]
"#;

#[test]
fn an_agent_in_a_composition_uses_the_key_and_cannot_find_it() {
    let test = "compose";
    let Some(images) = Images::get(test) else { return };
    let program = installed().join("venv/bin/podman-compose");
    if !program.is_file() {
        return skip(test, "podman-compose is not installed");
    }
    let place = Place::new(&images);
    place.fill(ORIGIN, "");
    // As the head of the file says.
    place.lend(&place.file("compose/files"));
    run(Command::new("cp").arg("-r").arg(place.file("share")).arg(place.file("compose/share")), b"").succeeded();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose.yaml");
    fs::copy(file, place.file("compose/compose.yaml")).unwrap();
    fs::write(place.file("compose/more.yaml"), MORE).unwrap();
    let compose = |arguments: &[&str]| -> Ran {
        let mut command = place.tool(&program);
        command.current_dir(place.file("compose")).args(["-f", "compose.yaml", "-f", "more.yaml"]).args(arguments);
        run_within(&mut command, b"", LONG).succeeded()
    };
    compose(&["up", "--detach"]);

    let ended = place.podman_allowed_to_fail(&["wait", "compose_agent_1"]);
    let said = place.logs();
    assert_eq!(ended.stdout.trim(), "0", "{said}");
    assert_used_the_key_and_found_none(&said);
    // What the agent's start waits for, where podman has systemd to ask again and again (and is not as old as 4.3).
    place.podman(&["healthcheck", "run", "compose_narrows_1"]);
    compose(&["stop", "narrows"]);
    let status = place.podman(&["inspect", "--format", "{{.State.ExitCode}}", "compose_narrows_1"]).stdout;
    assert_eq!(status.trim(), "0", "{}", place.logs());
    compose(&["down", "--volumes", "--timeout", "0"]);
}
