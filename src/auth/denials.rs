//! The port for the deny list: tokens that are taken back before they end.
//!
//! A token is denied by its `jti`, or, with all others of its subject, by when it was issued. The list
//! is held in memory as a whole by every gateway, so it is bounded, and an entry ends when the last
//! token that it can name has ended, leeway included.
//!
//! Must stay true: the fingerprint of a certificate is stored as a handshake spells it, however it was
//! given; an entry in another spelling would refuse nobody.

use super::certificates::CERTIFICATES;
use super::denied::Outage;
use super::identity::UnixTime;
use super::registry::{Actor, Page, RegistryError};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// Entries that have not ended; more are refused when they are written.
pub const MAX_DENIALS: usize = 100_000;
/// The longest `jti` or subject that can be denied.
pub const MAX_CLAIM: usize = 512;

/// How long after its `until` an entry still counts: a token may live so long after its `exp`, which is
/// the longest leeway that an issuer can have.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Entries whose `until` is at this time or before have no effect any more.
#[must_use]
pub fn ended_by(now: UnixTime) -> UnixTime {
    UnixTime::from_secs(now.as_secs().saturating_sub(LEEWAY.as_secs()))
}

/// Which tokens are denied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DeniedTokens {
    /// The one with this `jti`.
    Id(Arc<str>),
    /// Those of this `sub` that were issued (`iat`) before this time; without `iat`, all of them.
    Subject {
        /// `sub`.
        subject: Arc<str>,
        /// Tokens issued at this time or later are not denied.
        issued_before: UnixTime,
    },
}

/// An entry to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDenial {
    /// Name of the issuer's `[auth.jwt.*]` table.
    pub issuer: String,
    /// Which of its tokens.
    pub tokens: DeniedTokens,
    /// The `exp` of the last of them.
    pub until: UnixTime,
    /// For those who read the list.
    pub reason: Option<String>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Given by the store; lists are in its order, which is that of time.
    pub id: Arc<str>,
    /// Name of the issuer's `[auth.jwt.*]` table.
    pub issuer: Arc<str>,
    /// Which of its tokens.
    pub tokens: DeniedTokens,
    /// The `exp` of the last of them.
    pub until: UnixTime,
    /// For those who read the list.
    pub reason: Option<Arc<str>>,
    /// When it was made.
    pub created_at: UnixTime,
}

/// The deny list.
#[async_trait]
pub trait Denials: Send + Sync {
    /// All entries that have not ended, read in one statement, and the revision they were read at.
    /// From the authority itself.
    async fn load_denials(&self) -> Result<(Vec<Denial>, u64), Outage>;

    /// Entries that have not ended, by id.
    async fn denials(&self, page: Page<'_>) -> Result<Vec<Denial>, RegistryError>;

    /// Makes an entry.
    async fn deny(&self, by: &Actor, new: NewDenial) -> Result<Denial, RegistryError>;

    /// Takes an entry away.
    async fn allow(&self, by: &Actor, id: &str) -> Result<Denial, RegistryError>;
}

/// Checks an entry before it is stored, and spells it as what is shown will be spelled.
///
/// # Errors
/// [`RegistryError::Invalid`].
pub fn check_denial(mut new: NewDenial, now: UnixTime) -> Result<NewDenial, RegistryError> {
    super::registry::check_name("issuer", &new.issuer)?;
    let (what, claim) = match &new.tokens {
        DeniedTokens::Id(id) => ("jti", id),
        DeniedTokens::Subject { subject, .. } => ("subject", subject),
    };
    let invalid =
        |what, problem: &str| Err(RegistryError::Invalid { what, problem: problem.to_owned() });
    if claim.is_empty() || claim.len() > MAX_CLAIM || claim.contains('\0') {
        return invalid(what, "must have 1 to 512 bytes, none of them zero");
    }
    if new.until <= now {
        return invalid("the end of the entry", "must lie in the future");
    }
    if new.reason.as_ref().is_some_and(|reason| reason.len() > MAX_CLAIM || reason.contains('\0')) {
        return invalid("reason", "must have at most 512 bytes, none of them zero");
    }
    if new.issuer == CERTIFICATES
        && let DeniedTokens::Id(id) = &mut new.tokens
    {
        let Some(fingerprint) = fingerprint(id) else {
            return invalid("jti", "of `mtls` must be a SHA-256 fingerprint, 64 hex digits");
        };
        *id = fingerprint;
    }
    Ok(new)
}

/// A fingerprint as handshakes spell it; OpenSSL prints upper case, with colons.
fn fingerprint(text: &str) -> Option<Arc<str>> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    let good = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| digits.into())
}
