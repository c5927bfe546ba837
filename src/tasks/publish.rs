//! The one way to a new snapshot: from new files with the rows in force, or from new rows with the
//! files in force.
//!
//! Files and rows change on their own, so whoever brings one half must take the other from the
//! snapshot in force, and nobody else may publish in between.
//!
//! Must stay true: nothing but [`Publisher`] publishes once a process runs.

use crate::auth::Requirement;
use crate::config::{Config, Rows};
use crate::snapshot::{BuildError, Live, Origin, Parts, Snapshot};
use parking_lot::Mutex;
use std::sync::Arc;

/// What became of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in force since this revision.
    InForce(u64),
    /// It is what was in force already.
    Unchanged(u64),
}

impl Published {
    /// The revision in force.
    #[must_use]
    pub const fn revision(self) -> u64 {
        match self {
            Self::InForce(revision) | Self::Unchanged(revision) => revision,
        }
    }
}

/// Publishes one process's snapshots. Building one takes a while: not for an event loop.
pub struct Publisher {
    live: Arc<Live>,
    parts: Parts,
    turn: Mutex<()>,
}

impl Publisher {
    /// A publisher into `live`.
    #[must_use]
    pub fn new(live: Arc<Live>, parts: Parts) -> Arc<Self> {
        let first = live.load();
        parts.metrics.rows_in_force(first.revision, first.rows.refused().len());
        Arc::new(Self { live, parts, turn: Mutex::new(()) })
    }

    /// What is published.
    #[must_use]
    pub const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What snapshots are built of.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Puts new files in force, beside the rows that are.
    ///
    /// # Errors
    /// They cannot be run; nothing has changed.
    pub fn files(&self, config: Config) -> Result<Published, BuildError> {
        let _turn = self.turn.lock();
        let current = self.live.load();
        if config == current.config {
            return Ok(Published::Unchanged(current.revision));
        }
        self.publish(config, Arc::clone(&current.rows), current.revision + 1)
    }

    /// Puts new rows in force, beside the files that are. A row that does not compile stays what it
    /// was.
    ///
    /// # Errors
    /// They cannot be run; nothing has changed.
    pub fn rows(&self, rows: Rows) -> Result<Published, BuildError> {
        let _turn = self.turn.lock();
        let current = self.live.load();
        let rows = rows.after(&current.rows);
        if rows == *current.rows {
            return Ok(Published::Unchanged(current.revision));
        }
        self.publish(current.config.clone(), Arc::new(rows), current.revision + 1)
    }

    fn publish(
        &self,
        config: Config,
        rows: Arc<Rows>,
        revision: u64,
    ) -> Result<Published, BuildError> {
        let next = Snapshot::build(config, rows, &self.parts, revision)?;
        warn_of_closed_routes(&next);
        self.live.publish(next);
        Ok(Published::InForce(revision))
    }
}

/// The compiler of the files lets no open route ask for a caller, but a row can make it so. Nobody is
/// let through then; the operator should hear of it.
fn warn_of_closed_routes(snapshot: &Snapshot) {
    let open = snapshot.config.routes.iter().filter(|route| route.auth == Requirement::Open);
    for route in open {
        let policies = route.policies.iter().filter_map(|name| snapshot.policy(name));
        for policy in policies.filter(|policy| policy.access.asks_for_a_caller()) {
            log::warn!(route = &*route.name, policy = &*policy.name, origin = policy.origin().map(Origin::as_str);
                "an open route has a policy that asks for a caller, and refuses every request");
        }
    }
}
