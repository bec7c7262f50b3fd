//! The options that `mint`, `attenuate` and `run` share: what a block allows, for how long, how much.

use crate::capability::{Budget, BudgetKind, Grant, ParamNames, Rate, Terms, parse_moment, parse_rate, parse_size};
use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::request::ProofKind;
use crate::store::Home;

use super::failure::Failure;

/// See the module.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct TermArgs {
    /// What is allowed: SERVICE[:OPERATION,…] [COLUMN=VALUE,…]…, as in 'github:read repo=acme/widgets'; each is a row
    #[arg(long, value_name = "GRANT")]
    pub(super) allow: Vec<String>,
    /// The end: 10m, 1h, 7d from now, or 2027-01-15T16:00:00Z
    #[arg(long, value_name = "T")]
    pub(super) expires: Option<String>,
    /// The beginning, written alike
    #[arg(long, value_name = "T")]
    not_before: Option<String>,
    /// So many more changes of holder
    #[arg(long, value_name = "N", conflicts_with = "no_delegate")]
    max_hops: Option<u32>,
    /// No further change of holder
    #[arg(long)]
    no_delegate: bool,
    /// Only for proxies of this name
    #[arg(long, value_name = "NAME")]
    aud: Vec<String>,
    /// Only with this kind of proof: connect, request or presentation
    #[arg(long, value_name = "KIND", value_parser = proof_kind)]
    proof: Vec<ProofKind>,
    /// So many requests in all
    #[arg(long, value_name = "N")]
    calls: Option<u64>,
    /// So many bytes of bodies towards upstreams (k, M, G are powers of 1024)
    #[arg(long, value_name = "N", value_parser = size)]
    bytes_up: Option<u64>,
    /// So many bytes of bodies from upstreams
    #[arg(long, value_name = "N", value_parser = size)]
    bytes_down: Option<u64>,
    /// So many requests a second, minute or hour
    #[arg(long, value_name = "N/s|m|h", value_parser = rate)]
    rate: Option<Rate>,
}

fn proof_kind(text: &str) -> Result<ProofKind, String> {
    let kinds = [ProofKind::Connect, ProofKind::Request, ProofKind::Presentation];
    kinds.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| "connect, request or presentation".to_owned())
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|_| "a whole number, with k, M or G for powers of 1024".to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    parse_rate(text).map_err(|_| "a whole number and its unit: 10/s, 100/m, 1000/h".to_owned())
}

impl TermArgs {
    /// The terms, with grants checked against the services that are configured.
    pub(super) fn terms(&self, names: &ParamNames, now: UnixSeconds) -> Result<Terms, Failure> {
        Ok(Terms {
            expires_at: self.expires.as_deref().map(|text| moment(text, now)).transpose()?,
            not_before: self.not_before.as_deref().map(|text| moment(text, now)).transpose()?,
            max_hops: if self.no_delegate { Some(0) } else { self.max_hops },
            audiences: self.aud.clone(),
            proofs: self.proof.clone(),
            allow: grants(&self.allow, names)?,
        })
    }

    pub(super) fn budgets(&self) -> Vec<Budget> {
        let kinds = [
            (BudgetKind::Calls, self.calls),
            (BudgetKind::BytesUp, self.bytes_up),
            (BudgetKind::BytesDown, self.bytes_down),
        ];
        kinds.into_iter().filter_map(|(kind, limit)| limit.map(|limit| Budget { kind, limit })).collect()
    }

    pub(super) fn rates(&self) -> Vec<Rate> {
        self.rate.into_iter().collect()
    }

    /// Whether any option was given: a block that says nothing is a mistake.
    pub(super) fn says_something(&self) -> bool {
        let lists = [self.allow.is_empty(), self.aud.is_empty(), self.proof.is_empty()];
        lists.contains(&false)
            || self.no_delegate
            || self.expires.is_some()
            || self.not_before.is_some()
            || self.max_hops.is_some()
            || self.rate.is_some()
            || !self.budgets().is_empty()
    }
}

/// A moment as people type it.
pub(super) fn moment(text: &str, now: UnixSeconds) -> Result<UnixSeconds, Failure> {
    parse_moment(text, now).map_err(|_| {
        Failure::usage(format_args!("{text:?} is no time"))
            .hint("write 10m, 1h or 7d, or a moment as 2027-01-15T16:00:00Z".to_owned())
    })
}

/// Grants as people type them.
pub(super) fn grants(texts: &[String], names: &ParamNames) -> Result<Vec<Grant>, Failure> {
    let parse = |text: &String| {
        Grant::parse(text, names).map_err(|error| {
            Failure::usage(format_args!("--allow '{text}': {error}")).hint(
                "as in --allow 'github:read repo=acme/widgets'; capctl service list shows the services".to_owned(),
            )
        })
    };
    texts.iter().map(parse).collect()
}

/// What grants may say: the home's services where there is a home whose configuration reads, else anything.
pub(super) fn names(home: Option<&Home>) -> ParamNames {
    let config = home.filter(|home| home.config().exists()).and_then(|home| Config::load(home).ok());
    config.map_or_else(ParamNames::any, |config| config.services.param_names())
}
