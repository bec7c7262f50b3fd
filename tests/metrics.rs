//! Health and counts: what the operator's listener says is what happened, in a form that others read, and names nobody.

#![allow(clippy::float_cmp, reason = "counts are whole")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::time::Instant;

use serde_json::Value;

use support::PATIENCE;
use support::agent::Agent;
use support::ca::Alpn;
use support::client::{Ran, clean, program, run};
use support::daemon::{Daemon, TestEnv};
use support::exposition::{Exposition, OPEN, parse};
use support::operator::{ask, start, status};
use support::origin::Origin;

const HOST: &str = "api.acme.test";
const SECRET: &str = "sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys";

/// A proxy with a service, an origin behind it, and an agent that may read `/v1`.
struct World {
    env: TestEnv,
    origin: Origin,
    daemon: Daemon,
    at: String,
    agent: Agent,
}

impl World {
    fn new() -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
        origin.put("/v1/items", "text/plain", "items");
        env.acme(SECRET, &origin);
        // Nobody listens there.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        env.dial_at("gone.test:443", nobody);
        env.service("name = \"gone\"\nhosts = [\"gone.test\"]");
        let (daemon, at) = start(&env, "127.0.0.1:0");
        let credentials = env.mint("holder", &["acme:read path=/v1", "gone"]).presentation();
        let agent = Agent::new(&env, &daemon, Some(&credentials));
        Self { env, origin, daemon, at, agent }
    }

    fn get(&self, path: &str, more: &str) -> String {
        ask(&self.at, &format!("GET {path} HTTP/1.1\r\nHost: localhost{more}"))
    }

    fn scrape(&self) -> Exposition {
        let answer = self.get("/metrics", &format!("\r\nAccept: {OPEN}"));
        assert!(answer.contains(&format!("content-type: {OPEN}; charset=utf-8\r\n")), "{answer}");
        parse(answer.split_once("\r\n\r\n").unwrap().1)
    }

    /// The status and body of `/readyz`.
    fn ready(&self) -> (u16, Value) {
        let answer = self.get("/readyz", "");
        let body = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        (status(&answer), body)
    }

    /// Waits until exactly these checks are not in order; what they say.
    #[track_caller]
    fn until_troubled(&self, wanted: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.ready();
            let checks = body["checks"].as_object().unwrap();
            let troubled: Vec<_> = checks.iter().filter(|(_, check)| check["ok"] != true).collect();
            if troubled.iter().map(|(name, _)| name.as_str()).eq(wanted.iter().copied()) {
                assert_eq!(status, if wanted.is_empty() { 200 } else { 503 }, "{body}");
                assert_eq!(body["ready"], wanted.is_empty());
                let scrape = self.scrape();
                for (name, check) in checks {
                    let said = scrape.value(&format!("narrows_ready{{check=\"{name}\"}}"));
                    assert_eq!(said, f64::from(u8::from(check["ok"] == true)), "{name}");
                }
                return troubled.iter().map(|(_, check)| check["why"].as_str().unwrap()).collect();
            }
            assert!(Instant::now() < deadline, "not {wanted:?}: {body:#}");
            std::thread::yield_now();
        }
    }
}

impl World {
    /// Waits until one check is not in order, for this reason.
    #[track_caller]
    fn until_troubled_by(&self, check: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.until_troubled(&[check]);
            if said.contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "not {words:?}: {said}");
        }
    }
}

#[test]
fn what_happened_is_counted_once_and_nothing_else_is() {
    let world = World::new();
    let before = world.scrape();
    let mut tunnel = world.agent.tunnel(HOST);
    for _ in 0..3 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).text(), "items");
    }
    drop(tunnel);
    assert_eq!(world.agent.request("POST", HOST, "/v1/items", "", b"x").code(), "capability_denied");
    assert_eq!(world.agent.get("gone.test", "/").code(), "upstream_refused");
    assert_eq!(world.agent.get("nobody.test", "/").code(), "service_unknown");
    assert_eq!(Agent::new(&world.env, &world.daemon, None).connect(&format!("{HOST}:443")).0.status(), 407);
    assert_eq!(world.agent.connect("api.acme.test:1").0.status(), 403);
    assert!(world.agent.tunnel_with(HOST, 443, "other.test", &[]).is_err());
    assert_eq!(world.origin.seen().len(), 3);
    // A 407 for nothing shown leaves no line.
    let after = until_written(&world, before.value("narrows_journal_lines_total") + 8.0);
    let rose = after.rose_since(&before);
    // The order of the labels is the table's; what is not named here did not rise.
    let wanted = [
        ("narrows_requests_total{service=\"acme\",operation=\"read\",outcome=\"allowed\",code=\"none\"}", 3),
        (
            "narrows_requests_total{service=\"acme\",operation=\"write\",outcome=\"denied\",code=\"capability_denied\"}",
            1,
        ),
        ("narrows_requests_total{service=\"gone\",operation=\"read\",outcome=\"failed\",code=\"upstream_refused\"}", 1),
        ("narrows_requests_total{service=\"none\",operation=\"none\",outcome=\"denied\",code=\"service_unknown\"}", 1),
        // Every public host is of `web`, for whoever may ask that.
        ("narrows_requests_total{service=\"web\",operation=\"read\",outcome=\"denied\",code=\"service_unknown\"}", 1),
        ("narrows_requests_total{service=\"none\",operation=\"none\",outcome=\"denied\",code=\"misdirected\"}", 1),
        ("narrows_refusals_total{code=\"capability_denied\"}", 1),
        ("narrows_refusals_total{code=\"upstream_refused\"}", 1),
        ("narrows_refusals_total{code=\"service_unknown\"}", 2),
        ("narrows_refusals_total{code=\"misdirected\"}", 1),
        ("narrows_refusals_total{code=\"missing\"}", 1),
        ("narrows_request_own_seconds_count{service=\"acme\",operation=\"read\"}", 3),
        ("narrows_request_own_seconds_count{service=\"acme\",operation=\"write\"}", 1),
        ("narrows_request_own_seconds_count{service=\"gone\",operation=\"read\"}", 1),
        ("narrows_request_own_seconds_count{service=\"web\",operation=\"read\"}", 1),
        ("narrows_request_upstream_seconds_count{service=\"acme\",operation=\"read\"}", 3),
        ("narrows_request_upstream_seconds_count{service=\"gone\",operation=\"read\"}", 1),
        ("narrows_connections_total", 7),
        ("narrows_tunnels_total", 5),
        ("narrows_handshakes_total{result=\"full\"}", 4),
        ("narrows_handshakes_total{result=\"failed\"}", 1),
        ("narrows_upstream_dials_total{result=\"ok\"}", 1),
        ("narrows_upstream_dials_total{result=\"failed\"}", 1),
        ("narrows_upstream_reuses_total", 2),
        ("narrows_leaf_cache_lookups_total{result=\"miss\"}", 3),
        ("narrows_leaf_cache_lookups_total{result=\"hit\"}", 1),
        ("narrows_capability_cache_lookups_total{result=\"miss\"}", 1),
        ("narrows_capability_cache_lookups_total{result=\"hit\"}", 5),
        ("narrows_journal_lines_total", 8),
    ];
    let wanted: BTreeMap<String, u64> = wanted.into_iter().map(|(name, by)| (name.to_owned(), by)).collect();
    assert_eq!(rose, wanted);
    for (gauge, value) in [
        ("narrows_tunnels_open", 0),
        ("narrows_upstream_connections_idle", 1),
        ("narrows_leaf_cache_entries", 3),
        ("narrows_capability_cache_entries", 1),
        ("narrows_replay_cache_entries", 0),
        ("narrows_journal_in_flight", 0),
        ("narrows_journal_refusing", 0),
        ("narrows_secrets_missing", 0),
        ("narrows_reload_last_successful", 1),
    ] {
        assert_eq!(after.value(gauge), f64::from(value), "{gauge}");
    }
}

/// A scrape after every tunnel has ended and so many lines are counted, which happens after their places are free.
fn until_written(world: &World, lines: f64) -> Exposition {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = until_closed(world);
        let written = scrape.value("narrows_journal_lines_total");
        if written >= lines {
            return scrape;
        }
        assert!(Instant::now() < deadline, "{written} lines of {lines}");
    }
}

/// A scrape after every tunnel has ended and no request waits for its line.
fn until_closed(world: &World) -> Exposition {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = world.scrape();
        let names = ["narrows_connections_open", "narrows_tunnels_open", "narrows_journal_in_flight"];
        if names.iter().all(|name| scrape.value(name) == 0.0) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "{:?}", names.map(|name| scrape.value(name)));
        std::thread::yield_now();
    }
}

#[test]
fn the_upstreams_part_and_ours_are_told_apart() {
    let world = World::new();
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/../sse HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(tunnel.answer(false).code(), "path_ambiguous");
    drop(tunnel);
    let after = until_closed(&world);
    let labels = "{service=\"acme\",operation=\"read\"}";
    assert_eq!(after.value(&format!("narrows_request_own_seconds_count{labels}")), 1.0);
    assert!(after.find(&format!("narrows_request_upstream_seconds_count{labels}")).is_none(), "it was never asked");
    let began = Instant::now();
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    let took = began.elapsed().as_secs_f64();
    let after = until_closed(&world);
    let [own, upstream] =
        ["own", "upstream"].map(|part| after.value(&format!("narrows_request_{part}_seconds_sum{labels}")));
    assert!(own > 0.0 && upstream > 0.0, "{own} {upstream}");
    assert!(upstream < took, "{upstream} of {took}");
}

#[test]
fn both_forms_hold_to_their_rules_and_say_the_same() {
    let world = World::new();
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    let open = until_closed(&world);
    let answer = world.get("/metrics", "\r\nAccept: text/plain;version=0.0.4");
    let (head, classic) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let again = parse(classic);
    let names = |said: &Exposition| said.samples().map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&open), names(&again));
    if let Some(checked) = promtool(&["check", "metrics"], classic.as_bytes()) {
        checked.succeeded().never_says("narrows");
    }
}

/// A scrape of a proxy that has something to say of everything.
fn everything() -> Exposition {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme(SECRET, &origin);
    let pod = env.mint("pod", &["acme"]);
    let (capability, key) = (pod.capability.display(), pod.key.display());
    env.setting(&format!(
        "[[listener]]\nname = \"pod\"\nlisten = \"127.0.0.1:0\"\ncapability = \"{capability}\"\nkey = \"{key}\""
    ));
    let (daemon, at) = start(&env, "unix:admin.sock");
    let agent = Agent::new(&env, &daemon, Some(&pod.presentation()));
    assert_eq!(agent.get(HOST, "/echo").status(), 200);
    let answer = ask(&at, &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {OPEN}"));
    parse(answer.split_once("\r\n\r\n").unwrap().1)
}

/// What checks Prometheus' own files; it comes with Prometheus.
fn promtool(arguments: &[&str], input: &[u8]) -> Option<Ran> {
    let Some(promtool) = program("promtool") else {
        eprintln!("promtool is not installed, so promtool {} has not been run", arguments.join(" "));
        return None;
    };
    let mut command = clean(&promtool);
    Some(run(command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus")), input))
}

#[test]
fn the_table_is_what_a_proxy_says() {
    let said = everything();
    let table: BTreeMap<String, (String, BTreeSet<String>)> = include_str!("../docs/metrics.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let (name, kind) = (cells.next()?.strip_suffix('`')?, cells.next()?);
            let labels = cells.next()?.split_whitespace().map(|label| label.trim_matches('`').to_owned());
            ["counter", "gauge", "histogram", "info"].contains(&kind).then_some(())?;
            Some((name.to_owned(), (kind.to_owned(), labels.collect())))
        })
        .collect();
    assert_eq!(said.families(), table);
    // Within an hour of the mint, and within ten years of the CA.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let expiry = said.value("narrows_listener_capability_expiry_timestamp_seconds{listener=\"pod\"}") - now;
    assert!((3000.0..=3600.0).contains(&expiry), "{expiry}");
    let years = (said.value("narrows_ca_certificate_expiry_timestamp_seconds") - now) / (365.25 * 24.0 * 3600.0);
    assert!((9.9..10.1).contains(&years), "{years}");
    let age = said.value("narrows_secret_age_seconds{secret=\"acme-key\"}");
    assert!((0.0..600.0).contains(&age), "{age}");
    assert_eq!(said.value("process_max_fds").fract(), 0.0);
    assert!(said.value("process_resident_memory_bytes") > 1e6);
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_is_there() {
    let families = everything().families();
    let rules = include_str!("../deploy/prometheus/narrows.rules.yml");
    let tests = include_str!("../deploy/prometheus/narrows.rules.test.yml");
    let dashboard: Value = serde_json::from_str(include_str!("../deploy/grafana/narrows.json")).unwrap();
    let mut asked = vec![rules.to_owned(), tests.to_owned()];
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 30, "the dashboard's expressions are found");
    let mut named = BTreeSet::new();
    for text in &asked {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let starts = text.match_indices(is_word).map(|(at, _)| at);
        for at in starts.filter(|at| !text[..*at].ends_with(is_word)) {
            let (name, rest) = text[at..].split_at(text[at..].find(|c| !is_word(c)).unwrap_or(text.len() - at));
            if !name.starts_with("narrows_") && !name.starts_with("process_") {
                continue;
            }
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let of_histogram = of_histogram.filter(|name| families.get(*name).is_some_and(|it| it.0 == "histogram"));
            let (kind, labels) = families.get(of_histogram.unwrap_or(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            assert_eq!(of_histogram.is_some(), kind == "histogram", "{name}: {text}");
            let matchers = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
            for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
                let label = matcher.split(['=', '!']).next().unwrap();
                let is_ours = labels.contains(label) || label == "le" && kind == "histogram";
                assert!(is_ours || ["instance", "job"].contains(&label), "{name} has no {label}: {text}");
            }
            named.insert(name.to_owned());
        }
    }
    // Each alert has its test.
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let tested: Vec<_> = tests.lines().filter_map(|line| line.trim().strip_prefix("alertname: ")).collect();
    assert_eq!(alerts, tested);
    assert!(named.len() > 20, "{named:?}");
    for check in [["check", "rules", "narrows.rules.yml"], ["test", "rules", "narrows.rules.test.yml"]] {
        promtool(&check, b"").map(Ran::succeeded);
    }
}

/// What a dashboard asks for: the texts of `expr` and `query`.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| expressions(one, found)),
        Value::Object(members) => members.iter().for_each(|(key, member)| match member.as_str() {
            Some(text) if key == "expr" || key == "query" => found.push(text.to_owned()),
            _ => expressions(member, found),
        }),
        _ => {}
    }
}

#[test]
fn an_agent_makes_no_series_but_the_configuration_does() {
    let mut world = World::new();
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    assert_eq!(world.agent.get("nobody.test", "/").status(), 403);
    assert_eq!(world.agent.request("FROB", HOST, "/v1/items", "", b"").status(), 403);
    let names = |said: Exposition| said.samples().map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>();
    let before = names(until_closed(&world));
    for number in 0..8 {
        let host = format!("h{number}.test");
        assert_eq!(world.agent.get(&host, &format!("/{number}?q={number}")).status(), 403);
        let method = format!("FROB{number}");
        assert_eq!(world.agent.request(&method, HOST, &format!("/v1/{number}"), "X-Op: x\r\n", b"").status(), 403);
        assert_eq!(world.agent.get(HOST, &format!("/v1/items?{number}")).status(), 200);
    }
    assert_eq!(names(until_closed(&world)), before);
    // The twin: a service of the same name as a host was before, once somebody asks it.
    world
        .env
        .service("name = \"h1\"\nhosts = [\"h1.test\"]\n[[service.route]]\npath = \"/**\"\noperation = \"browse\"");
    rewrite(&world);
    let deadline = Instant::now() + PATIENCE;
    while world.agent.get("h1.test", "/").code() != "capability_denied" {
        assert!(Instant::now() < deadline, "the file is not read again");
    }
    let more: Vec<_> = names(until_closed(&world)).difference(&before).cloned().collect();
    let wanted =
        "narrows_requests_total{service=\"h1\",operation=\"browse\",outcome=\"denied\",code=\"capability_denied\"}";
    assert!(more.iter().any(|name| name == wanted), "{more:?}");
    assert!(more.iter().all(|name| name.contains("service=\"h1\",operation=\"browse\"")), "{more:?}");
}

/// Writes the configuration again, with the operator's listener where it is.
fn rewrite(world: &World) {
    let path = world.env.home().join("narrows.toml");
    let before = fs::read_to_string(&path).unwrap();
    let admin = before.lines().find(|line| line.starts_with("admin = ")).unwrap().to_owned();
    world.env.write_config();
    let toml = fs::read_to_string(&path).unwrap().replace("admin = \"off\"", &admin);
    put(&path, toml.as_bytes());
}

/// Replaces a private file whole.
fn put(path: &std::path::Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    let mut file = std::os::unix::fs::OpenOptionsExt::mode(fs::OpenOptions::new().create(true).write(true), 0o600)
        .open(&new)
        .unwrap();
    file.write_all(bytes).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn nothing_of_it_is_secret_or_names_anybody() {
    let world = World::new();
    let canary = "canary-path-71c2";
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    assert_eq!(world.agent.get(HOST, &format!("/{canary}?{canary}")).status(), 403);
    assert_eq!(world.agent.get(&format!("{canary}.test"), "/").status(), 403);
    put(&world.env.home().join("secrets.json"), b"{}");
    world.until_troubled(&["store"]);
    let mut said = String::new();
    for path in ["/healthz", "/readyz", "/metrics"] {
        said += &world.get(path, &format!("\r\nAccept: {OPEN}"));
    }
    let home = world.env.home();
    let root = fs::read_to_string(home.join("root.pub")).unwrap();
    let capability = fs::read_to_string(world.env.file("holder.cap")).unwrap();
    let pieces = [SECRET, canary, HOST, "alice", home.to_str().unwrap(), root.trim(), &capability[..40], "127.0.0.1"];
    for piece in pieces {
        assert!(!said.contains(piece), "{piece:?} in\n{said}");
    }
    assert!(said.contains("acme"), "the twin: a service's name is there");
}

#[test]
fn what_lies_on_the_disk_and_cannot_be_used_is_said_until_it_is_mended() {
    let world = World::new();
    let home = world.env.home();
    assert_eq!(world.until_troubled(&[]), "");
    for (file, check, words) in [
        ("narrows.toml", "configuration", "narrows --check"),
        ("secrets.json", "store", "the secrets cannot be read"),
        ("store.key", "store", "the secrets cannot be read"),
        ("revoked.jsonl", "revocations", "the revocation list cannot be read"),
        ("ca.key", "ca", "the local CA cannot be used"),
    ] {
        let path = home.join(file);
        let good = fs::read(&path).unwrap_or_default();
        put(&path, b"not what it was\n");
        assert!(world.until_troubled(&[check]).contains(words), "{file}");
        assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200, "{file}: what was read before is in use");
        put(&path, &good);
        world.until_troubled(&[]);
    }
    // A file that is away.
    let (ca, aside) = (home.join("ca.pem"), home.join("aside"));
    fs::rename(&ca, &aside).unwrap();
    world.until_troubled(&["ca"]);
    fs::rename(&aside, &ca).unwrap();
    world.until_troubled(&[]);
    let scrape = world.scrape();
    assert!(scrape.value("narrows_reloads_total{result=\"refused\"}") >= 3.0);
    assert!(scrape.value("narrows_reloads_total{result=\"ok\"}") >= 3.0);
    assert_eq!(scrape.value("narrows_reload_last_successful"), 1.0);
}

#[test]
fn a_journal_that_cannot_be_written_is_not_ready_until_it_can() {
    let world = World::new();
    let (audit, aside) = (world.env.home().join("audit"), world.env.file("aside"));
    fs::rename(&audit, &aside).unwrap();
    // The writer notices when it has something to write.
    let deadline = Instant::now() + PATIENCE;
    while world.agent.get(HOST, "/v1/items").status() != 503 {
        assert!(Instant::now() < deadline, "it is written somewhere");
    }
    assert!(world.until_troubled(&["journal"]).contains("requests are refused"));
    assert_eq!(world.scrape().value("narrows_journal_refusing"), 1.0);
    let refused = "narrows_refusals_total{code=\"journal_unavailable\"}";
    assert!(world.scrape().value(refused) >= 1.0);
    fs::rename(&aside, &audit).unwrap();
    world.until_troubled(&[]);
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
}

#[test]
fn a_proxy_that_goes_down_is_alive_and_not_ready() {
    let world = World::new();
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\n"));
    world.origin.wait_for("/v1/items");
    world.daemon.ask_to_end();
    assert!(world.until_troubled(&["serving"]).contains("going down"));
    assert_eq!(status(&world.get("/healthz", "")), 200);
    tunnel.send("x");
    assert_eq!(tunnel.answer(false).status(), 200);
}

#[test]
fn revocations_that_are_lost_are_not_taken_back() {
    let world = World::new();
    let path = world.env.home().join("revoked.jsonl");
    let revoked = ["first", "second"].map(|name| {
        let holder = world.env.mint(name, &["acme:read path=/v1"]);
        let agent = Agent::new(&world.env, &world.daemon, Some(&holder.presentation()));
        assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
        world.env.revoke(&holder);
        agent
    });
    let deadline = Instant::now() + PATIENCE;
    while revoked.iter().any(|agent| agent.get(HOST, "/v1/items").status() == 200) {
        assert!(Instant::now() < deadline, "they are served still");
    }
    let whole = fs::read(&path).unwrap();
    let second = whole.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap().to_vec();
    // Shrunk, emptied, gone.
    for left in [Some(&second[..]), Some(b""), None] {
        match left {
            Some(left) => put(&path, left),
            None => fs::remove_file(&path).unwrap(),
        }
        assert!(world.until_troubled(&["revocations"]).contains("stays revoked"));
        // What else changes meanwhile reads the list, too.
        let reloads = world.scrape().value("narrows_reloads_total{result=\"ok\"}");
        rewrite(&world);
        let deadline = Instant::now() + PATIENCE;
        while world.scrape().value("narrows_reloads_total{result=\"ok\"}") <= reloads {
            assert!(Instant::now() < deadline, "the file is not read again");
        }
        for agent in &revoked {
            assert_eq!(agent.get(HOST, "/v1/items").code(), "capability_revoked");
        }
    }
    assert_eq!(world.daemon.log().matches("revoked.jsonl does not say any more").count(), 1, "{}", world.daemon.log());
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200, "the twin");
    put(&path, &whole);
    world.until_troubled(&[]);
}

#[test]
fn a_listener_whose_capability_is_dead_is_not_in_order() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme(SECRET, &origin);
    let pod = env.mint("pod", &["acme"]);
    env.setting(&format!(
        "[[listener]]\nname = \"pod\"\nlisten = \"127.0.0.1:0\"\ncapability = \"{}\"\nkey = \"{}\"",
        pod.capability.display(),
        pod.key.display()
    ));
    let (daemon, at) = start(&env, "unix:admin.sock");
    let agent = Agent::new(&env, &daemon, None);
    let world = World { env, origin, daemon, at, agent };
    world.until_troubled(&[]);
    // Of another root; then as it was; then revoked.
    let good = fs::read_to_string(world.env.home().join("root.pub")).unwrap();
    let other = fs::read_to_string(TestEnv::new().home().join("root.pub")).unwrap();
    let toml = world.env.home().join("narrows.toml");
    let written = fs::read_to_string(&toml).unwrap();
    put(&toml, written.replace(good.trim(), other.trim()).as_bytes());
    world.until_troubled_by("listeners", "listener \"pod\" does not hold");
    put(&toml, written.as_bytes());
    world.until_troubled(&[]);
    // One that has expired takes its place: key first, then what it is the key of.
    let (old_key, old) = (fs::read(&pod.key).unwrap(), fs::read(&pod.capability).unwrap());
    let short = world.env.mint_until("short", &["acme"], 0);
    put(&pod.key, &fs::read(&short.key).unwrap());
    put(&pod.capability, &fs::read(&short.capability).unwrap());
    world.until_troubled_by("listeners", "listener \"pod\" has expired");
    put(&pod.key, &old_key);
    put(&pod.capability, &old);
    world.until_troubled(&[]);
    world.env.revoke(&pod);
    world.until_troubled_by("listeners", "listener \"pod\" is revoked");
}

#[test]
fn a_store_that_is_gone_is_not_in_order_where_services_need_secrets() {
    let world = World::new();
    let (store, aside) = (world.env.home().join("secrets.json"), world.env.file("aside"));
    fs::rename(&store, &aside).unwrap();
    assert!(world.until_troubled(&["store"]).contains("none of the secrets"));
    fs::rename(&aside, &store).unwrap();
    world.until_troubled(&[]);
    // A link that leads nowhere is no store without secrets.
    std::os::unix::fs::symlink(world.env.file("nowhere"), &aside).unwrap();
    fs::rename(&aside, &store).unwrap();
    world.until_troubled_by("store", "cannot be read and those before stay");
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
}
