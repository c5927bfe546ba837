//! Who may use the API: the bearers of named tokens.
//!
//! Tokens are compared by digest, each of them and in constant time, so that an answer's delay tells
//! neither how much of a guess was right nor which token it was near to.
//!
//! Must stay true: no token is kept, logged or answered; a flood of wrong ones costs a hash each, is
//! told so by 429, fills no log, and never keeps out a right one.

use super::problem::{Code, Problem};
use crate::auth::registry::Actor;
use crate::telemetry::{Clock, Moment};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// Requests without a good token that are answered 401 at once; more get 429.
pub(super) const FAILURES: u32 = 10;
/// How soon one more is.
const REGAINED: Duration = Duration::from_millis(100);

/// Named tokens; at least one.
#[derive(Clone)]
pub struct Tokens {
    known: Arc<[Token]>,
    failures: Arc<Failures>,
}

struct Token {
    actor: Actor,
    digest: [u8; 32],
}

impl Tokens {
    /// The digests of `tokens`, each a name and a secret; `None` if there are none.
    #[must_use]
    pub fn new(tokens: Vec<(String, Vec<u8>)>, clock: Clock) -> Option<Self> {
        if tokens.is_empty() {
            return None;
        }
        let known = tokens.into_iter().map(|(name, secret)| Token {
            actor: Actor::named(&format!("admin:{name}")),
            digest: Sha256::digest(&secret).into(),
        });
        Some(Self { known: known.collect(), failures: Arc::new(Failures::new(clock)) })
    }

    /// Who sent a request with these fields.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Actor, Problem> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (code, detail) = match (fields.next(), fields.next()) {
            (Some(field), None) => match bearer(field.as_bytes()).and_then(|it| self.find(it)) {
                Some(actor) => return Ok(actor),
                None => (Code::WrongToken, "this is none of the tokens in `[admin.tokens]`"),
            },
            (None, _) => (Code::NoToken, "send a token of `[admin.tokens]` as a bearer token"),
            (Some(_), Some(_)) => (Code::WrongToken, "send one `Authorization` only"),
        };
        if self.failures.admit() {
            return Err(Problem::new(code, detail));
        }
        Err(Problem::new(Code::TooManyFailures, "a right token is answered all the while"))
    }

    fn find(&self, token: &[u8]) -> Option<Actor> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for token in self.known.iter() {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some(&token.actor);
            }
        }
        found.cloned()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.known.iter().map(|token| token.actor.as_str());
        f.debug_list().entries(names).finish()
    }
}

/// The token in `Bearer <token>` (RFC 6750 2.1).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked("Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// A bucket of failures.
struct Failures {
    clock: Clock,
    /// When everything taken so far is regained.
    regained: Mutex<Moment>,
}

impl Failures {
    fn new(clock: Clock) -> Self {
        Self { clock, regained: Mutex::default() }
    }

    /// Takes one, if there is one.
    fn admit(&self) -> bool {
        let now = self.clock.now();
        let mut regained = self.regained.lock();
        let next = (*regained).max(now) + REGAINED;
        let fits = next.since(now) <= REGAINED * FAILURES;
        if fits {
            *regained = next;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(clock: &Clock) -> Tokens {
        let named = |name: &str, secret: &str| (name.to_owned(), secret.as_bytes().to_vec());
        let all = vec![named("ops", "the first secret"), named("ci", "the second secret")];
        Tokens::new(all, clock.clone()).unwrap()
    }

    fn sent(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (AUTHORIZATION, field.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_tells_who_asks() {
        let tokens = tokens(&Clock::manual());
        let asks = |field: &str| tokens.identify(&sent(&[field]));
        assert_eq!(asks("Bearer the first secret").unwrap().as_str(), "admin:ops");
        assert_eq!(asks("bearer the second secret").unwrap().as_str(), "admin:ci");
        assert!(Tokens::new(Vec::new(), Clock::manual()).is_none(), "no tokens, no API");
        assert_eq!(format!("{tokens:?}"), r#"["admin:ops", "admin:ci"]"#);
    }

    #[test]
    fn whatever_else_is_sent_is_refused() {
        let clock = Clock::manual();
        let tokens = tokens(&clock);
        for fields in [
            &["Bearer the first secre"][..],
            &["Bearer the first secret "],
            &["Bearer  the first secret"],
            &["Bearer the third secret"],
            &["Bearer "],
            &["Bearer"],
            &["Basic the first secret"],
            &["the first secret"],
            &[""],
            &["Bearer the first secret", "Bearer the first secret"],
        ] {
            let refused = tokens.identify(&sent(fields)).unwrap_err();
            assert_eq!(refused.code(), Code::WrongToken, "{fields:?}");
            clock.advance(REGAINED);
        }
        assert_eq!(tokens.identify(&HeaderMap::new()).unwrap_err().code(), Code::NoToken);
    }

    #[test]
    fn a_flood_of_guesses_is_told_to_slow_down_and_keeps_nobody_out() {
        let clock = Clock::manual();
        let tokens = tokens(&clock);
        let guess = || tokens.identify(&sent(&["Bearer guess"])).unwrap_err().code();
        for _ in 0..FAILURES {
            assert_eq!(guess(), Code::WrongToken);
        }
        assert_eq!(guess(), Code::TooManyFailures);
        assert!(tokens.identify(&sent(&["Bearer the first secret"])).is_ok());
        clock.advance(REGAINED);
        assert_eq!(guess(), Code::WrongToken);
        assert_eq!(guess(), Code::TooManyFailures);
    }
}
