//! `capctl demo`: the whole story on one machine, with no network and nothing left behind. It is a self-check too: every
//! line that it prints about an outcome has been looked at.

mod agent;
mod api;
mod chain;
mod screen;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::time::Instant;

use http::Uri;
use serde_json::Value;

use agent::{Agent, Answer, has_curl};
use api::Api;
use chain::Holder;
use screen::Screen;

use super::child::bundle::Bundle;
use super::failure::Failure;
use crate::audit::{Filter, Report, search, verify};
use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::credential::{Secret, SecretName};
use crate::daemon::{Daemon, Serve};
use crate::forward::Upstream;
use crate::service::Service;
use crate::store::ca::Ca;
use crate::store::{Home, SecretStore, keys, random};

/// The API's name; it exists in this process alone.
const HOST: &str = "api.acme.test";
/// Where the agent finds its placeholder.
const VARIABLE: &str = "ACME_API_KEY";
const SECRET: &str = "acme-key";
const USER: &str = "alice@example.com";

/// Show the whole story on this machine: no network, nothing to set up, nothing left behind.
///
///   capctl demo
///
/// A person gives an orchestrator a capability, which gives a part of it to a sub-agent. The
/// sub-agent calls an API with curl and a placeholder; the API sees the real key. Then the
/// sub-agent tries for more. Exits 0 only when everything went as it must.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Demo {}

/// Something that was tried, and what must come of it.
struct Attempt<'a> {
    what: &'a str,
    holder: &'a Holder,
    key_of: &'a Holder,
    method: &'a str,
    path: &'a str,
    code: &'a str,
}

/// Everything that happened.
struct Story {
    secret: String,
    allowed: Answer,
    denied: Vec<(String, String, Answer)>,
    api: Vec<api::Seen>,
    journal: Vec<Value>,
    report: Report,
    has_curl: bool,
    took_ms: u128,
}

impl Demo {
    #[expect(clippy::unused_self, reason = "the verb has no options yet")]
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let story = runtime.map_err(|error| Failure::of(&error))?.block_on(play())?;
        Screen::of_stdout().show(&story).map_err(|error| Failure::of(&error))
    }
}

async fn play() -> Result<Story, Failure> {
    let started = Instant::now();
    let folder = tempfile::Builder::new().prefix("narrows-demo-").tempdir().map_err(|error| Failure::of(&error))?;
    let secret = format!("acme_live_{}", hex::encode(random::bytes::<12>()?));
    let api = Api::start(&secret).await?;
    let (home, config) = set_up(folder.path(), &secret, &api)?;
    let daemon = Daemon::start(&home, Serve::SocketOnly).await.map_err(|error| Failure::of(&error))?;
    let has_curl = has_curl().await;
    let stage = Stage {
        upstream: Upstream::Unix(home.socket()),
        bundle: Bundle::write(Ca::load(&home)?.certificate_pem(), home.dir()).map_err(|error| Failure::of(&error))?,
        service: config.services.service("acme").ok_or_else(|| Failure::new("the demo's service is not there"))?,
        has_curl,
    };

    let alice = Holder::person(&keys::read_private(&home.root_key())?, USER)?;
    let orchestrator = alice.delegate("orchestrator", chain::ORCHESTRATOR, None)?;
    let researcher = orchestrator.delegate("researcher", chain::RESEARCHER, Some(chain::CALLS))?;
    let widened = researcher.delegate("itself", chain::ALICE, None)?;

    let allowed = stage.ask(&researcher, &researcher, "GET", "/v1/items").await?;
    let mut denied = Vec::new();
    for attempt in attempts(&alice, &researcher, &widened) {
        let Attempt { what, holder, key_of, method, path, code } = attempt;
        let answer = stage.ask(holder, key_of, method, path).await?;
        denied.push((what.to_owned(), code.to_owned(), answer));
    }
    daemon.stop().await;
    let journal = search(&home.audit_dir(), Filter::default()).and_then(Iterator::collect::<Result<Vec<Value>, _>>);
    let report = verify(&home.audit_dir(), None).map_err(|error| Failure::of(&error))?;
    Ok(Story {
        secret,
        allowed,
        denied,
        api: api.seen(),
        journal: journal.map_err(|error| Failure::of(&error))?,
        report,
        has_curl,
        took_ms: started.elapsed().as_millis(),
    })
}

fn attempts<'a>(alice: &'a Holder, researcher: &'a Holder, widened: &'a Holder) -> [Attempt<'a>; 4] {
    let attempt = |what, holder, key_of, method, path, code| Attempt { what, holder, key_of, method, path, code };
    [
        attempt("another path: GET /v1/invoices", researcher, researcher, "GET", "/v1/invoices", "capability_denied"),
        attempt("another method: DELETE /v1/items", researcher, researcher, "DELETE", "/v1/items", "capability_denied"),
        attempt("delegates all of acme to itself", widened, widened, "GET", "/v1/invoices", "capability_denied"),
        attempt("copies alice's, without her key", alice, researcher, "GET", "/v1/invoices", "proof_invalid"),
    ]
}

/// Where attempts are made.
struct Stage<'a> {
    upstream: Upstream,
    bundle: Bundle,
    service: &'a Service,
    has_curl: bool,
}

impl Stage<'_> {
    async fn ask(&self, holder: &Holder, key_of: &Holder, method: &str, path: &str) -> Result<Answer, Failure> {
        let url: Uri = format!("https://{HOST}{path}").parse().map_err(|_| Failure::new("the demo's URL is none"))?;
        let agent = Agent {
            upstream: self.upstream.clone(),
            capability: holder.capability.clone(),
            key: key_of.key()?,
            bundle: &self.bundle,
            service: self.service,
            has_curl: self.has_curl,
        };
        agent.ask(method, &url).await
    }
}

/// A home such as `capctl init`, `capctl service add` and `capctl secret set` make.
fn set_up(folder: &std::path::Path, secret: &str, api: &Api) -> Result<(Home, Config), Failure> {
    let home = Home::at(&folder.join("home"))?;
    home.create()?;
    let (root, _) = keys::create_root(&home)?;
    Ca::create(&home, &[], UnixSeconds::now())?;
    let name: SecretName = SECRET.parse().map_err(|_| Failure::new("the demo's secret has no name"))?;
    let value = Secret::new(secret.as_bytes().to_vec()).map_err(|error| Failure::of(&error))?;
    SecretStore::new(&home).set(&name, &value)?;
    let text = format!(
        r#"listen = "127.0.0.1:0"
admin = "off"
[roots]
1 = "{root}"
[upstream]
extra_ca = "api.pem"
connect_to = {{ "{HOST}:443" = "{}" }}
[[service]]
name = "acme"
credential = "{SECRET}"
hosts = ["{HOST}"]
inject = "Authorization: Bearer {{secret}}"
[service.env]
{VARIABLE} = "acme_live_{{24}}"
"#,
        api.address
    );
    for (name, text) in [("api.pem", api.certificate_pem.as_str()), ("narrows.toml", &text)] {
        let path = home.dir().join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .map_err(|error| Failure::of(&error))?;
    }
    let config = Config::load(&home)
        .map_err(|problems| Failure::new(problems.first().map(ToString::to_string).unwrap_or_default()))?;
    Ok((home, config))
}
