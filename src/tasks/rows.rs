//! Plans and policies that stand in the store: put in force at the start, and whenever they change.
//!
//! Must stay true: nothing of the store can keep the files from being in force, or from being
//! reloaded; a store that is away leaves what is in force, and is asked again until it answers.

use super::publish::{Published, Publisher};
use crate::auth::Outage;
use crate::auth::documents::{Document, Documents};
use crate::config::{self, Rows};
use crate::snapshot::BuildError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time;

/// Between two attempts to read a store that is away.
const RETRY: Duration = Duration::from_secs(1);

/// Why rows are not in force.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("compiling was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Store(#[from] Outage),
}

/// The rows to start with, for the first snapshot. Whoever follows the store's changes begins before
/// this, so that none is missed.
///
/// # Errors
/// The store does not answer.
pub async fn load(documents: &dyn Documents) -> Result<Rows, Outage> {
    let (documents, _) = documents.load_documents().await?;
    let compiled = tokio::task::spawn_blocking(move || config::compile_rows(&documents)).await;
    let rows = compiled.map_err(|_| Outage::Failed)?;
    tell(&rows);
    Ok(rows)
}

/// Follows the rows until it is dropped: `changed` is notified when some have changed.
pub async fn run(documents: Arc<dyn Documents>, publisher: Arc<Publisher>, changed: Arc<Notify>) {
    let mut away = false;
    loop {
        changed.notified().await;
        // A change that comes meanwhile leaves its notice, so none is missed.
        while let Err(failed) = refresh(&*documents, &publisher).await {
            publisher.parts().metrics.store_failed("documents");
            if !away {
                away = true;
                log::error!(reason:% = failed;
                    "plans and policies of the store cannot be read, those in force stay");
            }
            time::sleep(RETRY).await;
        }
        if away {
            away = false;
            log::info!("plans and policies of the store can be read again");
        }
    }
}

async fn refresh(documents: &dyn Documents, publisher: &Arc<Publisher>) -> Result<(), Failed> {
    let (documents, changes) = documents.load_documents().await?;
    let publisher = Arc::clone(publisher);
    // Compiling thousands of rows takes longer than a request should wait.
    tokio::task::spawn_blocking(move || Ok(put_in_force(&documents, &publisher, changes)?)).await?
}

fn put_in_force(
    documents: &[Document],
    publisher: &Publisher,
    changes: u64,
) -> Result<(), BuildError> {
    let published = publisher.rows(config::compile_rows(documents))?;
    let snapshot = publisher.live().load();
    publisher.parts().metrics.rows_in_force(snapshot.revision, snapshot.rows.refused().len());
    if let Published::InForce(revision) = published {
        tell(&snapshot.rows);
        log::info!(revision = revision, changes = changes,
            plans = snapshot.rows.plans().count(), policies = snapshot.rows.policies().count();
            "plans and policies of the store are in force");
    }
    Ok(())
}

/// Says which rows do not compile.
fn tell(rows: &Rows) {
    for refused in rows.refused() {
        let kind = refused.kind.as_str();
        let name = &*refused.name;
        if refused.kept {
            log::error!(kind = kind, name = name, reason:% = refused.report;
                "a row of the store does not compile, what it was before stays in force");
        } else {
            log::error!(kind = kind, name = name, reason:% = refused.report;
                "a row of the store does not compile and is not in force");
        }
    }
}
