//! Sets of public keys (RFC 7517), read strictly.
//!
//! A set can hold keys for others; those are told apart from keys that are broken, and one bad key
//! does not take the others with it.

use super::algorithm::{Algorithm, Family};
use super::compact::{decode, object};
use super::key::{BadKey, Key, KeySet, MAX_KEYS, MAX_KID};
use serde_json::{Map, Value};

/// Members that only private keys have.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What was read of a set.
#[derive(Debug)]
pub struct Jwks {
    /// The keys that can be used.
    pub keys: KeySet,
    /// The others, and why not.
    pub refused: Vec<RefusedKey>,
}

/// A key of a set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedKey {
    /// Its place in the set, from 1.
    pub place: usize,
    /// Its name, as far as it can be shown.
    pub kid: Option<String>,
    /// Why.
    pub reason: BadKey,
}

impl std::fmt::Display for RefusedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {}", self.place)?;
        if let Some(kid) = &self.kid {
            write!(f, " (`{kid}`)")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why a text is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASet {
    /// Not an object with a list `keys`, or a name stands twice in it.
    #[error("it is not a JSON object with a list `keys` in which no name stands twice")]
    Form,
    /// Too many keys.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
}

impl Jwks {
    /// Reads a set; `of_rsa` is the algorithm of RSA keys that do not name theirs.
    ///
    /// # Errors
    /// It is no set at all.
    pub fn parse(json: &[u8], of_rsa: Algorithm) -> Result<Self, NotASet> {
        let set = object(json).ok_or(NotASet::Form)?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(NotASet::Form)?;
        if list.len() > MAX_KEYS {
            return Err(NotASet::TooMany);
        }
        let mut keys = Vec::new();
        let mut refused = Vec::new();
        let count = |kid: &str| list.iter().filter(|key| kid_of(key) == Some(kid)).nth(1).is_some();
        for (place, jwk) in (1..).zip(list) {
            let kid = kid_of(jwk);
            let key = match jwk.as_object().ok_or(BadKey::Malformed) {
                Ok(jwk) => read(jwk, of_rsa),
                Err(reason) => Err(reason),
            };
            // Of two keys with one name nobody can say which was meant, so neither is taken.
            let twice = kid.is_some_and(count);
            match key {
                Ok(_) if twice => refused.push((place, kid, BadKey::Duplicate)),
                Ok(key) => keys.push(key),
                Err(reason) => refused.push((place, kid, reason)),
            }
        }
        let shown = |kid: &str| kid.chars().take(60).collect::<String>().escape_debug().to_string();
        let refused = refused.into_iter().map(|(place, kid, reason)| RefusedKey {
            place,
            kid: kid.map(shown),
            reason,
        });
        Ok(Self { keys: KeySet::new(keys), refused: refused.collect() })
    }
}

fn kid_of(jwk: &Value) -> Option<&str> {
    jwk.get("kid").and_then(Value::as_str)
}

fn read(jwk: &Map<String, Value>, of_rsa: Algorithm) -> Result<Key, BadKey> {
    let kty = text(jwk, "kty")?.ok_or(BadKey::Malformed)?;
    match kty {
        "oct" => return Err(BadKey::Secret),
        "RSA" | "EC" | "OKP" => {}
        _ => return Err(BadKey::Type),
    }
    if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
        return Err(BadKey::Private);
    }
    check_purpose(jwk)?;
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) if (1..=MAX_KID).contains(&kid.len()) => Some(kid.as_str()),
        Some(_) => return Err(BadKey::Kid),
    };
    let own = match (kty, text(jwk, "crv")?) {
        ("RSA", _) => of_rsa,
        ("EC", Some("P-256")) => Algorithm::Es256,
        ("EC", Some("P-384")) => Algorithm::Es384,
        ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
        (_, Some(_)) => return Err(BadKey::Curve),
        (_, None) => return Err(BadKey::Malformed),
    };
    let algorithm = match text(jwk, "alg")? {
        None => own,
        Some(name) => Algorithm::parse(name)
            .filter(|algorithm| algorithm.family() == own.family())
            .ok_or(BadKey::Algorithm)?,
    };
    match own.family() {
        Family::Rsa => Key::rsa(kid, algorithm, &bytes(jwk, "n")?, &bytes(jwk, "e")?),
        Family::Ed25519 => Key::point(kid, algorithm, &bytes(jwk, "x")?),
        Family::P256 => Key::point(kid, algorithm, &uncompressed(jwk, 32)?),
        Family::P384 => Key::point(kid, algorithm, &uncompressed(jwk, 48)?),
        Family::Secret => Err(BadKey::Algorithm),
    }
}

/// `use` and `key_ops`, where they are said, say that signatures are verified with it.
fn check_purpose(jwk: &Map<String, Value>) -> Result<(), BadKey> {
    match text(jwk, "use")? {
        None | Some("sig") => {}
        Some(_) => return Err(BadKey::Use),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            match list.iter().any(|operation| operation == "verify") {
                true => Ok(()),
                false => Err(BadKey::Operations),
            }
        }
        Some(_) => Err(BadKey::Malformed),
    }
}

/// Both halves of a point, each of the length that its curve asks for (RFC 7518 6.2.1.2).
fn uncompressed(jwk: &Map<String, Value>, length: usize) -> Result<Vec<u8>, BadKey> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return Err(BadKey::Malformed);
    }
    Ok([&[4], &*x, &*y].concat())
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, BadKey> {
    let text = text(jwk, name)?.ok_or(BadKey::Malformed)?;
    decode(text.as_bytes()).ok_or(BadKey::Malformed)
}

fn text<'m>(jwk: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, BadKey> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(BadKey::Malformed),
    }
}
