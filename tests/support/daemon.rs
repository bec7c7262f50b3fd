//! Narrows as its users run it: a temporary home, and the `narrows` binary on port 0.
//!
//! Homes, secrets and capabilities come from the library here, and from `capctl` where a test is about what a person
//! types: `by_capctl`, `mint_by_capctl`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use narrows::audit;
use narrows::capability::{
    self, Algorithm, AuthorityBlock, Budget, Capability, Context, Credentials, Grant, Limits, ParamNames, Proof,
    Purpose, Rate, Revocation, Roots, Subject, expires_at, grants_to_check, rights_of,
};
use narrows::clock::UnixSeconds;
use narrows::credential::Secret;
use narrows::store::ca::Ca;
use narrows::store::{Home, SecretStore, keys, random, revoked};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;
use super::ca::TestCa;
use super::client::{Ran, clean, run};
use super::origin::Origin;

/// The id of the home's root key in `[roots]`.
const ROOT_KID: u32 = 1;

/// How long a proxy may drain that is only to go away: a test may still hold a connection open.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// A home, and what its configuration will say.
pub(crate) struct TestEnv {
    pub(crate) ca: TestCa,
    dir: tempfile::TempDir,
    connect_to: Vec<(String, SocketAddr)>,
    services: String,
    settings: String,
    /// More lines of `[upstream]`.
    upstream: String,
    /// Catalogue services to add, with their credential's name.
    catalogue: Vec<(String, String)>,
}

/// A capability and its holder's key, as files.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) capability: PathBuf,
    pub(crate) key: PathBuf,
}

impl Holder {
    /// Credentials for any CONNECT in the next ten minutes.
    #[track_caller]
    pub(crate) fn presentation(&self) -> String {
        self.prove(Purpose::Presentation, 600)
    }

    /// Credentials for one CONNECT to `host:port`.
    #[track_caller]
    pub(crate) fn proof(&self, target: &str) -> String {
        self.prove(Purpose::Connect { target }, 60)
    }

    #[track_caller]
    fn prove(&self, purpose: Purpose<'_>, ttl_s: u32) -> String {
        let capability = self.read().seal().unwrap();
        let key = keys::read_private(&self.key).unwrap();
        let context = Context { audience: "local", purpose, challenge: b"", binding: b"" };
        let nonce = random::bytes().unwrap();
        let proof = Proof::sign(&key, &capability.sha256(), UnixSeconds::now(), ttl_s, nonce, &context).unwrap();
        Credentials { capability, proof }.to_text()
    }

    fn read(&self) -> Capability {
        Capability::from_text(std::fs::read_to_string(&self.capability).unwrap().trim()).unwrap()
    }
}

impl TestEnv {
    /// A new home, and a certificate authority for the origins.
    pub(crate) fn new() -> Self {
        let env = Self::bare();
        let home = env.store();
        home.create().unwrap();
        Ca::create(&home, &[], UnixSeconds::now()).unwrap();
        keys::create_root(&home).unwrap();
        std::fs::write(env.home().join("origin-ca.pem"), env.ca.pem()).unwrap();
        env
    }

    /// The same, with a home as `capctl init` makes it.
    #[track_caller]
    pub(crate) fn by_capctl() -> Self {
        let env = Self::bare();
        env.capctl(&["init"]).succeeded();
        std::fs::write(env.home().join("origin-ca.pem"), env.ca.pem()).unwrap();
        env
    }

    /// No home yet.
    pub(crate) fn bare() -> Self {
        Self {
            ca: TestCa::new(),
            dir: tempfile::tempdir().unwrap(),
            connect_to: Vec::new(),
            services: String::new(),
            settings: String::new(),
            upstream: String::new(),
            catalogue: Vec::new(),
        }
    }

    fn store(&self) -> Home {
        Home::at(&self.home()).unwrap()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A file outside the home, for keys and capabilities.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A `capctl` on this home, not yet run.
    pub(crate) fn command(&self) -> Command {
        self.on_this_home(Path::new(env!("CARGO_BIN_EXE_capctl")))
    }

    /// A shell on this home; what is added to its arguments is `"$@"`.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = self.on_this_home(Path::new("/bin/sh"));
        command.args(["-c", script, "sh"]);
        command
    }

    fn on_this_home(&self, program: &Path) -> Command {
        let mut command = clean(program);
        command.env("NARROWS_HOME", self.home()).env("HOME", self.dir.path()).env("USER", "tester");
        command
    }

    #[track_caller]
    pub(crate) fn capctl(&self, arguments: &[&str]) -> Ran {
        run(self.command().args(arguments), b"")
    }

    /// Stores a secret.
    #[track_caller]
    pub(crate) fn secret(&self, name: &str, value: &str) {
        let secret = Secret::new(value.as_bytes().to_vec()).unwrap();
        SecretStore::new(&self.store()).set(&name.parse().unwrap(), &secret).unwrap();
    }

    /// Stores a secret as a person would, through stdin.
    #[track_caller]
    pub(crate) fn secret_by_capctl(&self, name: &str, value: &str) {
        run(self.command().args(["secret", "set", name]), value.as_bytes()).succeeded();
    }

    /// Removes a secret.
    pub(crate) fn forget(&self, name: &str) {
        assert!(SecretStore::new(&self.store()).remove(&name.parse().unwrap()).unwrap());
    }

    /// Has the proxy dial `origin` for `host:443`.
    pub(crate) fn dial(&mut self, host: &str, origin: &Origin) {
        self.dial_at(&format!("{host}:443"), origin.addr);
    }

    pub(crate) fn dial_at(&mut self, host_and_port: &str, addr: SocketAddr) {
        self.connect_to.push((host_and_port.to_owned(), addr));
    }

    /// Adds a `[[service]]` to the configuration.
    pub(crate) fn service(&mut self, toml: &str) {
        let _ = write!(self.services, "\n[[service]]\n{toml}\n");
    }

    /// Adds a service of the catalogue, with a secret of its own.
    #[track_caller]
    pub(crate) fn catalogue(&mut self, service: &str, secret: &str) {
        let credential = format!("{service}-key");
        self.secret(&credential, secret);
        self.catalogue.push((service.to_owned(), credential));
    }

    /// Adds a line to `[upstream]`.
    pub(crate) fn upstream(&mut self, line: &str) {
        let _ = writeln!(self.upstream, "{line}");
    }

    /// Adds any other table to the configuration.
    pub(crate) fn setting(&mut self, toml: &str) {
        let _ = write!(self.settings, "\n{toml}\n");
    }

    /// The service that most tests use: `api.acme.test` with a bearer secret, dialled at `origin`.
    pub(crate) fn acme(&mut self, secret: &str, origin: &Origin) {
        self.acme_at(secret, origin.addr);
    }

    pub(crate) fn acme_at(&mut self, secret: &str, addr: SocketAddr) {
        self.secret("acme-key", secret);
        self.dial_at("api.acme.test:443", addr);
        self.service(
            r#"name = "acme"
credential = "acme-key"
hosts = ["api.acme.test"]
inject = "Authorization: Bearer {secret}""#,
        );
    }

    /// Writes `narrows.toml` as it stands now; a running proxy takes it up.
    pub(crate) fn write_config(&self) {
        let root = std::fs::read_to_string(self.home().join("root.pub")).unwrap();
        let mut toml = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"off\"\naudience = \"local\"\n\n[roots]\n1 = \"{}\"\n\n\
             [upstream]\nextra_ca = \"origin-ca.pem\"\n",
            root.trim()
        );
        if !self.connect_to.is_empty() {
            let rows: Vec<_> = self.connect_to.iter().map(|(name, addr)| format!("\"{name}\" = \"{addr}\"")).collect();
            let _ = writeln!(toml, "connect_to = {{ {} }}", rows.join(", "));
        }
        toml.push_str(&self.upstream);
        toml.push_str(&self.settings);
        toml.push_str(&self.services);
        for (service, credential) in &self.catalogue {
            let _ = write!(toml, "\n[[service]]\nname = \"{service}\"\ncredential = \"{credential}\"\n");
        }
        write_private(&self.home().join("narrows.toml"), &toml);
    }

    /// A new holder with a capability from the root that ends in an hour: `allow` are grants.
    #[track_caller]
    pub(crate) fn mint(&self, name: &str, allow: &[&str]) -> Holder {
        self.mint_with(name, allow, Vec::new(), Vec::new())
    }

    /// The same that ends after so many seconds.
    #[track_caller]
    pub(crate) fn mint_until(&self, name: &str, allow: &[&str], seconds: u64) -> Holder {
        self.minted(name, allow, seconds, Vec::new(), Vec::new())
    }

    /// The same with budgets and rates.
    #[track_caller]
    pub(crate) fn mint_with(&self, name: &str, allow: &[&str], budgets: Vec<Budget>, rates: Vec<Rate>) -> Holder {
        self.minted(name, allow, 3600, budgets, rates)
    }

    #[track_caller]
    fn minted(&self, name: &str, allow: &[&str], seconds: u64, budgets: Vec<Budget>, rates: Vec<Rate>) -> Holder {
        let grants: Vec<_> = allow.iter().map(|grant| Grant::parse(grant, &ParamNames::any()).unwrap()).collect();
        let mut caveats: Vec<_> = grants_to_check(&grants).unwrap().into_iter().collect();
        caveats.push(expires_at(UnixSeconds::now() + seconds));
        let key = keys::generate(Algorithm::Ed25519).unwrap();
        let block = AuthorityBlock {
            holder: *key.public(),
            user: Some("alice@example.com".to_owned()),
            rights: rights_of(&grants),
            caveats,
            budgets,
            rates,
        };
        let root = keys::read_private(&self.store().root_key()).unwrap();
        let capability = capability::mint(&root, ROOT_KID, &block, random::bytes().unwrap()).unwrap();
        let holder = self.holder(name);
        write_private(&holder.capability, &capability.to_text());
        keys::write_private(&holder.key, &key).unwrap();
        holder
    }

    /// A new holder from `capctl key new` and `capctl mint`.
    #[track_caller]
    pub(crate) fn mint_by_capctl(&self, name: &str, allow: &[&str]) -> Holder {
        let holder = self.holder(name);
        let public = run(self.command().args(["key", "new"]).arg(&holder.key), b"").succeeded().stdout;
        let mut mint = self.command();
        mint.args(["mint", "--to", public.trim(), "--user", "alice@example.com", "--expires", "1h", "--out"]);
        mint.arg(&holder.capability);
        for grant in allow {
            mint.args(["--allow", grant]);
        }
        run(&mut mint, b"").succeeded();
        holder
    }

    /// A new holder, to whom `by` has delegated all it has.
    #[track_caller]
    pub(crate) fn delegate(&self, by: &Holder, name: &str) -> Holder {
        let holder = self.holder(name);
        let public = run(self.command().args(["key", "new"]).arg(&holder.key), b"").succeeded().stdout;
        let mut attenuate = self.command();
        attenuate.arg("attenuate").arg("--cap").arg(&by.capability).arg("--key").arg(&by.key);
        attenuate.args(["--to", public.trim(), "--name", name, "--out"]).arg(&holder.capability);
        run(&mut attenuate, b"").succeeded();
        holder
    }

    fn holder(&self, name: &str) -> Holder {
        Holder { capability: self.file(&format!("{name}.cap")), key: self.file(&format!("{name}.key")) }
    }

    /// Revokes the last block of a capability.
    #[track_caller]
    pub(crate) fn revoke(&self, holder: &Holder) {
        let home = self.store();
        let roots = Roots::new([(ROOT_KID, keys::read_public(&home.root_public()).unwrap())].into());
        let verified = capability::verify(&holder.read(), &roots, &Limits::default()).unwrap();
        let block = verified.blocks().last().unwrap().id();
        let line = Revocation::new(Subject::Block(block), UnixSeconds::now(), None, None).to_line();
        revoked::append(&home.revoked(), &line).unwrap();
    }

    /// Whether the journal's chain holds.
    pub(crate) fn journal_is_sound(&self) -> bool {
        audit::verify(&self.home().join("audit"), None).unwrap().is_sound()
    }

    /// Writes the configuration and starts the proxy on it.
    #[track_caller]
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    /// The same with more variables in the proxy's environment.
    #[track_caller]
    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Daemon {
        self.write_config();
        Daemon::start(self.narrows(variables))
    }

    /// Starts the proxy on the configuration that is there, with more variables in its environment.
    #[track_caller]
    pub(crate) fn start_as_written_with(&self, variables: &[(&str, &str)]) -> Daemon {
        Daemon::start(self.narrows(variables))
    }

    /// Starts the proxy on the configuration that is there.
    #[track_caller]
    pub(crate) fn start_as_written(&self) -> Daemon {
        Daemon::start(self.narrows(&[]))
    }

    /// The same, started as `wrap` says: under another program.
    #[track_caller]
    pub(crate) fn start_traced(&self, wrap: impl FnOnce(&Command) -> Command) -> Daemon {
        Daemon::start(wrap(&self.narrows(&[])))
    }

    /// The proxy on this home, not yet run.
    pub(crate) fn narrows(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = clean(Path::new(env!("CARGO_BIN_EXE_narrows")));
        command.env("NARROWS_HOME", self.home()).env("HOME", self.dir.path()).envs(variables.iter().copied());
        command
    }

    /// Every line of the journal so far, oldest first within a file.
    pub(crate) fn journal(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for path in self.journal_files() {
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let text = std::fs::read_to_string(&path).unwrap();
                // The last one may be under way.
                let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                lines.extend(whole.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
            }
        }
        lines
    }

    /// Waits for a journal line that `wanted` holds for.
    #[track_caller]
    pub(crate) fn journal_line(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.journal();
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "no such line in the journal: {lines:#?}");
            std::thread::yield_now();
        }
    }

    /// Every file under `audit/`, the ring among them.
    pub(crate) fn journal_files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.home().join("audit")) else { return Vec::new() };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }
}

/// A running proxy. It is told to end, and must, when it is dropped.
pub(crate) struct Daemon {
    pub(crate) addr: SocketAddr,
    child: Child,
    log: Log,
}

/// What the proxy has written to stdout and stderr.
#[derive(Clone, Default)]
struct Log {
    text: Arc<(Mutex<String>, Condvar)>,
}

impl Daemon {
    #[track_caller]
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::default();
        log.follow(child.stdout.take().unwrap());
        log.follow(child.stderr.take().unwrap());
        let mut daemon = Self { addr: SocketAddr::from(([0, 0, 0, 0], 0)), child, log };
        let line = daemon.wait_for_log("listening on ");
        let addr = line.split("listening on ").nth(1).unwrap();
        // A line of JSON goes on.
        let addr = addr.split(|c: char| c.is_whitespace() || c == '"').next().unwrap();
        if !addr.starts_with("unix:") {
            daemon.addr = addr.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        daemon
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `HTTPS_PROXY` is for these credentials.
    pub(crate) fn proxy_url(&self, credentials: &str) -> String {
        format!("http://cap:{credentials}@{}", self.addr)
    }

    pub(crate) fn log(&self) -> String {
        self.log.text.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line with `words` in it.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (text, changed) = &*self.log.text;
        let mut text = text.lock().unwrap();
        loop {
            if let Some(line) = text.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.child.try_wait().unwrap();
            assert!(!left.is_zero() && ended.is_none(), "narrows never said {words:?} ({ended:?}):\n{text}");
            text = changed.wait_timeout(text, left.min(Duration::from_millis(200))).unwrap().0;
        }
    }

    /// Asks the proxy to end and waits until it has; its log and its exit code.
    pub(crate) fn stop(mut self) -> (String, Option<i32>) {
        let code = self.end(PATIENCE);
        (self.log(), code)
    }

    /// Asks the proxy to end, and does not wait.
    pub(crate) fn ask_to_end(&self) {
        self.tell(Signal::SIGTERM);
    }

    pub(crate) fn tell(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits until the proxy has ended by itself; its exit code.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it has not ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the proxy as a crash would.
    pub(crate) fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.end(DRAIN_PATIENCE);
        }
        if std::thread::panicking() {
            eprintln!("narrows said:\n{}", self.log());
        }
    }
}

impl Log {
    fn follow(&self, stream: impl std::io::Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                let mut text = log.text.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                log.text.1.notify_all();
            }
        });
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    // Replaced whole, as editors do: a running proxy never reads half a file.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, path).unwrap();
}
