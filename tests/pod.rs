//! The pod of `deploy/`, played by podman from images that buildah makes of nothing: an agent that has variables and
//! certificates, Narrows beside it, and an origin that wants the real key. Then the agent looks for that key.
//!
//! The images have this build's binaries with the libraries that they are linked to, because a static build would
//! compile everything again; `deploy/image` makes both kinds. This program plays the origin and the agent too.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::PATIENCE;
use support::client::{Ran, clean, program, python, run, run_within, skip};
use support::daemon::TestEnv;

const HOST: &str = "api.acme.test";
const ROLE: &str = "NARROWS_TEST_ROLE";
const ORIGIN: &str = "127.0.0.1:9443";
const LISTENER: &str = "127.0.0.1:7090";
const NARROWS: u32 = 27080;
/// What the agent sends where a key belongs.
const PLACEHOLDER: &str = "acme-placeholder-of-no-worth";
/// Building images and starting containers takes longer than a client does.
const LONG: Duration = PATIENCE.saturating_mul(6);

/// Written backwards, so that it is not in this program's file, which the agent searches too.
fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

fn secret() -> String {
    backwards("fedcba9876543210-evil-emca")
}

#[test]
fn the_variant_with_an_ordinary_sidecar_differs_in_nothing_else() {
    let Some(python) = python("yaml") else { return skip("pod", "no Python with yaml") };
    run(render(&python).arg("check"), b"").succeeded();
}

fn render(python: &Path) -> Command {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = clean(python);
    command.arg(top.join("tests/pod/render")).arg(top.join("deploy"));
    command
}

/// The roles of this program inside the pod; nothing outside.
#[test]
fn role() {
    match std::env::var(ROLE).as_deref() {
        Ok("origin") => origin(),
        Ok("agent") => agent(),
        _ => {}
    }
}

#[test]
fn an_agent_in_a_pod_uses_the_key_and_cannot_find_it() {
    let test = "pod";
    for needed in ["podman", "buildah", "runc", "curl", "ldd", "strip"] {
        if program(needed).is_none() {
            return skip(test, &format!("{needed} is not installed"));
        }
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "podman needs root here");
    }
    let Some(python) = python("yaml") else { return skip(test, "no Python with yaml") };
    let place = Place::new();
    place.build_images();
    place.fill();
    let pod = place.file("pod.yaml");
    let mut play = render(&python);
    play.arg("play").args([place.file("secret"), place.file("share")]).arg("localhost/narrows-test:latest");
    fs::write(&pod, run(&mut play, b"").succeeded().stdout).unwrap();
    place.podman(&["play", "kube", "--network", "none", pod.to_str().unwrap()]);

    let ended = place.podman_allowed_to_fail(&["wait", "agent-agent"]);
    let said = place.logs();
    assert_eq!(ended.stdout.trim(), "0", "{said}");
    assert!(said.contains("the agent found nothing"), "{said}");
    // What its probes run.
    place.podman(&["exec", "agent-narrows", "/bin/capctl", "admin", "alive"]);
    place.podman(&["exec", "agent-narrows", "/bin/capctl", "admin", "ready"]);
    let saw: BTreeSet<&str> = said.lines().filter_map(|line| line.strip_prefix("origin saw ")).collect();
    let (through, around) = (format!("/v1/items Bearer {}", secret()), format!("/v1/around Bearer {PLACEHOLDER}"));
    assert_eq!(saw, BTreeSet::from([through.as_str(), around.as_str()]), "{said}");

    // SIGTERM drains, and the status says that it was no accident.
    place.podman(&["kill", "--signal", "TERM", "agent-narrows"]);
    assert_eq!(place.podman(&["wait", "agent-narrows"]).stdout.trim(), "0", "{}", place.logs());
}

/// Folders of the test's own for all that podman keeps.
struct Place {
    env: TestEnv,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Nothing of the machine's own is used or changed: neither its locks nor its networks.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             [network]\nnetwork_config_dir = \"{}\"\n",
            folder.path().join("networks").display()
        );
        fs::write(folder.path().join("containers.conf"), settings).unwrap();
        Self { env: TestEnv::new(), folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// podman or buildah with nothing of the machine's own.
    fn tool(&self, name: &str) -> Command {
        let mut command = clean(Path::new(name));
        command.env("CONTAINERS_CONF", self.file("containers.conf")).env("HOME", self.folder.path());
        command.args(["--storage-driver", "vfs"]);
        command.arg("--root").arg(self.file("root")).arg("--runroot").arg(self.file("run"));
        command
    }

    fn podman_allowed_to_fail(&self, arguments: &[&str]) -> Ran {
        run_within(self.tool("podman").arg("--tmpdir").arg(self.file("tmp")).args(arguments), b"", LONG)
    }

    #[track_caller]
    fn podman(&self, arguments: &[&str]) -> Ran {
        let ran = self.podman_allowed_to_fail(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}\n{}", ran.said(), self.logs());
        ran
    }

    fn logs(&self) -> String {
        ["agent-origin", "agent-narrows", "agent-agent"]
            .map(|name| self.podman_allowed_to_fail(&["logs", name]).said())
            .join("\n")
    }

    /// Narrows by `deploy/image`, and one with this program and curl in it.
    fn build_images(&self) {
        let binaries = self.file("binaries");
        fs::create_dir(&binaries).unwrap();
        for (from, name) in [(env!("CARGO_BIN_EXE_narrows"), "narrows"), (env!("CARGO_BIN_EXE_capctl"), "capctl")] {
            strip(Path::new(from), &binaries.join(name));
        }
        let also = self.file("also");
        libraries(&[&binaries.join("narrows"), &binaries.join("capctl")], &also);
        let buildah = self.tool("buildah");
        let words: Vec<_> = std::iter::once(buildah.get_program()).chain(buildah.get_args()).collect();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let image = |name: &str, binaries: &Path, also: &Path| {
            let mut command = clean(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image"));
            command.env("BUILDAH", words.join(" ")).env("CONTAINERS_CONF", self.file("containers.conf"));
            command.env("HOME", self.folder.path()).env("SOURCE_DATE_EPOCH", "0").env("NAME", name);
            command.env("BINARIES", binaries).env("ALSO", also);
            run_within(&mut command, b"", LONG).succeeded();
        };
        image("narrows:latest", &binaries, &also);

        let test = self.file("test");
        fs::create_dir_all(test.join("bin")).unwrap();
        strip(&std::env::current_exe().unwrap(), &test.join("bin/test"));
        fs::copy(program("curl").unwrap(), test.join("bin/curl")).unwrap();
        libraries(&[&test.join("bin/test"), &test.join("bin/curl")], &test);
        let container = self.buildah(&["from", "scratch"]);
        self.buildah(&["copy", &container, test.to_str().unwrap(), "/"]);
        let entry = r#"["/bin/test", "--exact", "role", "--nocapture"]"#;
        self.buildah(&["config", "--env", "PATH=/bin", "--cmd", "", "--entrypoint", entry, &container]);
        self.buildah(&["commit", "--quiet", &container, "narrows-test:latest"]);
    }

    fn buildah(&self, arguments: &[&str]) -> String {
        run_within(self.tool("buildah").args(arguments), b"", LONG).succeeded().stdout.trim().to_owned()
    }

    /// The Secret, the shared files and the origin's.
    fn fill(&self) {
        let env = &self.env;
        env.secret("acme-key", &secret());
        let holder = env.mint("agent", &["acme:read path=/v1"]);
        let root = fs::read_to_string(env.home().join("root.pub")).unwrap();
        let toml = format!(
            "listen = \"off\"\nadmin = \"unix:admin.sock\"\n[roots]\n1 = \"{}\"\n\
             [upstream]\nroots = \"bundled\"\nextra_ca = \"origin-ca.pem\"\nconnect_to = {{ \"{HOST}:443\" = \"{ORIGIN}\" }}\n\
             [[listener]]\nname = \"agent\"\nlisten = \"{LISTENER}\"\ncapability = \"agent.cap\"\nkey = \"agent.key\"\n\
             [[service]]\nname = \"acme\"\ncredential = \"acme-key\"\nhosts = [\"{HOST}\"]\n\
             inject = \"Authorization: Bearer {{secret}}\"\nenv = {{ ACME_KEY = \"{PLACEHOLDER}\" }}\n",
            root.trim()
        );
        let home = env.home();
        fs::write(home.join("narrows.toml"), toml).unwrap();
        fs::set_permissions(home.join("narrows.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy(&holder.capability, home.join("agent.cap")).unwrap();
        fs::copy(&holder.key, home.join("agent.key")).unwrap();
        let share = self.file("share");
        env.capctl(&["env", "--listener", "agent", "--out", share.to_str().unwrap(), "--at", "/narrows"]).succeeded();

        // As the kubelet mounts a Secret where `fsGroup` is set: root's, lent to the group, behind a link.
        let (mounted, data) = (self.file("secret"), self.file("secret/..1"));
        fs::create_dir_all(&data).unwrap();
        symlink("..1", mounted.join("..data")).unwrap();
        let names = "narrows.toml ca.pem ca.key secrets.json store.key origin-ca.pem agent.cap agent.key";
        for name in names.split(' ') {
            fs::copy(home.join(name), data.join(name)).unwrap();
            fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o440)).unwrap();
            chown(data.join(name), Some(0), Some(NARROWS)).unwrap();
            symlink(format!("..data/{name}"), mounted.join(name)).unwrap();
        }
        let origin = self.file("origin");
        fs::create_dir(&origin).unwrap();
        let (certificate, key) = env.ca.issue(HOST);
        for (name, text) in [("cert.pem", certificate), ("key.pem", key)] {
            fs::write(origin.join(name), text).unwrap();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.podman_allowed_to_fail(&["pod", "rm", "--force", "--time", "1", "agent"]);
    }
}

fn strip(from: &Path, to: &Path) {
    run(clean(Path::new("strip")).arg("-o").arg(to).arg(from), b"").succeeded();
}

/// Copies what these programs are linked to, at the same paths.
fn libraries(programs: &[&Path], into: &Path) {
    for linked in programs.iter().map(|program| run(clean(Path::new("ldd")).arg(program), b"").succeeded().stdout) {
        for path in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = into.join(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        }
    }
}

/// Answers who shows the real key, and says what it saw.
fn origin() {
    let certificate = CertificateDer::from_pem_file("/origin/cert.pem").unwrap();
    let key = PrivateKeyDer::from_pem_file("/origin/key.pem").unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    for stream in TcpListener::bind(ORIGIN).unwrap().incoming() {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap());
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && tls.read(&mut byte).is_ok_and(|read| read == 1) {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let Some(path) = head.split(' ').nth(1) else { continue };
        let header = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        let shown = header.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim());
        println!("origin saw {path} {shown}");
        let status = if shown == format!("Bearer {}", secret()) { "200 OK" } else { "401 Unauthorized" };
        let _ = write!(tls, "HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nitems");
        tls.conn.send_close_notify();
        let _ = tls.flush();
    }
}

/// curl with what the pod gives: its status and body.
fn curl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("/bin/curl");
    command.args(["-q", "-sS", "-m", "20", "-w", "\n%{http_code}"]).args(arguments);
    let key = std::env::var("ACME_KEY").unwrap();
    let ran = command.args(["-H", &format!("Authorization: Bearer {key}")]).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", ""));
    (status.to_owned(), format!("{body}{}", String::from_utf8_lossy(&ran.stderr)))
}

/// Uses what it was given, then looks for more.
fn agent() {
    // An ordinary sidecar, unlike a native one, may start later.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(LISTENER).is_err() || TcpStream::connect(ORIGIN).is_err() {
        assert!(Instant::now() < deadline, "nobody is there");
        std::thread::yield_now();
    }
    let url = |path: &str| format!("https://{HOST}{path}");
    assert_eq!(curl(&[&url("/v1/items")]), ("200".to_owned(), "items".to_owned()));
    for another in [&["/v2/items"][..], &["/v1/items", "-X", "POST"]] {
        let (status, body) = curl(&[&[&*url(another[0])], &another[1..]].concat());
        assert!(status == "403" && body.contains("capability_denied"), "{status} {body}");
    }
    let (status, body) = curl(&["https://elsewhere.test/"]);
    assert_ne!(status, "200", "{body}");
    // Around the proxy there is only what the agent has itself.
    let around = ["--noproxy", "*", "--insecure", "--connect-to", &format!("{HOST}:443:{ORIGIN}")];
    assert_eq!(curl(&[&around[..], &[&url("/v1/around")]].concat()).0, "401");
    assert_eq!(curl(&[&["--noproxy", "*"][..], &[&url("/v1/items")]].concat()).0, "000", "there is no other network");
    // The operator's listener, and that for clients with credentials.
    for port in [7080, 7081] {
        assert!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err(), "{port}");
    }
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for line in sockets.lines().filter(|line| line.contains("narrows") || line.contains("admin.sock")) {
        let path = line.split_whitespace().last().unwrap();
        assert!(std::os::unix::net::UnixStream::connect(path).is_err(), "{path}");
    }

    let mut found = search(|bytes| {
        let digits = |rest: &[u8]| rest.len() >= 64 && rest[..64].iter().all(u8::is_ascii_hexdigit);
        let key = after(bytes, &backwards("/etavirp-91552de")).any(digits);
        let pem = after(bytes, &backwards("-----YEK ETAVIRP")).any(|rest| rest.starts_with(b"\nM"));
        key || pem || after(bytes, &secret()).next().is_some()
    });
    // A library of the image's own has keys to test itself with.
    found.retain(|place| !place.ends_with("/libgnutls.so.30"));
    assert!(found.is_empty(), "{found:?}");
    // The same search finds what is there.
    let has = |text: &'static str| search(move |bytes| after(bytes, text).next().is_some());
    assert!(has(PLACEHOLDER).iter().any(|place| place.starts_with("/proc/")));
    assert!(has("BEGIN CERTIFICATE-----\nM").contains(&"/narrows/ca.pem".to_owned()));
    println!("the agent found nothing");
}

/// The files in which it is, among them what `/proc` tells of processes and their memory but our own.
fn search(is_in: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/")]);
    let own = std::process::id().to_string();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(kind) = path.symlink_metadata() else { continue };
            if path.starts_with("/sys") || path.starts_with("/dev") {
                continue;
            }
            if kind.is_dir() && (path == Path::new("/proc") || !path.starts_with("/proc")) {
                folders.push(path);
            } else if kind.is_dir() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if name.bytes().all(|byte| byte.is_ascii_digit()) {
                    let files = ["environ", "cmdline", "mem", "maps", "root/etc/narrows/agent.key"];
                    let files = files.iter().filter(|file| name != own || **file != "mem");
                    found.extend(files.map(|file| path.join(file)).filter(|file| is_in(&content(file))));
                }
            } else if !path.starts_with("/proc") && is_in(&content(&path)) {
                found.push(path);
            }
        }
    }
    found.iter().map(|path| path.display().to_string()).collect()
}

/// What follows each place where `text` is.
fn after<'b>(bytes: &'b [u8], text: &str) -> impl Iterator<Item = &'b [u8]> {
    let length = text.len();
    let finder = memchr::memmem::Finder::new(text).into_owned();
    let places: Vec<usize> = finder.find_iter(bytes).collect();
    places.into_iter().map(move |place| &bytes[place + length..])
}

/// What can be read of a file.
fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = fs::File::open(path).and_then(|file| file.take(256 << 20).read_to_end(&mut bytes));
    bytes
}
