//! `capctl explain`: would this pass? Asks the same door as the proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use http::{Method, Uri};
use serde_json::json;

use crate::capability::{Ledger, Limits, Revocations, Roots, verify};
use crate::clock::UnixSeconds;
use crate::policy::{Code, Denial, decide};
use crate::request::{CanonicalPath, Facts, PathError, ProofKind, Scheme, Target};
use crate::service::{Call, Classified, Route, WEB};
use crate::store::{Home, revoked};

use super::capability::{config, read};
use super::failure::DENIED;
use super::failure::Failure;
use super::output::{print, print_json};
use super::terms::{moment, size};

/// Says whether a request would pass, offline: by which block it would not, which caveat, which column. Exit status 3
/// when it would not.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  capctl explain --cap agent.cap GET https://api.github.com/repos/acme/widgets\n  capctl explain --cap agent.cap --at 2h POST https://api.acme.test/v1/items"
)]
pub(super) struct Args {
    /// The capability
    #[arg(long, value_name = "F")]
    cap: PathBuf,
    /// The request's method
    method: Method,
    /// The request's URL
    url: Uri,
    /// At this moment instead of now: 2h from now, or 2027-01-15T16:00:00Z
    #[arg(long, value_name = "T")]
    at: Option<String>,
    /// With this kind of proof
    #[arg(long, value_name = "KIND", default_value = "connect", value_parser = ["connect", "request", "presentation"])]
    proof: String,
    /// With a body of this many bytes, such as 64k
    #[arg(long, value_name = "N", default_value = "0", value_parser = size)]
    body_size: u64,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let config = config(home)?;
        let capability = read(&self.cap)?;
        let limits = Limits { hops_max: config.limits.hops_max };
        let verified = verify(&capability, &Roots::new(config.roots.clone()), &limits)
            .map_err(|error| Failure::new(format_args!("the capability does not hold: {error}")))?;
        let (scheme, target) = self.destination()?;
        let now = UnixSeconds::now();
        let time = self.at.as_deref().map_or(Ok(now), |text| moment(text, now))?;
        let lines = revoked::load(&home.revoked())?;
        let revocations = Revocations::parse(lines.iter().map(String::as_str)).map_err(|error| Failure::of(&error))?;
        let route = config.services.route(scheme, &target.host, target.port);
        let service = match route {
            Route::Named(named) => Some(named.service),
            Route::Web(web) => Some(web),
            Route::None => None,
        };
        let slash = service.map(|service| service.encoded_slash()).unwrap_or_default();
        let path = CanonicalPath::parse(self.url.path(), slash);
        // On `web` and for nobody's host no path is matched, so none is ambiguous.
        let ambiguous = path.as_ref().err().filter(|_| matches!(route, Route::Named(_))).copied();
        let path = path.ok();
        let call = Call {
            method: self.method.as_str(),
            host: &target.host,
            path: path.as_ref(),
            query: self.url.query(),
            websocket: false,
            body: self.body_size > 0,
        };
        let nothing =
            Classified { operation: call.default_operation(), action: None, params: Vec::new(), tokens: None };
        let said = service.map_or(nothing, |service| service.classify(&call));
        let terminated = service.is_none_or(|service| service.terminate());
        let facts = Facts {
            time,
            service: service.map(|service| &**service.name()).unwrap_or_default(),
            operation: said.operation,
            action: said.action,
            scheme,
            host: &target.host,
            port: target.port,
            method: terminated.then_some(self.method.as_str()),
            path: path.as_ref().filter(|_| terminated),
            params: &said.params,
            body_size: terminated.then_some(self.body_size),
            audience: &config.audience,
            proof: self.proof_kind(),
            hop: verified.hop(),
        };
        let account = Ledger::new().account(&verified, time);
        let denial = decide(&verified, &facts, &revocations, &account).err().map(|denial| *denial);
        // As in the proxy: the capability's own death first, then a host that nobody names.
        let unnamed = match route {
            Route::Named(_) => false,
            Route::Web(_) => !verified.could_serve(WEB),
            Route::None => true,
        };
        let fault = never_served(&self.method).or_else(|| ambiguous.map(ambiguous_path)).filter(|_| terminated);
        let denial = match (denial, fault) {
            (_, Some(fault)) => Some(fault),
            (Some(denial), None) if unnamed && denial.code == Code::CapabilityDenied => {
                Some(Denial::service_unknown(&target.host, target.port))
            }
            (denial, None) => denial,
        };
        self.answer(denial.as_ref(), service.map(|_| &facts))
    }

    fn destination(&self) -> Result<(Scheme, Target), Failure> {
        let scheme = match self.url.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => {
                return Err(
                    Failure::usage("a whole URL is needed").hint("as in https://api.github.com/user".to_owned())
                );
            }
        };
        let authority = self.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let target = Target::parse_or(authority, scheme.default_port());
        target.map(|target| (scheme, target)).map_err(|error| Failure::usage(format_args!("{authority}: {error}")))
    }

    fn proof_kind(&self) -> ProofKind {
        match self.proof.as_str() {
            "request" => ProofKind::Request,
            "presentation" => ProofKind::Presentation,
            _ => ProofKind::Connect,
        }
    }

    fn answer(&self, denial: Option<&Denial>, facts: Option<&Facts<'_>>) -> Result<ExitCode, Failure> {
        if self.json {
            print_json(&as_json(denial, facts))?;
        } else {
            for_people(denial, facts)?;
        }
        if denial.is_some() { Ok(ExitCode::from(DENIED)) } else { Ok(ExitCode::SUCCESS) }
    }
}

/// A method that the proxy serves to nobody, whatever a capability allows.
fn never_served(method: &Method) -> Option<Denial> {
    match method.as_str().to_ascii_uppercase().as_str() {
        "CONNECT" => Some(before_policy(Code::Framing, "CONNECT inside a tunnel", "another method")),
        "TRACE" | "TRACK" => Some(before_policy(Code::CapabilityDenied, "TRACE is never allowed", "another method")),
        _ => None,
    }
}

fn ambiguous_path(error: PathError) -> Denial {
    before_policy(Code::PathAmbiguous, &error.to_string(), "a path with one reading")
}

/// Refused before policy is asked: no block and no caveat is to blame.
fn before_policy(code: Code, detail: &str, needed: &str) -> Denial {
    Denial {
        code,
        block: None,
        caveat: None,
        detail: detail.to_owned(),
        needed: Some(needed.to_owned()),
        hint: None,
        retry_after_s: None,
        failures: Vec::new(),
    }
}

fn for_people(denial: Option<&Denial>, facts: Option<&Facts<'_>>) -> Result<(), Failure> {
    if let Some(facts) = facts {
        let params: Vec<String> = facts.params.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let action = facts.action.map(|action| format!(" action={action}")).unwrap_or_default();
        print(format_args!("request  {}:{}{action}{}", facts.service, facts.operation, params.concat()))?;
    }
    let Some(denial) = denial else { return print("allowed") };
    print(format_args!("denied   {}: {}", denial.code.as_str(), denial.detail))?;
    for failure in &denial.failures {
        let caveat = failure.caveat.map(|caveat| format!(" caveat {caveat}")).unwrap_or_default();
        print(format_args!("block {}{caveat}: {}", failure.block, failure.text))?;
        for mismatch in failure.rows.iter().flat_map(|row| &row.mismatches) {
            let seen = mismatch.seen.as_deref().unwrap_or("absent");
            print(format_args!("  {}: wanted {}, is {seen}", mismatch.columns.join(", "), mismatch.wanted))?;
        }
    }
    match &denial.hint {
        Some(hint) => print(format_args!("to allow {hint}")),
        None => Ok(()),
    }
}

fn as_json(denial: Option<&Denial>, facts: Option<&Facts<'_>>) -> serde_json::Value {
    let failures = denial.map(|denial| &denial.failures).into_iter().flatten().map(|failure| {
        let rows: Vec<_> = failure
            .rows
            .iter()
            .map(|row| {
                let cells = row.mismatches.iter();
                cells
                    .map(|cell| json!({ "columns": cell.columns, "wanted": cell.wanted, "seen": cell.seen }))
                    .collect::<Vec<_>>()
            })
            .collect();
        json!({ "block": failure.block, "caveat": failure.caveat, "text": failure.text, "rows": rows })
    });
    json!({
        "allowed": denial.is_none(),
        "service": facts.map(|facts| facts.service),
        "operation": facts.map(|facts| facts.operation),
        "action": facts.and_then(|facts| facts.action),
        "params": facts.map(|facts| facts.params.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()),
        "code": denial.map(|denial| denial.code.as_str()),
        "block": denial.and_then(|denial| denial.block),
        "caveat": denial.and_then(|denial| denial.caveat.as_deref()),
        "detail": denial.map(|denial| denial.detail.as_str()),
        "needed": denial.and_then(|denial| denial.needed.as_deref()),
        "hint": denial.and_then(|denial| denial.hint.as_deref()),
        "failures": failures.collect::<Vec<_>>(),
    })
}
