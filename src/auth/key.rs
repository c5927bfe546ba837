//! Keys that tokens are verified with, each pinned to one algorithm.
//!
//! A key is checked when it is made: its type, its size, that a point is on its curve. What passes
//! can only ever say whether a signature fits.
//!
//! Must stay true: which key and which algorithm is tried never depends on more of a token than its
//! `kid`, and a token makes at most [`MAX_TRIED`] attempts.

use super::algorithm::{Algorithm, Family};
use aws_lc_rs::signature::{
    self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use sha2::{Digest as _, Sha256};
use std::fmt;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The longest `kid`.
pub const MAX_KID: usize = 128;
/// Keys of one issuer.
pub const MAX_KEYS: usize = 100;
/// Keys that are tried on a token without `kid`.
pub(super) const MAX_TRIED: usize = 8;
/// Bits of an RSA modulus.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The longest public exponent; all that are in use are 65537.
const MAX_EXPONENT: usize = 8;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Its `alg` is none that is known here, or is for another kind of key.
    #[error("its `alg` is not one that fits it and is supported")]
    Algorithm,
    /// Its curve is not supported.
    #[error("its curve is not P-256, P-384 or Ed25519")]
    Curve,
    /// Another key of the set has its `kid`.
    #[error("its `kid` stands twice in the set")]
    Duplicate,
    /// An exponent that weakens it.
    #[error("its exponent is even, too small or too large")]
    Exponent,
    /// Its `kid` is too long, empty, or no text.
    #[error("its `kid` is not a text of 1 to {MAX_KID} bytes")]
    Kid,
    /// A member is missing, or has not the form that it must have.
    #[error("a member is missing or malformed")]
    Malformed,
    /// `key_ops` without `verify`.
    #[error("its `key_ops` do not allow to verify")]
    Operations,
    /// Not a point of its curve.
    #[error("it is not a point of its curve, or not a number that can be a key")]
    Point,
    /// The private half stands beside the public one.
    #[error("it holds its private half, which everyone who reads it can sign with")]
    Private,
    /// A shared secret.
    #[error("it is a shared secret, which has no place among public keys")]
    Secret,
    /// Too few or too many bits.
    #[error("it has less than 2048 or more than 8192 bits")]
    Size,
    /// Neither RSA, EC nor OKP.
    #[error("its type is not RSA, EC or OKP")]
    Type,
    /// `use` is not `sig`.
    #[error("its `use` is not `sig`")]
    Use,
}

impl BadKey {
    /// Whether it is a good key for something else; sets often hold such keys.
    #[must_use]
    pub const fn is_for_others(self) -> bool {
        matches!(self, Self::Algorithm | Self::Curve | Self::Operations | Self::Type | Self::Use)
    }
}

/// Which key it was: a digest of the key, its algorithm and its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId([u8; 32]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(..)")
    }
}

#[cfg(test)]
impl KeyId {
    pub(super) const NONE: Self = Self([0; 32]);
}

/// A key, and the one algorithm that it is for.
pub struct Key {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    id: KeyId,
}

impl Key {
    /// A shared secret; `algorithm` is one of the HMACs.
    ///
    /// # Errors
    /// [`BadKey::Algorithm`] for one that is not.
    pub fn secret(kid: Option<&str>, algorithm: Algorithm, secret: &[u8]) -> Result<Self, BadKey> {
        match algorithm.family() {
            Family::Secret => {
                Ok(Self::new(kid, algorithm, DecodingKey::from_secret(secret), &[secret]))
            }
            _ => Err(BadKey::Algorithm),
        }
    }

    /// An RSA key: modulus and exponent, big-endian.
    pub(super) fn rsa(
        kid: Option<&str>,
        algorithm: Algorithm,
        n: &[u8],
        e: &[u8],
    ) -> Result<Self, BadKey> {
        let parameters = rsa_parameters(algorithm).ok_or(BadKey::Algorithm)?;
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.first().map_or(0, |first| 8 * n.len() - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(BadKey::Size);
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !is_odd(e) || e == [1] || e.len() > MAX_EXPONENT {
            return Err(BadKey::Exponent);
        }
        if !is_odd(n) {
            return Err(BadKey::Point);
        }
        let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters);
        parsed.map_err(|_| BadKey::Point)?;
        let decoding = DecodingKey::from_rsa_raw_components(n, e);
        Ok(Self::new(kid, algorithm, decoding, &[n, e]))
    }

    /// A point of a curve: of P-256 or P-384 in the uncompressed form, of Ed25519 in its own.
    pub(super) fn point(
        kid: Option<&str>,
        algorithm: Algorithm,
        point: &[u8],
    ) -> Result<Self, BadKey> {
        let (curve, length): (&'static dyn VerificationAlgorithm, usize) = match algorithm {
            Algorithm::Es256 => (&signature::ECDSA_P256_SHA256_FIXED, 65),
            Algorithm::Es384 => (&signature::ECDSA_P384_SHA384_FIXED, 97),
            Algorithm::EdDsa => (&signature::ED25519, 32),
            _ => return Err(BadKey::Algorithm),
        };
        if point.len() != length {
            return Err(BadKey::Malformed);
        }
        ParsedPublicKey::new(curve, point).map_err(|_| BadKey::Point)?;
        let decoding = match algorithm {
            Algorithm::EdDsa => DecodingKey::from_ed_der(point),
            _ => DecodingKey::from_ec_der(point),
        };
        Ok(Self::new(kid, algorithm, decoding, &[point]))
    }

    /// A public key as DER (`SubjectPublicKeyInfo`); `of_rsa` is the algorithm of an RSA key, which
    /// does not say it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn spki(of_rsa: Algorithm, der: &[u8]) -> Result<Self, BadKey> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| BadKey::Malformed)?;
        if !rest.is_empty() {
            return Err(BadKey::Malformed);
        }
        let data = &*info.subject_public_key.data;
        let parameters = info.algorithm.parameters.as_ref();
        let curve = parameters.and_then(|it| it.as_oid().ok()).map(|oid| oid.to_id_string());
        match (info.algorithm.algorithm.to_id_string().as_str(), curve.as_deref()) {
            ("1.2.840.113549.1.1.1", _) => match info.parsed() {
                Ok(PublicKey::RSA(key)) => Self::rsa(None, of_rsa, key.modulus, key.exponent),
                _ => Err(BadKey::Malformed),
            },
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => {
                Self::point(None, Algorithm::Es256, data)
            }
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => {
                Self::point(None, Algorithm::Es384, data)
            }
            ("1.2.840.10045.2.1", _) => Err(BadKey::Curve),
            ("1.3.101.110" | "1.3.101.111" | "1.3.101.113", _) => Err(BadKey::Curve),
            ("1.3.101.112", _) => Self::point(None, Algorithm::EdDsa, data),
            _ => Err(BadKey::Type),
        }
    }

    fn new(
        kid: Option<&str>,
        algorithm: Algorithm,
        decoding: DecodingKey,
        parts: &[&[u8]],
    ) -> Self {
        let mut hash = Sha256::new();
        let names = [algorithm.name().as_bytes(), kid.unwrap_or_default().as_bytes()];
        for part in names.iter().chain(parts) {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.update([u8::from(kid.is_some())]);
        let id = KeyId(hash.finalize().into());
        Self { kid: kid.map(Box::from), algorithm, decoding, id }
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    fn fits(&self, signed: &[u8], signature: &[u8]) -> bool {
        let length = match self.algorithm.family() {
            Family::P256 | Family::Ed25519 => Some(64),
            Family::P384 => Some(96),
            Family::Secret | Family::Rsa => None,
        };
        if length.is_some_and(|length| signature.len() != length) {
            return false;
        }
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm.into(), &self.decoding);
        verifier.is_ok_and(|verifier| verifier.verify(signed, &signature.to_vec()).is_ok())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Why no key fits a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The key is for another algorithm than the token names.
    Algorithm,
    /// The signature is not by any of the keys.
    Signature,
    /// No key has this name.
    Unknown,
}

/// The keys of one issuer. Two sets with the same keys are equal.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// These keys; how many there may be, and that no two have one name, is for the caller to check.
    #[must_use]
    pub const fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this key is still among them.
    pub(super) fn contains(&self, id: &KeyId) -> bool {
        self.0.iter().any(|key| key.id == *id)
    }

    /// The key that signed this. A token with a `kid` is tried with the key of that name, and with
    /// those without one if nobody has it.
    pub(super) fn verify(
        &self,
        algorithm: &str,
        kid: Option<&str>,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<KeyId, Mismatch> {
        let is_named = kid.is_some() && self.0.iter().any(|key| key.kid() == kid);
        let candidates = || {
            self.0.iter().filter(move |key| match (kid, is_named) {
                (Some(_), true) => key.kid() == kid,
                (Some(_), false) => key.kid().is_none(),
                (None, _) => true,
            })
        };
        if candidates().next().is_none() {
            return Err(Mismatch::Unknown);
        }
        let mut refused = Mismatch::Algorithm;
        let named = Algorithm::parse(algorithm).ok_or(refused)?;
        for key in candidates().filter(|key| key.algorithm == named).take(MAX_TRIED) {
            if key.fits(signed, signature) {
                return Ok(key.id);
            }
            refused = Mismatch::Signature;
        }
        Err(refused)
    }
}

impl FromIterator<Key> for KeySet {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        let ids = |set: &Self| set.0.iter().map(|key| key.id.0).collect::<Vec<_>>();
        ids(self) == ids(other)
    }
}

impl Eq for KeySet {}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// A number without its leading zeros, which some write.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
