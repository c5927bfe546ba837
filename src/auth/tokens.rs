//! Tokens that were verified a moment ago, by digest.
//!
//! An entry holds for five minutes or until the token ends, whichever comes first, and only as long as
//! its issuer is the same and still has the key that signed it. Who the consumer is now is not cached here: the directory
//! is asked each time, and the caller made of both is kept for as long as it answers the same.
//!
//! Must stay true: a hit does not allocate; no token stands in here, only its digest; the cache is
//! bounded in entries and in bytes.

use super::denied::InvalidReason;
use super::identity::{Caller, Consumer, Credential, Fields};
use super::issuer::Generation;
use super::jwt::{Issuers, Verified};
use crate::telemetry::{Clock, Moment};
use arc_swap::ArcSwapOption;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a verified token is believed without looking at it again.
const BELIEVED_FOR: Duration = Duration::from_secs(300);
/// Bytes that an entry may take on average.
const BYTES_PER_ENTRY: u64 = 1024;

/// By which a token is found.
pub(super) type TokenDigest = [u8; 32];

/// A verified token, and the callers made of it.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) verified: Verified,
    generation: Generation,
    until: Moment,
    /// Of the consumer as the directory last gave it.
    caller: ArcSwapOption<Caller>,
    /// Of a consumer that the store does not know.
    stranger: OnceLock<Arc<Caller>>,
}

impl Token {
    /// The bearer, of a consumer that the store knows.
    pub(super) fn caller_of(&self, consumer: &Arc<Consumer>) -> Arc<Caller> {
        let cached = self.caller.load();
        if let Some(caller) =
            cached.as_ref().filter(|caller| Arc::ptr_eq(&caller.consumer, consumer))
        {
            return Arc::clone(caller);
        }
        let caller = Arc::new(self.caller(Arc::clone(consumer)));
        self.caller.store(Some(Arc::clone(&caller)));
        caller
    }

    /// The bearer, of a consumer that the store does not know; `None` where that is not allowed.
    pub(super) fn stranger(&self) -> Option<Arc<Caller>> {
        let plan = self.verified.default_plan.as_ref()?;
        let caller = self.stranger.get_or_init(|| {
            let Verified { issuer, consumer, .. } = &self.verified;
            Arc::new(self.caller(Arc::new(Consumer {
                // No id of the store has a colon, and no name of an issuer.
                id: format!("jwt:{issuer}:{consumer}").into(),
                username: Arc::clone(consumer),
                custom_id: None,
                plan: Arc::clone(plan),
                policies: Arc::default(),
                enabled: true,
            })))
        });
        Some(Arc::clone(caller))
    }

    fn caller(&self, consumer: Arc<Consumer>) -> Caller {
        let Verified { issuer, subject, scopes, plan, claims, .. } = &self.verified;
        Caller {
            plan: Arc::clone(plan.as_ref().unwrap_or(&consumer.plan)),
            consumer,
            credential: Credential::Jwt {
                issuer: Arc::clone(issuer),
                subject: Arc::clone(subject),
            },
            scopes: Arc::clone(scopes),
            claims: Arc::clone(claims),
            fields: Fields::default(),
        }
    }
}

/// Bytes of an entry, roughly and from above.
#[derive(Clone)]
struct Bytes;

impl Weighter<TokenDigest, Arc<Token>> for Bytes {
    fn weight(&self, _: &TokenDigest, token: &Arc<Token>) -> u64 {
        let Verified { consumer, subject, id, scopes, plan, claims, .. } = &token.verified;
        let scopes: usize = scopes.iter().map(|scope| scope.len() + 48).sum();
        let id = id.as_ref().map_or(0, |id| id.len());
        let plan = plan.as_ref().map_or(0, |plan| plan.len());
        // Once as claims, once more as the fields of a request.
        let fields: usize = claims.fields.iter().map(|(_, value)| 2 * (value.len() + 96)).sum();
        let kept: usize = claims.kept.iter().map(|(_, value)| value.len() + 64).sum();
        let bytes = 512 + 3 * consumer.len() + subject.len() + id + plan + scopes + fields + kept;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Tokens that were verified a moment ago. Outlives configurations; shared by all workers.
pub struct TokenCache {
    tokens: Cache<TokenDigest, Arc<Token>, Bytes>,
}

impl TokenCache {
    /// A cache for about `entries` tokens.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        let bytes = u64::try_from(entries).unwrap_or(u64::MAX).saturating_mul(BYTES_PER_ENTRY);
        Self { tokens: Cache::with_weighter(entries, bytes, Bytes) }
    }

    /// How many tokens are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn digest(token: &[u8]) -> TokenDigest {
        Sha256::digest(token).into()
    }

    /// A token that was verified under `issuers`; refused once it has ended.
    pub(super) fn find(
        &self,
        digest: &TokenDigest,
        issuers: &Issuers,
        clock: &Clock,
    ) -> Option<Result<Arc<Token>, InvalidReason>> {
        let token = self.tokens.get(digest)?;
        if clock.now() >= token.until || !issuers.vouch(&token.generation, &token.verified.key) {
            return None;
        }
        if seconds(clock.unix_time()) >= token.verified.ends_at {
            return Some(Err(InvalidReason::Expired));
        }
        Some(Ok(token))
    }

    /// Whether a token was found good not long ago and has not ended: it may have to be verified again.
    pub(super) fn remembers(&self, digest: &TokenDigest, clock: &Clock) -> bool {
        let token = self.tokens.peek(digest);
        token.is_some_and(|token| seconds(clock.unix_time()) < token.verified.ends_at)
    }

    /// Keeps a token that was verified just now under `generation`.
    pub(super) fn keep(
        &self,
        digest: TokenDigest,
        (verified, generation): (Verified, Generation),
        clock: &Clock,
    ) -> Arc<Token> {
        let token = Arc::new(Token {
            verified,
            generation,
            until: clock.now() + BELIEVED_FOR,
            caller: ArcSwapOption::empty(),
            stranger: OnceLock::new(),
        });
        self.tokens.insert(digest, Arc::clone(&token));
        token
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("tokens", &self.len()).finish()
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
