//! From the headers of a request to its caller.
//!
//! Only headers are read, never the query. A route says which methods it accepts; headers of other
//! methods are not ours and are left alone. A certificate belongs to the connection and not to the
//! request, so it counts only where no header says who calls. What could be read in two ways is refused: a key beside
//! a token, a header that stands twice, a spelling with `_` beside ours, since servers behind us may
//! take both for the same name.
//!
//! Must stay true: `identify_cached` neither allocates nor waits for a caller that is known; an
//! unknown key costs the same work as a wrong one.

use super::api_key::KeyForm;
use super::certificates::Certificates;
use super::compact::MAX_TOKEN;
use super::denied::{AmbiguousReason, Denied, InvalidReason, Outage};
use super::directory::{Directory, Lookup};
use super::identity::{ApiKeys, Caller, Consumer, Method, Requirement};
use super::issuer::{Generation, JwtIssuer};
use super::jwt::{Issuers, Unverified, Verified};
use super::prover::KeyProver;
use super::remote_keys::{self, RemoteKeySets, RemoteKeys};
use super::sent::{Presented, Sent, ambiguous, presented_token, single};
use super::shelf::Entry;
use super::spelling::{same, underscore_twins};
use super::tokens::{Token, TokenCache};
use crate::telemetry::Clock;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::timeout;

/// Identifies callers under one configuration.
pub struct Authenticator {
    keys: KeyProver,
    key_header: HeaderName,
    issuers: Issuers,
    certificates: Certificates,
    directory: Arc<Directory>,
    tokens: Arc<TokenCache>,
    clock: Clock,
    /// `Authorization` first, then the key's header and its spellings with `_`.
    credential_headers: Vec<HeaderName>,
}

type Identified = Result<Arc<Caller>, Denied>;
type Proved = Result<(Verified, Generation), Denied>;

impl Authenticator {
    /// Identifies by `api_keys` and `issuers`; `directory`, `tokens` and the `remote` keys outlive this
    /// configuration.
    #[must_use]
    pub fn new(
        api_keys: ApiKeys,
        issuers: Vec<Arc<JwtIssuer>>,
        directory: Arc<Directory>,
        tokens: Arc<TokenCache>,
        remote: &RemoteKeySets,
        clock: Clock,
    ) -> Self {
        let mut credential_headers = vec![AUTHORIZATION, api_keys.header.clone()];
        credential_headers.extend(underscore_twins(&api_keys.header));
        let form = KeyForm::new(&api_keys);
        Self {
            keys: KeyProver::new(form, Arc::clone(&directory), clock.clone()),
            key_header: api_keys.header,
            issuers: Issuers::new(issuers, remote),
            certificates: Certificates::default(),
            directory,
            tokens,
            clock,
            credential_headers,
        }
    }

    /// The same, keeping the claims of these names with each caller, for rules that count by them.
    #[must_use]
    pub fn keeping(mut self, claims: Arc<[Arc<str>]>) -> Self {
        self.issuers = self.issuers.keeping(claims);
        self
    }

    /// Identifies by `certificates` too.
    #[must_use]
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self { certificates, ..self }
    }

    /// Every header that can carry a credential of ours, spellings with `_` included.
    #[must_use]
    pub fn credential_headers(&self) -> &[HeaderName] {
        &self.credential_headers
    }

    /// Every header in which upstreams are told of a token's claims: nobody else may say them, on any
    /// route.
    #[must_use]
    pub fn claim_headers(&self) -> &[HeaderName] {
        self.issuers.headers()
    }

    /// The headers to remove before a request goes on to the upstream: those of API keys always,
    /// `Authorization` only where tokens are accepted; elsewhere it belongs to the upstream.
    #[must_use]
    pub fn credential_headers_of(&self, requirement: &Requirement) -> &[HeaderName] {
        match requirement {
            Requirement::Required { methods, .. } if methods.contains(&Method::Jwt) => {
                &self.credential_headers
            }
            Requirement::Open | Requirement::Required { .. } => {
                self.credential_headers.get(1..).unwrap_or_default()
            }
        }
    }

    /// Who sent this from the address `client`, as far as `requirement` asks; `None` where it asks nothing.
    ///
    /// # Errors
    /// Why the request must not go on.
    pub async fn identify<'h>(
        &self,
        requirement: &Requirement,
        sent: impl Into<Sent<'h>>,
        client: IpAddr,
    ) -> Result<Option<Arc<Caller>>, Denied> {
        let sent = sent.into();
        match self.identify_cached(requirement, sent, client) {
            Some(identified) => identified,
            None => self.look_up(requirement, sent, client).await,
        }
    }

    /// The same from the store, or by verifying a token, for whom [`Authenticator::identify_cached`]
    /// does not know.
    ///
    /// # Errors
    /// Why the request must not go on.
    pub async fn look_up(
        &self,
        requirement: &Requirement,
        sent: Sent<'_>,
        client: IpAddr,
    ) -> Result<Option<Arc<Caller>>, Denied> {
        let Requirement::Required { methods, scopes } = requirement else {
            return Ok(None);
        };
        let caller = match self.presented(methods, sent)? {
            Presented::Key(text) => self.keys.by_key(text, client).await?,
            Presented::Token(text) => self.by_token(text).await?,
            Presented::Certificate(shown) => {
                self.certificates.identify(shown, &self.directory, &self.clock).await?
            }
        };
        check_scopes(caller, scopes).map(Some)
    }

    /// The same from what is at hand; `None` if the store has to be asked, or a token verified.
    pub fn identify_cached<'h>(
        &self,
        requirement: &Requirement,
        sent: impl Into<Sent<'h>>,
        client: IpAddr,
    ) -> Option<Result<Option<Arc<Caller>>, Denied>> {
        let Requirement::Required { methods, scopes } = requirement else {
            return Some(Ok(None));
        };
        let identified = match self.presented(methods, sent.into()) {
            Ok(Presented::Key(text)) => self.keys.by_cached_key(text, client)?,
            Ok(Presented::Token(text)) => self.by_cached_token(text)?,
            Ok(Presented::Certificate(shown)) => {
                self.certificates.identify_cached(shown, &self.directory, &self.clock)?
            }
            Err(denied) => Err(denied),
        };
        Some(identified.and_then(|caller| check_scopes(caller, scopes)).map(Some))
    }

    /// Whether the credential is a certificate, for which a handshake has asked its key.
    #[must_use]
    pub fn shows_certificate(&self, requirement: &Requirement, sent: Sent<'_>) -> bool {
        let Requirement::Required { methods, .. } = requirement else { return false };
        matches!(self.presented(methods, sent), Ok(Presented::Certificate(_)))
    }

    /// The one credential that the route accepts.
    fn presented<'h>(
        &self,
        methods: &[Method],
        Sent { headers, certificate }: Sent<'h>,
    ) -> Result<Presented<'h>, Denied> {
        let key = match methods.contains(&Method::ApiKey) {
            true => self.presented_key(headers)?,
            false => None,
        };
        let token = match methods.contains(&Method::Jwt) {
            true => presented_token(headers)?,
            false => None,
        };
        match (key, token) {
            (Some(_), Some(_)) => Err(ambiguous(AmbiguousReason::BothMethods)),
            (Some(key), None) => Ok(Presented::Key(key)),
            (None, Some(token)) => Ok(Presented::Token(token)),
            (None, None) => match certificate {
                Some(shown) if methods.contains(&Method::Certificate) => {
                    Ok(Presented::Certificate(shown))
                }
                _ => Err(Denied::NoCredential),
            },
        }
    }

    fn presented_key<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h [u8]>, Denied> {
        let Some(key) = single(headers, &self.key_header)? else {
            return Ok(None);
        };
        // A twin alone is no credential: it is not our header.
        let twin = |name: &HeaderName| name != self.key_header && same(name, &self.key_header);
        match headers.keys().any(twin) {
            true => Err(ambiguous(AmbiguousReason::Underscore)),
            false => Ok(Some(key)),
        }
    }

    fn by_cached_token(&self, text: &[u8]) -> Option<Identified> {
        if text.len() > MAX_TOKEN {
            return Some(Err(invalid_token(InvalidReason::TooLong)));
        }
        let found = self.tokens.find(&TokenCache::digest(text), &self.issuers, &self.clock)?;
        match found {
            Ok(token) if self.directory.denies(&token.verified) => {
                Some(Err(invalid_token(InvalidReason::Revoked)))
            }
            Ok(token) => {
                let consumer = self.directory.glance_consumer(&token.verified.consumer)?;
                Some(bearer(&token, &consumer))
            }
            Err(reason) => Some(Err(invalid_token(reason))),
        }
    }

    async fn by_token(&self, text: &[u8]) -> Identified {
        let digest = TokenCache::digest(text);
        let token = match self.tokens.find(&digest, &self.issuers, &self.clock) {
            Some(found) => found,
            None => {
                let verified = self.verify(text).await?;
                Ok(self.tokens.keep(digest, verified, &self.clock))
            }
        };
        let token = token.map_err(invalid_token)?;
        if self.directory.denies(&token.verified) {
            return Err(invalid_token(InvalidReason::Revoked));
        }
        bearer(&token, &self.directory.find_consumer(&token.verified.consumer).await)
    }

    /// Verifies a token. Where its issuer's keys are at a URL and none has its name, the URL is asked
    /// first, unless that was done a moment ago.
    async fn verify(&self, text: &[u8]) -> Proved {
        match self.issuers.verify(text, self.clock.unix_time()) {
            Ok(verified) => Ok(verified),
            Err(Unverified::Invalid(reason)) => Err(invalid_token(reason)),
            Err(Unverified::Missing(remote)) => {
                let asking = self.verify_with_more(text, remote);
                let asked = timeout(remote_keys::PATIENCE, asking).await;
                asked.unwrap_or(Err(Denied::Unavailable(Outage::Keys)))
            }
        }
    }

    /// Verifies a token once the URLs that lack its key have answered.
    async fn verify_with_more(&self, text: &[u8], mut missing: Vec<Arc<RemoteKeys>>) -> Proved {
        // A question that was under way may have been answered before the key was there: one more.
        for _ in 0..2 {
            let asked: Vec<_> = missing.iter().filter_map(|remote| remote.ask()).collect();
            if asked.is_empty() {
                break;
            }
            for mut answer in asked {
                // The sender lives in what is missing.
                drop(answer.changed().await);
            }
            missing = match self.issuers.verify(text, self.clock.unix_time()) {
                Ok(verified) => return Ok(verified),
                Err(Unverified::Invalid(reason)) => return Err(invalid_token(reason)),
                Err(Unverified::Missing(remote)) => remote,
            };
        }
        // Where the URL does not say which keys there are, the token may be good.
        match missing.iter().any(|keys| keys.is_in_doubt()) {
            true => Err(Denied::Unavailable(Outage::Keys)),
            false => Err(invalid_token(InvalidReason::KeyUnknown)),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("keys", &self.keys)
            .field("issuers", &self.issuers)
            .finish_non_exhaustive()
    }
}

/// The caller of a good token whose consumer is this.
fn bearer(token: &Token, consumer: &Lookup<Arc<Entry<Arc<Consumer>>>>) -> Identified {
    match consumer {
        Lookup::Known(entry) if !entry.value.enabled => Err(invalid_token(InvalidReason::Disabled)),
        Lookup::Known(entry) => Ok(token.caller_of(&entry.value)),
        Lookup::Unavailable(outage) => Err(Denied::Unavailable(*outage)),
        Lookup::Unknown => token.stranger().ok_or_else(|| invalid_token(InvalidReason::Unknown)),
    }
}

fn check_scopes(caller: Arc<Caller>, required: &[Arc<str>]) -> Identified {
    if required.iter().all(|scope| caller.scopes.contains(scope)) {
        return Ok(caller);
    }
    Err(Denied::Scope { caller, required: required.into() })
}

pub(super) const fn invalid_token(reason: InvalidReason) -> Denied {
    Denied::Invalid { method: Method::Jwt, reason }
}
