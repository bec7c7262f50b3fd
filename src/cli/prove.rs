//! `capctl prove`: the credentials string, for tests and for whoever writes an SDK.

use std::path::PathBuf;
use std::process::ExitCode;

use http::Uri;

use crate::capability::{Context, Credentials, FRESH_TTL_MAX_S, Proof, Purpose, parse_duration_s};
use crate::clock::UnixSeconds;
use crate::config::{AUDIENCE_DEFAULT, Config};
use crate::request::{Scheme, Target};
use crate::store::{Home, keys, random};

use super::capability::{chain, read};
use super::failure::Failure;
use super::output::print_one;

/// Prints the credentials for one CONNECT, one absolute-form request, or for a while. Whoever reads a presentation can
/// use it until it ends.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  capctl prove --cap agent.cap --key agent.key --target api.github.com:443\n  capctl prove --cap agent.cap --key agent.key --presentation 15m"
)]
#[command(group(clap::ArgGroup::new("purpose").required(true)))]
pub(super) struct Args {
    /// The capability
    #[arg(long, value_name = "F")]
    cap: PathBuf,
    /// Its holder's private key
    #[arg(long, value_name = "F")]
    key: PathBuf,
    /// For one CONNECT to this target
    #[arg(long, group = "purpose", value_name = "HOST:PORT")]
    target: Option<String>,
    /// For one absolute-form request
    #[arg(long, group = "purpose", num_args = 2, value_names = ["METHOD", "URL"])]
    request: Option<Vec<String>>,
    /// For any number of requests, for this long
    #[arg(long, group = "purpose", value_name = "TTL")]
    presentation: Option<String>,
    /// The proxy's name [default: the home's audience]
    #[arg(long, value_name = "A")]
    audience: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self, home: Option<&Home>) -> Result<ExitCode, Failure> {
        let capability = read(&self.cap)?;
        let key = keys::read_private(&self.key)?;
        if key.public() != chain(&capability)?.holder() {
            return Err(Failure::new("this key is not the capability's holder").hint("capctl inspect FILE".to_owned()));
        }
        let sealed = capability.seal().map_err(|error| Failure::of(&error))?;
        let audience = audience(self.audience, home);
        let request = self.request.as_deref().map(request).transpose()?;
        let (purpose, ttl_s) = match (&self.target, &request, &self.presentation) {
            (Some(target), _, _) => (Purpose::Connect { target }, FRESH_TTL_MAX_S),
            (_, Some((method, target)), _) => (Purpose::Request { method, target }, FRESH_TTL_MAX_S),
            (_, _, Some(ttl)) => (Purpose::Presentation, seconds(ttl)?),
            (None, None, None) => return Err(Failure::usage("one of --target, --request, --presentation is needed")),
        };
        let context = Context::new(&audience, purpose);
        let proof = Proof::sign(&key, &sealed.sha256(), UnixSeconds::now(), ttl_s, random::bytes()?, &context)
            .map_err(|error| Failure::of(&error))?;
        print_one("credentials", Credentials { capability: sealed, proof }.to_text(), self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The audience that is given, else the home's, else the default.
pub(super) fn audience(given: Option<String>, home: Option<&Home>) -> String {
    let configured = || Config::load(home?).ok().map(|config| config.audience.to_string());
    given.or_else(configured).unwrap_or_else(|| AUDIENCE_DEFAULT.to_owned())
}

fn seconds(text: &str) -> Result<u32, Failure> {
    let seconds = parse_duration_s(text).ok().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| Failure::usage(format_args!("{text:?} is no duration")).hint("write 15m or 1h".to_owned()))
}

fn request(words: &[String]) -> Result<(String, Target), Failure> {
    let wrong = |what: &str| Failure::usage(format_args!("--request: {what}"));
    let [method, url] = words else { return Err(wrong("METHOD URL is needed")) };
    let uri: Uri = url.parse().map_err(|_| wrong("this is no URL"))?;
    let port = match uri.scheme_str() {
        Some("http") => Scheme::Http.default_port(),
        Some("https") => Scheme::Https.default_port(),
        _ => return Err(wrong("a whole URL is needed")),
    };
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let target = Target::parse_or(authority, port).map_err(|error| wrong(&error.to_string()))?;
    Ok((method.clone(), target))
}
