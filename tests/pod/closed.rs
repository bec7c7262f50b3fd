//! The closed pod, with a way out to a world that has the origin: an agent that knows no proxy is served, and nothing
//! else of it gets there.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};

use crate::images::{self, Images};
use crate::inside::{HOST, NARROWS, ROLE, TCP, UDP, secret};
use crate::manifests;
use crate::place::Place;
use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::support::client::run;
use crate::support::origin::Origin;
use crate::support::world::{ELSEWHERE, WORLD, connect, in_the_world, inside, relay};

#[test]
fn an_agent_that_knows_no_proxy_is_served_and_has_no_other_way() {
    let test = "closed::an_agent_that_knows_no_proxy_is_served_and_has_no_other_way";
    let Some(images) = Images::get(test) else { return };
    let Some(python) = manifests::python(test) else { return };
    if !in_the_world(test, &[(images::AT, images.file("").as_os_str())]) {
        return;
    }
    let place = Place::new(&images);
    place.fill(&format!("{WORLD}:{}", TCP[0]), "transparent = true");
    let rules = place.env.capctl(&["transparent", "print", "--uid", &NARROWS.to_string(), "--dns", "192.0.2.53"]);
    fs::write(place.file("rules.nft"), rules.succeeded().stdout).unwrap();
    // An address for the name, at which nobody is.
    fs::write(place.file("hosts"), format!("127.0.0.1 localhost\n{ELSEWHERE} {HOST}\n")).unwrap();

    // What a cluster's network does: the pod has its way out before anything in it runs.
    let pod = place.rendered(&python, "transparent-ordinary");
    place.podman(&["play", "kube", "--start=false", "--network", "none", &pod]);
    let infra = place.podman(&["pod", "inspect", "--format", "{{.InfraContainerID}}", "agent"]).stdout;
    place.podman(&["start", infra.trim()]);
    let process = place.podman(&["inspect", "--format", "{{.State.Pid}}", infra.trim()]).stdout.trim().parse().unwrap();
    connect(process);
    let origin = Origin::https(&place.env.ca, &[HOST], Alpn::Both);
    origin.put("/v1/items", "text/plain", "items");
    relay(&format!("{WORLD}:{}", TCP[0]), origin.addr);
    let witnesses = Witnesses::new();
    place.podman(&["pod", "start", "agent"]);

    let ended = place.podman_allowed_to_fail(&["wait", "agent-agent"]);
    let said = place.logs();
    assert_eq!(ended.stdout.trim(), "0", "{said}");
    assert!(said.contains("the agent found no other way"), "{said}");
    let seen: Vec<_> =
        origin.seen().iter().map(|seen| (seen.path.clone(), seen.headers["authorization"].clone())).collect();
    let with_the_key = ("/v1/items".to_owned(), format!("Bearer {}", secret()).parse().unwrap());
    assert_eq!(seen, [with_the_key.clone(), with_the_key]);
    witnesses.saw_nothing();
    place.podman(&["exec", "agent-narrows", "/bin/capctl", "audit", "verify"]);

    // The same ways are open to the proxy's user, so it was the rules that closed them.
    let mut around = inside(process, Some(NARROWS), &place.program(), &["--exact", "role", "--nocapture"]);
    run(around.env(ROLE, "around"), b"").succeeded();
    witnesses.saw_all();
}

/// Who would see what gets out.
struct Witnesses {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Witnesses {
    fn new() -> Self {
        let tcp = TCP[1..].iter().chain(&[443]).map(|port| TcpListener::bind((WORLD, *port)).unwrap()).collect();
        let udp = UDP.map(|port| UdpSocket::bind((WORLD, port)).unwrap()).into();
        Self { tcp, udp }
    }

    fn saw_nothing(&self) {
        for listener in &self.tcp {
            listener.set_nonblocking(true).unwrap();
            let none = listener.accept().map_err(|error| error.kind());
            assert_eq!(none.unwrap_err(), ErrorKind::WouldBlock, "{listener:?}");
        }
        for socket in &self.udp {
            socket.set_nonblocking(true).unwrap();
            let none = socket.recv(&mut [0]).map_err(|error| error.kind());
            assert_eq!(none.unwrap_err(), ErrorKind::WouldBlock, "{socket:?}");
        }
    }

    /// All but the port that is led to the proxy.
    fn saw_all(&self) {
        for listener in &self.tcp[..TCP.len() - 1] {
            // The one who came has been here: it waited for the answer.
            listener.accept().unwrap();
        }
        for socket in &self.udp {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.recv(&mut [0]).unwrap();
        }
    }
}
