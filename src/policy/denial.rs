//! A refusal that a person, and the person's agent, can act on.

use std::fmt;

use super::Code;
use super::hint;
use crate::capability::{Block, BudgetError, FailedRow, Failure, Mismatch, PublicKey, Revoked, Subject, Verified};
use crate::request::{Facts, Host};

/// Of what a row lacks, so much goes into a denial: it is also a header of a gRPC answer.
const MISMATCHES_SHOWN_MAX: usize = 4;

/// Why a request is not allowed, and what would allow it. Says nothing that the capability's holder could not know from
/// the capability and the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The stable code.
    pub code: Code,
    /// The index of the block that refuses, 0 for the authority block.
    pub block: Option<usize>,
    /// The caveat that refuses, as people read it.
    pub caveat: Option<String>,
    /// One sentence without its full stop.
    pub detail: String,
    /// What would have to be true of the request, as people read it.
    pub needed: Option<String>,
    /// The `capctl` line that a person would type to allow it.
    pub hint: Option<String>,
    /// Seconds to wait, for [`Code::RateLimited`].
    pub retry_after_s: Option<u64>,
    /// Everything that fails, for `capctl explain`; empty when it is not a caveat.
    pub failures: Vec<Failure>,
}

impl Denial {
    /// No service serves the host: for the router, which alone knows.
    #[must_use]
    pub fn service_unknown(host: &Host, port: u16) -> Self {
        Self {
            detail: format!("no service serves {host}:{port}"),
            hint: Some(hint::add_service(host)),
            ..Self::new(Code::ServiceUnknown)
        }
    }

    pub(super) fn revoked(verified: &Verified, facts: &Facts<'_>, revoked: Revoked) -> Self {
        let (detail, hint) = match revoked.subject {
            Subject::Block(id) => (
                format!("block {} of the capability is revoked ({id})", revoked.block),
                hint::mint(verified, facts, ""),
            ),
            Subject::Holder(holder) => {
                (format!("the holder {holder} of block {} is revoked", revoked.block), hint::new_key())
            }
        };
        Self { block: Some(revoked.block), detail, hint: Some(hint), ..Self::new(Code::CapabilityRevoked) }
    }

    pub(super) fn budget(verified: &Verified, facts: &Facts<'_>, error: &BudgetError) -> Self {
        let denial = Self { detail: error.to_string(), ..Self::new(Code::of_budget(error)) };
        match *error {
            BudgetError::Exhausted { block, kind, limit } => {
                let name = kind.as_str();
                let more = format!(" --{} {}", name.replace('_', "-"), limit.saturating_mul(2).max(1));
                Self {
                    block: Some(block),
                    caveat: Some(format!("budget {name} {limit}")),
                    needed: Some(format!("a capability with {name} left")),
                    hint: Some(hint::mint(verified, facts, &more)),
                    ..denial
                }
            }
            BudgetError::RateLimited { block, rate, retry_after_s } => Self {
                block: Some(block),
                caveat: Some(format!("rate {} in {} s", rate.limit, rate.window_s)),
                needed: Some(format!("a request not before {retry_after_s} s from now")),
                hint: Some(hint::wait(retry_after_s)),
                retry_after_s: Some(retry_after_s),
                ..denial
            },
            BudgetError::TooManyBlocks => Self { hint: Some(hint::mint(verified, facts, "")), ..denial },
        }
    }

    /// The refusal of a request for which some caveat, or every right, fails.
    pub(super) fn caveats(verified: &Verified, facts: &Facts<'_>) -> Self {
        let failures = verified.failures(facts);
        let code = code_of(&failures);
        // The most telling failure: for a mix, one that more time or an approval would not mend.
        let telling = failures.iter().find(|failure| match code {
            Code::CapabilityExpired => failure.caveat.is_some(),
            Code::ApprovalRequired => true,
            _ => !failure.only_time && !failure.wants_approval(),
        });
        let Some(failure) = telling.or(failures.first()) else {
            // Not reached: permits() and failures() give one verdict. Refuses all the same.
            return Self { detail: "the capability does not allow the request".to_owned(), ..Self::new(code) };
        };
        let row = nearest_row(failure);
        Self {
            block: Some(failure.block),
            caveat: Some(failure.text.clone()),
            detail: detail(verified, code, failure, row),
            needed: row.map(needed),
            hint: Some(hint::caveat(verified, facts, code, row)),
            failures,
            ..Self::new(code)
        }
    }

    fn new(code: Code) -> Self {
        Self {
            code,
            block: None,
            caveat: None,
            detail: String::new(),
            needed: None,
            hint: None,
            retry_after_s: None,
            failures: Vec::new(),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Denial {}

/// A missing right is no check: a capability whose checks fail by time alone has expired, whatever else it never allowed.
fn code_of(failures: &[Failure]) -> Code {
    let mut checks = failures.iter().filter(|failure| failure.caveat.is_some()).peekable();
    if checks.peek().is_some() && checks.all(|failure| failure.only_time) {
        Code::CapabilityExpired
    } else if !failures.is_empty() && failures.iter().all(Failure::wants_approval) {
        Code::ApprovalRequired
    } else {
        Code::CapabilityDenied
    }
}

/// The alternative that least is wrong with; of equals one that is at least for the same service.
fn nearest_row(failure: &Failure) -> Option<&FailedRow> {
    let other_service = |row: &FailedRow| row.mismatches.iter().any(|mismatch| is_about(mismatch, "service"));
    failure.rows.iter().min_by_key(|row| (other_service(row), row.mismatches.len()))
}

pub(super) fn is_about(mismatch: &Mismatch, column: &str) -> bool {
    mismatch.columns.iter().any(|name| name == column)
}

fn detail(verified: &Verified, code: Code, failure: &Failure, row: Option<&FailedRow>) -> String {
    let by = set_by(verified, failure.block);
    let why = row.map(seen).unwrap_or_default();
    match (code, failure.caveat) {
        (Code::CapabilityExpired, _) => {
            format!("by block {} ({by}) the capability is valid only for {}", failure.block, failure.text)
        }
        (Code::ApprovalRequired, _) => format!("block {} ({by}) allows this with an approval only", failure.block),
        (_, None) if failure.rows.is_empty() => "the capability has no right at all".to_owned(),
        (_, None) => format!("the capability has only a {}{why}", failure.text),
        (_, Some(caveat)) => format!("caveat {caveat} of block {} ({by}) does not allow it{why}", failure.block),
    }
}

/// Whose word a block is.
fn set_by(verified: &Verified, block: usize) -> String {
    match verified.blocks().get(block).and_then(Block::set_by) {
        Some(key) => format!("set by {}", short(key)),
        None => "set by the root".to_owned(),
    }
}

fn short(key: &PublicKey) -> String {
    format!("{}:{}", key.algorithm().name(), key.short_name())
}

/// What the request shows instead of what is needed: `: path is "/v2", repo is absent`.
fn seen(row: &FailedRow) -> String {
    let parts: Vec<String> = row
        .mismatches
        .iter()
        .take(MISMATCHES_SHOWN_MAX)
        .filter_map(|mismatch| {
            let column = mismatch.columns.first()?;
            Some(match &mismatch.seen {
                Some(value) => format!("{column} is {value}"),
                None => format!("{column} is absent"),
            })
        })
        .collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

fn needed(row: &FailedRow) -> String {
    let wanted = row.mismatches.iter().take(MISMATCHES_SHOWN_MAX).map(|mismatch| mismatch.wanted.as_str());
    wanted.collect::<Vec<_>>().join(", ")
}
