//! Keys: which ones are taken, and that each verifies by its own algorithm only.

use super::algorithm::{Algorithm, Family};
use super::denied::InvalidReason;
use super::jwks::{Jwks, NotASet};
use super::jwt::prove;
use super::key::{BadKey, Key, KeySet, MAX_KEYS};
use super::signing::{Signer, base64url};
use serde_json::{Value, json};

fn parse(keys: &[Value]) -> Jwks {
    let set = json!({ "keys": keys }).to_string();
    Jwks::parse(set.as_bytes(), Algorithm::Rs256).unwrap()
}

fn reason(jwk: Value) -> Option<BadKey> {
    let set = parse(&[jwk]);
    assert_eq!(set.keys.len() + set.refused.len(), 1);
    set.refused.first().map(|refused| refused.reason)
}

const PUBLIC: [Family; 4] = [Family::Rsa, Family::P256, Family::P384, Family::Ed25519];

#[test]
fn each_algorithm_verifies_what_its_key_signed_and_no_other_does() {
    let signers = PUBLIC.map(|family| (family, Signer::new(family)));
    for algorithm in Algorithm::ALL {
        let Some((_, signer)) = signers.iter().find(|(it, _)| *it == algorithm.family()) else {
            continue;
        };
        let token = |named: Algorithm| {
            signer.token(algorithm, &format!(r#"{{"alg":"{}"}}"#, named.name()), "{}")
        };
        let by_alg = parse(&[signer.jwk_with(&json!({ "alg": algorithm.name() }))]).keys;
        assert!(prove(token(algorithm).as_bytes(), &by_alg).is_ok(), "{algorithm:?}");
        let by_pem = KeySet::new(vec![Key::spki(algorithm, &signer.spki()).unwrap()]);
        assert!(prove(token(algorithm).as_bytes(), &by_pem).is_ok(), "{algorithm:?} as PEM");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let refused = prove(token(other).as_bytes(), &by_alg);
            assert_eq!(refused, Err(InvalidReason::Algorithm), "{algorithm:?} as {other:?}");
            // The key is for another algorithm, and the token says so too.
            if other.family() == algorithm.family() {
                let keys = parse(&[signer.jwk_with(&json!({ "alg": other.name() }))]).keys;
                let refused = prove(token(other).as_bytes(), &keys);
                assert_eq!(refused, Err(InvalidReason::Signature), "{algorithm:?} by {other:?}");
            }
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let signer = Signer::new(Family::Rsa);
    let keys = parse(&[signer.jwk()]).keys;
    for material in [signer.spki(), signer.jwk().to_string().into_bytes()] {
        let key = jsonwebtoken::EncodingKey::from_secret(&material);
        let signed = format!("{}.e30", base64url(br#"{"alg":"HS256"}"#));
        let algorithm = jsonwebtoken::Algorithm::HS256;
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
        let token = format!("{signed}.{signature}");
        assert_eq!(prove(token.as_bytes(), &keys), Err(InvalidReason::Algorithm));
    }
}

#[test]
fn a_key_is_taken_only_as_what_it_says_it_is() {
    let (rsa, p256, ed) =
        (Signer::new(Family::Rsa), Signer::new(Family::P256), Signer::new(Family::Ed25519));
    let p384 = Signer::new(Family::P384);
    let long = "k".repeat(129);
    let table = [
        (rsa.jwk(), None),
        (rsa.jwk_with(&json!({ "use": "sig", "key_ops": ["verify"], "x5c": ["junk"] })), None),
        (rsa.jwk_with(&json!({ "key_ops": ["sign", "verify"], "alg": "PS512" })), None),
        (ed.jwk_with(&json!({ "alg": "Ed25519" })), None),
        (p384.jwk_with(&json!({ "alg": "ES384", "kid": "k" })), None),
        (rsa.jwk_with(&json!({ "use": "enc" })), Some(BadKey::Use)),
        (rsa.jwk_with(&json!({ "use": "SIG" })), Some(BadKey::Use)),
        (rsa.jwk_with(&json!({ "use": ["sig"] })), Some(BadKey::Malformed)),
        (rsa.jwk_with(&json!({ "key_ops": ["encrypt"] })), Some(BadKey::Operations)),
        (rsa.jwk_with(&json!({ "key_ops": [] })), Some(BadKey::Operations)),
        (rsa.jwk_with(&json!({ "key_ops": "verify" })), Some(BadKey::Malformed)),
        (rsa.jwk_with(&json!({ "key_ops": ["verify", 1] })), Some(BadKey::Malformed)),
        (rsa.jwk_with(&json!({ "alg": "RSA-OAEP" })), Some(BadKey::Algorithm)),
        (rsa.jwk_with(&json!({ "alg": "HS256" })), Some(BadKey::Algorithm)),
        (rsa.jwk_with(&json!({ "alg": "none" })), Some(BadKey::Algorithm)),
        (rsa.jwk_with(&json!({ "alg": 1 })), Some(BadKey::Malformed)),
        (p256.jwk_with(&json!({ "alg": "ES384" })), Some(BadKey::Algorithm)),
        (p256.jwk_with(&json!({ "alg": "RS256" })), Some(BadKey::Algorithm)),
        (p256.jwk_with(&json!({ "crv": "P-384" })), Some(BadKey::Malformed)),
        (p256.jwk_with(&json!({ "crv": "secp256k1" })), Some(BadKey::Curve)),
        (ed.jwk_with(&json!({ "crv": "X25519" })), Some(BadKey::Curve)),
        (ed.jwk_with(&json!({ "x": "AAAA" })), Some(BadKey::Malformed)),
        (p256.jwk_with(&json!({ "y": base64url(&[1; 32]) })), Some(BadKey::Point)),
        (p256.jwk_with(&json!({ "y": base64url(&[0; 31]) })), Some(BadKey::Malformed)),
        (p256.jwk_with(&json!({ "x": "!" })), Some(BadKey::Malformed)),
        (p256.jwk_with(&json!({ "d": "AAAA" })), Some(BadKey::Private)),
        (rsa.jwk_with(&json!({ "p": "AAAA" })), Some(BadKey::Private)),
        (rsa.jwk_with(&json!({ "e": "AQ" })), Some(BadKey::Exponent)),
        (rsa.jwk_with(&json!({ "e": "Ag" })), Some(BadKey::Exponent)),
        (rsa.jwk_with(&json!({ "e": "" })), Some(BadKey::Exponent)),
        (rsa.jwk_with(&json!({ "e": base64url(&[1; 9]) })), Some(BadKey::Exponent)),
        (rsa.jwk_with(&json!({ "n": base64url(&[0xff; 255]) })), Some(BadKey::Size)),
        (rsa.jwk_with(&json!({ "n": base64url(&[0xff; 1025]) })), Some(BadKey::Size)),
        (rsa.jwk_with(&json!({ "n": base64url(&[0x7f; 256]) })), Some(BadKey::Size)),
        (rsa.jwk_with(&json!({ "n": base64url(&[0xfe; 256]) })), Some(BadKey::Point)),
        (rsa.jwk_with(&json!({ "kid": "" })), Some(BadKey::Kid)),
        (rsa.jwk_with(&json!({ "kid": 1 })), Some(BadKey::Kid)),
        (rsa.jwk_with(&json!({ "kid": long })), Some(BadKey::Kid)),
        (rsa.jwk_with(&json!({ "kty": "rsa" })), Some(BadKey::Type)),
        (rsa.jwk_with(&json!({ "kty": "EC" })), Some(BadKey::Malformed)),
        (json!({ "kty": "oct", "k": "AAAA" }), Some(BadKey::Secret)),
        (json!({ "kty": "RSA" }), Some(BadKey::Malformed)),
        (json!({}), Some(BadKey::Malformed)),
        (json!("key"), Some(BadKey::Malformed)),
    ];
    for (jwk, expected) in table {
        assert_eq!(reason(jwk.clone()), expected, "{jwk}");
    }
}

#[test]
fn one_bad_key_does_not_take_the_others_with_it() {
    let (one, other) = (Signer::new(Family::P256), Signer::new(Family::P256));
    let set = parse(&[
        one.jwk_with(&json!({ "kid": "a" })),
        one.jwk_with(&json!({ "kid": "b", "use": "enc" })),
        json!(null),
        one.jwk_with(&json!({ "kid": "twice\n" })),
        other.jwk_with(&json!({ "kid": "twice\n" })),
    ]);
    assert_eq!(set.keys.len(), 1);
    let told: Vec<_> = set.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "key 2 (`b`): its `use` is not `sig`",
            "key 3: a member is missing or malformed",
            "key 4 (`twice\\n`): its `kid` stands twice in the set",
            "key 5 (`twice\\n`): its `kid` stands twice in the set",
        ]
    );
}

#[test]
fn what_is_no_set_is_no_set() {
    let many = vec![json!({}); MAX_KEYS + 1];
    let many = json!({ "keys": many }).to_string();
    for (text, reason) in [
        ("", NotASet::Form),
        ("[]", NotASet::Form),
        ("{}", NotASet::Form),
        (r#"{"keys":{}}"#, NotASet::Form),
        (r#"{"keys":[],"keys":[]}"#, NotASet::Form),
        (r#"{"keys":[{"kty":"RSA","kty":"EC"}]}"#, NotASet::Form),
        (r#"{"keys":[]} x"#, NotASet::Form),
        ("<html>", NotASet::Form),
        (&many, NotASet::TooMany),
    ] {
        assert_eq!(Jwks::parse(text.as_bytes(), Algorithm::Rs256).unwrap_err(), reason, "{text}");
    }
}

#[test]
fn a_token_is_tried_with_the_key_of_its_name_or_a_few_without_one() {
    let secret = |kid: Option<&str>, n: u8| Key::secret(kid, Algorithm::Hs256, &[n; 32]).unwrap();
    let token = |kid: Option<&str>, n: u8| {
        let header = match kid {
            Some(kid) => json!({ "alg": "HS256", "kid": kid }),
            None => json!({ "alg": "HS256" }),
        };
        let signed = format!("{}.e30", base64url(header.to_string().as_bytes()));
        let key = jsonwebtoken::EncodingKey::from_secret(&[n; 32]);
        let algorithm = jsonwebtoken::Algorithm::HS256;
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
        format!("{signed}.{signature}")
    };
    let named = [secret(Some("a"), 1), secret(Some("b"), 2)].into_iter().collect::<KeySet>();
    let mixed = [secret(Some("a"), 1), secret(None, 2)].into_iter().collect::<KeySet>();
    let many: KeySet = (0..20).map(|n| secret(None, n)).collect();
    for (keys, kid, n, expected) in [
        (&named, Some("a"), 1, Ok(())),
        (&named, Some("b"), 1, Err(InvalidReason::Signature)),
        (&named, Some("c"), 1, Err(InvalidReason::KeyUnknown)),
        (&named, Some("A"), 1, Err(InvalidReason::KeyUnknown)),
        (&named, Some(""), 1, Err(InvalidReason::KeyUnknown)),
        (&named, None, 2, Ok(())),
        (&named, None, 3, Err(InvalidReason::Signature)),
        (&mixed, Some("b"), 2, Ok(())),
        (&mixed, Some("b"), 1, Err(InvalidReason::Signature)),
        (&mixed, Some("a"), 2, Err(InvalidReason::Signature)),
        (&many, None, 7, Ok(())),
        (&many, None, 8, Err(InvalidReason::Signature)),
    ] {
        let proved = prove(token(kid, n).as_bytes(), keys).map(drop);
        assert_eq!(proved, expected, "{kid:?} signed by {n}");
    }
}

#[test]
fn a_set_is_equal_to_one_with_the_same_keys_and_shows_none_of_them() {
    let secret = |kid, secret: &[u8]| Key::secret(kid, Algorithm::Hs256, secret).unwrap();
    let set = |keys: Vec<Key>| KeySet::new(keys);
    let one = set(vec![secret(Some("a"), b"hunter2")]);
    assert_eq!(one, set(vec![secret(Some("a"), b"hunter2")]));
    for other in [
        secret(Some("a"), b"hunter3"),
        secret(Some("b"), b"hunter2"),
        secret(None, b"hunter2"),
        Key::secret(Some("a"), Algorithm::Hs384, b"hunter2").unwrap(),
    ] {
        assert_ne!(one, set(vec![other]));
    }
    assert!(!format!("{one:?}").contains("hunter"));
}
