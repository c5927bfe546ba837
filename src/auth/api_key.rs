//! API keys: how one is made, what it looks like, and what is kept of it.
//!
//! `dh_<environment>_<id>_<secret><checksum>` in base 62, so that a double click selects all of it,
//! a scanner recognises a leaked one, and a typing error is refused without asking anyone. The id
//! finds the row; the digest of the whole key, under a pepper that is not in the store, proves it.
//!
//! Must stay true: `parse` and `digest` do not allocate; a plain key is never stored or printed by
//! `Debug`; digests are compared in constant time.

use super::denied::InvalidReason;
use super::identity::ApiKeys;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_LEN: usize = 16;
/// 62^27 > 2^160.
const SECRET_LEN: usize = 27;
const SECRET_BYTES: usize = 20;
/// 62^6 > 2^32.
const CHECKSUM_LEN: usize = 6;
/// The longest `<environment>` that is read.
const MAX_ENVIRONMENT: usize = 32;

/// The public part of a key, by which the store finds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// The 16 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only base 62 gets in, so this never falls back.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.as_str())
    }
}

/// A text that is not the id of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 16 letters and digits")]
pub struct InvalidKeyId;

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let id: [u8; ID_LEN] = text.as_bytes().try_into().map_err(|_| InvalidKeyId)?;
        if is_base62(&id) { Ok(Self(id)) } else { Err(InvalidKeyId) }
    }
}

/// What is kept of a key: HMAC-SHA-256 of all of it, keyed with the pepper.
#[derive(Clone, Copy)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// A digest as it was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are equal, in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

/// Which pepper a digest was made with: derived from the pepper, tells nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PepperVersion(u32);

impl PepperVersion {
    /// A version as it was stored.
    #[must_use]
    pub const fn from_u32(version: u32) -> Self {
        Self(version)
    }

    /// The number to store.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// A key in the plain, on its way to the one who asked for it. Shown once, kept nowhere.
pub struct PlainKey(String);

impl PlainKey {
    /// The key, for the eyes of its owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(..)")
    }
}

/// What the store keeps to prove a key later.
#[derive(Clone, Copy, Debug)]
pub struct KeyProof {
    /// By which it is found.
    pub id: KeyId,
    /// By which it is proved.
    pub digest: KeyDigest,
    /// The pepper of `digest`.
    pub pepper: PepperVersion,
}

/// A key that keeps the form; whether it is one of ours is another question.
#[derive(Clone, Copy)]
pub struct ParsedKey<'k> {
    id: KeyId,
    text: &'k [u8],
}

impl ParsedKey<'_> {
    /// The id inside.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for ParsedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParsedKey({}, ..)", self.id)
    }
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes; try again, and check /dev/urandom")]
pub struct NoRandomness(#[source] rand::rand_core::OsError);

/// What a pepper is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The one in use.
    Current,
    /// One before: keys under it are accepted.
    Previous,
    /// Not known here: keys under it are refused.
    Other,
}

/// Makes, reads and digests the keys of one environment.
#[derive(Clone)]
pub struct KeyForm {
    environment: Arc<str>,
    current: Pepper,
    previous: Arc<[Pepper]>,
}

/// A pepper, ready for digests.
#[derive(Clone)]
struct Pepper {
    version: PepperVersion,
    /// Keyed once, cloned for each digest.
    mac: Hmac<Sha256>,
}

impl Pepper {
    fn new(pepper: &[u8]) -> Self {
        let mac = keyed(pepper);
        let version = mac.clone().chain_update(b"datahub-gateway pepper version").finalize();
        let bytes: [u8; 32] = version.into_bytes().into();
        let first = bytes.first_chunk().copied().unwrap_or_default();
        Self { version: PepperVersion(u32::from_be_bytes(first)), mac }
    }

    fn digest(&self, key: ParsedKey<'_>) -> KeyDigest {
        KeyDigest(self.mac.clone().chain_update(key.text).finalize().into_bytes().into())
    }
}

impl KeyForm {
    /// The form that `keys` describes.
    #[must_use]
    pub fn new(keys: &ApiKeys) -> Self {
        Self {
            environment: Arc::clone(&keys.environment),
            current: Pepper::new(&keys.pepper),
            previous: keys.previous_peppers.iter().map(|pepper| Pepper::new(pepper)).collect(),
        }
    }

    /// The pepper in use.
    #[must_use]
    pub const fn pepper(&self) -> PepperVersion {
        self.current.version
    }

    /// Every pepper whose keys are accepted, the one in use first.
    pub fn versions(&self) -> impl Iterator<Item = PepperVersion> {
        std::iter::once(&self.current).chain(&*self.previous).map(|pepper| pepper.version)
    }

    /// What the pepper of this version is here.
    #[must_use]
    pub fn standing(&self, version: PepperVersion) -> Standing {
        if version == self.current.version {
            Standing::Current
        } else if self.previous.iter().any(|pepper| pepper.version == version) {
            Standing::Previous
        } else {
            Standing::Other
        }
    }

    /// A secret for another purpose, the same in every gateway with this pepper.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.current.mac.clone().chain_update(purpose.as_bytes()).finalize().into_bytes().into()
    }

    /// A new key, and what to store of it.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn generate(&self) -> Result<(PlainKey, KeyProof), NoRandomness> {
        let id = random_id()?;
        let mut secret = [0; SECRET_BYTES];
        OsRng.try_fill_bytes(&mut secret).map_err(NoRandomness)?;
        let mut text = format!("dh_{}_{id}_", self.environment);
        push_base62(&mut text, &mut secret, SECRET_LEN);
        let mut checksum = crc32fast::hash(text.as_bytes()).to_be_bytes();
        push_base62(&mut text, &mut checksum, CHECKSUM_LEN);
        let digest = self.digest(ParsedKey { id, text: text.as_bytes() });
        Ok((PlainKey(text), KeyProof { id, digest, pepper: self.pepper() }))
    }

    /// Reads a key; asks nobody.
    ///
    /// # Errors
    /// It cannot be a key of this environment, whatever the store says.
    pub fn parse<'k>(&self, text: &'k [u8]) -> Result<ParsedKey<'k>, InvalidReason> {
        let (environment, id) = split(text).ok_or(InvalidReason::Malformed)?;
        let (body, checksum) =
            text.split_last_chunk::<CHECKSUM_LEN>().ok_or(InvalidReason::Malformed)?;
        if from_base62(checksum) != Some(u64::from(crc32fast::hash(body))) {
            return Err(InvalidReason::Checksum);
        }
        if environment != self.environment.as_bytes() {
            return Err(InvalidReason::Environment);
        }
        Ok(ParsedKey { id: KeyId(*id), text })
    }

    /// The digest of a key.
    #[must_use]
    pub fn digest(&self, key: ParsedKey<'_>) -> KeyDigest {
        self.current.digest(key)
    }

    /// The digest of a key under the pepper of this version, if it is accepted here.
    #[must_use]
    pub fn digest_under(&self, key: ParsedKey<'_>, version: PepperVersion) -> Option<KeyDigest> {
        let mut accepted = std::iter::once(&self.current).chain(&*self.previous);
        accepted.find(|pepper| pepper.version == version).map(|pepper| pepper.digest(key))
    }
}

impl fmt::Debug for KeyForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyForm").field("environment", &self.environment).finish_non_exhaustive()
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
pub(crate) fn keyed(pepper: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(pepper).expect("HMAC takes a key of any length")
}

/// Environment and id of a text that has the form of a key.
fn split(text: &[u8]) -> Option<(&[u8], &[u8; ID_LEN])> {
    let (rest, checksum) = text.split_last_chunk::<CHECKSUM_LEN>()?;
    let (rest, secret) = rest.split_last_chunk::<SECRET_LEN>()?;
    let (rest, id) = rest.strip_suffix(b"_")?.split_last_chunk::<ID_LEN>()?;
    let environment = rest.strip_suffix(b"_")?.strip_prefix(b"dh_")?;
    let named = !environment.is_empty()
        && environment.len() <= MAX_ENVIRONMENT
        && environment.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (named && is_base62(id) && is_base62(secret) && is_base62(checksum))
        .then_some((environment, id))
}

fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// Appends the big-endian number in `number` as `digits` digits; leaves zero in `number`.
fn push_base62(text: &mut String, number: &mut [u8], digits: usize) {
    let start = text.len();
    for _ in 0..digits {
        let mut remainder: u16 = 0;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u16::from(*byte);
            // A remainder is below 62, so the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        text.insert(start, digit(remainder));
    }
}

fn digit(value: u16) -> char {
    char::from(ALPHABET.get(usize::from(value)).copied().unwrap_or(b'0'))
}

fn from_base62(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, byte| {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        number.checked_mul(62)?.checked_add(u64::from(value))
    })
}

/// 16 characters, each equally likely.
fn random_id() -> Result<KeyId, NoRandomness> {
    let mut id = [0; ID_LEN];
    for place in &mut id {
        *place = loop {
            let mut byte = [0; 1];
            OsRng.try_fill_bytes(&mut byte).map_err(NoRandomness)?;
            let [byte] = byte;
            // 248 is the last multiple of 62: above it, low digits would be likelier.
            if byte < 248 {
                break ALPHABET.get(usize::from(byte % 62)).copied().unwrap_or(b'0');
            }
        };
    }
    Ok(KeyId(id))
}

#[cfg(test)]
mod tests {
    use super::super::fake::api_keys;
    use super::*;

    fn form() -> KeyForm {
        KeyForm::new(&api_keys())
    }

    /// The text with the checksum that fits it.
    fn sealed(body: &str) -> String {
        let mut text = body.to_owned();
        let mut checksum = crc32fast::hash(body.as_bytes()).to_be_bytes();
        push_base62(&mut text, &mut checksum, CHECKSUM_LEN);
        text
    }

    #[test]
    fn a_new_key_reads_back_and_looks_as_promised() {
        let form = form();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let (plain, proof) = form.generate().unwrap();
            let parts: Vec<_> = plain.reveal().split('_').collect();
            assert_eq!((parts[0], parts[1], parts[2]), ("dh", "test", proof.id.as_str()));
            assert_eq!(parts[3].len(), SECRET_LEN + CHECKSUM_LEN, "{}", plain.reveal());
            let parsed = form.parse(plain.reveal().as_bytes()).unwrap();
            assert_eq!(parsed.id(), proof.id);
            assert!(form.digest(parsed).matches(&proof.digest));
            assert!(seen.insert(plain.reveal().to_owned()), "every key is new");
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_asking_anyone() {
        use InvalidReason::{Checksum, Environment, Malformed};
        let id = "0123456789abcDEF";
        let secret = "Z".repeat(SECRET_LEN);
        let good = sealed(&format!("dh_test_{id}_{secret}"));
        assert!(form().parse(good.as_bytes()).is_ok());
        let mut table = vec![
            (String::new(), Malformed),
            ("dh_".into(), Malformed),
            ("secret".into(), Malformed),
            (format!(" {good}"), Malformed),
            (format!("{good} "), Malformed),
            (format!("{good}{good}"), Malformed),
            (format!("Bearer {good}"), Malformed),
            (good.to_uppercase(), Malformed),
            (sealed(&format!("DH_test_{id}_{secret}")), Malformed),
            (sealed(&format!("ghp_test_{id}_{secret}")), Malformed),
            (sealed(&format!("dh__{id}_{secret}")), Malformed),
            (sealed(&format!("dh_TEST_{id}_{secret}")), Malformed),
            (sealed(&format!("dh_te_st_{id}_{secret}")), Malformed),
            (sealed(&format!("dh_{}_{id}_{secret}", "x".repeat(33))), Malformed),
            (sealed(&format!("dh_test_{}_{secret}", &id[1..])), Malformed),
            (sealed(&format!("dh_test_{id}0_{secret}")), Malformed),
            (sealed(&format!("dh_test_{id}_{}", &secret[1..])), Malformed),
            (sealed(&format!("dh_test_{id}_{secret}0")), Malformed),
            (sealed(&format!("dh_test_{id}-{secret}")), Malformed),
            (sealed(&format!("dh_test_{}_{secret}", id.replace('0', "-"))), Malformed),
            (sealed(&format!("dh_test_{}_{secret}", id.replace("01", "\u{e9}"))), Malformed),
            (format!("{}zzzzzz", &good[..good.len() - 6]), Checksum),
            (format!("{}000000", &good[..good.len() - 6]), Checksum),
            (good.replace("0123", "0124"), Checksum),
            (good.replacen("ZZ", "Zz", 1), Checksum),
            (good.replace("dh_test", "dh_live"), Checksum),
            (sealed(&format!("dh_live_{id}_{secret}")), Environment),
            (sealed(&format!("dh_tes_{id}_{secret}")), Environment),
            (sealed(&format!("dh_test2_{id}_{secret}")), Environment),
        ];
        for place in 0..good.len() {
            table.push((good[..place].to_owned(), Malformed));
        }
        for (text, reason) in table {
            assert_eq!(form().parse(text.as_bytes()).unwrap_err(), reason, "{text:?}");
        }
    }

    #[test]
    fn every_single_typing_error_is_noticed() {
        let (plain, _) = form().generate().unwrap();
        for (place, letter) in plain.reveal().char_indices() {
            let mut text = plain.reveal().to_owned();
            text.replace_range(place..=place, if letter == 'x' { "y" } else { "x" });
            assert!(form().parse(text.as_bytes()).is_err(), "character {place}");
        }
    }

    #[test]
    fn base62_numbers_have_a_fixed_width_and_read_back() {
        for number in [0, 1, 61, 62, 3843, u32::MAX] {
            let mut text = String::new();
            push_base62(&mut text, &mut number.to_be_bytes(), CHECKSUM_LEN);
            assert_eq!(text.len(), CHECKSUM_LEN);
            assert_eq!(from_base62(text.as_bytes()), Some(u64::from(number)), "{text}");
        }
        let mut text = String::new();
        let mut all = [0xff; SECRET_BYTES];
        push_base62(&mut text, &mut all, SECRET_LEN);
        assert_eq!(all, [0; SECRET_BYTES], "the largest secret fits");
    }

    #[test]
    fn another_pepper_is_another_digest_and_another_version() {
        let other = KeyForm::new(&ApiKeys { pepper: b"another".to_vec(), ..api_keys() });
        let (plain, proof) = form().generate().unwrap();
        let parsed = other.parse(plain.reveal().as_bytes()).unwrap();
        assert!(!other.digest(parsed).matches(&proof.digest));
        assert_ne!(other.pepper(), proof.pepper);
        assert_eq!(form().pepper(), proof.pepper);
    }

    #[test]
    fn a_previous_pepper_proves_its_keys_and_makes_none() {
        let of = |pepper: &[u8], previous: &[&[u8]]| {
            KeyForm::new(&ApiKeys {
                pepper: pepper.to_vec(),
                previous_peppers: previous.iter().map(|pepper| pepper.to_vec()).collect(),
                ..api_keys()
            })
        };
        let (old, new) = (of(b"old", &[]), of(b"new", &[b"older", b"old"]));
        let (plain, proof) = old.generate().unwrap();
        let key = new.parse(plain.reveal().as_bytes()).unwrap();
        assert!(new.digest_under(key, proof.pepper).unwrap().matches(&proof.digest));
        assert!(!new.digest(key).matches(&proof.digest));
        assert!(of(b"new", &[b"older"]).digest_under(key, proof.pepper).is_none());
        let (_, made) = new.generate().unwrap();
        assert_eq!(made.pepper, new.pepper());
        let standings = [new.pepper(), old.pepper(), of(b"other", &[]).pepper()];
        let standings = standings.map(|version| new.standing(version));
        assert_eq!(standings, [Standing::Current, Standing::Previous, Standing::Other]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let (plain, proof) = form().generate().unwrap();
        let parsed = form().parse(plain.reveal().as_bytes()).unwrap();
        let shown = format!("{plain:?} {proof:?} {parsed:?} {:?} {:?}", form(), api_keys());
        let secret = plain.reveal().rsplit('_').next().unwrap();
        assert!(!shown.contains(secret) && !shown.contains("pepper that"), "{shown}");
    }
}
