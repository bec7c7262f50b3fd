//! What an agent says of its traces (W3C Trace Context) is between it and its upstreams, where Narrows makes none of its own.

use http::Request;
use http_body_util::Full;

use crate::support::ca::Alpn;
use crate::support::h2_agent::H2Agent;
use crate::{HOST, World};

const NAMES: [&str; 3] = ["traceparent", "tracestate", "baggage"];
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SAID: [&str; 3] = [PARENT, "a=1,b=2", "k=v"];

#[test]
fn what_an_agent_traces_goes_on_untouched() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let said =
            NAMES.iter().zip(SAID).map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let twice = format!("traceparent: {PARENT}\r\ntraceparent: none\r\n");
        for headers in [&said, "", &twice] {
            assert_eq!(world.agent.request("GET", HOST, "/v1/items", headers, b"").status(), 200);
        }
        let seen = world.origin.seen();
        assert_eq!(NAMES.map(|name| seen[0].header(name)), SAID.map(Some), "{alpn:?}");
        assert_eq!(NAMES.map(|name| seen[1].header(name)), [None; 3], "nothing is made up: {alpn:?}");
        let both: Vec<_> = seen[2].headers.get_all("traceparent").iter().collect();
        assert_eq!(both, [PARENT, "none"], "{alpn:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_traces_over_http2_goes_on_untouched() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let agent = H2Agent::connect(&world.agent, HOST).await;
        let mut request = Request::get(format!("https://{HOST}/v1/items"));
        for (name, value) in NAMES.iter().zip(SAID) {
            request = request.header(*name, value);
        }
        assert_eq!(agent.send(request.body(Full::default()).unwrap()).await.unwrap().status(), 200);
        assert_eq!(agent.get(&format!("https://{HOST}/v1/items")).await.status(), 200);
        let seen = world.origin.seen();
        assert_eq!(NAMES.map(|name| seen[0].header(name)), SAID.map(Some), "{alpn:?}");
        assert_eq!(NAMES.map(|name| seen[1].header(name)), [None; 3], "nothing is made up: {alpn:?}");
    }
}
