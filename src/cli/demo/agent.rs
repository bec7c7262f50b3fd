//! The demo's agent: a real `curl` behind a real forwarder; where there is no curl, a client of our own.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, PROXY_AUTHORIZATION};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::capability::{Capability, PrivateKey};
use crate::cli::child::bundle::Bundle;
use crate::cli::child::environment::{Environment, UNSET};
use crate::cli::failure::Failure;
use crate::config::AUDIENCE_DEFAULT;
use crate::forward::{Forwarder, Guests, Parts, Upstream};
use crate::net::trust::{self, Offer, RootSource};
use crate::service::Service;

/// A request takes milliseconds here; one that takes this long has failed.
const WITHIN: Duration = Duration::from_secs(10);

/// What an agent is given, and by which program it asks.
pub(super) struct Agent<'a> {
    pub(super) upstream: Upstream,
    pub(super) capability: Capability,
    pub(super) key: PrivateKey,
    pub(super) bundle: &'a Bundle,
    pub(super) service: &'a Service,
    pub(super) has_curl: bool,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Of the answer; of the CONNECT where that was refused.
    pub(super) status: u16,
    /// The problem's code, when the body is one.
    pub(super) code: Option<String>,
    pub(super) body: String,
    /// The `Authorization` that the agent sent.
    pub(super) sent: String,
}

impl Agent<'_> {
    /// Asks for `url` once.
    pub(super) async fn ask(self, method: &str, url: &Uri) -> Result<Answer, Failure> {
        let Self { upstream, capability, key, bundle, service, has_curl } = self;
        let audience = Arc::from(AUDIENCE_DEFAULT);
        let parts = Parts {
            upstream,
            capability,
            key,
            audience,
            revival: None,
            notify: |_| {},
            client_end: None,
            listener: None,
            guests: Guests::Password,
        };
        let forwarder = Forwarder::start(parts).await.map_err(|error| Failure::of(&error))?;
        let variables = Environment {
            proxy_url: Some(forwarder.url()),
            bundle: &bundle.roots,
            ca: &bundle.ca,
            services: &[service],
        }
        .variables();
        let asked = async {
            if has_curl {
                curl(method, url, &variables).await
            } else {
                built_in(method, url, &variables, bundle).await.map_err(io::Error::other)
            }
        };
        let answer = tokio::time::timeout(WITHIN, asked).await;
        forwarder.stop().await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure::new("the demo's agent had no answer in time")),
        }
    }
}

/// Whether there is a curl to run.
pub(super) async fn has_curl() -> bool {
    let curl = tokio::process::Command::new("curl").arg("--version").stdout(Stdio::null()).status().await;
    curl.is_ok_and(|status| status.success())
}

/// `-v` shows what curl itself put on the wire.
async fn curl(method: &str, url: &Uri, variables: &[(String, String)]) -> io::Result<Answer> {
    let key = variable(variables, super::VARIABLE);
    let mut command = tokio::process::Command::new("curl");
    command
        .args(["-q", "-sS", "-v", "--http1.1", "-X", method, "-w", "\n%{http_code} %{http_connect}", "-H"])
        .arg(format!("Authorization: Bearer {key}"))
        .arg(url.to_string())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in UNSET {
        command.env_remove(name);
    }
    let output = command.output().await?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let (body, numbers) = stdout.rsplit_once('\n').unwrap_or(("", &stdout));
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut numbers = numbers.split(' ');
    let (status, connect): (u16, u16) = (number(numbers.next()), number(numbers.next()));
    let sent = stderr.lines().find_map(|line| line.strip_prefix("> Authorization: "));
    // Of a refused CONNECT curl shows the reason phrase, and our code is in it.
    let reason = stderr.lines().filter(|line| line.starts_with("< HTTP/")).find_map(reason_code);
    Ok(Answer {
        status: if status == 0 { connect } else { status },
        code: code(body).or(reason),
        body: body.to_owned(),
        sent: sent.unwrap_or_default().trim_end().to_owned(),
    })
}

fn reason_code(line: &str) -> Option<String> {
    line.trim_end().split_once(" by narrows: ").map(|(_, code)| code.to_owned())
}

fn code(body: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(problem.get("code")?.as_str()?.to_owned())
}

fn variable<'v>(variables: &'v [(String, String)], name: &str) -> &'v str {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What curl does, in a page.
async fn built_in(method: &str, url: &Uri, variables: &[(String, String)], bundle: &Bundle) -> Result<Answer, Failed> {
    let proxy: Uri = variable(variables, "HTTPS_PROXY").parse()?;
    let authority = proxy.authority().ok_or("no proxy")?.as_str();
    let (userinfo, address) = authority.split_once('@').ok_or("no password")?;
    let host = url.host().ok_or("no host")?.to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection.with_upgrades());
    let connect = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("{host}:443"))
        .header(HOST, format!("{host}:443"))
        .header(PROXY_AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(userinfo)))
        .body(Empty::<Bytes>::new())?;
    let opened = sender.send_request(connect).await?;
    let status = opened.status();
    if !status.is_success() {
        let body = String::from_utf8_lossy(&opened.into_body().collect().await?.to_bytes()).into_owned();
        return Ok(Answer { status: status.as_u16(), code: code(&body), body, sent: String::new() });
    }
    let tunnel = TokioIo::new(hyper::upgrade::on(opened).await?);
    let pem = std::fs::read(&bundle.ca)?;
    let config = trust::client_config(&trust::roots(RootSource::Only(&pem), None)?, Offer::Http1)?;
    let tls = TlsConnector::from(config).connect(ServerName::try_from(host.clone())?, tunnel).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    let sent = format!("Bearer {}", variable(variables, super::VARIABLE));
    let request = Request::builder()
        .method(method)
        .uri(url.path())
        .header(HOST, host)
        .header(AUTHORIZATION, &sent)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()).into_owned();
    Ok(Answer { status, code: code(&body), body, sent })
}
