//! The local CA: another takes its place while the proxy runs and clients go on; one that may sign for few names is
//! trusted for no others; a private file that others can read stops everything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use support::PATIENCE;
use support::ca::Alpn;
use support::client::run;
use support::daemon::{Daemon, TestEnv};
use support::origin::Origin;

const SECRET: &str = "acme-live-0123456789abcdef";
const HOST: &str = "api.acme.test";
/// Between two looks at something that takes a moment.
const POLL: Duration = Duration::from_millis(20);

struct World {
    env: TestEnv,
    daemon: Daemon,
    credentials: String,
    _origin: Origin,
}

impl World {
    fn new(env: TestEnv) -> Self {
        let mut env = env;
        let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
        origin.put("/v1/items", "application/json", "[]");
        env.acme(SECRET, &origin);
        let daemon = env.start();
        let credentials = env.mint("holder", &["acme"]).presentation();
        Self { env, daemon, credentials, _origin: origin }
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(self.env.home().join("ca.pem")).unwrap()
    }

    /// What curl makes of the proxy's leaf, with this text as all that it trusts: whether it got its answer.
    fn is_trusted_by(&self, pem: &str) -> bool {
        let file = self.env.file("trusted.pem");
        std::fs::write(&file, pem).unwrap();
        let mut curl = support::client::clean("curl".as_ref());
        curl.args(["-q", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]).arg(file);
        curl.args(["-x", &self.daemon.proxy_url(&self.credentials), &format!("https://{HOST}/v1/items")]);
        let ran = run(&mut curl, b"");
        // 60: the certificate is not trusted. Anything else is another defect.
        assert!(ran.code == Some(0) && ran.stdout == "200" || ran.code == Some(60), "{}", ran.said());
        ran.code == Some(0)
    }

    /// A running proxy takes a change up within a second or so.
    fn soon(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(POLL);
        }
    }
}

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn another_ca_takes_over_while_the_proxy_runs() {
    let world = World::new(TestEnv::new());
    let rotate = |options: &[&str]| run(world.env.command().args(["ca", "rotate"]).args(options), b"");
    let (old, key) = (world.pem(), std::fs::read(world.env.home().join("ca.key")).unwrap());
    for early in ["--switch", "--finish"] {
        rotate(&[early]).failed().says("capctl ca rotate");
    }
    assert!(world.is_trusted_by(&old));

    rotate(&[]).succeeded();
    let both = world.pem();
    assert_eq!(certificates(&both), 2);
    let mode = std::fs::metadata(world.env.home().join("ca-next.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for too in [&[][..], &["--finish"]] {
        rotate(too).failed().says("--switch");
    }
    assert!(world.is_trusted_by(&old) && world.is_trusted_by(&both), "the old one signs");

    rotate(&["--switch"]).succeeded();
    world.soon("the new CA signs", |world| !world.is_trusted_by(&old));
    assert!(world.is_trusted_by(&both), "who had both went on");
    assert_ne!(std::fs::read(world.env.home().join("ca.key")).unwrap(), key);
    assert!(!world.env.home().join("ca-next.key").exists());
    rotate(&["--switch"]).failed().says("--finish");

    rotate(&["--finish"]).succeeded();
    let new = world.pem();
    assert_eq!(certificates(&new), 1);
    assert!(both.contains(&new) && new != old);
    assert!(world.is_trusted_by(&new));
    let script = "curl -q -sS -m 20 -o /dev/null -w %{http_code} https://api.acme.test/v1/items";
    let ran = run(world.env.command().args(["run", "--allow", "acme:read", "--", "sh", "-c", script]), b"");
    assert_eq!(ran.succeeded().stdout, "200", "a new command trusts the new CA");
    run(world.env.command().arg("doctor"), b"").says("local CA       signs; clients trust");
}

#[test]
fn a_ca_for_some_names_is_trusted_for_no_other() {
    // The name itself, what is above it, the twin beside it, and an address.
    for (only, trusted) in
        [("api.acme.test", true), ("acme.test", true), ("ape.acme.test", false), ("192.0.2.1", false)]
    {
        let env = TestEnv::by_capctl();
        std::fs::remove_file(env.home().join("ca.pem")).unwrap();
        std::fs::remove_file(env.home().join("ca.key")).unwrap();
        run(env.command().args(["init", "--only", only]), b"").succeeded();
        let world = World::new(env);
        assert_eq!(world.is_trusted_by(&world.pem()), trusted, "{only}");
    }
}

#[test]
fn a_rotation_may_narrow_what_the_ca_signs_for() {
    let world = World::new(TestEnv::new());
    let rotate = |options: &[&str]| run(world.env.command().args(["ca", "rotate"]).args(options), b"").succeeded();
    rotate(&["--only", "ape.acme.test"]);
    rotate(&["--switch"]);
    rotate(&["--finish"]);
    world.soon("the narrow CA signs", |world| !world.is_trusted_by(&world.pem()));
}

#[test]
fn a_private_file_that_others_can_read_stops_the_proxy_with_the_line_to_type() {
    let env = TestEnv::new();
    run(env.command().args(["admin", "token"]), b"").succeeded();
    env.secret("acme-key", SECRET);
    env.write_config();
    std::fs::write(env.home().join("revoked.jsonl"), "").unwrap();
    let set = |name: &str, mode: u32| {
        std::fs::set_permissions(env.home().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("revoked.jsonl", 0o600);
    let narrows = || {
        let mut narrows = support::client::clean(env!("CARGO_BIN_EXE_narrows").as_ref());
        // It would run on; a home that is good stops at an address that is not ours.
        run(narrows.env("NARROWS_HOME", env.home()), b"")
    };
    let path = env.home().join("narrows.toml");
    let toml = std::fs::read_to_string(&path).unwrap().replace("127.0.0.1:0", "192.0.2.1:9");
    std::fs::write(&path, format!("insecure = true\n{}", toml.replace("\"local\"", "\"elsewhere\""))).unwrap();
    narrows().failed().says("cannot listen on 192.0.2.1:9");
    for name in ["narrows.toml", "ca.key", "root.key", "secrets.json", "store.key", "revoked.jsonl", "admin.token"] {
        for mode in [0o640, 0o604] {
            set(name, mode);
            narrows().failed().says(&format!("chmod 600 {}", env.home().join(name).display()));
            run(env.command().arg("doctor"), b"")
                .failed()
                .says(&format!("chmod 600 {}", env.home().join(name).display()));
        }
        set(name, 0o600);
    }
    for name in ["services.d", "audit"] {
        set(name, 0o750);
        narrows().failed().says(&format!("chmod 700 {}", env.home().join(name).display()));
        set(name, 0o700);
    }
    narrows().failed().says("cannot listen on 192.0.2.1:9");
}
