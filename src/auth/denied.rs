//! Why a caller is refused.
//!
//! Must stay true: nothing in here holds a key, a token or a claim.

use super::identity::{Caller, Method};
use std::sync::Arc;

/// Why a caller is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Denied {
    /// More than one credential, or one that parties on the way may read differently.
    #[error("more than one credential was sent")]
    Ambiguous {
        /// For the access log.
        reason: AmbiguousReason,
    },
    /// A credential that is not good. To the client all reasons look the same.
    #[error("the credential is not valid")]
    Invalid {
        /// Which kind of credential.
        method: Method,
        /// For the access log.
        reason: InvalidReason,
    },
    /// Nothing that the route accepts.
    #[error("no credential was sent")]
    NoCredential,
    /// A good credential that may not do this.
    #[error("the credential lacks a required scope")]
    Scope {
        /// Who asked.
        caller: Arc<Caller>,
        /// All scopes that the route asks for.
        required: Arc<[Arc<str>]>,
    },
    /// Nobody can say at the moment; the credential may be good.
    #[error("credentials cannot be checked at the moment")]
    Unavailable(#[source] Outage),
}

impl Denied {
    /// A stable word for the access log. Clients never see it: a missing key, an unknown and a
    /// revoked one must look alike to them.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Ambiguous { reason } => reason.as_str(),
            Self::Invalid { reason, .. } => reason.as_str(),
            Self::NoCredential => "no_credential",
            Self::Scope { .. } => "missing_scope",
            Self::Unavailable(outage) => outage.as_str(),
        }
    }
}

/// What makes credentials ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmbiguousReason {
    /// A key and a token.
    BothMethods,
    /// The same header twice.
    Repeated,
    /// The header beside a spelling of it with `_`.
    Underscore,
}

impl AmbiguousReason {
    /// A stable word for the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BothMethods => "key_and_token",
            Self::Repeated => "repeated_header",
            Self::Underscore => "underscore_twin",
        }
    }
}

/// What is wrong with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidReason {
    /// The key is not for the client's address.
    Address,
    /// The token names another algorithm than its issuer's.
    Algorithm,
    /// The token is for somebody else.
    Audience,
    /// The key's checksum does not fit: a typing error, or a guess.
    Checksum,
    /// The token names no consumer, or one that cannot be a name.
    ConsumerClaim,
    /// The token's header asks for something that is not supported.
    Critical,
    /// The consumer is disabled.
    Disabled,
    /// A key of another environment.
    Environment,
    /// Past its end.
    Expired,
    /// A claim that goes into a header cannot.
    HeaderClaim,
    /// Nobody's token: no issuer fits. Of a certificate: its authority is not believed any more.
    Issuer,
    /// The issuer has no key of the name that the token says.
    KeyUnknown,
    /// Not a key or token at all.
    Malformed,
    /// The token has no `exp`.
    NoExpiry,
    /// Before its beginning.
    NotYet,
    /// The key was stored under another pepper than the gateway runs with.
    Pepper,
    /// Taken back.
    Revoked,
    /// The id is known, the secret is not its own.
    Secret,
    /// The token was not signed by its issuer.
    Signature,
    /// The certificate does not say clearly whom it names.
    Subject,
    /// Longer than any token that is read.
    TooLong,
    /// The token is of another kind than its issuer's.
    Type,
    /// Not in the store.
    Unknown,
}

impl InvalidReason {
    /// A stable word for the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address_not_allowed",
            Self::Algorithm => "wrong_algorithm",
            Self::Audience => "wrong_audience",
            Self::Checksum => "bad_checksum",
            Self::ConsumerClaim => "no_consumer_claim",
            Self::Critical => "unsupported_header",
            Self::Disabled => "consumer_disabled",
            Self::Environment => "wrong_environment",
            Self::Expired => "expired",
            Self::HeaderClaim => "bad_header_claim",
            Self::Issuer => "wrong_issuer",
            Self::KeyUnknown => "unknown_kid",
            Self::Malformed => "malformed",
            Self::NoExpiry => "no_expiry",
            Self::NotYet => "not_yet_valid",
            Self::Pepper => "other_pepper",
            Self::Revoked => "revoked",
            Self::Secret => "wrong_secret",
            Self::Signature => "bad_signature",
            Self::Subject => "no_usable_subject",
            Self::TooLong => "too_long",
            Self::Type => "wrong_type",
            Self::Unknown => "unknown",
        }
    }
}

/// Why nobody can say whether a credential is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// The store answers from before a change that is already known.
    #[error("the store answers from the past")]
    Behind,
    /// Too many look-ups are waiting.
    #[error("too many look-ups are waiting for the store")]
    Busy,
    /// The store failed.
    #[error("the store failed")]
    Failed,
    /// The issuer's keys are not here, and its URL does not answer.
    #[error("the issuer's keys cannot be fetched")]
    Keys,
    /// No answer in time.
    #[error("the store did not answer in time")]
    Timeout,
}

impl Outage {
    /// A stable word for the access log and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "store_behind",
            Self::Busy => "store_busy",
            Self::Failed => "store_failed",
            Self::Keys => "issuer_keys_unavailable",
            Self::Timeout => "store_timeout",
        }
    }
}
