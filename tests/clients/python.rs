//! Python: the standard library and the HTTP, WebSocket and gRPC clients that agents' programs use.

use crate::support::ca::Alpn;
use crate::support::client::{python, run, skip};
use crate::support::handlers::is_h2;
use crate::{CARRIERS, SECRET, World, refused, script};

#[test]
fn urllib() {
    check("python_urllib", "", "python/urllib_client.py", Alpn::Both);
}

#[test]
fn requests() {
    check("python_requests", "requests", "python/requests_client.py", Alpn::H2);
}

#[test]
fn httpx() {
    check("python_httpx", "httpx", "python/httpx_client.py", Alpn::Both);
}

#[test]
fn aiohttp() {
    check("python_aiohttp", "aiohttp", "python/aiohttp_client.py", Alpn::H1);
}

fn check(test: &str, modules: &str, client: &str, alpn: Alpn) {
    let Some(python) = python(modules) else { return skip(test, "no Python with what it imports") };
    World::new(alpn).check(&python, |command| {
        command.arg(script(client));
    });
}

#[test]
fn httpx_speaks_http_2_with_the_proxy_to_origins_of_either_version() {
    let Some(python) = python("httpx, h2") else { return skip("python_httpx_h2", "no Python with httpx and h2") };
    for alpn in [Alpn::H1, Alpn::H2, Alpn::Absent] {
        let world = World::new(alpn);
        for carrier in CARRIERS {
            let mut command = world.under(carrier, &python);
            command.arg(script("python/httpx_client.py")).args(["GET", "https://api.acme.test/v1/items", "h2"]);
            run(&mut command, b"").says("HTTP/2 200").never_says(SECRET);
            assert_eq!(world.origin.seen().last().map(is_h2), Some(alpn == Alpn::H2));
        }
    }
}

#[test]
fn websockets() {
    let Some(python) = python("websockets") else { return skip("python_websockets", "no Python with websockets") };
    let world = World::new(Alpn::H1);
    for carrier in CARRIERS {
        let request = |path: &str| {
            let url = format!("https://api.acme.test{path}");
            run(world.under(carrier, &python).arg(script("python/websockets_client.py")).args(["GET", &url]), b"")
        };
        let before = world.origin.seen().len();
        request("/ws").says("101 hello").never_says(SECRET);
        world.saw_bearer(before, "/ws");
        refused(request("/ws-other"));
        assert_eq!(world.origin.seen().len(), before + 1);
    }
}

#[test]
fn grpcio() {
    let Some(python) = python("grpc") else { return skip("python_grpcio", "no Python with grpcio") };
    let world = World::new(Alpn::H2);
    crate::check_grpc(&world, &python, |command| {
        command.arg(script("python/grpc_client.py"));
    });
}
