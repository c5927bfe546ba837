//! The contract suite: what every store promises, whatever it is made of.
//!
//! A store joins by a [`Place`] and one line at the end.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the promises are test code, though generic and so not tests by themselves"
)]

#[path = "stores/audit.rs"]
mod audit;
#[path = "stores/changes.rs"]
mod changes;
#[path = "stores/denials.rs"]
mod denials;
#[path = "stores/documents.rs"]
mod documents;
#[expect(
    clippy::disallowed_methods,
    dead_code,
    reason = "it runs by itself, and PostgreSQL is met with some of what it can do"
)]
#[path = "lab/fault.rs"]
mod fault;
#[path = "lab/postgres.rs"]
mod lab;
#[path = "stores/postgres.rs"]
mod postgres;
#[path = "stores/registry.rs"]
mod registry;
#[path = "stores/usage.rs"]
mod usage;
#[path = "stores/uses.rs"]
mod uses;

use datahub_gateway::auth::api_key::{KeyForm, KeyId, PlainKey};
use datahub_gateway::auth::changes::{Change, ChangeFeed as _, ChangeKind, Changes};
use datahub_gateway::auth::directory::{Answer, KeyRecord, Source as _};
use datahub_gateway::auth::registry::{Actor, KeyInfo, NewConsumer, NewKey, Page, Registry as _};
use datahub_gateway::auth::{ApiKeys, Consumer, UnixTime, parse_network};
use datahub_gateway::stores::{Embedded, Store};
use datahub_gateway::telemetry::Clock;
use http::HeaderName;
use ipnet::IpNet;

/// An empty store that several processes can open.
trait Place: Sized {
    type Store: Store;

    /// Whether changes are dated by the clock that the store was opened with; a server has its own.
    const DATES_CHANGES: bool = true;

    fn empty() -> Self;

    /// Another connection to the same data.
    fn open(&self, clock: Clock) -> Self::Store;
}

/// A store, and the time it goes by.
struct Lab<P: Place> {
    place: P,
    store: P::Store,
    clock: Clock,
}

impl<P: Place> Lab<P> {
    fn new(clock: Clock) -> Self {
        let place = P::empty();
        Self { store: place.open(clock.clone()), place, clock }
    }

    fn now(&self) -> u64 {
        self.clock.unix_time().as_secs()
    }

    async fn add(&self, username: &str) {
        self.store.add_consumer(&me(), consumer(username)).await.unwrap();
    }

    async fn issue(&self, consumer: &str) -> KeyInfo {
        self.store.issue_key(&me(), key(consumer).1).await.unwrap()
    }

    /// From the authority: the last copy.
    async fn look_up_key(&self, id: KeyId) -> Answer<KeyRecord> {
        self.store.look_up_key(id, self.store.copies() - 1).await
    }

    /// From the authority: the last copy.
    async fn look_up_consumer(&self, username: &str) -> Answer<Consumer> {
        self.store.look_up_consumer(username, self.store.copies() - 1).await
    }

    async fn revision(&self) -> u64 {
        match self.store.changes_since(None).await.unwrap() {
            Changes::Reset(reset) => reset.revision,
            Changes::Since { .. } => panic!("the start was asked for"),
        }
    }

    async fn changes_since(&self, revision: u64) -> Vec<Change> {
        match self.store.changes_since(Some(revision)).await.unwrap() {
            Changes::Since { changes, more: false, .. } => changes,
            other => panic!("{other:?}"),
        }
    }

    /// What the one write after `revision` touched.
    async fn touched_since(&self, revision: u64) -> Vec<(ChangeKind, String)> {
        let changes = self.changes_since(revision).await;
        assert!(changes.iter().all(|change| change.revision == revision + 1), "{changes:?}");
        changes.into_iter().map(|change| (change.kind, change.id.to_string())).collect()
    }
}

fn me() -> Actor {
    Actor::named("test")
}

fn consumer(username: &str) -> NewConsumer {
    NewConsumer {
        username: username.to_owned(),
        custom_id: None,
        plan: "free".to_owned(),
        policies: Vec::new(),
    }
}

fn api_keys() -> ApiKeys {
    ApiKeys {
        environment: "test".into(),
        header: HeaderName::from_static("x-api-key"),
        pepper: b"a pepper that only tests have seen".to_vec(),
        previous_peppers: Vec::new(),
    }
}

fn key(consumer: &str) -> (PlainKey, NewKey) {
    let (plain, proof) = KeyForm::new(&api_keys()).generate().unwrap();
    let new = NewKey {
        proof,
        consumer: consumer.to_owned(),
        name: None,
        plan: None,
        scopes: Vec::new(),
        addresses: Vec::new(),
        not_before: None,
        expires_at: None,
    };
    (plain, new)
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| parse_network(text).unwrap()).collect()
}

const fn secs(secs: u64) -> Option<UnixTime> {
    Some(UnixTime::from_secs(secs))
}

const ALL: Page<'static> = Page { after: None, limit: 1000 };

macro_rules! contract {
    ($place:ty: $($topic:ident { $($promise:ident),* $(,)? })*) => {
        $(
            mod $topic {
                $(
                    #[tokio::test]
                    async fn $promise() {
                        crate::$topic::$promise::<$place>().await;
                    }
                )*
            }
        )*
    };
}

macro_rules! store {
    ($name:ident, $place:ty) => {
        mod $name {
            contract! { $place:
                audit {
                    every_kind_of_write_stands_in_it_once,
                    it_comes_in_pages_from_the_newest_to_the_oldest,
                    no_secret_gets_into_it,
                    what_a_document_says_and_said_stands_in_it,
                    what_was_refused_or_changed_nothing_is_not_in_it,
                }
                changes {
                    a_running_gateway_hears_of_everything_within_a_second,
                    every_write_is_a_revision_that_names_what_it_touched,
                    many_changes_come_complete_and_in_order,
                    writers_in_several_processes_do_not_lose_each_other,
                }
                denials {
                    a_denied_token_is_in_the_list_until_it_is_allowed,
                    entries_that_have_ended_are_gone,
                    the_list_comes_in_pages_in_the_order_of_time,
                    what_cannot_be_denied_is_refused,
                    what_is_denied_comes_back_letter_by_letter,
                }
                documents {
                    a_document_comes_back_as_it_was_put,
                    a_removed_document_is_gone,
                    all_are_loaded_with_the_revision_they_were_read_at,
                    documents_come_in_pages_by_name,
                    names_that_nobody_can_refer_to_are_refused,
                    the_same_body_again_changes_nothing,
                }
                registry {
                    a_consumer_is_found_by_its_name_and_its_id,
                    a_key_comes_back_as_it_was_issued,
                    a_key_that_takes_over_begins_no_sooner,
                    a_revoked_key_stays_revoked,
                    a_rotated_key_lives_through_the_overlap,
                    all_copies_come_to_agree,
                    lists_come_in_pages,
                    names_and_references_are_unique,
                    policies_of_a_consumer_come_back_in_their_order,
                    values_that_cannot_go_into_headers_are_refused,
                }
                uses {
                    a_digest_takes_the_place_of_its_own_only,
                    a_use_is_shown_and_is_no_revision,
                    peppers_are_counted_by_the_keys_that_need_them,
                    uses_and_operators_do_not_stand_in_each_others_way,
                }
                usage {
                    a_batch_is_applied_once_however_often_it_is_handed_over,
                    a_heartbeat_counts_those_who_live,
                    days_are_asked_for_from_the_first_to_the_last,
                    it_comes_in_pages_and_by_consumer,
                    it_outlives_its_consumer,
                    many_tasks_at_once_lose_nothing,
                    totals_of_quotas_are_those_of_all_tasks,
                }
            }
        }
    };
}

struct File(tempfile::TempDir);

impl Place for File {
    type Store = Embedded;

    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, clock: Clock) -> Embedded {
        Embedded::open(&self.0.path().join("gateway.db"), clock).unwrap()
    }
}

store!(embedded, crate::File);
store!(postgresql, crate::postgres::Database);
