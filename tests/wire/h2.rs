//! HTTP/2 on the agent's side, over origins of either version.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};

use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::support::h2_agent::H2Agent;
use crate::support::handlers::{grpc_frame, pattern};
use crate::support::record::{End, sha256_hex};
use crate::{HOST, SECRET, World};

fn url(path: &str) -> String {
    format!("https://{HOST}{path}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_on_one_connection() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let agent = H2Agent::connect(&world.agent, HOST).await;
        let sizes = [1, 1000, 70_000, 300_000, 0, 16_384, 65_535];
        let answers = sizes.map(|size| {
            let agent = &agent;
            async move {
                let answer = agent.get(&url(&format!("/bytes/{size}"))).await;
                (size, answer.into_body().collect().await.unwrap().to_bytes())
            }
        });
        for (size, body) in join_all(answers).await {
            assert!(body == pattern(0, size), "{size} bytes came damaged over {alpn:?}");
        }
        let seen = world.origin.seen();
        assert_eq!(seen.len(), sizes.len());
        assert!(seen.iter().all(|seen| seen.header("authorization") == Some(&*format!("Bearer {SECRET}"))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_misdirected() {
    let world = World::new(Alpn::Both);
    let agent = H2Agent::connect(&world.agent, HOST).await;
    assert_eq!(agent.get("https://other.acme.test/v1/items").await.status(), 421);
    let both = Request::get(url("/v1/items")).header("host", "other.acme.test").body(Full::default()).unwrap();
    let answer = agent.send(both).await;
    assert!(answer.is_err() || matches!(answer.unwrap().status().as_u16(), 400 | 421));
    assert_eq!(world.origin.connections(), 0);
    assert_eq!(agent.get(&url("/v1/items")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connect_and_no_trace() {
    let world = World::new(Alpn::Both);
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let connect = Request::builder().method(Method::CONNECT).uri("other.acme.test:443").body(Full::default()).unwrap();
    let trace = Request::builder().method(Method::TRACE).uri(url("/v1/items")).body(Full::default()).unwrap();
    for request in [connect, trace] {
        let answer = agent.send(request).await;
        assert!(answer.is_err() || answer.unwrap().status().is_client_error());
    }
    assert_eq!(world.origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_trailers_arrive_as_trailers() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let agent = H2Agent::connect(&world.agent, HOST).await;
        let request = Request::post(url("/grpc/Unary"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(grpc_frame(b"hello")))
            .unwrap();
        let answer = agent.send(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let collected = answer.into_body().collect().await.unwrap();
        if alpn == Alpn::H2 {
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        }
        assert_eq!(collected.to_bytes(), grpc_frame(b"hello"));
        assert_eq!(world.origin.only().header("te"), Some("trailers"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_of_grpc_is_a_status() {
    let world = World::with(Alpn::H2, &["acme:write path=/grpc"]);
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let call = |path: &str| {
        let request = Request::post(url(path)).header("content-type", "application/grpc").header("te", "trailers");
        agent.send(request.body(Full::new(grpc_frame(b"hello"))).unwrap())
    };
    let denied = call("/other/Unary").await.unwrap();
    assert_eq!(denied.status(), 200);
    assert_eq!(denied.headers()["grpc-status"], "7", "{denied:?}");
    let message = denied.headers()["grpc-message"].to_str().unwrap();
    assert!(message.contains("capability_denied"), "{message}");
    assert_eq!(world.origin.seen().len(), 0);
    assert_eq!(call("/grpc/Unary").await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_stream_cancels_its_request_and_no_other() {
    let world = World::new(Alpn::H2);
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let hanging = tokio::spawn({
        let agent = agent.clone();
        async move { agent.get(&url("/hang")).await }
    });
    let origin = &world.origin;
    tokio::task::block_in_place(|| origin.wait_for("/hang"));
    hanging.abort();
    tokio::task::block_in_place(|| origin.shared.record.wait("the reset", |seen| seen[0].end == End::Aborted));
    assert_eq!(agent.get(&url("/v1/items")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_arrive_whole() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let agent = H2Agent::connect(&world.agent, HOST).await;
        let body = pattern(0, 500_000);
        let answer = agent.send(Request::post(url("/upload")).body(Full::new(body.clone())).unwrap()).await.unwrap();
        let said: Bytes = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&said).contains(&sha256_hex(&body)), "{said:?}");
    }
}

/// An HTTP/2 upstream may end its stream long after the content that it promised; an HTTP/1 client has all of it by then.
#[test]
fn an_answer_whose_content_is_there_is_recorded_before_its_stream_ends() {
    let world = World::new(Alpn::H2);
    let recorded = |path: &str| world.env.journal_line(|line| line["path"] == path);
    for (method, path, body_len) in [("GET", "/held/1000", 1000), ("GET", "/held/0", 0), ("HEAD", "/held/7", 0)] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let answer = tunnel.answer(method == "HEAD");
        assert_eq!((answer.status(), answer.body.len()), (200, body_len), "{answer:?}");
        drop(tunnel);
        let line = recorded(path);
        assert_eq!(line["outcome"], "allowed", "{line}");
        assert_eq!((&line["status"], &line["bytes_down"]), (&200.into(), &body_len.into()), "{line}");
    }
    assert_eq!(world.agent.get(HOST, "/bytes/9000").body.len(), 9000);
    assert_eq!(recorded("/bytes/9000")["outcome"], "allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_known_length_may_be_followed_by_trailers_and_need_not() {
    let world = World::new(Alpn::H2);
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let collected = agent.get(&url("/sized-trailers")).await.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-checksum"], "abc123");
    assert_eq!(collected.to_bytes(), "with trailers\n");
    // The twin: an upstream that neither sends any nor ends is not waited for.
    let held = async { agent.get(&url("/held/5000")).await.into_body().collect().await.unwrap() };
    let collected = tokio::time::timeout(PATIENCE, held).await.expect("an end");
    assert!(collected.trailers().is_none());
    assert_eq!(collected.to_bytes(), pattern(0, 5000));
    let line = world.env.journal_line(|line| line["path"] == "/held/5000");
    assert_eq!((&line["outcome"], &line["bytes_down"]), (&"allowed".into(), &5000.into()), "{line}");
}
