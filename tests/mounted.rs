//! A proxy beside an agent, from files that somebody mounts: links to them, a swap as Kubernetes does it, and the files
//! that the agent gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::PATIENCE;
use support::agent::Agent;
use support::ca::Alpn;
use support::client::clean;
use support::daemon::{Daemon, Holder, TestEnv};
use support::origin::Origin;

const HOST: &str = "api.acme.test";
const SECRET: &str = "acme-live-0123456789abcdef";
/// Whom the proxy runs as, where the test may say so.
const NARROWS: u32 = 65532;
/// What a mounted Secret holds.
const FILES: [&str; 8] =
    ["narrows.toml", "ca.pem", "ca.key", "secrets.json", "store.key", "origin-ca.pem", "agent.cap", "agent.key"];

/// A folder as the kubelet makes one of a Secret: files in `..N`, a link `..data` to it, a link for each file.
struct Mounted {
    folder: PathBuf,
    version: u32,
}

impl Mounted {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o1777);
        for name in FILES {
            symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
        Self { folder, version: 0 }
    }

    /// Puts the files of `home` and what this holder has in the place of what is there, all at once.
    fn swap(&mut self, home: &Path, holder: &Holder) {
        let (old, new) = (self.version, self.version + 1);
        let folder = self.folder.join(format!("..{new}"));
        fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o755);
        for name in FILES {
            let from = match name {
                "agent.cap" => holder.capability.clone(),
                "agent.key" => holder.key.clone(),
                _ => home.join(name),
            };
            let to = folder.join(name);
            fs::write(&to, fs::read(from).unwrap()).unwrap();
            if nix::unistd::geteuid().is_root() {
                // As for a pod with `fsGroup`: root's, and lent to the group.
                set_mode(&to, 0o440);
                chown(&to, Some(0), Some(NARROWS)).unwrap();
            } else {
                set_mode(&to, 0o400);
            }
        }
        symlink(format!("..{new}"), self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
        if old > 0 {
            fs::remove_dir_all(self.folder.join(format!("..{old}"))).unwrap();
        }
        self.version = new;
    }
}

impl Mounted {
    /// One more file, as the next version of the Secret would have it.
    fn add(&self, name: &str, bytes: &[u8]) {
        let to = self.folder.join("..data").join(name);
        fs::write(&to, bytes).unwrap();
        set_mode(&to, 0o440);
        if nix::unistd::geteuid().is_root() {
            chown(&to, Some(0), Some(NARROWS)).unwrap();
        } else {
            set_mode(&to, 0o400);
        }
        symlink(Path::new("..data").join(name), self.folder.join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        for path in [self.folder.join(name), self.folder.join("..data").join(name)] {
            fs::remove_file(path).unwrap();
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `narrows --mounted` on a home of its own, as a user of its own where the test is root.
fn narrows(env: &TestEnv, mounted: &Path) -> Command {
    let (program, data) = (env.file("narrows"), env.file("data"));
    set_mode(&env.file(""), 0o755);
    fs::copy(env!("CARGO_BIN_EXE_narrows"), &program).unwrap();
    fs::create_dir_all(&data).unwrap();
    let mut command = clean(&program);
    command.arg("--home").arg(data.join("home")).arg("--mounted").arg(mounted).env("NARROWS_LOG", "info");
    if nix::unistd::geteuid().is_root() {
        chown(&data, Some(NARROWS), Some(NARROWS)).unwrap();
        command.uid(NARROWS).gid(NARROWS);
    }
    command
}

fn env(listen: &str, origin: impl FnOnce(&TestEnv) -> SocketAddr) -> TestEnv {
    let mut env = TestEnv::new();
    let origin = origin(&env);
    env.acme_at(SECRET, origin);
    env.setting(&format!(
        "[[listener]]\nname = \"agent\"\nlisten = \"{listen}\"\ncapability = \"agent.cap\"\nkey = \"agent.key\"\n"
    ));
    env
}

fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never was");
    }
}

fn agent(env: &TestEnv, daemon: &mut Daemon) -> Agent {
    let line = daemon.wait_for_log(" for agent");
    let address = line.split(" for agent").next().unwrap().rsplit(' ').next().unwrap().to_owned();
    Agent::at(address.parse().unwrap(), &env.home().join("ca.pem"), None)
}

#[test]
fn a_secret_and_a_capability_are_rotated_by_swapping_the_mounted_files() {
    let mut origin = None;
    let env = env("127.0.0.1:0", |env| origin.insert(Origin::https(&env.ca, &[HOST], Alpn::Both)).addr);
    let origin = origin.unwrap();
    origin.put("/v1/items", "text/plain", "items");
    origin.put("/v2/items", "text/plain", "more items");
    env.write_config();
    let mut mounted = Mounted::new(env.file("mounted"));
    let (narrow, wide) = (env.mint("narrow", &["acme:read path=/v1"]), env.mint("wide", &["acme:read"]));
    mounted.swap(&env.home(), &narrow);
    let mut daemon = env.start_traced(|_| narrows(&env, &mounted.folder));
    let agent = agent(&env, &mut daemon);
    assert_eq!(agent.get(HOST, "/v1/items").text(), "items");
    assert_eq!(agent.get(HOST, "/v2/items").code(), "capability_denied");
    assert_eq!(origin.wait_for("/v1/items").headers["authorization"], format!("Bearer {SECRET}").as_str());

    env.secret("acme-key", "acme-live-of-tomorrow");
    mounted.swap(&env.home(), &wide);
    until(|| agent.get(HOST, "/v2/items").status() == 200);
    let seen = origin.wait_for("/v2/items");
    assert_eq!(seen.headers["authorization"], "Bearer acme-live-of-tomorrow");
    assert!(!daemon.log().contains("the running configuration stays"), "{}", daemon.log());
    let (_, code) = daemon.stop();
    assert_eq!(code, Some(0));
}

#[test]
fn a_mounted_file_that_everybody_reads_is_refused() {
    let env = env("127.0.0.1:0", |_| SocketAddr::from(([127, 0, 0, 1], 9)));
    env.write_config();
    let mut mounted = Mounted::new(env.file("mounted"));
    mounted.swap(&env.home(), &env.mint("agent", &["acme:read"]));
    let key = mounted.folder.join("..data/ca.key");
    set_mode(&key, fs::metadata(&key).unwrap().permissions().mode() & 0o777 | 0o004);
    let refused = support::client::run(&mut narrows(&env, &mounted.folder), b"").failed();
    refused.says("ca.key is private");
}

#[test]
fn what_leaves_the_mount_keeps_nobody_from_starting_again_but_for_the_revocations() {
    let env = env("127.0.0.1:0", |_| SocketAddr::from(([127, 0, 0, 1], 9)));
    env.write_config();
    let mut mounted = Mounted::new(env.file("mounted"));
    mounted.swap(&env.home(), &env.mint("agent", &["acme:read"]));
    mounted.add("ca-next.key", b"what a rotation leaves");
    mounted.add("revoked.jsonl", b"");
    let daemon = env.start_traced(|_| narrows(&env, &mounted.folder));
    daemon.stop();

    mounted.remove("ca-next.key");
    let mut daemon = env.start_traced(|_| narrows(&env, &mounted.folder));
    assert!(daemon.log().contains("ca-next.key has left"), "{}", daemon.log());
    mounted.remove("revoked.jsonl");
    let said = daemon.wait_for_log("revoked.jsonl is a link to");
    assert!(said.contains("which is not there"), "{said}");
    daemon.stop();

    let refused = support::client::run(&mut narrows(&env, &mounted.folder), b"").failed();
    refused.says("revoked.jsonl is a link to").says("hint: put ");
    mounted.add("revoked.jsonl", b"");
    env.start_traced(|_| narrows(&env, &mounted.folder)).stop();
}

/// `env` of an agent's folder, as names and values.
fn variables(folder: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.join("env")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_agents_files_have_every_variable_and_no_credential() {
    let mut env = env("127.0.0.1:7090", |_| SocketAddr::from(([127, 0, 0, 1], 9)));
    env.catalogue("openai", "sk-real-0123");
    env.catalogue("stripe", "sk_live_real");
    let holder = env.mint("agent", &["openai:read"]);
    fs::copy(&holder.capability, env.home().join("agent.cap")).unwrap();
    fs::copy(&holder.key, env.home().join("agent.key")).unwrap();
    env.write_config();
    let share = env.file("share");
    let out = share.to_str().unwrap();
    env.capctl(&["env", "--listener", "agent", "--out", out, "--at", "/narrows"]).succeeded();
    let set = variables(&share);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy"] {
        assert_eq!(set[name], "http://127.0.0.1:7090", "{name}");
    }
    assert_eq!(set["SSL_CERT_FILE"], "/narrows/bundle.pem");
    assert_eq!(set["NODE_EXTRA_CA_CERTS"], "/narrows/ca.pem");
    assert!(set["OPENAI_API_KEY"].starts_with("sk-"));
    assert!(!set.contains_key("STRIPE_API_KEY"), "it is not granted");
    let capability = fs::read_to_string(&holder.capability).unwrap();
    for (name, held) in [("env", SECRET), ("env", "sk-real-0123"), ("env", capability.trim()), ("ca.pem", "PRIVATE")] {
        assert!(!fs::read_to_string(share.join(name)).unwrap().contains(held), "{name}");
    }
    // What `capctl run` gives its command, but for the values of this proxy.
    let run = env.capctl(&[
        "run",
        "--cap",
        holder.capability.to_str().unwrap(),
        "--key",
        holder.key.to_str().unwrap(),
        "--",
        "env",
    ]);
    let run = run.succeeded().stdout;
    let inherited = ["PATH", "HOME", "USER", "LANG", "NARROWS_HOME"];
    let names = run.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    for name in names.filter(|name| !inherited.contains(name) && std::env::var_os(name).is_none()) {
        assert!(set.contains_key(name), "{name}");
    }

    let shell = ["env", "--listener", "agent", "--out", out, "--at", "/it's", "--format", "export"];
    env.capctl(&shell).succeeded();
    let read = env.shell("set -a; . \"$1\"; env").arg(share.join("env")).output().unwrap().stdout;
    assert!(String::from_utf8(read).unwrap().contains("SSL_CERT_FILE=/it's/bundle.pem\n"));

    env.capctl(&["env", "--listener", "other", "--out", out]).failed().says("capctl env --listener agent");
    env.capctl(&["env", "--listener", "agent", "--out", out, "--allow", "acme"]).failed();
    env.capctl(&["env", "--listener", "agent"]).failed().says("--out");
}

#[test]
fn a_listener_without_a_proxys_address_gives_no_proxy_variables() {
    for (listen, more, given) in [("127.0.0.1:7090", "transparent = true", true), ("127.0.0.1:0", "", false)] {
        let mut env = env(listen, |_| SocketAddr::from(([127, 0, 0, 1], 9)));
        // It comes after the listener's table, and so belongs to it.
        env.setting(more);
        let holder = env.mint("agent", &["acme:read"]);
        fs::copy(&holder.capability, env.home().join("agent.cap")).unwrap();
        fs::copy(&holder.key, env.home().join("agent.key")).unwrap();
        env.write_config();
        let share = env.file("share");
        let ran = env.capctl(&["env", "--listener", "agent", "--out", share.to_str().unwrap()]);
        if given {
            ran.succeeded();
            let set = variables(&share);
            assert!(!set.contains_key("HTTPS_PROXY"));
            assert_eq!(set["SSL_CERT_FILE"], share.join("bundle.pem").to_str().unwrap());
        } else {
            ran.failed().says("--proxy http://");
        }
    }
}
