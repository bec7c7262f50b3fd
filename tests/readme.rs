//! What the README tells a newcomer to type, typed: its own lines, against a stand-in for the API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]
#![allow(dead_code, reason = "the support code serves other tests too")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use support::ca::{Alpn, TestCa};
use support::client::{Ran, clean, program, run, skip};
use support::origin::Origin;

const TOKEN: &str = "ghp_5sQv1Kc0R8mUe3TzXa7NdYb2LpWf9JhGq4o6";

/// The fenced block that comes first after `heading`, or so many after it.
fn fenced(heading: &str, number: usize) -> &'static str {
    let readme = include_str!("../README.md");
    let after = readme.split_once(heading).unwrap_or_else(|| panic!("the README has no {heading:?}")).1;
    after.split("```").nth(1 + 2 * number).unwrap()
}

/// The commands in the block that comes first after `heading`.
fn block(heading: &str) -> Vec<String> {
    block_at(heading, 0)
}

fn block_at(heading: &str, number: usize) -> Vec<String> {
    let lines = fenced(heading, number).replace("\\\n", " ");
    let commands = lines.lines().filter(|line| line.starts_with("capctl") || line.starts_with("narrows"));
    commands.map(str::to_owned).collect()
}

struct Newcomer {
    dir: tempfile::TempDir,
    ca: TestCa,
    origin: Origin,
}

impl Newcomer {
    fn new() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new());
        let origin = Origin::https(&ca, &["api.github.com"], Alpn::Both);
        origin.put("/repos/acme/widgets", "application/json", "{\"full_name\":\"acme/widgets\"}");
        std::fs::create_dir(dir.path().join("user")).unwrap();
        std::fs::write(dir.path().join("token.txt"), format!("{TOKEN}\n")).unwrap();
        let agent = dir.path().join("agent");
        std::fs::write(&agent, "#!/bin/sh\nexec curl -sS https://api.github.com/repos/acme/widgets\n").unwrap();
        std::fs::set_permissions(agent, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, ca, origin }
    }

    /// A line, in a shell, as it stands.
    #[track_caller]
    fn types(&self, line: &str) -> Ran {
        let binaries = Path::new(env!("CARGO_BIN_EXE_capctl")).parent().unwrap();
        let path = std::env::join_paths(
            [binaries.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut shell = clean(Path::new("/bin/sh"));
        shell.args(["-c", line]).current_dir(self.dir.path());
        // No more than a newcomer has: an empty HOME.
        shell.env("PATH", path.unwrap()).env("HOME", self.user()).env("USER", "newcomer");
        let ran = run(&mut shell, b"");
        assert!(!ran.said().contains(TOKEN), "{line} showed the secret");
        ran
    }

    fn user(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    /// The stand-in in the API's place: all that differs from the README.
    fn stand_in(&self) {
        let data = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
        let config = self.user().join(data).join("narrows/narrows.toml");
        let dial = format!(
            "\n[upstream]\nextra_ca = \"{}\"\nconnect_to = {{ \"api.github.com:443\" = \"{}\" }}\n",
            self.ca.pem_path().display(),
            self.origin.addr
        );
        std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &dial).unwrap();
    }

    /// Types the lines of the five minutes. Gives what the last of them said.
    fn five_minutes(&self) -> Ran {
        let mut last = None;
        for line in block("## Five minutes with a real API") {
            last = Some(self.types(&line).succeeded());
            if line.starts_with("capctl init") {
                self.stand_in();
            }
        }
        last.unwrap()
    }
}

#[test]
fn the_five_minutes_are_as_written() {
    if program("curl").is_none() {
        return skip("readme", "there is no curl");
    }
    let newcomer = Newcomer::new();
    newcomer.five_minutes().says("acme/widgets");
    assert_eq!(newcomer.origin.only().header("authorization"), Some(&*format!("Bearer {TOKEN}")));
    for line in block("Who did what:") {
        let line = line.replace("audit tail", "audit tail --no-follow");
        newcomer.types(&line).succeeded();
    }
    newcomer.types("capctl audit tail --no-follow").succeeded().says("api.github.com/repos/acme/widgets");
}

#[test]
fn handing_less_to_a_sub_agent_is_as_written() {
    if program("curl").is_none() {
        return skip("readme", "there is no curl");
    }
    let newcomer = Newcomer::new();
    newcomer.five_minutes();
    for line in block("### Hand less to a sub-agent") {
        let ran = newcomer.types(&line);
        match line.split(' ').nth(1).unwrap() {
            // Writing is what the sub-agent was not given.
            "explain" => assert_eq!(ran.code, Some(3), "{}", ran.said()),
            "run" => _ = ran.succeeded().says("acme/widgets"),
            _ => _ = ran.succeeded(),
        }
    }
    let run = block("### Hand less to a sub-agent").into_iter().find(|line| line.starts_with("capctl run")).unwrap();
    newcomer.types(&run).succeeded().says("capability_revoked");
}

#[test]
fn the_sidecar_is_as_written() {
    let (newcomer, heading) = (Newcomer::new(), "## A sidecar beside any agent");
    for line in block(heading) {
        newcomer.types(&line).succeeded();
    }
    let config = newcomer.dir.path().join("home/narrows.toml");
    let listener = fenced(heading, 1).strip_prefix("toml").unwrap();
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + listener).unwrap();
    for line in block_at(heading, 2) {
        newcomer.types(&line).succeeded();
    }
    let env = std::fs::read_to_string(newcomer.dir.path().join("share/env")).unwrap();
    assert!(env.contains("HTTPS_PROXY=http://127.0.0.1:7090"), "{env}");
    assert!(env.contains("GITHUB_TOKEN="), "{env}");
}

/// What `docs/deploy.md` has to be typed before a pod, up to what needs a cluster.
#[test]
fn the_pod_is_prepared_as_written() {
    let newcomer = Newcomer::new();
    let deploy = include_str!("../docs/deploy.md").split_once("**What to prepare.**").unwrap().1;
    let mut blocks = deploy.split("```").skip(1).step_by(2);
    let (prepare, config, share) = (blocks.next().unwrap(), blocks.next().unwrap(), blocks.next().unwrap());
    newcomer.types(&format!("set -e; exec < token.txt{prepare}")).succeeded();
    let path = newcomer.dir.path().join("h/narrows.toml");
    let (places, tables) = config.strip_prefix("toml").unwrap().split_once("\n\n").unwrap();
    let kept = std::fs::read_to_string(&path).unwrap();
    let kept = kept.lines().filter(|line| !line.starts_with("listen") && !line.starts_with("admin"));
    let kept = kept.collect::<Vec<_>>().join("\n");
    std::fs::write(&path, format!("{places}\n{kept}\n{tables}")).unwrap();
    for line in share.lines().filter(|line| line.starts_with("narrows ") || line.starts_with("capctl ")) {
        newcomer.types(line).succeeded();
    }
    assert!(share.contains("narrows --home h --check"));
    let written = std::fs::read_to_string(newcomer.dir.path().join("share/env")).unwrap();
    assert!(written.contains("SSL_CERT_FILE=/narrows/bundle.pem"), "{written}");
    // Every file that goes into the Secret is there.
    for file in share.split("--from-file=h/").skip(1).map(|rest| rest.split_whitespace().next().unwrap()) {
        assert!(newcomer.dir.path().join("h").join(file).exists(), "{file}");
    }
}
