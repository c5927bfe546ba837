//! Plans and policies that stand in the store: put in force at the start, and whenever they change.
//!
//! Must stay true: nothing of the store can keep the files from being in force, or from being
//! reloaded; a store that is away leaves what is in force, and is asked again until it answers.

use super::publish::{Published, Publisher};
use crate::auth::Outage;
use crate::auth::documents::{Document, Documents};
use crate::config::{self, Rows};
use crate::snapshot::BuildError;
use http::HeaderName;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time;

/// Between two attempts to read a store that is away.
const RETRY: Duration = Duration::from_millis(500);
/// A store that says nothing for so long is away.
const DEADLINE: Duration = Duration::from_secs(10);

/// Changes between two publications whose delay is measured.
const MEASURED: usize = 1024;

/// Rows that do not compile and are told one by one.
const TOLD: usize = 20;

/// Why rows are not in force.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("compiling was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// The rows to start with, for the first snapshot. Whoever follows the store's changes begins before
/// this, so that none is missed.
///
/// # Errors
/// The store does not answer.
pub async fn load(documents: &dyn Documents, key_header: &HeaderName) -> Result<Rows, Outage> {
    let (documents, _) = read(documents).await?;
    let key_header = key_header.clone();
    let compile = move || config::compile_rows(&documents, &key_header);
    let compiled = tokio::task::spawn_blocking(compile).await;
    let rows = compiled.map_err(|_| Outage::Failed)?;
    tell(&rows);
    Ok(rows)
}

/// That rows have changed, or may have, and when.
#[derive(Debug, Default)]
pub struct Notice {
    given: Notify,
    /// When changes were committed that are not in force yet, since 1970.
    committed: Mutex<Vec<Duration>>,
}

impl Notice {
    /// Something may have changed.
    pub fn give(&self) {
        self.given.notify_one();
    }

    /// A change was committed then, since 1970.
    pub fn give_of(&self, committed_at: Duration) {
        let mut committed = self.committed.lock();
        if committed.len() < MEASURED {
            committed.push(committed_at);
        }
        drop(committed);
        self.given.notify_one();
    }
}

/// Follows the rows until it is dropped, and measures how long a change takes to be in force.
pub async fn run(documents: Arc<dyn Documents>, publisher: Arc<Publisher>, notice: Arc<Notice>) {
    loop {
        // A change that comes while another is put in force leaves its notice, so none is missed.
        notice.given.notified().await;
        let committed = std::mem::take(&mut *notice.committed.lock());
        let (documents, changes) = read_again(&*documents, &publisher).await;
        if let Err(failed) = publish(documents, changes, &publisher).await {
            log::error!(reason:% = failed;
                "plans and policies of the store are not in force, those before them stay");
        }
        let parts = publisher.parts();
        let now = parts.clock.unix_time();
        for at in committed {
            parts.metrics.revocation(now.saturating_sub(at));
        }
    }
}

async fn read(documents: &dyn Documents) -> Result<(Vec<Document>, u64), Outage> {
    time::timeout(DEADLINE, documents.load_documents()).await.unwrap_or(Err(Outage::Timeout))
}

/// Reads until the store answers.
async fn read_again(documents: &dyn Documents, publisher: &Publisher) -> (Vec<Document>, u64) {
    let mut away = false;
    loop {
        match read(documents).await {
            Ok(read) => {
                if away {
                    log::info!("plans and policies of the store can be read again");
                }
                return read;
            }
            Err(outage) => {
                publisher.parts().metrics.store_failed("documents");
                if !std::mem::replace(&mut away, true) {
                    log::error!(reason = outage.as_str();
                        "plans and policies of the store cannot be read, those in force stay");
                }
                time::sleep(RETRY).await;
            }
        }
    }
}

async fn publish(
    documents: Vec<Document>,
    changes: u64,
    publisher: &Arc<Publisher>,
) -> Result<(), Failed> {
    let publisher = Arc::clone(publisher);
    // Compiling thousands of rows takes longer than a request should wait.
    let published = tokio::task::spawn_blocking(move || {
        let key_header = publisher.live().load().config.api_key.header.clone();
        let published = publisher.rows(config::compile_rows(&documents, &key_header))?;
        let snapshot = publisher.live().load();
        let metrics = &publisher.parts().metrics;
        metrics.rows_in_force(snapshot.revision, snapshot.rows.refused().len());
        if let Published::InForce(revision) = published {
            tell(&snapshot.rows);
            log::info!(revision = revision, changes = changes,
                plans = snapshot.rows.plans().count(), policies = snapshot.rows.policies().count();
                "plans and policies of the store are in force");
        }
        Ok::<(), BuildError>(())
    });
    Ok(published.await??)
}

/// Says which rows do not compile.
fn tell(rows: &Rows) {
    for refused in rows.refused().iter().take(TOLD) {
        log::error!(kind = refused.kind.as_str(), name = &*refused.name,
            old_stays = refused.kept, reason:% = refused.report;
            "a row of the store does not compile and is not in force");
    }
    if let Some(more) = rows.refused().len().checked_sub(TOLD).filter(|more| *more > 0) {
        log::error!(rows = more; "more rows of the store do not compile");
    }
}

#[cfg(test)]
mod tests {
    use super::super::publish::Publisher;
    use super::*;
    use crate::auth::documents::DocumentKind;
    use crate::auth::registry::{Actor, Page, RegistryError};
    use crate::snapshot::fixture::{self, row};
    use crate::snapshot::{Live, Origin, Snapshot};
    use async_trait::async_trait;
    use serde_json::{Value, json};
    use std::collections::VecDeque;
    use tokio::task::JoinSet;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A store that answers what it is told to, once each.
    #[derive(Default)]
    struct Store(Mutex<VecDeque<Result<Vec<Document>, Outage>>>);

    #[async_trait]
    impl Documents for Store {
        async fn load_documents(&self) -> Result<(Vec<Document>, u64), Outage> {
            let answer = self.0.lock().pop_front();
            match answer {
                Some(answer) => answer.map(|documents| (documents, 1)),
                None => std::future::pending().await,
            }
        }

        async fn documents(
            &self,
            _: DocumentKind,
            _: Page<'_>,
        ) -> Result<Vec<Document>, RegistryError> {
            unreachable!()
        }

        async fn document(&self, _: DocumentKind, _: &str) -> Result<Document, RegistryError> {
            unreachable!()
        }

        async fn put_document(
            &self,
            _: &Actor,
            _: DocumentKind,
            _: &str,
            _: &Value,
        ) -> Result<Document, RegistryError> {
            unreachable!()
        }

        async fn remove_document(
            &self,
            _: &Actor,
            _: DocumentKind,
            _: &str,
        ) -> Result<Document, RegistryError> {
            unreachable!()
        }
    }

    fn plan(name: &str, rate: &str) -> Document {
        row(DocumentKind::Plan, name, json!({ "limits": { "requests": { "rate": rate } } }))
    }

    /// A task with its store, and what it publishes.
    struct Bench {
        store: Arc<Store>,
        publisher: Arc<Publisher>,
        changed: Arc<Notice>,
        _task: JoinSet<()>,
    }

    impl Bench {
        fn start(files: &str) -> Self {
            let parts = fixture::parts();
            let config = fixture::config(files);
            let first = Snapshot::build(config, Arc::default(), &parts, 1);
            let first = first.unwrap_or_else(|error| panic!("{error}"));
            let publisher = Publisher::new(Live::new(first), parts);
            let (store, changed) = (Arc::<Store>::default(), Arc::<Notice>::default());
            let mut task = JoinSet::new();
            task.spawn(run(Arc::clone(&store) as _, Arc::clone(&publisher), Arc::clone(&changed)));
            Self { store, publisher, changed, _task: task }
        }

        fn answer(&self, answer: Result<Vec<Document>, Outage>) {
            self.store.0.lock().push_back(answer);
        }

        async fn until(&self, revision: u64) -> Arc<Snapshot> {
            let live = self.publisher.live();
            let reached = async {
                while live.load().revision < revision {
                    tokio::task::yield_now().await;
                }
                live.load()
            };
            time::timeout(PATIENCE, reached).await.expect("it is published")
        }
    }

    #[tokio::test]
    async fn a_change_is_in_force_and_the_files_stay() {
        let bench = Bench::start("[plans.basic]\n[plans.gold]\n");
        bench.answer(Ok(vec![plan("gold", "5/s"), plan("new", "5/s")]));
        bench.changed.give();
        let snapshot = bench.until(2).await;
        assert_eq!(snapshot.origin_of_plan("basic"), Some(Origin::Files));
        assert_eq!(snapshot.origin_of_plan("gold"), Some(Origin::Row));
        assert_eq!(snapshot.origin_of_plan("new"), Some(Origin::Row));

        // One is gone, one does not compile any more.
        bench.answer(Ok(vec![plan("gold", "5/sec")]));
        bench.changed.give();
        let snapshot = bench.until(3).await;
        assert_eq!(snapshot.origin_of_plan("new"), None);
        assert_eq!(snapshot.origin_of_plan("gold"), Some(Origin::Row), "what it was before");
        let exposed = bench.publisher.parts().metrics.render();
        assert!(exposed.contains("gateway_config_rows_refused 1"), "{exposed}");
        assert!(exposed.contains("gateway_config_revision 3"), "{exposed}");
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_asked_until_it_answers() {
        let bench = Bench::start("[plans.basic]\n");
        bench.answer(Err(Outage::Failed));
        bench.answer(Err(Outage::Timeout));
        bench.answer(Ok(vec![plan("gold", "5/s")]));
        bench.changed.give();
        let snapshot = bench.until(2).await;
        assert_eq!(snapshot.origin_of_plan("gold"), Some(Origin::Row));
        let exposed = bench.publisher.parts().metrics.render();
        let failures = "gateway_store_failures_total{operation=\"documents\"} 2";
        assert!(exposed.contains(failures), "{exposed}");
    }

    #[tokio::test]
    async fn files_and_rows_that_change_at_once_are_both_in_force() {
        let bench = Bench::start("[plans.p0]\n");
        for round in 1..=20_u64 {
            let before = bench.publisher.live().load().revision;
            bench.answer(Ok(vec![plan(&format!("row{round}"), "5/s")]));
            bench.changed.give();
            let publisher = Arc::clone(&bench.publisher);
            let files = tokio::task::spawn_blocking(move || {
                publisher.files(fixture::config(&format!("[plans.p{round}]\n")))
            });
            assert!(matches!(files.await.unwrap(), Ok(Published::InForce(_))));
            let snapshot = bench.until(before + 2).await;
            let (file, row) = (format!("p{round}"), format!("row{round}"));
            assert_eq!(snapshot.origin_of_plan(&file), Some(Origin::Files));
            assert_eq!(snapshot.origin_of_plan(&row), Some(Origin::Row));
            assert_eq!(snapshot.plan_names().count(), 2);
        }
    }

    #[tokio::test]
    async fn what_is_there_already_makes_no_new_revision() {
        let bench = Bench::start("[plans.basic]\n");
        let rows = || {
            config::compile_rows(
                &[plan("gold", "5/s"), plan("bad", "no")],
                &HeaderName::from_static("x-api-key"),
            )
        };
        let publish = |rows| bench.publisher.rows(rows).map_err(|error| error.to_string());
        assert_eq!(publish(rows()), Ok(Published::InForce(2)));
        assert_eq!(publish(rows()), Ok(Published::Unchanged(2)));
        assert_eq!(publish(Rows::default()), Ok(Published::InForce(3)));
        let files = bench.publisher.files(fixture::config("[plans.basic]\n"));
        assert!(matches!(files, Ok(Published::Unchanged(3))));
    }

    #[tokio::test]
    async fn a_row_that_closes_an_open_route_closes_it() {
        let files = "[policies.gate]\n[routes.all]\npath = \"/*\"\nauth = \"none\"\n\
                     policies = [\"gate\"]\nreply = { status = 200 }\n";
        let bench = Bench::start(files);
        bench.answer(Ok(vec![row(DocumentKind::Policy, "gate", json!({ "scopes": ["read"] }))]));
        bench.changed.give();
        let snapshot = bench.until(2).await;
        let gate = snapshot.policy("gate").unwrap();
        assert!(gate.access.check(None, "192.0.2.1".parse().unwrap()).is_err());
    }

    #[tokio::test]
    async fn the_rows_to_start_with_are_those_that_compile() {
        let store = Store::default();
        store.0.lock().push_back(Ok(vec![plan("gold", "5/s"), plan("bad", "no")]));
        store.0.lock().push_back(Err(Outage::Failed));
        let rows = load(&store, &HeaderName::from_static("x-api-key")).await.unwrap();
        assert_eq!((rows.plans().count(), rows.refused().len()), (1, 1));
        assert_eq!(
            load(&store, &HeaderName::from_static("x-api-key")).await.unwrap_err(),
            Outage::Failed
        );
    }
}
