//! API keys and tokens, taken apart and put together wrong.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use std::time::{SystemTime, UNIX_EPOCH};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part of a key.
pub(crate) fn id_of(key: &str) -> String {
    key.split('_').nth(2).unwrap().to_owned()
}

/// The same id with a secret that nobody was given, and a checksum that fits.
pub(crate) fn with_another_secret(key: &str) -> String {
    let (start, secret) = key.rsplit_once('_').unwrap();
    let secret = &secret[..secret.len() - 6];
    let first = if secret.starts_with('1') { '2' } else { '1' };
    summed(&format!("{start}_{first}{}", &secret[1..]))
}

/// A key in all but that nobody has issued it.
pub(crate) fn invented() -> String {
    let id: String = (0..16).map(|_| char::from(BASE62[rand::random_range(0..62)])).collect();
    summed(&format!("dh_live_{id}_{}", "7".repeat(27)))
}

/// Appends the checksum.
fn summed(start: &str) -> String {
    let mut number = crc32fast::hash(start.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[usize::try_from(number % 62).unwrap()];
        number /= 62;
    }
    format!("{start}{}", String::from_utf8_lossy(&digits))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token with these claims, signed as told; its header says the same.
pub(crate) fn token(claims: &serde_json::Value, algorithm: Algorithm, secret: &[u8]) -> String {
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

/// A token of exactly these parts, the first two as JSON, the signature of HS256 under `secret`.
pub(crate) fn forged(header: &str, claims: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

/// Base64 as tokens use it.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[bits >> (18 - 6 * place) & 63]));
        }
    }
    text
}

#[test]
fn parts_are_put_together_as_others_do() {
    assert_eq!(base64url(b"\xfb\xff\xbf"), "-_-_");
    assert_eq!(
        ["", "f", "fo", "foo"].map(|text| base64url(text.as_bytes())),
        ["", "Zg", "Zm8", "Zm9v"]
    );
    let key = invented();
    assert_eq!(key.len(), with_another_secret(&key).len());
    assert_eq!(id_of(&key), id_of(&with_another_secret(&key)));
    assert_ne!(key, with_another_secret(&key));
}
