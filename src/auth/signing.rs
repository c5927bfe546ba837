//! Keys of every kind, for tests: what an issuer signs with, and what it publishes.

use super::algorithm::{Algorithm, Family};
use jsonwebtoken::{EncodingKey, crypto};
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A private key.
pub(super) struct Signer {
    pair: KeyPair,
    family: Family,
}

impl Signer {
    pub(super) fn new(family: Family) -> Self {
        let pair = match family {
            Family::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            Family::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Family::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Family::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Family::Secret => panic!("a secret is no pair"),
        };
        Self { pair: pair.unwrap(), family }
    }

    /// The public half as DER.
    pub(super) fn spki(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// The public half as JWK, with no more than it needs.
    pub(super) fn jwk(&self) -> Value {
        let der = self.spki();
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).unwrap();
        let data = info.subject_public_key.data.as_ref();
        let point = |curve: &str| {
            let (x, y) = data[1..].split_at(data.len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) })
        };
        match self.family {
            Family::Rsa => match info.parsed().unwrap() {
                PublicKey::RSA(key) => json!({
                    "kty": "RSA",
                    "n": base64url(without_zero(key.modulus)),
                    "e": base64url(key.exponent),
                }),
                other => panic!("{other:?}"),
            },
            Family::P256 => point("P-256"),
            Family::P384 => point("P-384"),
            Family::Ed25519 => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(data) }),
            Family::Secret => panic!("a secret is no pair"),
        }
    }

    /// The same, and more members.
    pub(super) fn jwk_with(&self, more: &Value) -> Value {
        let mut jwk = self.jwk();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    /// A token by `algorithm`, whatever its header says.
    pub(super) fn token(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let pem = self.pair.serialize_pem();
        let key = match self.family {
            Family::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Family::Ed25519 => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let algorithm = algorithm.name().parse().unwrap();
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = crypto::sign(signed.as_bytes(), &key.unwrap(), algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}

fn without_zero(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}
