//! Who is it, and may it: credentials to callers.
//!
//! ```text
//! headers ─▶ Authenticator ─┬─ key:   KeyForm (form, digest) ─────────┐
//!                           ├─ token: Issuers (signature) ─ TokenCache ┼▶ Directory ─▶ Source
//!                           │           └ KeySet: of the files, or RemoteKeys ◀─ tasks
//! connection's certificate ─┴─ Certificates (ClientTrust) ─────────────┘
//! store's changes ─▶ follow ─▶ Directory (shelves, marks, deny list)
//! ```
//!
//! An [`Authenticator`] belongs to one configuration; [`Directory`] and [`TokenCache`] outlive it.
//! The ports [`directory::Source`], [`changes::ChangeFeed`] and [`registry::Registry`] are
//! implemented by `stores`.

pub mod access;
mod algorithm;
pub mod api_key;
pub mod audit;
mod authenticator;
mod capacity;
mod certificate;
mod certificates;
pub mod changes;
mod claims;
mod client_trust;
mod compact;
pub mod denials;
mod denied;
mod deny_list;
pub mod directory;
pub mod documents;
mod flights;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod identity;
mod issuer;
mod jwks;
mod jwks_source;
mod jwt;
mod key;
mod known_key;
mod network;
mod owners;
mod prover;
mod public_address;
pub mod registry;
mod remote_keys;
mod sent;
mod shelf;
mod source;
mod spelling;
mod tokens;
pub mod uses;

pub use algorithm::{Algorithm, Family};
pub use authenticator::Authenticator;
pub use certificate::{ClientCertificate, SubjectPart};
pub use certificates::{CERTIFICATES, CertificateRules, Certificates};
pub use client_trust::ClientTrust;
pub use denied::{AmbiguousReason, Denied, InvalidReason, Outage};
pub use directory::{Directory, Lookup};
pub use follow::{FeedEvent, follow};
pub use identity::{
    ApiKeys, Caller, Claims, Consumer, Credential, Field, Fields, Method, Requirement, UnixTime,
};
pub use issuer::{IssuerKeys, JwtIssuer};
pub use jwks::{Jwks, NotASet, RefusedKey};
pub use jwks_source::{JwksSource, JwksUrl};
pub use key::{BadKey, Key, KeySet, MAX_KEYS, MAX_KID};
pub use network::{InvalidNetwork, parse_network};
pub use public_address::is_public;
pub use remote_keys::{
    COOL_DOWN, Fetched, RemoteKeySets, RemoteKeys, Settled, Vitals as RemoteVitals,
};
pub use sent::Sent;
pub use tokens::TokenCache;

#[cfg(test)]
mod authenticator_tests;
#[cfg(test)]
mod certificate_tests;
#[cfg(test)]
mod directory_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod prover_tests;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod signing;
#[cfg(test)]
mod token_attacks;
#[cfg(test)]
mod wycheproof;
