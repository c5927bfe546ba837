//! Adapters behind the ports that `auth` and `limits` define.

pub mod embedded;
mod reactor;
pub mod redis;

pub use embedded::{Embedded, StoreError};
pub use reactor::Reactor;
pub use redis::Redis;

use crate::auth::audit::Audit;
use crate::auth::changes::ChangeFeed;
use crate::auth::denials::Denials;
use crate::auth::directory::Source;
use crate::auth::documents::Documents;
use crate::auth::registry::Registry;
use crate::limits::usage::UsageLog;

/// Everything that is kept: consumers and keys, plans and policies, the deny list, usage, the audit.
pub trait Store:
    Registry + Documents + Denials + Audit + UsageLog + Source + ChangeFeed + 'static
{
}

impl<S> Store for S where
    S: Registry + Documents + Denials + Audit + UsageLog + Source + ChangeFeed + 'static
{
}
