//! `capctl run` through the front door: what the command gets, what it cannot see, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use narrows::clock::UnixSeconds;
use narrows::config::starter;
use narrows::credential::{Secret, SecretName};
use narrows::store::ca::Ca;
use narrows::store::{Home, SecretStore, keys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A home made as `capctl init` makes it, with a service whose secret exists.
struct TestHome {
    folder: tempfile::TempDir,
    home: Home,
}

impl TestHome {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home")).unwrap();
        home.create().unwrap();
        let (root, _) = keys::create_root(&home).unwrap();
        Ca::create(&home, &[], UnixSeconds::now()).unwrap();
        let acme = "[[service]]\nname = \"acme\"\ncredential = \"acme-key\"\nhosts = [\"api.acme.test\"]\n\
                    inject = \"Authorization: Bearer {secret}\"\n[[service]]\nname = \"openai\"\ncredential = \"openai\"\n";
        fs::write(home.config(), format!("{}\n{acme}", starter(&root))).unwrap();
        fs::set_permissions(home.config(), fs::Permissions::from_mode(0o600)).unwrap();
        let name: SecretName = "openai".parse().unwrap();
        SecretStore::new(&home).set(&name, &Secret::new(b"sk-real-0123".to_vec()).unwrap()).unwrap();
        Self { folder, home }
    }

    fn capctl(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_capctl"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.folder.path());
        command.env("NARROWS_HOME", self.home.dir()).stdin(Stdio::null());
        command
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.capctl().arg("run").args(options).arg("--").args(command).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_gets_every_variable() {
    let home = TestHome::new();
    let output = home.run(&["--allow", "openai:read"], &["env"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let text = text(&output.stdout);
    let set: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy"] {
        assert!(set[name].starts_with("http://cap:"), "{name}");
        assert!(set[name].contains("@127.0.0.1:"), "{name}");
    }
    assert_eq!(set["NO_PROXY"], "localhost,127.0.0.1,::1");
    assert_eq!(set["NODE_USE_ENV_PROXY"], "1");
    assert_eq!(set["GIT_HTTP_PROXY_AUTHMETHOD"], "basic");
    for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "npm_config_cafile", "REQUESTS_CA_BUNDLE"] {
        assert!(set[name].ends_with("/bundle.pem"), "{name}");
    }
    assert!(set["NODE_EXTRA_CA_CERTS"].ends_with("/ca.pem"));
    assert!(!set["SSL_CERT_FILE"].starts_with(&*home.home.dir().to_string_lossy()));
    assert!(set["OPENAI_API_KEY"].starts_with("sk-"), "{}", set["OPENAI_API_KEY"]);
    assert_ne!(set["OPENAI_API_KEY"], "sk-real-0123");
    assert!(!PathBuf::from(set["SSL_CERT_FILE"]).exists(), "the bundle goes with the command");
}

#[test]
fn placeholders_are_only_for_granted_services() {
    let home = TestHome::new();
    let output = home.run(&["--allow", "acme:read"], &["env"]);
    assert!(!text(&output.stdout).contains("OPENAI_API_KEY"));
}

#[test]
fn the_bundle_holds_what_was_trusted_before_and_our_ca() {
    let home = TestHome::new();
    let other = rcgen::generate_simple_self_signed(vec!["corp.test".to_owned()]).unwrap().cert.pem();
    let path = home.folder.path().join("corp.pem");
    fs::write(&path, &other).unwrap();
    let mut command = home.capctl();
    command.env("REQUESTS_CA_BUNDLE", &path).env("SSL_CERT_DIR", home.folder.path());
    let script = "cat \"$SSL_CERT_FILE\"; echo \"dir=$SSL_CERT_DIR\"";
    let output = command.args(["run", "--allow", "acme", "--", "sh", "-c", script]).output().unwrap();
    let shown = text(&output.stdout).replace('\n', "");
    let ca = fs::read_to_string(home.home.ca_certificate()).unwrap();
    for pem in [other, ca] {
        let line: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(shown.contains(&line));
    }
    assert!(shown.ends_with("dir="), "{shown}");
}

#[test]
fn the_bundle_is_readable_where_temporary_files_lie_in_a_home_behind_a_link() {
    let home = TestHome::new();
    let link = home.folder.path().join("link");
    std::os::unix::fs::symlink(home.home.dir(), &link).unwrap();
    for (named, temporary) in [(link.as_path(), link.as_path()), (link.as_path(), home.home.dir())] {
        let mut command = home.capctl();
        command.env("NARROWS_HOME", named).env("TMPDIR", temporary);
        let script = "cat \"$SSL_CERT_FILE\" \"$NODE_EXTRA_CA_CERTS\"";
        let output = command.args(["run", "--allow", "acme", "--", "sh", "-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("BEGIN CERTIFICATE"));
    }
}

#[test]
fn the_exit_status_is_the_commands() {
    let home = TestHome::new();
    let status = |script: &str| home.run(&["--allow", "acme"], &["sh", "-c", script]).status.code();
    assert_eq!(status("exit 0"), Some(0));
    assert_eq!(status("exit 37"), Some(37));
    assert_eq!(status("kill -KILL $$"), Some(128 + 9));
    let missing = home.run(&["--allow", "acme"], &["no-such-command-here"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("capctl: error: cannot run no-such-command-here"));
}

#[test]
fn signals_reach_the_command() {
    let home = TestHome::new();
    for (signal, name, code) in [(Signal::SIGTERM, "TERM", 3), (Signal::SIGUSR1, "USR1", 4), (Signal::SIGHUP, "HUP", 5)]
    {
        let script = format!("trap 'exit {code}' {name}; echo ready; while :; do :; done");
        let mut command = home.capctl();
        command.args(["run", "--allow", "acme", "--", "sh", "-c", &script]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
    }
}

#[test]
fn without_a_grant_the_lines_to_type_are_shown() {
    let home = TestHome::new();
    let output = home.run(&[], &["true"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("capctl: error: "), "{stderr}");
    assert!(stderr.contains("capctl: hint: capctl run --allow acme:read -- true"), "{stderr}");
    let wrong = home.run(&["--allow", "acmee"], &["true"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("did you mean acme?"));
}

#[test]
fn the_home_is_hidden_or_the_first_line_says_that_it_is_not() {
    let home = TestHome::new();
    let dir = home.home.dir().display().to_string();
    // From inside the home too: a working directory outlives a mount over its path.
    let script = format!("ls -A '{dir}' . | grep -v : | tr -d '\\n'; cat '{dir}/store.key' secrets.json");
    let mut command = home.capctl();
    command.current_dir(home.home.dir());
    let output = command.args(["run", "--allow", "acme", "--", "sh", "-c", &script]).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if stderr.starts_with("capctl: warning: the agent can read ") {
        return;
    }
    assert_eq!(stdout, "", "{stderr}");
    assert!(stderr.contains("No such file"), "{stderr}");

    // What hides it can be taken away by nobody inside.
    let undo = format!("umount '{dir}' 2>/dev/null; umount -l '{dir}' 2>/dev/null; ls -A '{dir}'");
    assert_eq!(text(&home.run(&["--allow", "acme"], &["sh", "-c", &undo]).stdout), "");
    let around = format!("ls /proc/$PPID/root{dir} /proc/$PPID/cwd/ 2>/dev/null");
    assert_eq!(text(&home.run(&["--allow", "acme"], &["sh", "-c", &around]).stdout), "");
}

#[test]
fn a_home_in_whose_place_everybody_can_put_another_is_refused_by_both_programs() {
    let home = TestHome::new();
    let above = home.folder.path().canonicalize().unwrap();
    let set = |mode| fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
    let run = |arguments: &[&str]| home.capctl().args(arguments).output().unwrap();
    let commands: [&[&str]; 6] = [
        &["run", "--allow", "acme", "--", "echo", "ran"],
        &["env", "--allow", "acme"],
        &["init"],
        &["doctor"],
        &["secret", "list"],
        &["service", "rm", "acme"],
    ];
    let hint = format!("chmod o-w {}", above.display());
    set(0o777);
    for command in commands {
        let output = run(command);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains(&hint) && !said.contains("ran"), "{command:?}: {said}");
    }
    let mut narrows = Command::new(env!("CARGO_BIN_EXE_narrows"));
    let output = narrows.env("NARROWS_HOME", home.home.dir()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&hint), "{}", text(&output.stderr));
    // With the sticky bit nobody can, as in /tmp.
    set(0o1777);
    assert_eq!(text(&run(commands[0]).stdout), "ran\n");
}

#[test]
fn another_home_that_borrows_the_keys_of_this_one_is_refused() {
    let home = TestHome::new();
    // As somebody makes it who can write beside the home, and not in it: where their requests go is their own.
    let planted = Home::at(&home.folder.path().join("planted")).unwrap();
    let run = |arguments: &[&str]| home.capctl().env("NARROWS_HOME", planted.dir()).args(arguments).output().unwrap();
    assert!(run(&["init"]).status.success());
    assert!(run(&["service", "add", "openai"]).status.success());
    for name in ["secrets.json", "store.key"] {
        std::os::unix::fs::symlink(home.home.dir().join(name), planted.dir().join(name)).unwrap();
    }
    for command in [&["run", "--allow", "openai", "--", "echo", "ran"][..], &["secret", "list"], &["doctor"]] {
        let output = run(command);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("of another home") && !said.contains("ran"), "{said}");
    }
    let mut narrows = Command::new(env!("CARGO_BIN_EXE_narrows"));
    let output = narrows.env("NARROWS_HOME", planted.dir()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("of another home"), "{}", text(&output.stderr));

    // The twin: keys from a folder that is no home.
    let folder = home.folder.path().join("keys");
    fs::create_dir(&folder).unwrap();
    for name in ["secrets.json", "store.key"] {
        fs::copy(home.home.dir().join(name), folder.join(name)).unwrap();
        fs::remove_file(planted.dir().join(name)).unwrap();
        std::os::unix::fs::symlink(folder.join(name), planted.dir().join(name)).unwrap();
    }
    let output = run(&["run", "--allow", "openai", "--", "echo", "ran"]);
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
}

#[test]
fn a_home_that_was_swapped_while_the_command_ran_is_told() {
    for swapped in [true, false] {
        let home = TestHome::new();
        let mut command = home.capctl();
        command.args(["run", "--allow", "acme", "--", "sh", "-c", "echo ready; read -r line"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        if swapped {
            fs::rename(home.home.dir(), home.folder.path().join("orig")).unwrap();
            home.home.create().unwrap();
        }
        drop(child.stdin.take());
        let said = text(&child.wait_with_output().unwrap().stderr);
        assert_eq!(said.contains("is not the folder that it was before the command"), swapped, "{said}");
    }
}

#[test]
fn a_no_proxy_that_names_a_granted_host_is_said_and_replaced() {
    let home = TestHome::new();
    let run = |no_proxy: &str| {
        let mut command = home.capctl();
        command.env("NO_PROXY", no_proxy).args(["run", "--allow", "acme", "--", "true"]);
        text(&command.output().unwrap().stderr)
    };
    for named in ["api.acme.test", ".acme.test", "other,*.test", "*"] {
        assert!(run(named).contains("NO_PROXY named api.acme.test"), "{named}");
    }
    for other in ["cme.test", "api.acme.test.other", "localhost"] {
        assert!(!run(other).contains("NO_PROXY"), "{other}");
    }
}

#[test]
fn env_prints_lines_that_a_shell_reads_back() {
    let home = TestHome::new();
    let script = "eval \"$(\"$0\" env --allow openai:read --proxy http://127.0.0.1:9)\" 2>/dev/null; env";
    let mut command = home.capctl();
    let shell = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_capctl")])
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .unwrap();
    let shown = text(&shell.stdout);
    let set: BTreeMap<&str, &str> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    assert!(set["https_proxy"].starts_with("http://cap:") && set["https_proxy"].ends_with("@127.0.0.1:9"));
    assert!(fs::read_to_string(set["SSL_CERT_FILE"]).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(set["OPENAI_API_KEY"].starts_with("sk-"));

    let output = command.args(["env", "--allow", "openai", "--ttl", "2h"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn the_first_command_serves_those_that_come_later() {
    let home = TestHome::new();
    let script = "echo ready; read -r line";
    let mut first = home.capctl();
    first.args(["run", "--allow", "acme", "--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert!(home.home.socket().exists(), "the first one owns the socket");
    assert!(home.run(&["--allow", "acme"], &["true"]).status.success());
    assert!(home.home.socket().exists(), "and keeps it when a later one ends");
    drop(first.stdin.take());
    first.wait().unwrap();
    assert!(!home.home.socket().exists());
}

#[test]
fn a_capability_from_files_is_narrowed_by_allow_and_its_key_is_warned_about() {
    let home = TestHome::new();
    let key = keys::generate(narrows::capability::Algorithm::Ed25519).unwrap();
    let root = keys::read_private(&home.home.root_key()).unwrap();
    let block = narrows::capability::AuthorityBlock {
        holder: *key.public(),
        user: None,
        rights: vec![("acme".to_owned(), "*".to_owned())],
        caveats: Vec::new(),
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    let capability = narrows::capability::mint(&root, 1, &block, [7; 32]).unwrap();
    let (cap_file, key_file) = (home.folder.path().join("a.cap"), home.folder.path().join("a.key"));
    fs::write(&cap_file, capability.to_text()).unwrap();
    fs::set_permissions(&cap_file, fs::Permissions::from_mode(0o600)).unwrap();
    keys::write_private(&key_file, &key).unwrap();
    let (cap, key) = (cap_file.to_str().unwrap(), key_file.to_str().unwrap());

    let output = home.run(&["--cap", cap, "--key", key, "--allow", "acme:read"], &["true"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the agent can read the holder's key"), "{}", text(&output.stderr));

    let other = home.folder.path().join("b.key");
    keys::write_private(&other, &keys::generate(narrows::capability::Algorithm::Ed25519).unwrap()).unwrap();
    let wrong = home.run(&["--cap", cap, "--key", other.to_str().unwrap()], &["true"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(home.run(&["--cap", cap], &["true"]).status.code(), Some(2), "a capability needs its key");
}
