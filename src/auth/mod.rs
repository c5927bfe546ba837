//! Who is it, and may it: credentials to callers.

pub mod identity;

pub use identity::{ApiKeys, Caller, Consumer, Credential, JwtIssuer, Method, Requirement};
