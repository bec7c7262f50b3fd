use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Feeds `input` in pieces of `piece` bytes and collects what is released until the input ends, or
/// until nothing more comes.
async fn released(input: &[u8], piece: usize) -> (Vec<u8>, Option<Violation>, bool) {
    released_by(|server| Guard::new(server, HEAD_WITHIN), input, piece).await
}

async fn released_by(
    guard: impl FnOnce(tokio::io::DuplexStream) -> Guard<tokio::io::DuplexStream>,
    input: &[u8],
    piece: usize,
) -> (Vec<u8>, Option<Violation>, bool) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut guard = guard(server);
    let state = guard.state();
    let input = input.to_vec();
    let feeding = tokio::spawn(async move {
        for part in input.chunks(piece) {
            client.write_all(part).await.expect("fed");
            tokio::task::yield_now().await;
        }
        drop(client);
    });
    let mut out = Vec::new();
    let mut failed = false;
    let mut buf = vec![0; 4096];
    loop {
        let read = tokio::select! {
            biased;
            read = guard.read(&mut buf) => read,
            // Only a guard that waits for good gets here.
            () = async { for _ in 0..2000 { tokio::task::yield_now().await; } } => break,
        };
        match read {
            Ok(0) => break,
            Ok(length) => out.extend_from_slice(&buf[..length]),
            Err(_) => {
                failed = true;
                break;
            }
        }
    }
    feeding.abort();
    (out, state.violation(), failed)
}

const HEAD_WITHIN: Duration = Duration::from_secs(15);
const PIECES: [usize; 4] = [1, 2, 7, 1 << 20];

#[tokio::test]
async fn messages_with_one_framing_pass_byte_for_byte() {
    let good = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nX-T: v\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET /a|b{c}?d=[e] HTTP/1.0\r\n\r\n",
        "GET https://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for text in good {
        for piece in PIECES {
            let (out, violation, failed) = released(text.as_bytes(), piece).await;
            assert_eq!(
                (String::from_utf8_lossy(&out).as_ref(), violation, failed),
                (text, None, false),
                "piece {piece}"
            );
        }
    }
}

/// What messages are made of, and what breaks them.
const PIECES_OF_MESSAGES: [&str; 16] = [
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: cow, chunked\r\n",
    "Upgrade: websocket\r\n",
    "\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "1;x=y\r\n",
    " folded\r\n",
    "\n",
    "\r",
];

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    /// Wherever the bytes are split, the same are refused for the same reason (`fuzz/fuzz_targets/guard_split.rs`).
    #[test]
    fn a_verdict_does_not_depend_on_splits(
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES_OF_MESSAGES), 1..10),
        piece in 1_usize..40,
    ) {
        let input = pieces.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let whole = runtime.block_on(released(input.as_bytes(), usize::MAX));
        let split = runtime.block_on(released(input.as_bytes(), piece));
        proptest::prop_assert_eq!(whole.1, split.1);
        // Of a body that turns out broken, what came before the break may have passed, its head included.
        let passed = whole.0.strip_suffix(REFUSED_HEAD).unwrap_or(&whole.0);
        let same = if split.2 { split.0.starts_with(passed) } else { (&split.0, split.2) == (&whole.0, whole.2) };
        proptest::prop_assert!(same);
    }
}

#[tokio::test]
async fn heads_with_no_or_two_framings_become_a_refusal() {
    let bad = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET / HTTP/1.1\r\n: empty\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /b#c HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /b?c#d HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1#b HTTP/1.1\r\nHost: a:1\r\n\r\n",
    ];
    for text in bad {
        for piece in PIECES {
            let (out, violation, failed) = released(text.as_bytes(), piece).await;
            assert_eq!(
                (out.as_slice(), violation, failed),
                (REFUSED_HEAD, Some(Violation::Framing), false),
                "{text:?} in {piece}"
            );
        }
    }
}

#[tokio::test]
async fn a_bad_message_behind_a_good_one_spoils_only_itself() {
    let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let input = format!("{good}GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    for piece in PIECES {
        let (out, violation, _) = released(input.as_bytes(), piece).await;
        assert_eq!(out, [good.as_bytes(), REFUSED_HEAD].concat());
        assert_eq!(violation, Some(Violation::Framing));
    }
}

#[tokio::test]
async fn a_broken_chunked_body_is_an_error_in_the_body_once_its_head_is_released() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
    let bad = [
        "\r\n",
        "g\r\n",
        "+1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "0x1\r\na\r\n",
        "1\na\r\n",
        "1\r\na\n",
        "1\r\nab\r\n",
        "1;\n\r\na\r\n",
        "1;\0\r\na\r\n",
        "1000000000000000\r\na",
        "-1\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nx: a\n\r\n",
        "0\r\nx: \0\r\n\r\n",
        &extension,
    ];
    for body in bad {
        for piece in PIECES {
            let (out, violation, failed) = released(format!("{head}{body}").as_bytes(), piece).await;
            assert_eq!(violation, Some(Violation::Framing), "{body:?} in {piece}");
            let stands_in = out == REFUSED_HEAD;
            assert!(failed != stands_in && stands_in == (piece > head.len()), "{body:?} in {piece}");
        }
    }
}

#[tokio::test]
async fn a_broken_body_behind_a_good_message_spoils_only_its_own() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n";
    let (out, violation, failed) = released(format!("{good}{bad}").as_bytes(), 1 << 20).await;
    assert_eq!(out, [good.as_bytes(), REFUSED_HEAD].concat());
    assert_eq!((violation, failed), (Some(Violation::Framing), false));
}

/// What is known of a message that is refused: method, target, and the fields that are kept.
async fn known(message: &str) -> Option<(String, String, usize)> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    client.write_all(message.as_bytes()).await.expect("fed");
    let mut buf = [0; 4096];
    let length = guard.read(&mut buf).await.expect("the stand-in");
    assert_eq!(&buf[..length], REFUSED_HEAD, "{message:?}");
    let state = guard.state();
    let read = state.refused().expect("refused").read.as_ref()?;
    assert!(!format!("{read:?}").contains("Cap a"), "a capability is never written out: {read:?}");
    Some((read.method.to_string(), read.target.to_string(), read.headers.len()))
}

#[tokio::test]
async fn what_was_read_of_a_refused_message_is_known_and_nothing_is_guessed() {
    let fields = "Host: a\r\nuser-agent: git/2\r\nX: y\r\nProxy-Authorization: Cap a\r\n";
    let readable = [
        ("DELETE /b?c", "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        ("POST /b", "Transfer-Encoding: chunked\r\n\r\n2 \r\n"),
        ("CONNECT a%00:443", "\r\n"),
        ("GET /b#c", "\r\n"),
    ];
    for (line, rest) in readable {
        let known = known(&format!("{line} HTTP/1.1\r\n{fields}{rest}")).await;
        let (method, target) = line.split_once(' ').expect("two words");
        assert_eq!(known, Some((method.to_owned(), target.to_owned(), 2)), "{line}");
    }
    let unreadable = [
        "GET /b HTTP/1.1\nHost: a\n\n",
        "GET /b HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /b c HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /b HTTP/2.0\r\nHost: a\r\n\r\n",
    ];
    for message in unreadable {
        assert_eq!(known(message).await, None, "{message:?}");
    }
}

#[tokio::test]
async fn head_and_field_bounds_hold_to_the_byte() {
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let of_bytes = |bytes| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame));
    assert_eq!(released(of_bytes(HEAD_BYTES_MAX).as_bytes(), 1 << 20).await.1, None);
    assert_eq!(released(of_bytes(HEAD_BYTES_MAX + 1).as_bytes(), 1 << 20).await.1, Some(Violation::HeadTooLarge));
    for (bytes, violation) in [(96 * 1024, None), (96 * 1024 + 1, Some(Violation::HeadTooLarge))] {
        let in_tunnel = |server| Guard::in_tunnel(server, HEAD_WITHIN);
        assert_eq!(released_by(in_tunnel, of_bytes(bytes).as_bytes(), 1 << 20).await.1, violation);
    }
    for (bytes, violation) in [(64 * 1024 - 2, None), (64 * 1024 - 1, Some(Violation::HeadTooLarge))] {
        let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
        assert_eq!(released(target.as_bytes(), 1 << 20).await.1, violation, "a target of {bytes} bytes");
    }
    assert_eq!(released(&vec![b'a'; HEAD_BYTES_MAX * 2], 4096).await.1, Some(Violation::HeadTooLarge));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(released(fields(HEADERS_MAX).as_bytes(), 1 << 20).await.1, None);
    assert_eq!(released(fields(HEADERS_MAX + 1).as_bytes(), 1 << 20).await.1, Some(Violation::HeadTooLarge));
}

#[tokio::test]
async fn bytes_after_a_connect_wait_for_its_answer() {
    let connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    let state = guard.state();
    AsyncWriteExt::write_all(&mut client, &[connect.as_slice(), b"\x16\x03\x01 not a head"].concat())
        .await
        .expect("fed");
    let mut buf = [0; 4096];
    let length = guard.read(&mut buf).await.expect("the head");
    assert_eq!(&buf[..length], connect);
    let waiting = futures_util::poll!(Box::pin(guard.read(&mut buf)));
    assert!(waiting.is_pending(), "nothing after the CONNECT is read as HTTP");
    let (left, _) = guard.into_parts();
    assert_eq!(left, &b"\x16\x03\x01 not a head"[..]);
    assert_eq!(state.violation(), None);
}

#[tokio::test]
async fn a_refused_connect_leaves_the_connection_usable() {
    let connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    let state = guard.state();
    for _ in 0..3 {
        client.write_all(connect).await.expect("fed");
        let mut buf = [0; 4096];
        let length = guard.read(&mut buf).await.expect("the head");
        assert_eq!(&buf[..length], connect);
        state.resume();
    }
}

#[tokio::test]
async fn after_an_upgrade_everything_passes_unread() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let frames = b"\x81\x01\n\0\r";
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    let state = guard.state();
    client.write_all(&[head.as_slice(), frames].concat()).await.expect("fed");
    let mut buf = [0; 4096];
    let length = guard.read(&mut buf).await.expect("the head");
    assert_eq!(&buf[..length], head, "frames sent early are not taken for a request");
    state.leave();
    let length = guard.read(&mut buf).await.expect("the frames");
    assert_eq!(&buf[..length], frames);
    client.write_all(frames).await.expect("fed");
    let length = guard.read(&mut buf).await.expect("more frames");
    assert_eq!((&buf[..length], state.violation()), (frames.as_slice(), None));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_cut_and_an_idle_connection_is_not() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    let mut buf = [0; 4096];
    let idle = tokio::time::timeout(HEAD_WITHIN * 10, guard.read(&mut buf)).await;
    assert!(idle.is_err(), "nothing has begun, so nothing is late");
    client.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("fed");
    let late = tokio::time::timeout(HEAD_WITHIN * 10, guard.read(&mut buf)).await.expect("the guard's own end");
    assert_eq!(late.expect_err("too late").kind(), io::ErrorKind::TimedOut);
}

/// What a peer sees that goes on sending after it was answered: whether its bytes are taken, and how the input ends.
async fn closes_after(head: &str, rest: &[u8]) -> (bool, Option<usize>) {
    let (mut client, server) = tokio::io::duplex(256);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    client.write_all(head.as_bytes()).await.expect("taken");
    let mut buf = [0; 256];
    guard.read_exact(&mut buf[..head.len()]).await.expect("released");
    let closing = tokio::spawn(async move { guard.shutdown().await });
    tokio::task::yield_now().await;
    let taken = client.write_all(rest).await.is_ok();
    let end = client.read(&mut buf).await.ok();
    drop(client);
    closing.await.expect("no panic").expect("closed");
    (taken, end)
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_an_answered_request_is_read_and_dropped() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n";
    assert_eq!(closes_after(post, &[b'x'; 2000]).await, (true, Some(0)));
    // Of a request that has ended nothing is waited for.
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(closes_after(get, &[b'x'; 2000]).await, (false, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_ends_its_request_is_not_waited_for() {
    let (mut client, server) = tokio::io::duplex(256);
    let mut guard = Guard::new(server, HEAD_WITHIN);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await.expect("taken");
    let mut buf = [0; 256];
    assert!(guard.read(&mut buf).await.expect("released") > 0);
    tokio::time::timeout(LINGER_FOR * 2, guard.shutdown()).await.expect("in time").expect("closed");
    drop(client);
}
