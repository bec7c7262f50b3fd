//! The closed list of codes by which Narrows refuses (`docs/errors.md`).

use std::fmt;

use crate::capability::{BudgetError, ProofError, Replay};

/// Why a request is not served, stable and machine-readable. In order of precedence: of two that apply, the earlier is
/// answered. The HTTP status of each is the proxy's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// No credentials.
    Missing,
    /// Credentials that do not parse.
    Malformed,
    /// A proof that is not the holder's for this proxy and target.
    ProofInvalid,
    /// A proof whose time is not now, by either clock.
    ProofExpired,
    /// A proof that was used before.
    ProofReplayed,
    /// A capability that breaks a rule of its profile, or is of no configured root.
    CapabilityInvalid,
    /// A genuine capability, a block or holder of which is revoked.
    CapabilityRevoked,
    /// A genuine capability whose failing caveats name nothing but the time.
    CapabilityExpired,
    /// No service serves the host.
    ServiceUnknown,
    /// The capability does not allow the request.
    CapabilityDenied,
    /// The capability allows the request with an approval that it does not have.
    ApprovalRequired,
    /// A budget of the capability is used up.
    BudgetExhausted,
    /// A rate of the capability is reached.
    RateLimited,
    /// The request names another host than its tunnel.
    Misdirected,
    /// The message's framing has two readings, or breaks HTTP.
    Framing,
    /// The path has two readings.
    PathAmbiguous,
    /// The body cannot be read as its head announces it.
    BodyUnreadable,
    /// The journal cannot record the request.
    JournalUnavailable,
    /// The service's secret cannot be had.
    SecretUnavailable,
    /// A bound of the proxy is met.
    Overloaded,
    /// The upstream's TLS, or its certificate, does not hold.
    UpstreamTls,
    /// The upstream cannot be reached.
    UpstreamRefused,
    /// The upstream breaks HTTP.
    UpstreamProtocol,
    /// The upstream's name has only addresses that may not be dialled.
    AddressForbidden,
    /// The upstream takes too long.
    UpstreamTimeout,
}

impl Code {
    /// Every code, in order of precedence.
    pub const ALL: [Self; 25] = [
        Self::Missing,
        Self::Malformed,
        Self::ProofInvalid,
        Self::ProofExpired,
        Self::ProofReplayed,
        Self::CapabilityInvalid,
        Self::CapabilityRevoked,
        Self::CapabilityExpired,
        Self::ServiceUnknown,
        Self::CapabilityDenied,
        Self::ApprovalRequired,
        Self::BudgetExhausted,
        Self::RateLimited,
        Self::Misdirected,
        Self::Framing,
        Self::PathAmbiguous,
        Self::BodyUnreadable,
        Self::JournalUnavailable,
        Self::SecretUnavailable,
        Self::Overloaded,
        Self::UpstreamTls,
        Self::UpstreamRefused,
        Self::UpstreamProtocol,
        Self::AddressForbidden,
        Self::UpstreamTimeout,
    ];

    /// The code's text, as in bodies, the journal and the `error` of a challenge.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::ProofInvalid => "proof_invalid",
            Self::ProofExpired => "proof_expired",
            Self::ProofReplayed => "proof_replayed",
            Self::CapabilityInvalid => "capability_invalid",
            Self::CapabilityRevoked => "capability_revoked",
            Self::CapabilityExpired => "capability_expired",
            Self::ServiceUnknown => "service_unknown",
            Self::CapabilityDenied => "capability_denied",
            Self::ApprovalRequired => "approval_required",
            Self::BudgetExhausted => "budget_exhausted",
            Self::RateLimited => "rate_limited",
            Self::Misdirected => "misdirected",
            Self::Framing => "framing",
            Self::PathAmbiguous => "path_ambiguous",
            Self::BodyUnreadable => "body_unreadable",
            Self::JournalUnavailable => "journal_unavailable",
            Self::SecretUnavailable => "secret_unavailable",
            Self::Overloaded => "overloaded",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::AddressForbidden => "address_forbidden",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// The code of a proof that is not accepted. `proof_expired` is all that a fresh proof by a right clock would mend,
    /// a date in the future too: it is what a forwarder acts on.
    #[must_use]
    pub const fn of_proof(error: &ProofError) -> Self {
        match error {
            ProofError::WrongKind
            | ProofError::WrongAlgorithm
            | ProofError::TtlTooLong { .. }
            | ProofError::Signature => Self::ProofInvalid,
            ProofError::Expired { .. } | ProofError::NotYetValid { .. } | ProofError::BeforeStart => Self::ProofExpired,
        }
    }

    /// The code of a fresh proof that cannot be remembered as used.
    #[must_use]
    pub const fn of_replay(error: &Replay) -> Self {
        match error {
            Replay::Seen => Self::ProofReplayed,
            Replay::OutOfTime => Self::ProofExpired,
            Replay::Full => Self::Overloaded,
        }
    }

    /// The code of a request that no budget or rate has room for.
    #[must_use]
    pub const fn of_budget(error: &BudgetError) -> Self {
        match error {
            BudgetError::Exhausted { .. } | BudgetError::TooManyBlocks => Self::BudgetExhausted,
            BudgetError::RateLimited { .. } => Self::RateLimited,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_in_order_and_without_repetition() {
        assert!(Code::ALL.is_sorted());
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert_eq!(Code::ALL.last(), Some(&Code::UpstreamTimeout));
    }

    #[test]
    fn the_documented_list_is_this_list() {
        let documented: Vec<&str> = include_str!("../../docs/errors.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code))
            .collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(documented, codes);
    }
}
