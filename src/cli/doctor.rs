//! `capctl doctor`: is everything right on this machine, and what to type if not.

use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use serde_json::json;

use crate::clock::UnixSeconds;
use crate::config::{Config, Listen};
use crate::daemon::{holdings, server_end};
use crate::net::leaf::LeafCache;
use crate::request::Host;
use crate::store::ca::{Ca, Rotation};
use crate::store::{Home, SecretStore, StoreError, keys, revoked};

#[cfg(target_os = "linux")]
use super::child::turnable::Turnable;
use super::failure::FAILED;
use super::failure::Failure;
#[cfg(target_os = "linux")]
use super::output::shell;
use super::output::{print, print_json, say};
use super::root::verifies_only;

/// 2024-01-01: a clock before this is not set.
const CLOCK_MIN: UnixSeconds = UnixSeconds(1_704_067_200);

/// Checks the home, its keys, the configuration and the machine; says for each what to type if it is wrong.
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  capctl doctor")]
pub(super) struct Args {
    /// For programs
    #[arg(long)]
    json: bool,
}

/// What one look found.
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Note,
    Wrong,
}

impl Finding {
    fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, state: State::Good, detail: detail.into(), hint: None }
    }

    fn note(what: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, state: State::Note, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn wrong(what: &'static str, detail: impl Into<String>, hint: Option<String>) -> Self {
        Self { what, state: State::Wrong, detail: detail.into(), hint }
    }
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let findings = look(home);
        let sound = findings.iter().all(|finding| finding.state != State::Wrong);
        if self.json {
            let all = findings
                .iter()
                .map(|it| json!({ "check": it.what, "state": word(it.state), "detail": it.detail, "hint": it.hint }));
            print_json(&json!({ "sound": sound, "checks": all.collect::<Vec<_>>() }))?;
        } else {
            for finding in &findings {
                print(format_args!("{:<6} {:<14} {}", word(finding.state), finding.what, finding.detail))?;
                if let Some(hint) = &finding.hint {
                    print(format_args!("       {:<14} type: {hint}", ""))?;
                }
            }
        }
        if sound {
            say("everything that is needed is right");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::from(FAILED))
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "ok",
        State::Note => "note",
        State::Wrong => "wrong",
    }
}

fn look(home: &Home) -> Vec<Finding> {
    if let Err(error) = home.check() {
        return vec![Finding::wrong("home", error.to_string(), error.hint().or(Some("capctl init".to_owned())))];
    }
    let files = match home.check_files() {
        Ok(()) => place(home),
        Err(error) => Finding::wrong("home", error.to_string(), error.hint()),
    };
    let config = Config::load(home);
    let mut findings = vec![files, clock(), ca(home), root(home, config.as_ref().ok())];
    match config {
        Ok(config) => {
            findings.push(Finding::good("configuration", format!("{} services", config.services.services().len())));
            findings.push(secrets(home, &config));
            // Missing secrets have a finding of their own.
            let named: Vec<_> = config.services.services().iter().filter_map(|it| it.credential().cloned()).collect();
            let problems = config.check(&named);
            findings.extend(problems.iter().map(|it| Finding::wrong("configuration", it.to_string(), None)));
            findings.push(listener(&config));
            findings.extend((!config.listeners.is_empty()).then(|| held(&config)));
            findings.extend(config.tls.is_some().then(|| shown(&config)));
        }
        Err(problems) => {
            findings.extend(problems.iter().map(|it| Finding::wrong("configuration", it.to_string(), None)));
        }
    }
    findings.push(revocations(home));
    findings.push(served(home));
    findings.push(curl());
    #[cfg(target_os = "linux")]
    findings.push(swap());
    #[cfg(target_os = "linux")]
    findings.extend(kernel());
    findings
}

/// Whether the home stays where it is.
fn place(home: &Home) -> Finding {
    let here = home.dir().display().to_string();
    #[cfg(target_os = "linux")]
    if let Some(met) = Turnable::among(&[home.dir().to_owned()]).first() {
        let link = met.link.display();
        let what = format!("{here}: an agent could turn the link {link} on the way to it, so --isolate refuses it");
        return Finding::note("home", what, format!("NARROWS_HOME={}", shell(&met.real())));
    }
    Finding::good("home", here)
}

/// Whether a secret in memory can reach a disk.
#[cfg(target_os = "linux")]
fn swap() -> Finding {
    // The first line is a heading.
    let areas = std::fs::read_to_string("/proc/swaps").map(|text| text.lines().count().saturating_sub(1));
    match areas {
        Ok(0) => Finding::good("swap", "none on this machine"),
        _ if crate::process::lock_memory() => Finding::good("swap", "secrets in memory are kept out of it"),
        _ => Finding::note(
            "swap",
            "secrets in memory may reach it: this user may not lock so much memory",
            "ulimit -l unlimited (LimitMEMLOCK=infinity in a systemd unit), or encrypt the swap",
        ),
    }
}

/// What `capctl run` can do against an agent that goes its own way, on this kernel.
#[cfg(target_os = "linux")]
fn kernel() -> [Finding; 3] {
    use super::isolate::trial::{self, KINDS, Kind};
    const WITHOUT: &str = "an agent can go past the proxy here";
    let isolation = match trial::isolate() {
        Ok(()) => Finding::good("isolation", "capctl run --isolate works: nothing but the forwarder can be reached"),
        Err((why, hint)) => {
            let hint = hint.unwrap_or_else(|| "a container or another user for the agent".to_owned());
            Finding::note("isolation", format!("capctl run --isolate is impossible, {WITHOUT}: {why}"), hint)
        }
    };
    let landlock = match trial::landlock() {
        Ok(()) => Finding::good("landlock", "capctl run --isolate=landlock works; it holds less (docs/run.md)"),
        Err((why, hint)) => {
            let hint = hint.unwrap_or_else(|| "capctl run --isolate, which needs no Landlock".to_owned());
            Finding::note("landlock", format!("capctl run --isolate=landlock is impossible: {why}"), hint)
        }
    };
    let (given, refused): (Vec<Kind>, Vec<Kind>) = KINDS.into_iter().partition(|kind| trial::allows(*kind));
    let words =
        |kinds: &[Kind]| kinds.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect::<Vec<_>>().join(", ");
    let namespaces = if refused.is_empty() {
        Finding::good("namespaces", words(&given))
    } else {
        let home = if refused.contains(&Kind::Mount) { "; the home cannot be hidden from an agent" } else { "" };
        let hint = "let this user make namespaces, or run agents in a container of their own";
        Finding::note("namespaces", format!("the kernel refuses: {}{home}", words(&refused)), hint)
    };
    [isolation, landlock, namespaces]
}

fn clock() -> Finding {
    let now = UnixSeconds::now();
    if now < CLOCK_MIN {
        return Finding::wrong(
            "clock",
            format!("it says {now}"),
            Some("set the clock: proofs and certificates carry times".to_owned()),
        );
    }
    Finding::good("clock", now.to_string())
}

fn ca(home: &Home) -> Finding {
    let ca = match Ca::load(home) {
        Ok(ca) => ca,
        Err(error) => {
            return Finding::wrong("local CA", error.to_string(), error.hint().or(Some("capctl init".to_owned())));
        }
    };
    let minted = LeafCache::new(ca.certificate_pem(), ca.key_pem()).and_then(|leaves| {
        let host = Host::parse("narrows.invalid").map_err(|_| crate::net::leaf::LeafError::Random)?;
        leaves.config(&host, UnixSeconds::now())
    });
    match minted {
        Ok(_) if Ca::rotation(home).is_ok_and(|rotation| rotation == Rotation::Prepared) => Finding::note(
            "local CA",
            "signs; the next one waits until clients have the new ca.pem",
            "capctl ca rotate --switch",
        ),
        Ok(_) if Ca::rotation(home).is_ok_and(|rotation| rotation == Rotation::Switched) => {
            Finding::note("local CA", "signs; the one before is still trusted", "capctl ca rotate --finish")
        }
        Ok(_) => Finding::good("local CA", format!("signs; clients trust {}", home.ca_certificate().display())),
        Err(error) => Finding::wrong(
            "local CA",
            error.to_string(),
            Some("move ca.pem and ca.key away, then capctl init".to_owned()),
        ),
    }
}

fn root(home: &Home, config: Option<&Config>) -> Finding {
    match keys::read_private(&home.root_key()) {
        Ok(key) => Finding::good("root key", key.public().to_string()),
        Err(StoreError::Missing { .. }) if config.is_some_and(|config| verifies_only(home, config)) => {
            Finding::good("root key", "none: this home verifies what another's root key signed")
        }
        Err(error) => Finding::wrong("root key", error.to_string(), error.hint().or(Some("capctl init".to_owned()))),
    }
}

fn secrets(home: &Home, config: &Config) -> Finding {
    let store = SecretStore::new(home);
    // Opening them all shows that the store's key is the right one.
    let stored = match store.load() {
        Ok(stored) => stored,
        Err(error) => return Finding::wrong("secrets", error.to_string(), error.hint()),
    };
    let wanted = config.services.services().iter().filter_map(|service| service.credential());
    let missing: Vec<String> = wanted.filter(|name| !stored.contains_key(*name)).map(ToString::to_string).collect();
    match missing.first() {
        None => Finding::good("secrets", format!("{} sealed, none missing", stored.len())),
        Some(first) => Finding::wrong(
            "secrets",
            format!("missing: {}", missing.join(", ")),
            Some(format!("capctl secret set {first}")),
        ),
    }
}

fn listener(config: &Config) -> Finding {
    match &config.listen {
        None => Finding::good("listen", "off: clients have the listeners that hold a capability for them"),
        Some(Listen::Tcp(address)) => match std::net::TcpListener::bind(address) {
            Ok(_) => Finding::good("listen", format!("{address} is free")),
            Err(error) => Finding::note(
                "listen",
                format!("{address}: {error}"),
                "if narrows serves there, all is well; else set another `listen`",
            ),
        },
        Some(Listen::Unix(path)) => Finding::good("listen", format!("unix:{}", path.display())),
    }
}

fn held(config: &Config) -> Finding {
    match holdings(config) {
        Ok(_) => Finding::good("listeners", format!("{} hold a capability for their clients", config.listeners.len())),
        Err(error) => Finding::wrong("listeners", error.to_string(), error.hint()),
    }
}

fn shown(config: &Config) -> Finding {
    match server_end(config, None) {
        Ok(_) => Finding::good("tls", "certificate and key belong together"),
        Err(error) => Finding::wrong("tls", error.to_string(), error.hint()),
    }
}

fn revocations(home: &Home) -> Finding {
    let read = revoked::load(&home.revoked()).map_err(|error| error.to_string()).and_then(|lines| {
        let read = crate::capability::Revocations::parse(lines.iter().map(String::as_str));
        read.map_err(|error| error.to_string())
    });
    match read {
        Ok(list) => Finding::good("revocations", format!("{} revoked", list.len())),
        Err(error) => Finding::wrong("revocations", error, Some("mend that line of revoked.jsonl".to_owned())),
    }
}

fn served(home: &Home) -> Finding {
    match UnixStream::connect(home.socket()) {
        Ok(_) => Finding::good("proxy", "one serves this home"),
        Err(_) => Finding::note("proxy", "none serves this home now; capctl run embeds one", "narrows"),
    }
}

fn curl() -> Finding {
    let run = Command::new("curl").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match run {
        Ok(status) if status.success() => Finding::good("curl", "there"),
        _ => Finding::note(
            "curl",
            "not there; the demo uses a client of its own",
            "install curl to try requests by hand",
        ),
    }
}
