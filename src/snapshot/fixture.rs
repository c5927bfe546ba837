//! Snapshots for tests, from a few lines of a file and a few rows.

use super::{Parts, Snapshot};
use crate::auth::api_key::KeyId;
use crate::auth::directory::{Answer, KeyRecord, Source};
use crate::auth::documents::{Document, DocumentKind};
use crate::auth::{Consumer, Directory, RemoteKeySets, TokenCache, UnixTime};
use crate::config::{self, Config, Rows, SecretFiles};
use crate::limits::{Addresses, Limiter};
use crate::telemetry::{Clock, Metrics};
use crate::upstreams::Registry;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;

/// A store that knows nobody.
struct Nobody;

#[async_trait]
impl Source for Nobody {
    async fn look_up_key(&self, _: KeyId, _: usize) -> Answer<KeyRecord> {
        Answer::Unknown { revision: 0 }
    }

    async fn look_up_consumer(&self, _: &str, _: usize) -> Answer<Consumer> {
        Answer::Unknown { revision: 0 }
    }
}

/// What outlives snapshots, with a clock that stands still.
pub(crate) fn parts() -> Parts {
    let clock = Clock::manual();
    Parts {
        limiter: Limiter::new(clock.clone(), &[0; 16]),
        addresses: Addresses::new(clock.clone(), &[0; 16]),
        registry: Registry::new(clock.clone()),
        directory: Arc::new(Directory::new(Arc::new(Nobody), clock.clone())),
        tokens: Arc::new(TokenCache::new(10)),
        issuer_keys: Arc::new(RemoteKeySets::new(clock.clone())),
        tally: Arc::default(),
        metrics: Metrics::new(),
        clock,
    }
}

/// The configuration of a file with this text, and a listener.
pub(crate) fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("{text}\n[listeners.public]\naddress = \"127.0.0.1:0\"\n");
    std::fs::write(folder.path().join("all.toml"), text).expect("a file");
    match config::load_in(folder.path(), SecretFiles::Leave, &|_| None) {
        // The folder is another one each time, and what tests compare is not where it is.
        Ok(loaded) => {
            let mut config = loaded.config;
            config.fixed.store = config::StoreDef::Embedded { path: "gateway.db".into() };
            let zeros = vec![0; 32];
            config.api_key.pepper = zeros;
            config
        }
        Err(report) => panic!("{report}"),
    }
}

/// A row.
pub(crate) fn row(kind: DocumentKind, name: &str, body: Value) -> Document {
    Document { kind, name: name.into(), body, updated_at: UnixTime::from_secs(0) }
}

/// A snapshot of both.
pub(crate) fn snapshot(text: &str, documents: &[Document]) -> Snapshot {
    let config = config(text);
    let rows: Rows = config::compile_rows(documents, &config.api_key.header);
    match Snapshot::build(config, Arc::new(rows), &parts(), 1) {
        Ok(snapshot) => snapshot,
        Err(error) => panic!("{error}"),
    }
}
