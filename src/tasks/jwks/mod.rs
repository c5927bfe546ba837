//! Fetches the keys of issuers that publish them at a URL: at the start, when they are due, and when a
//! token asks for one that is not known.
//!
//! Which URLs there are follows from the configurations in use, so a reload needs no notice. Keys that
//! were good stay when a question fails: the log hears of that once, the metrics each time.
//!
//! Must stay true: at most one question to a URL is under way; at most `AT_ONCE` in all; each ends by
//! its deadline.

mod fetch;

use crate::auth::{Fetched, RemoteKeySets, RemoteKeys, Settled};
use crate::telemetry::Clock;
use fetch::{Client, Fault};
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time;

/// Questions that are under way at the same time.
const AT_ONCE: usize = 4;
/// How long it may go unnoticed that something is due.
const GLANCE: Duration = Duration::from_secs(1);
/// Keys that the log names of those that cannot be used.
const TOLD: usize = 10;

type Answer = Result<Fetched, Fault>;

/// Fetches for as long as it is polled.
pub async fn run(sets: Arc<RemoteKeySets>, clock: Clock) {
    let client = Arc::new(Client::new());
    let mut running = JoinSet::new();
    let mut of: HashMap<Id, Arc<RemoteKeys>> = HashMap::new();
    loop {
        let mut pause = GLANCE;
        for keys in sets.in_use() {
            let Some(due) = keys.due() else { continue };
            let left = due.since(clock.now());
            if left > Duration::ZERO || running.len() >= AT_ONCE {
                pause = pause.min(left.max(Duration::from_millis(10)));
                continue;
            }
            let (client, source, etag) =
                (Arc::clone(&client), Arc::clone(keys.source()), keys.begin());
            let task = running.spawn(async move { client.fetch(&source, etag.as_deref()).await });
            of.insert(task.id(), keys);
        }
        tokio::select! {
            Some(ended) = running.join_next_with_id() => settle(ended, &mut of),
            () = sets.wanted() => {}
            () = time::sleep(pause) => {}
        }
    }
}

fn settle(ended: Result<(Id, Answer), JoinError>, of: &mut HashMap<Id, Arc<RemoteKeys>>) {
    let (id, answer) = match ended {
        Ok(ended) => ended,
        Err(error) => (error.id(), Err(Fault::Unable(error.to_string()))),
    };
    let Some(keys) = of.remove(&id) else { return };
    let url = keys.source().url.to_string();
    let url = url.as_str();
    let (fetched, fault, refused) = match answer {
        Ok(Fetched::Set { jwks, etag, max_age }) => {
            let refused = jwks.refused.clone();
            (Some(Fetched::Set { jwks, etag, max_age }), None, refused)
        }
        Ok(unchanged) => (Some(unchanged), None, Vec::new()),
        Err(fault) => (None, Some(fault), Vec::new()),
    };
    let jitter = rand::rng().random_range(0.9..1.1);
    match keys.settle(fetched, jitter) {
        Settled::Quiet => {}
        Settled::BeginsToFail => {
            let reason = fault.map(|fault| fault.to_string()).unwrap_or_default();
            let reason = reason.as_str();
            match keys.current().as_ref() {
                Some(kept) => log::warn!(url, reason, keys = kept.len();
                    "the keys of an issuer cannot be fetched, those known go on being used"),
                None => log::error!(url, reason;
                    "the keys of an issuer cannot be fetched, its tokens get 503 until they are"),
            }
        }
        Settled::Recovered => log::info!(url; "the keys of an issuer can be fetched again"),
        Settled::NewKeys => {
            let number = keys.current().as_ref().map_or(0, |keys| keys.len());
            log::info!(url, keys = number; "an issuer has other keys than before");
            if !refused.is_empty() {
                let reasons: Vec<_> = refused.iter().take(TOLD).map(ToString::to_string).collect();
                log::warn!(url, refused = refused.len(), reasons = reasons.join("; ");
                    "some keys of an issuer are not used");
            }
        }
    }
}
