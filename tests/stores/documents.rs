//! Plans and policies as rows.

use crate::{ALL, Lab, Place, me};
use datahub_gateway::auth::changes::ChangeKind;
use datahub_gateway::auth::documents::DocumentKind::{self, Plan, Policy};
use datahub_gateway::auth::documents::{Document, Documents as _};
use datahub_gateway::auth::registry::{Page, RegistryError};
use datahub_gateway::telemetry::Clock;
use serde_json::{Value, json};
use std::time::Duration;

impl<P: Place> Lab<P> {
    async fn put(&self, kind: DocumentKind, name: &str, body: &Value) -> Document {
        self.store.put_document(&me(), kind, name, body).await.unwrap()
    }
}

fn plan(rate: &str) -> Value {
    json!({ "limits": { "all": { "rate": rate, "burst": 7 } } })
}

pub(super) async fn a_document_comes_back_as_it_was_put<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let body = json!({
        "empty": {}, "list": [1, "two", null, [0.5, true]], "most": u64::MAX, "least": i64::MIN,
        "text": "'; DROP TABLE documents; -- $1 %s \\ \" \n \u{e4} \u{1f980}", "": "no name",
    });
    for (revision, kind, change) in [(0, Plan, ChangeKind::Plan), (1, Policy, ChangeKind::Policy)] {
        let put = lab.put(kind, "gold", &body).await;
        assert_eq!((put.kind, &*put.name, &put.body), (kind, "gold", &body));
        assert_eq!(put.updated_at.as_secs(), lab.now());
        assert_eq!(lab.touched_since(revision).await, [(change, "gold".to_owned())]);
        assert_eq!(lab.store.document(kind, "gold").await.unwrap(), put);
        assert_eq!(lab.store.documents(kind, ALL).await.unwrap(), [put]);
    }
    let body = json!("the store does not look into it");
    assert_eq!(lab.put(Policy, "odd", &body).await.body, body);
    assert!(matches!(
        lab.store.document(Plan, "odd").await,
        Err(RegistryError::UnknownDocument { kind: "plan", name }) if name == "odd"
    ));
}

pub(super) async fn the_same_body_again_changes_nothing<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let first = lab.put(Plan, "gold", &json!({ "a": 1, "b": [2] })).await;
    lab.clock.advance(Duration::from_secs(5));
    let same = serde_json::from_str(r#"{ "b" : [2], "a" : 1 }"#).unwrap();
    assert_eq!(lab.put(Plan, "gold", &same).await, first);
    assert_eq!(lab.revision().await, 1);
    let other = lab.put(Plan, "gold", &json!({ "a": 1, "b": [3] })).await;
    assert_eq!(other.updated_at.as_secs(), lab.now());
    assert_eq!(lab.store.document(Plan, "gold").await.unwrap(), other);
    assert_eq!(lab.touched_since(1).await, [(ChangeKind::Plan, "gold".to_owned())]);
}

pub(super) async fn documents_come_in_pages_by_name<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    for name in ["silver", "Gold", "gold", "a-1", "a_1", "z"] {
        lab.put(Plan, name, &plan("1/s")).await;
        lab.put(Policy, &format!("policy-{name}"), &json!({})).await;
    }
    let (mut names, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
    for expected in [4, 2, 0] {
        let page = Page { after: after.as_deref(), limit: 4 };
        let documents = lab.store.documents(Plan, page).await.unwrap();
        assert_eq!(documents.len(), expected);
        names.extend(documents.iter().map(|document| document.name.to_string()));
        after = names.last().cloned();
    }
    assert_eq!(names, ["Gold", "a-1", "a_1", "gold", "silver", "z"]);
    assert_eq!(lab.store.documents(Policy, ALL).await.unwrap().len(), 6);
}

pub(super) async fn a_removed_document_is_gone<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let put = lab.put(Plan, "gold", &plan("1/s")).await;
    let policy = lab.put(Policy, "gold", &json!({})).await;
    assert_eq!(lab.store.remove_document(&me(), Plan, "gold").await.unwrap(), put);
    assert_eq!(lab.touched_since(2).await, [(ChangeKind::Plan, "gold".to_owned())]);
    for name in ["gold", "silver", "", "go%"] {
        let found = lab.store.document(Plan, name).await;
        assert!(matches!(found, Err(RegistryError::UnknownDocument { .. })), "{name}: {found:?}");
        let found = lab.store.remove_document(&me(), Plan, name).await;
        assert!(matches!(found, Err(RegistryError::UnknownDocument { .. })), "{name}: {found:?}");
    }
    assert_eq!(lab.store.documents(Plan, ALL).await.unwrap(), []);
    assert_eq!(lab.store.documents(Policy, ALL).await.unwrap(), [policy], "another kind");
    assert_eq!(lab.revision().await, 3);
    assert_eq!(lab.put(Plan, "gold", &plan("2/s")).await.body, plan("2/s"));
}

pub(super) async fn all_are_loaded_with_the_revision_they_were_read_at<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    assert_eq!(lab.store.load_documents().await.unwrap(), (Vec::new(), 0));
    let mut all = vec![
        lab.put(Plan, "gold", &plan("1/s")).await,
        lab.put(Plan, "silver", &plan("1/s")).await,
        lab.put(Policy, "beta", &json!({ "scopes": ["beta"] })).await,
    ];
    let loaded = async || {
        let (mut documents, revision) = lab.store.load_documents().await.unwrap();
        documents.sort_by(|one, other| {
            (one.kind.as_str(), &one.name).cmp(&(other.kind.as_str(), &other.name))
        });
        (documents, revision)
    };
    assert_eq!(loaded().await, (all.clone(), 3));
    lab.add("alice").await;
    assert_eq!(loaded().await, (all.clone(), 4), "the whole store's revision");
    lab.store.remove_document(&me(), Plan, "silver").await.unwrap();
    all.remove(1);
    assert_eq!(loaded().await, (all, 5), "never older than the write before");
}

pub(super) async fn names_that_nobody_can_refer_to_are_refused<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let long = "x".repeat(129);
    for bad in ["", " ", "a b", "a\n", "a\0", "\u{e4}", &long] {
        let put = lab.store.put_document(&me(), Policy, bad, &json!({})).await;
        assert!(matches!(put, Err(RegistryError::Invalid { .. })), "{bad:?}: {put:?}");
    }
    assert_eq!(lab.revision().await, 0);
    lab.put(Policy, &long[1..], &json!({})).await;
}
