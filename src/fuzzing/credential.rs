//! Keys and tokens.

use crate::auth::ApiKeys;
use crate::auth::api_key::KeyForm;
use crate::auth::fuzzing::Verifier;
use hmac::Mac as _;
use serde_json::Value;
use std::time::Duration;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "dh_test_";
/// Prefix, id, `_`, secret, checksum.
const LENGTH: usize = 8 + 16 + 1 + 27 + 6;

/// A key that is read has the one form, and no other text is read as the same key. Bytes that are no
/// key are made the random part of one.
pub fn api_key(data: &[u8]) -> bool {
    let form = KeyForm::new(&ApiKeys {
        environment: "test".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: vec![7; 32],
        previous_peppers: Vec::new(),
    });
    let parsed = form.parse(data);
    if let Ok(key) = &parsed {
        let text = std::str::from_utf8(data).unwrap_or_default();
        assert_eq!(text.len(), LENGTH);
        assert!(text.starts_with(&format!("{PREFIX}{}_", key.id())), "{text}");
        let (body, checksum) = text.split_at(LENGTH - 6);
        assert_eq!(checksum, checksum_of(body), "{text}");
    }
    let made = made_of(data);
    let key = form.parse(made.as_bytes());
    assert!(key.is_ok_and(|key| made.get(8..24) == Some(key.id().as_str())), "{made}");
    // Whatever a slip of the pen makes of it, it is not a key.
    let at = usize::from(data.first().copied().unwrap_or_default()) % LENGTH;
    let slip = data.get(1).copied().unwrap_or(b'x');
    let mut other = made.clone().into_bytes();
    if let Some(byte) = other.get_mut(at).filter(|byte| **byte != slip) {
        *byte = slip;
        assert!(form.parse(&other).is_err(), "{}", other.escape_ascii());
    }
    for longer in [format!("{made} "), format!(" {made}"), format!("{made}\n"), made.to_uppercase()]
    {
        assert!(form.parse(longer.as_bytes()).is_err(), "{longer:?}");
    }
    parsed.is_ok()
}

/// A key whose id and secret are taken from `data`.
fn made_of(data: &[u8]) -> String {
    let mut digits = data.iter().chain(std::iter::repeat(&0)).map(|byte| {
        ALPHABET.get(usize::from(*byte) % ALPHABET.len()).copied().map_or('0', char::from)
    });
    let id: String = digits.by_ref().take(16).collect();
    let secret: String = digits.take(27).collect();
    let body = format!("{PREFIX}{id}_{secret}");
    let checksum = checksum_of(&body);
    body + &checksum
}

fn checksum_of(body: &str) -> String {
    let mut left = u64::from(crc32fast::hash(body.as_bytes()));
    let mut digits = ['0'; 6];
    for digit in digits.iter_mut().rev() {
        let at = usize::try_from(left % 62).unwrap_or_default();
        *digit = ALPHABET.get(at).copied().map_or('0', char::from);
        left /= 62;
    }
    digits.iter().collect()
}

const SECRET: &[u8; 32] = b"the secret of the fuzzed issuer!";
const ISS: &str = "https://id";
const AUD: &str = "api";
const NOW: u64 = 1_800_000_000;

/// A token that is believed was signed with the secret, is of the issuer and for us, has not ended, and
/// has one spelling. Two lines are a header and claims, which are signed; anything else is a token.
pub fn token(data: &[u8]) -> bool {
    let made = Verifier::new(SECRET, ISS, AUD, Duration::from_secs(NOW));
    let Ok(verifier) = made else { panic!("the secret is long enough") };
    let lines = data.iter().position(|&byte| byte == b'\n').map(|at| data.split_at(at));
    let token = match lines {
        Some((header, claims)) => sign(header, claims.get(1..).unwrap_or_default()).into_bytes(),
        None => data.to_vec(),
    };
    let Some(believed) = verifier.verify(&token) else { return false };
    let text = std::str::from_utf8(&token).unwrap_or_default();
    let parts: Vec<&str> = text.split('.').collect();
    let &[header, payload, signature] = parts.as_slice() else { panic!("{text}") };
    assert_eq!(signature, signature_of(&format!("{header}.{payload}")), "{text}");
    let (header, claims) = (json(header), json(payload));
    assert_eq!(header.get("alg"), Some(&Value::from("HS256")), "{header}");
    for forbidden in ["crit", "b64", "zip", "enc"] {
        assert!(header.get(forbidden).is_none(), "{header}");
    }
    assert_eq!(claims.get("iss"), Some(&Value::from(ISS)), "{claims}");
    let aud = claims.get("aud");
    let among = aud.and_then(Value::as_array).is_some_and(|list| list.contains(&AUD.into()));
    assert!(aud == Some(&AUD.into()) || among, "{claims}");
    #[expect(clippy::cast_precision_loss, reason = "the number is as small as times are")]
    let now = NOW as f64;
    assert!(claims.get("exp").and_then(Value::as_f64).is_some_and(|end| end > now), "{claims}");
    let begun = claims.get("nbf").is_none_or(|at| at.as_f64().is_some_and(|at| at <= now));
    assert!(begun, "{claims}");
    assert_eq!(claims.get("sub").and_then(Value::as_str), Some(&*believed.consumer), "{claims}");
    for scope in believed.scopes.iter() {
        assert!(payload_names(&claims, scope), "{scope} of {claims}");
    }
    for other in [format!("{text}="), format!("{text}."), format!(" {text}"), format!("{text}A")] {
        assert!(verifier.verify(other.as_bytes()).is_none(), "{other}");
    }
    true
}

/// Whether the scopes of these claims have this one.
fn payload_names(claims: &Value, scope: &str) -> bool {
    match claims.get("scope") {
        Some(Value::String(list)) => list.split(' ').any(|one| one == scope),
        Some(Value::Array(list)) => list.contains(&scope.into()),
        _ => false,
    }
}

fn sign(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = signature_of(&signed);
    format!("{signed}.{signature}")
}

fn signature_of(signed: &str) -> String {
    let mac = crate::auth::api_key::keyed(SECRET).chain_update(signed.as_bytes());
    encode(&mac.finalize().into_bytes())
}

fn json(part: &str) -> Value {
    serde_json::from_slice(&decode(part)).unwrap_or(Value::Null)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64url, bit by bit: slow, and not the code that is tried.
fn encode(bytes: &[u8]) -> String {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    bits.chunks(6)
        .filter_map(|six| {
            let digit = (0..6).fold(0, |sum, at| sum << 1 | six.get(at).copied().unwrap_or(0));
            BASE64.get(usize::from(digit)).copied().map(char::from)
        })
        .collect()
}

fn decode(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|byte| BASE64.iter().position(|&digit| digit == byte));
    let bits: Vec<u8> = digits
        .flat_map(|digit| (0..6).rev().map(move |at| u8::from(digit >> at & 1 == 1)))
        .collect();
    bits.chunks_exact(8).map(|eight| eight.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
}
