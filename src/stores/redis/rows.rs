//! Redis as the cache of rows that the tasks of a fleet share.

use super::Redis;
use crate::auth::Outage;
use crate::stores::cached::{EntryName, RowCache};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Entries of the shared cache. What cannot be written is not: it is read from the store once more.
pub struct SharedRows(Arc<Redis>);

impl SharedRows {
    /// The entries in this Redis.
    #[must_use]
    pub const fn new(redis: Arc<Redis>) -> Self {
        Self(redis)
    }
}

#[async_trait]
impl RowCache for SharedRows {
    async fn get(&self, name: &EntryName) -> Result<Option<Vec<u8>>, Outage> {
        self.0.get(name).await.map_err(|_| Outage::Failed)
    }

    fn put(&self, name: &EntryName, value: Vec<u8>, life: Duration) {
        let (redis, name) = (Arc::clone(&self.0), *name);
        self.0.reactor.start_work(async move {
            if let Err(error) = redis.set(&name, &value, life).await {
                log::debug!("a row was not cached: {error}");
            }
        });
    }
}

impl fmt::Debug for SharedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedRows(..)")
    }
}
