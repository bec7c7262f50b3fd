//! The configuration through its front door: files in a home, problems at their lines.
#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use narrows::capability::{Algorithm, PrivateKey};
use narrows::config::edit::{EditError, Inject, NewService, add_service, remove_service};
use narrows::config::{Config, Listen, Log, LogFormat, UpstreamRoots, changes_needing_restart, starter};
use narrows::credential::SecretName;
use narrows::request::{Host, Scheme, Target};
use narrows::service::{Injectors, Problem, Route};
use narrows::store::Home;
use tempfile::TempDir;

struct Env {
    dir: TempDir,
}

impl Env {
    fn new() -> Self {
        let env = Self { dir: tempfile::tempdir().expect("a folder") };
        env.home().create().expect("a home");
        env
    }

    fn home(&self) -> Home {
        Home::at(&self.dir.path().join("home")).expect("a home")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.home().dir().join(name);
        fs::write(&path, text).expect("written");
        private(&path);
    }

    fn load(&self, text: &str) -> Result<Config, Vec<Problem>> {
        self.write("narrows.toml", text);
        Config::load(&self.home())
    }

    /// The problems of a text, as a person reads them.
    fn problems(&self, text: &str) -> Vec<String> {
        self.load(text).expect_err("problems").iter().map(Problem::to_string).collect()
    }
}

fn private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn only(text: &str) -> String {
    let problems = Env::new().problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().expect("one")
}

const ACME: &str = r#"
[[service]]
name = "acme"
credential = "acme-key"
hosts = ["api.acme.test"]
inject = "Authorization: Bearer {secret}"
"#;

#[test]
fn the_starter_is_sound_and_says_the_defaults() {
    let root = *PrivateKey::from_seed(Algorithm::Ed25519, [7; 32]).expect("a key").public();
    let env = Env::new();
    let started = env.load(&starter(&root)).expect("sound");
    assert_eq!(started.roots.get(&1), Some(&root));
    assert_eq!(started.check(&[]), []);
    let empty = env.load("").expect("sound");
    assert_eq!((&started.listen, &started.admin, &started.audience), (&empty.listen, &empty.admin, &empty.audience));
    assert_eq!(started.journal_dir, empty.journal_dir);
    assert_eq!(started.limits, empty.limits);
    // What is commented out is sound too, once its files are there.
    let all: Vec<&str> = starter_without_comments(&started.roots[&1]);
    let uncommented = all.join("\n").replace("extra_ca ", "# extra_ca ");
    let config = env.load(&uncommented).expect("sound");
    assert_eq!(config.services.services().len(), 2);
}

fn starter_without_comments(root: &narrows::capability::PublicKey) -> Vec<&'static str> {
    let text: &'static str = starter(root).leak();
    let is_key = |line: &str| line.starts_with('[') || line.contains(" = ");
    let bare = |line: &'static str| line.strip_prefix("# ").filter(|rest| is_key(rest.trim_start())).unwrap_or(line);
    text.lines().map(bare).collect()
}

#[test]
fn every_key_of_the_interface_is_read() {
    let env = Env::new();
    let config = env
        .load(
            r#"
listen = "unix:narrows.sock"
admin = "off"
audience = "team-a"

[upstream]
connect_to = { "api.acme.test:443" = "127.0.0.1:9443" }
allow_addresses = ["10.1.0.0/16", "fd00::1", "10.2.3.4/16"]
roots = "bundled"
dial = "5s"

[journal]
dir = "/var/tmp/j"
durability = "disk"
rotate = "16M"

[limits]
connections_max = 10
hops_max = 2
tunnel_age_max = "1h"
presentation_ttl_max = "10m"
drain = "500ms"
"#,
        )
        .expect("sound");
    assert_eq!(config.listen, Some(Listen::Unix(env.home().dir().join("narrows.sock"))));
    assert!(config.admin.is_none());
    assert_eq!(&*config.audience, "team-a");
    let target = |text: &str| Target::parse(text).expect("a target");
    assert_eq!(config.upstream.connect_to[&target("api.acme.test:443")], target("127.0.0.1:9443"));
    let ranges: Vec<String> = config.upstream.allow_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.1.0.0/16", "fd00::1/128", "10.2.0.0/16"]);
    assert_eq!(config.upstream.roots, UpstreamRoots::Bundled);
    assert_eq!(config.journal_dir, Path::new("/var/tmp/j"));
    assert_eq!(config.journal.rotate_bytes, 16 << 20);
    assert_eq!((config.limits.connections_max, config.limits.hops_max), (10, 2));
    assert_eq!(config.limits.tunnel_age_max, Duration::from_hours(1));
    assert_eq!(config.limits.drain, Duration::from_millis(500));
    assert_eq!(config.limits.dial, Duration::from_secs(5));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let text = "\n[[service]]\nname = \"acme\"\nhosts = [\"api.acme.test\"]\ncredental = \"k\"\n";
    assert_eq!(
        only(text),
        "narrows.toml:5: unknown key \"credental\" in [[service]] \"acme\"; did you mean \"credential\"?"
    );
    assert_eq!(only("listem = \"off\""), "narrows.toml:1: unknown key \"listem\"; did you mean \"listen\"?");
    assert_eq!(
        only("[journal]\ndirr = \"audit\""),
        "narrows.toml:2: unknown key \"dirr\" in [journal]; did you mean \"dir\"?"
    );
    assert!(only("[zzz]\n").contains("the keys here are: "), "nothing is near");
    let route = format!("{ACME}[[service.route]]\npath = \"/\"\naction = \"a\"\noperatoin = \"read\"\n");
    assert_eq!(
        only(&route),
        "narrows.toml:10: unknown key \"operatoin\" in [[service.route]] of \"acme\"; did you mean \"operation\"?"
    );
}

#[test]
fn every_problem_is_reported_not_the_first() {
    let problems = Env::new().problems(
        r#"listen = "nowhere"
admin = "0.0.0.0:7081"
audience = "a b"
[roots]
x = "ed25519/00"
1 = "ed25519/00"
[upstream]
extra_ca = "missing.pem"
connect_to = { "a.test" = "b.test:1" }
allow_addresses = ["ten"]
[journal]
durability = "never"
rotate = "1k"
[limits]
connections_max = 0
drain = "5"
[[service]]
name = "a"
hosts = ["a.test/x"]
[[service]]
credential = 7
"#,
    );
    let lines: Vec<&str> = problems.iter().filter_map(|p| p.split(": ").next()).collect();
    for line in [1, 2, 3, 5, 6, 8, 9, 10, 12, 13, 15, 16, 19, 20, 21] {
        assert!(lines.contains(&&*format!("narrows.toml:{line}")), "line {line} of {problems:#?}");
    }
}

#[test]
fn text_that_is_no_toml_has_a_line_too() {
    assert!(Env::new().problems("listen = \n[").iter().any(|p| p.starts_with("narrows.toml:1: ")));
    let _ = Env::new().problems("a = 1\na = 2\n");
}

#[test]
fn clear_text_beyond_loopback_needs_a_word_and_an_audience() {
    let problems = Env::new().problems("listen = \"0.0.0.0:7080\"");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(only("listen = \"0.0.0.0:7080\"\ninsecure = true").contains("audience"));
    assert!(only("listen = \"0.0.0.0:7080\"\naudience = \"a\"").contains("insecure = true"));
    assert!(only("listen = \"[::]:7080\"\naudience = \"a\"").contains("insecure = true"));
    for sound in [
        "listen = \"0.0.0.0:7080\"\ninsecure = true\naudience = \"a\"",
        "listen = \"0.0.0.0:7080\"\naudience = \"a\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"",
        "listen = \"127.0.0.9:0\"",
        "listen = \"[::1]:7080\"",
        "listen = \"[::ffff:127.0.0.1]:7080\"",
        "listen = \"unix:s\"",
    ] {
        assert!(Env::new().load(sound).is_ok(), "{sound}");
    }
}

#[test]
fn tls_is_a_certificate_and_a_key_on_an_address() {
    let both = "[tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"";
    let env = Env::new();
    let config = env.load(both).expect("sound");
    let tls = config.tls.as_ref().expect("tls");
    assert_eq!((&tls.certificate, tls.key.as_path()), (&env.home().dir().join("c.pem"), Path::new("/k.pem")));
    assert_eq!(tls.client_ca, None);
    assert!(config.files.contains(&tls.key), "{:?}", config.files);
    let clear = Env::new().load("").expect("sound");
    assert!(changes_needing_restart(&clear, &config).contains(&"tls"));
    let mutual = env.load(&format!("{both}\nclient_ca = \"ca.pem\"")).expect("sound");
    assert_eq!(changes_needing_restart(&config, &mutual), [""; 0]);
    assert!(only("[tls]\ncertificate = \"c.pem\"").contains("[tls] needs `key`"));
    assert!(only("[tls]\nkey = \"c.pem\"").contains("[tls] needs `certificate`"));
    assert!(only(&format!("listen = \"off\"\n{both}")).contains("an address and a port"));
    assert!(only(&format!("listen = \"unix:s\"\n{both}")).contains("an address and a port"));
    assert!(only("listen = \"0.0.0.0:7080\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"").contains("audience"));
}

#[test]
fn a_credential_goes_to_owned_hosts_over_tls_only() {
    for (hosts, word) in [
        ("\"http://api.acme.test\"", "clear text"),
        ("\"*.com\"", "more than one owner"),
        ("\"*.github.io\"", "more than one owner"),
        ("\"com\"", "more than one owner"),
    ] {
        assert!(only(&ACME.replace("\"api.acme.test\"", hosts)).contains(word), "{hosts}");
        let without = format!("[[service]]\nname = \"acme\"\nhosts = [{hosts}]\n");
        assert!(Env::new().load(&without).is_ok(), "{hosts} without a credential");
    }
    for hosts in ["\"*.acme.test\"", "\"*.acme.github.io\"", "\"acme.com:8443\""] {
        assert!(Env::new().load(&ACME.replace("\"api.acme.test\"", hosts)).is_ok(), "{hosts}");
    }
}

#[test]
fn services_that_do_not_hang_together_are_refused() {
    let twice = format!("{ACME}{}", ACME.replace("\"acme\"", "\"other\""));
    let problem = only(&twice);
    assert!(problem.contains("\"acme\" and \"other\" both name api.acme.test"), "{problem}");
    assert!(problem.contains("the other one is at narrows.toml:2"), "{problem}");
    assert!(Env::new().load(&twice.replacen("api.acme.test", "api.acme.test:8443", 1)).is_ok());
    let same_name = format!("{ACME}{}", ACME.replace("api.acme", "b.acme"));
    assert!(only(&same_name).contains("defined twice"));
    for (from, to, word) in [
        ("name = \"acme\"", "name = \"web\"", "reserved"),
        ("name = \"acme\"", "name = \"a b\"", "letters, digits"),
        ("hosts = [\"api.acme.test\"]", "", "no `hosts`"),
        ("hosts = [\"api.acme.test\"]", "hosts = []", "no `hosts`"),
        ("credential = \"acme-key\"", "", "not which"),
        ("inject = \"Authorization: Bearer {secret}\"", "", "goes nowhere"),
        ("credential = \"acme-key\"\n", "strip = [\"X-Key\"]\n", "not which"),
        ("inject = \"Authorization: Bearer {secret}\"", "inject = { bearer = \"x\" }", "basic"),
        ("{secret}", "secret", "{secret}"),
        (
            "{secret}\"",
            "{secret}\"\n[[service.route]]\npath = []\nmethod = []\naction = \"a\"",
            "leave the key out to match everything",
        ),
        ("credential = \"acme-key\"", "credential = \"acme-key\"\nterminate = false", "plain tunnel"),
        ("credential = \"acme-key\"", "credential = \"a/b\"", "secret's name"),
    ] {
        let problems = Env::new().problems(&ACME.replace(from, to));
        assert!(problems.iter().any(|p| p.contains(word)), "{to}: {problems:#?}");
    }
}

#[test]
fn a_built_in_service_counts_once_it_is_named() {
    let env = Env::new();
    let github = |config: &Config| {
        let host = Host::parse("api.github.com").expect("a host");
        matches!(config.services.route(Scheme::Https, &host, 443), Route::Named(_))
    };
    assert!(!github(&env.load("").expect("sound")));
    let bare = env.load("[[service]]\nname = \"github\"\n").expect("sound");
    assert!(github(&bare));
    let service = bare.services.service("github").expect("named");
    assert!(service.credential().is_none() && service.env().is_empty());
    assert!(service.endpoints().iter().all(|endpoint| endpoint.injection().is_none()), "its own login passes");
    let with = env.load("[[service]]\nname = \"github\"\ncredential = \"gh\"\n").expect("sound");
    let service = with.services.service("github").expect("named");
    assert_eq!(service.credential().map(SecretName::as_str), Some("gh"));
    assert!(service.env().iter().any(|(name, value)| *name == "GITHUB_TOKEN" && value.starts_with("ghp_")));
    assert!(only("[[service]]\nname = \"githib\"\ncredential = \"gh\"\n").contains("did you mean \"github\"?"));
}

#[test]
fn a_definition_can_be_changed_extended_and_replaced() {
    let env = Env::new();
    let text = r#"
[[service]]
name = "work"
extends = "gitlab"
credential = "work"
hosts = ["gitlab.acme.test"]
[[service.route]]
path = "/api/v4/version"
operation = "read"
action = "version"
"#;
    let config = env.load(text).expect("sound");
    let work = config.services.service("work").expect("named");
    assert!(work.actions().contains(&"version") && work.actions().contains(&"merge_request.create"));
    assert_eq!(work.endpoints()[0].hosts()[0].to_string(), "gitlab.acme.test");
    assert!(work.endpoints()[0].injection().is_some());
    assert!(only(&text.replace("\"gitlab\"", "\"gitlub\"")).contains("did you mean \"gitlab\"?"));
    assert!(only(&text.replace("\"gitlab\"", "\"github\"")).contains("several endpoints"));
    let own = ACME.replace("\"acme\"", "\"github\"");
    let replaced = env.load(&own).expect("sound");
    assert!(replaced.services.service("github").expect("named").actions().is_empty());
}

#[test]
fn the_folder_gives_services_of_its_own_and_overrides() {
    let env = Env::new();
    env.write("services.d/acme.toml", ACME);
    env.write("services.d/github.toml", "[[service]]\nname = \"github\"\nhosts = [\"ghe.acme.test\"]\n");
    env.write("services.d/notes.txt", "not read");
    let config = env.load("").expect("sound");
    assert!(config.services.service("acme").is_some());
    let github = config.services.service("github").expect("named");
    assert_eq!(github.endpoints()[0].hosts()[0].to_string(), "ghe.acme.test");
    assert_eq!(github.defined_at(), "services.d/github.toml:1");
    let named = env.load("[[service]]\nname = \"acme\"\ncredential = \"other\"\n").expect("sound");
    let acme = named.services.service("acme").expect("named");
    assert_eq!(acme.credential().map(SecretName::as_str), Some("other"));
    env.write("services.d/acme.toml", &ACME.replace("hosts", "hostz"));
    let problems = env.problems("zzz = 1\n");
    assert!(problems.iter().any(|p| p.starts_with("services.d/acme.toml:5: unknown key \"hostz\"")), "{problems:#?}");
    assert!(problems.iter().any(|p| p.starts_with("narrows.toml:1: ")), "{problems:#?}");
}

#[test]
fn files_that_others_can_read_are_refused_with_the_chmod() {
    let env = Env::new();
    env.write("narrows.toml", "");
    let path = env.home().config();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let problems = Config::load(&env.home()).expect_err("a problem");
    assert!(problems[0].hint.as_deref().is_some_and(|hint| hint.starts_with("chmod 600 ")), "{problems:?}");
    private(&path);
    assert!(Config::load(&env.home()).is_ok());
    fs::remove_file(&path).expect("removed");
    assert!(Config::load(&env.home()).expect_err("a problem")[0].to_string().contains("does not exist"));
}

#[test]
fn extra_authorities_are_read_and_must_be_certificates() {
    let env = Env::new();
    env.write("not.pem", "hello");
    let problem = env.problems("[upstream]\nextra_ca = \"not.pem\"");
    assert!(problem[0].starts_with("narrows.toml:2: `extra_ca` in [upstream]: "), "{problem:?}");
    assert!(env.problems("[upstream]\nextra_ca = \"/dev/zero\"")[0].contains("not a plain file"));
    narrows::store::ca::Ca::create(&env.home(), &[], narrows::clock::UnixSeconds::now()).expect("a CA");
    let config = env.load("[upstream]\nextra_ca = [\"ca.pem\", \"ca.pem\"]\nroots = \"ca.pem\"").expect("sound");
    assert!(config.upstream.extra_ca_pem.is_some());
    assert!(matches!(config.upstream.roots, UpstreamRoots::Only(_)));
    assert!(config.files.contains(&env.home().ca_certificate()));
}

#[test]
fn a_check_knows_missing_secrets_and_rows_that_do_not_hold() {
    let env = Env::new();
    let text = format!(
        "[roots]\n1 = \"{}\"\n{ACME}[[service.test]]\nurl = \"https://api.acme.test/a\"\noperation = \"write\"\n",
        PrivateKey::from_seed(Algorithm::Ed25519, [7; 32]).expect("a key").public()
    );
    let config = env.load(&text).expect("sound");
    let stored = ["acme-key".parse::<SecretName>().expect("a name")];
    let report = |stored: &[SecretName]| config.check(stored).iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(report(&stored).len(), 1);
    assert!(report(&stored)[0].contains("the operation is `read`"), "{:?}", report(&stored));
    let missing = report(&[]);
    assert!(missing[0].contains("there is no secret \"acme-key\"; type `capctl secret set acme-key`"), "{missing:?}");
    let injectors = Injectors::new(&config.services, |_| None);
    assert_eq!(injectors.missing().len(), 1);
    assert_eq!(env.load("").expect("sound").check(&[]).len(), 1, "no roots");
}

#[test]
fn a_listener_that_holds_a_capability_is_for_those_who_may_reach_it() {
    let env = Env::new();
    let good = r#"[[listener]]
name = "pod"
listen = "127.0.0.1:7090"
capability = "pod.cap"
key = "pod.key"
"#;
    let config = env.load(good).expect("sound");
    let [listener] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    assert_eq!((&*listener.name, listener.listen.to_string().as_str()), ("pod", "127.0.0.1:7090"));
    assert_eq!(listener.capability, env.home().dir().join("pod.cap"));
    assert!(config.files.contains(&listener.key), "a renewed key is taken up");
    assert!(env.load(&format!("listen = \"off\"\n{good}")).expect("sound").listen.is_none());
    let open = |more: &str| good.replace("127.0.0.1", "0.0.0.0") + more;
    assert!(env.load(&open("exposed = true\n")).is_ok());
    let socket = |more: &str| good.replace("127.0.0.1:7090", "unix:pod.sock") + more;
    assert_eq!(env.load(&socket("uids = [1000]\n")).expect("sound").listeners[0].uids, [1000]);
    let six = good.replace("127.0.0.1", "[::1]").replace("\"pod\"", "\"pod-6\"");
    assert!(env.load(&(good.to_owned() + &six)).is_ok(), "two families");

    for (text, part) in [
        (open(""), "and it is not loopback"),
        (open("exposed = false\n"), "and it is not loopback"),
        (good.replace("key = \"pod.key\"\n", ""), "a listener needs `key`"),
        (good.replace("\"pod\"", "\"a pod\""), "1 to 64 ASCII letters"),
        (good.to_owned() + "uids = [1000]\n", "`uids` is for Unix sockets"),
        (socket("uids = [-1]\n"), "a list of whole numbers"),
        (good.to_owned() + "capabilities = 1\n", "did you mean \"capability\"?"),
        (good.to_owned() + &good.replace("7090", "7091"), "two listeners are called \"pod\""),
        (good.to_owned() + &good.replace("\"pod\"", "\"pod-2\""), "two listeners are on 127.0.0.1:7090"),
        (good.to_owned() + &open("exposed = true\n").replace("\"pod\"", "\"pod-2\""), "is taken by listener \"pod\""),
        (format!("listen = \"127.0.0.1:7090\"\n{good}"), "is taken by the top level's `listen`"),
        (format!("admin = \"127.0.0.1:7090\"\n{good}"), "is taken by `admin`"),
        (socket("").replace("pod.sock", "narrows.sock"), "is taken by the home's own socket"),
        (format!("admin = \"unix:narrows.sock\"\n{good}"), "is the home's own socket"),
        (format!("listen = \"[::1]:7081\"\nadmin = \"[::1]:7081\"\n{good}"), "is where clients connect"),
    ] {
        let problems = env.problems(&text).join("\n");
        assert!(problems.contains(part), "{text}\n{problems}");
    }
}

#[test]
fn what_cannot_change_while_running_is_named() {
    let env = Env::new();
    let old = env.load("").expect("sound");
    assert!(changes_needing_restart(&old, &env.load(ACME).expect("sound")).is_empty());
    assert!(changes_needing_restart(&old, &env.load("[upstream]\nroots = \"bundled\"").expect("sound")).is_empty());
    let new =
        "listen = \"127.0.0.1:1\"\nadmin = \"off\"\naudience = \"b\"\n[journal]\ndir = \"j\"\n[limits]\ndrain = \"1s\"";
    let keys = changes_needing_restart(&old, &env.load(new).expect("sound"));
    assert_eq!(keys, ["listen", "admin", "audience", "journal.dir", "limits.drain"]);
}

#[test]
fn edits_keep_what_a_person_wrote() {
    let before = format!("# mine\nlisten = \"127.0.0.1:0\" # port\n{ACME}# the end\n");
    let new =
        NewService { name: "github".into(), credential: Some("gh".parse().expect("a name")), ..NewService::default() };
    let added = add_service(&before, &new).expect("added");
    assert!(added.starts_with("# mine\nlisten = \"127.0.0.1:0\" # port\n"), "{added}");
    assert!(added.contains("\n[[service]]\nname = \"github\"\ncredential = \"gh\"\n"), "{added}");
    assert!(Env::new().load(&added).is_ok(), "{added}");
    assert_eq!(add_service(&added, &new), Err(EditError::Exists("github".into())));
    let removed = remove_service(&added, "github").expect("removed");
    assert!(!removed.contains("github") && removed.contains("acme") && removed.contains("# mine"), "{removed}");
    assert_eq!(remove_service(&removed, "github"), Err(EditError::Missing("github".into())));
    let gone = remove_service(&removed, "acme").expect("removed");
    assert!(Env::new().load(&gone).is_ok(), "{gone}");
    assert!(matches!(add_service("a = ", &new), Err(EditError::Syntax(_))));
    assert_eq!(add_service("service = 1", &new), Err(EditError::Shape));
    for (inject, line) in [
        ("X-Key: {secret}", "inject = \"X-Key: {secret}\""),
        ("basic:user", "inject = { basic = \"user\" }"),
        ("query:key", "inject = { query = \"key\" }"),
    ] {
        let inject = Some(Inject::parse(inject).expect("a form"));
        let new = NewService { name: "b".into(), hosts: vec!["b.test".into()], inject, ..new.clone() };
        let added = add_service("", &new).expect("added");
        assert!(added.contains(line) && added.contains("hosts = [\"b.test\"]"), "{added}");
        assert!(Env::new().load(&added).is_ok(), "{added}");
    }
    assert!(Inject::parse("X-Key: nothing").is_err());
}

#[test]
fn the_log_has_a_level_that_reads_and_a_format() {
    let env = Env::new();
    let log = |text: &str| env.load(&format!("[log]\n{text}\n")).expect("sound").log;
    assert_eq!(log(""), Log::default());
    assert_eq!(log("format = \"json\"").format, LogFormat::Json);
    for level in ["off", "WARN", "narrows=debug,warn", "narrows::net=trace", "info,hyper[{id=3}]=off"] {
        assert_eq!(log(&format!("level = \"{level}\"")).level.as_deref(), Some(level));
    }
    for level in ["warning", "narrows", "info,narrows", "narrows=loud", "", "narrows=debug,,warn", "[", "a[b{c=]"] {
        let problem = only(&format!("listen = \"127.0.0.1:0\"\n[log]\nlevel = \"{level}\"\n"));
        assert!(problem.starts_with("narrows.toml:3: `level`"), "{level}: {problem}");
    }
    let problem = only("[log]\nformat = \"JSON\"\n");
    assert!(problem.contains("narrows.toml:2") && problem.contains("\"text\" or \"json\""), "{problem}");
}

#[test]
fn what_the_log_says_may_change_and_where_the_journal_goes_may_not() {
    let env = Env::new();
    let old = env.load(ACME).expect("sound");
    let change = |text: &str| changes_needing_restart(&old, &env.load(&format!("{text}\n{ACME}")).expect("sound"));
    assert_eq!(change("[log]\nlevel = \"debug\"\nformat = \"json\""), [""; 0]);
    assert_eq!(change("[journal]\nstdout = true"), ["journal.stdout"]);
    assert_eq!(change("[journal]\nstdout = false"), [""; 0]);
}

#[test]
#[cfg(not(feature = "otlp"))]
fn traces_are_refused_where_they_are_not_built_in() {
    let text = "\n[traces]\nendpoint = \"http://127.0.0.1:4318/v1/traces\"\n";
    let problem = only(text);
    assert!(problem.starts_with("narrows.toml:2: [traces] is not in this build of Narrows; "), "{problem}");
    assert!(problem.contains("cargo install --path . --features otlp"), "{problem}");
}
