//! Adapters behind the ports that `auth` and `limits` define.

pub mod cached;
pub mod embedded;
pub mod postgres;
mod reactor;
pub mod redis;

pub use embedded::{Embedded, StoreError};
pub use postgres::{Postgres, PostgresError};
pub use reactor::Reactor;
pub use redis::Redis;

use crate::auth::audit::Audit;
use crate::auth::changes::ChangeFeed;
use crate::auth::denials::Denials;
use crate::auth::directory::Source;
use crate::auth::documents::Documents;
use crate::auth::registry::Registry;
use crate::auth::uses::UseLog;
use crate::limits::usage::UsageLog;

/// Everything that is kept: consumers, keys and their use, plans and policies, the deny list, usage, the audit.
pub trait Store:
    Registry + UseLog + Documents + Denials + Audit + UsageLog + Source + ChangeFeed + 'static
{
}

impl<S> Store for S where
    S: Registry + UseLog + Documents + Denials + Audit + UsageLog + Source + ChangeFeed + 'static
{
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_file_is_a_whole_store() {
        let as_store = |store: Arc<Embedded>| -> Arc<dyn Store> { store };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.db");
        let store = Embedded::open(&path, crate::telemetry::Clock::manual()).unwrap();
        assert_eq!(as_store(Arc::new(store)).copies(), 1);
    }
}
