//! Adapters behind the ports that `auth` and `limits` define.

pub mod embedded;

pub use embedded::{Embedded, StoreError};
