//! Node: undici, https-proxy-agent, axios, ws and grpc-js.

use std::path::PathBuf;
use std::process::Command;

use crate::support::ca::Alpn;
use crate::support::client::{node, run, skip};
use crate::{CARRIERS, SECRET, World, refused, script};

#[test]
fn undici_by_the_environment() {
    check("node_undici", "undici", "node/undici_client.cjs", Alpn::Both, None);
}

#[test]
fn undici_by_the_proxys_url() {
    check("node_undici_url", "undici", "node/undici_client.cjs", Alpn::H2, Some("url"));
}

#[test]
fn https_proxy_agent() {
    check("node_https_proxy_agent", "https-proxy-agent", "node/https_proxy_agent_client.mjs", Alpn::H1, None);
}

#[test]
fn axios() {
    check("node_axios", "axios", "node/axios_client.cjs", Alpn::Both, None);
}

fn check(test: &str, package: &str, client: &str, alpn: Alpn, how: Option<&str>) {
    let Some((node, modules)) = node(package) else { return skip(test, "no node with its package") };
    World::new(alpn).check(&node, prepare(client, modules, how));
}

fn prepare(client: &str, modules: PathBuf, how: Option<&str>) -> impl Fn(&mut Command) {
    move |command| {
        command.env("NODE_PATH", &modules).arg(script(client));
        if let Some(how) = how {
            command.arg(how);
        }
    }
}

#[test]
fn ws() {
    let Some((node, modules)) = node("ws") else { return skip("node_ws", "no node with ws") };
    let world = World::new(Alpn::Both);
    let prepare = prepare("node/ws_client.mjs", modules, None);
    for carrier in CARRIERS {
        let request = |path: &str| {
            let mut command = world.under(carrier, &node);
            prepare(&mut command);
            run(command.args(["GET", &format!("https://api.acme.test{path}")]), b"")
        };
        let before = world.origin.seen().len();
        request("/ws").says("101 hello").never_says(SECRET);
        world.saw_bearer(before, "/ws");
        refused(request("/ws-other"));
    }
}

#[test]
fn grpc_js() {
    let Some((node, modules)) = node("@grpc/grpc-js") else { return skip("node_grpc_js", "no node with grpc-js") };
    crate::check_grpc(&World::new(Alpn::H2), &node, prepare("node/grpc_client.cjs", modules, None));
}
