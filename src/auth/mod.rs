//! Who is it, and may it: credentials to callers.
//!
//! ```text
//! headers ─▶ Authenticator ─┬─ key:   KeyForm (form, digest) ─────────┐
//!                           └─ token: Issuers (signature) ─ TokenCache ┴▶ Directory ─▶ Source
//! store's changes ─▶ follow ─▶ Directory (shelves, marks, deny list)
//! ```
//!
//! An [`Authenticator`] belongs to one configuration; [`Directory`] and [`TokenCache`] outlive it.
//! The ports [`directory::Source`], [`changes::ChangeFeed`] and [`registry::Registry`] are
//! implemented by `stores`.

pub mod access;
pub mod api_key;
pub mod audit;
mod authenticator;
mod capacity;
pub mod changes;
mod compact;
pub mod denials;
mod denied;
mod deny_list;
pub mod directory;
pub mod documents;
mod flights;
mod follow;
pub mod identity;
mod jwt;
mod owners;
pub mod registry;
mod shelf;
mod source;
mod tokens;

pub use authenticator::Authenticator;

pub use denied::{AmbiguousReason, Denied, InvalidReason, Outage};
pub use directory::{Directory, Lookup};
pub use follow::{FeedEvent, follow};
pub use identity::{
    ApiKeys, Caller, Consumer, Credential, Field, Fields, JwtIssuer, Method, Requirement, UnixTime,
};
pub use tokens::TokenCache;

#[cfg(test)]
mod authenticator_tests;
#[cfg(test)]
mod directory_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod token_attacks;
