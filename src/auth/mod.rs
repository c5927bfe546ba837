//! Who is it, and may it: credentials to callers.

pub mod identity;

pub use identity::{Caller, Consumer, Credential, JwtIssuer, Method, Requirement};
