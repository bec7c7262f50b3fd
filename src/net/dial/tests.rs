use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::*;

fn target(text: &str) -> Target {
    Target::parse(text).expect("a target")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn dialer(own: Vec<SocketAddr>) -> Dialer {
    Dialer::new(own, Duration::from_secs(5))
}

#[tokio::test]
async fn loopback_is_refused_unless_listed_and_named() {
    let (_listener, address) = listener().await;
    let to = target(&address.to_string());
    let listed = DialRules { allow_addresses: vec!["127.0.0.0/8".parse().expect("a net")], ..DialRules::default() };
    let dialer = dialer(Vec::new());
    assert!(matches!(dialer.tcp(&DialRules::default(), &to, true).await, Err(DialError::AddressForbidden)));
    assert!(matches!(dialer.tcp(&listed, &to, false).await, Err(DialError::AddressForbidden)));
    assert!(dialer.tcp(&listed, &to, true).await.is_ok());
}

#[tokio::test]
async fn connect_to_needs_no_listing_and_holds_for_its_own_name_only() {
    let (_listener, address) = listener().await;
    let instead = target(&address.to_string());
    let connect_to = HashMap::from([(target("api.test:443"), instead)]);
    let rules = DialRules { connect_to, ..DialRules::default() };
    let dialer = dialer(Vec::new());
    assert!(dialer.tcp(&rules, &target("api.test:443"), false).await.is_ok());
    assert!(dialer.tcp(&rules, &target("api.test:444"), false).await.is_err());
    assert!(dialer.tcp(&rules, &target("127.0.0.1:443"), false).await.is_err());
}

#[tokio::test]
async fn our_own_listener_is_never_dialled() {
    let (listener, address) = listener().await;
    let rules = DialRules {
        connect_to: HashMap::from([(target("api.test:443"), target(&address.to_string()))]),
        allow_addresses: vec!["127.0.0.0/8".parse().expect("a net"), "0.0.0.0/8".parse().expect("a net")],
    };
    for own in [address, SocketAddr::new("0.0.0.0".parse().expect("any"), address.port())] {
        let dialer = dialer(vec![own]);
        for to in [
            "api.test:443".to_owned(),
            address.to_string(),
            format!("[::ffff:127.0.0.1]:{}", address.port()),
            format!("0.0.0.0:{}", address.port()),
        ] {
            assert!(matches!(dialer.tcp(&rules, &target(&to), true).await, Err(DialError::AddressForbidden)), "{to}");
        }
    }
    drop(listener);
}

/// A name server on loopback that answers the n-th question of a kind for a name with the n-th list of its row, the
/// last one for good, and keeps count of all questions.
async fn name_server(rows: Vec<(&'static str, Vec<Vec<IpAddr>>)>) -> (Names, Arc<AtomicUsize>) {
    name_server_that(rows, |_| true).await
}

/// The same, of which the questions about a kind are answered that `answers` says.
async fn name_server_that(
    rows: Vec<(&'static str, Vec<Vec<IpAddr>>)>,
    answers: fn(u8) -> bool,
) -> (Names, Arc<AtomicUsize>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut turns = HashMap::new();
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            count.fetch_add(1, Ordering::SeqCst);
            let (kind, answer) = answer_to(&question[..length], &rows, &mut turns);
            if answers(kind) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    (Names::of_server(port), asked)
}

/// RFC 1035 §4.1: the question comes back, and after it a record with a TTL of 0 for each address of its kind.
fn answer_to(
    question: &[u8],
    rows: &[(&'static str, Vec<Vec<IpAddr>>)],
    turns: &mut HashMap<(String, u8), usize>,
) -> (u8, Vec<u8>) {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    let (name, kind) = (labels.join("."), question[at + 2]);
    let lists = rows.iter().find(|(row, _)| *row == name).map(|(_, lists)| lists.as_slice()).unwrap_or_default();
    let turn = turns.entry((name, kind)).or_default();
    let list = lists.get((*turn).min(lists.len().saturating_sub(1))).cloned().unwrap_or_default();
    *turn += 1;
    let data = |ip: &IpAddr| match (ip, kind) {
        (IpAddr::V4(four), 1) => Some(four.octets().to_vec()),
        (IpAddr::V6(six), 28) => Some(six.octets().to_vec()),
        _ => None,
    };
    let records: Vec<Vec<u8>> = list.iter().filter_map(data).collect();
    let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0], &[u8::try_from(records.len()).expect("few")]].concat();
    answer.extend([0; 4]);
    answer.extend(&question[12..at + 5]);
    for data in records {
        answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(data.len()).expect("short")]);
        answer.extend(data);
    }
    (kind, answer)
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().expect("an address")).collect()
}

#[tokio::test]
async fn a_name_with_one_answer_of_the_inside_is_dialled_nowhere() {
    let inside = [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fd00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];
    for ip in inside {
        for list in [vec![ip], vec!["1.1.1.1", ip], vec![ip, "2606:4700::1111"]] {
            let (names, _) = name_server(vec![("api.test", vec![addresses(&list)])]).await;
            let dialer = Dialer { names, ..dialer(Vec::new()) };
            let dialled = dialer.tcp(&DialRules::default(), &target("api.test:443"), true).await;
            assert!(matches!(dialled, Err(DialError::AddressForbidden)), "{list:?}: {dialled:?}");
        }
    }
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_checked_at_every_attempt() {
    let (listener, address) = listener().await;
    // Public, then inside: what was found good before counts for nothing.
    let allow_addresses = vec!["127.0.0.2/32".parse().expect("a net")];
    let rules = DialRules { allow_addresses, ..DialRules::default() };
    let rows = vec![("api.test", vec![addresses(&["127.0.0.2"]), addresses(&["127.0.0.1"])])];
    let (names, asked) = name_server(rows).await;
    let dialer = Dialer { names, ..dialer(Vec::new()) };
    let to = target(&format!("api.test:{}", address.port()));
    let first = dialer.tcp(&rules, &to, true).await;
    assert!(matches!(first, Err(DialError::Refused(_))), "nobody listens at 127.0.0.2: {first:?}");
    let second = dialer.tcp(&rules, &to, true).await;
    assert!(matches!(second, Err(DialError::AddressForbidden)), "{second:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "two kinds, twice");
    drop(listener);
}

#[tokio::test]
async fn a_family_that_nobody_answers_for_holds_up_no_other() {
    const A: u8 = 1;
    let (listener, address) = listener().await;
    let (names, _) = name_server_that(vec![("api.test", vec![addresses(&["127.0.0.1"])])], |kind| kind == A).await;
    let dialer = Dialer { names, ..dialer(Vec::new()) };
    let allow_addresses = vec!["127.0.0.1/32".parse().expect("a net")];
    let rules = DialRules { allow_addresses, ..DialRules::default() };
    let to = target(&format!("api.test:{}", address.port()));
    dialer.tcp(&rules, &to, true).await.expect("a connection within the dial's time");
    drop(listener);
}

#[tokio::test]
async fn an_address_is_asked_of_nobody() {
    let (names, asked) = name_server(Vec::new()).await;
    let dialer = Dialer { names, ..dialer(Vec::new()) };
    for to in ["127.0.0.1:443", "[::1]:443", "10.0.0.1:443"] {
        assert!(dialer.tcp(&DialRules::default(), &target(to), true).await.is_err());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_listener_on_all_addresses_is_our_own_by_every_one_of_them() {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let own = listener.local_addr().expect("an address");
    let connect_to = |to: &str| HashMap::from([(target("api.test:443"), target(&format!("{to}:{}", own.port())))]);
    for to in ["127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "[::ffff:127.0.0.3]"] {
        let rules = DialRules { connect_to: connect_to(to), ..DialRules::default() };
        let dialled = dialer(vec![own]).tcp(&rules, &target("api.test:443"), true).await;
        assert!(matches!(dialled, Err(DialError::AddressForbidden)), "{to}: {dialled:?}");
        // The twin: somebody else's listener.
        let other = SocketAddr::new(own.ip(), own.port() ^ 1);
        assert!(dialer(vec![other]).tcp(&rules, &target("api.test:443"), true).await.is_ok(), "{to}");
    }
}

#[tokio::test]
async fn a_connection_is_known_by_both_its_ends() {
    let (listener, address) = listener().await;
    let rules = DialRules {
        connect_to: HashMap::from([(target("api.test:443"), target(&address.to_string()))]),
        ..DialRules::default()
    };
    let dialer = dialer(Vec::new()).remembering();
    let dialled = dialer.tcp(&rules, &target("api.test:443"), true).await.expect("a connection");
    let from = dialled.local_addr().expect("an address");
    assert!(dialer.has_dialled(Peer::Tcp(from), address));
    // Another process may have the same port at the same time, for a connection to somewhere else.
    for elsewhere in
        [SocketAddr::new(address.ip(), address.port() ^ 1), SocketAddr::from(([192, 0, 2, 1], address.port()))]
    {
        assert!(!dialer.has_dialled(Peer::Tcp(from), elsewhere), "{elsewhere}");
    }
    assert!(!dialer.has_dialled(Peer::Tcp(SocketAddr::new(from.ip(), from.port() ^ 1)), address));
    dialer.sweep(Instant::now() + REMEMBERED_FOR);
    assert!(!dialer.has_dialled(Peer::Tcp(from), address));
    drop(listener);
}

#[tokio::test]
async fn a_closed_port_is_refused_and_the_next_address_is_tried() {
    let (listener, open) = listener().await;
    let closed = {
        let (gone, address) = self::listener().await;
        drop(gone);
        address
    };
    assert!(matches!(first_to_answer(&[closed]).await, Err(DialError::Refused(_))));
    assert!(first_to_answer(&[closed, open]).await.is_ok());
    assert!(matches!(first_to_answer(&[]).await, Err(DialError::Unresolved)));
    drop(listener);
}

#[test]
fn families_take_turns() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let mixed = interleave(vec![ip("::1"), ip("::2"), ip("::3")], vec![ip("1.1.1.1")]);
    assert_eq!(mixed, [ip("::1"), ip("1.1.1.1"), ip("::2"), ip("::3")]);
}
