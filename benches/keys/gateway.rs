//! What identifies callers, as a gateway puts it together.

use anyhow::{Result, bail};
use datahub_gateway::auth::changes::{ChangeFeed as _, Changes};
use datahub_gateway::auth::directory::{Directory, Settings as Sizes};
use datahub_gateway::auth::{
    ApiKeys, Authenticator, Caller, Denied, Method, RemoteKeySets, Requirement, TokenCache,
};
use datahub_gateway::stores::postgres::{Bounds, Settings, migrate as migrations};
use datahub_gateway::stores::{Postgres, Reactor};
use datahub_gateway::telemetry::Clock;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// How often a gateway asks what has changed.
const POLLED_EVERY: Duration = Duration::from_millis(250);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HEADER: HeaderName = HeaderName::from_static("x-api-key");

pub(crate) fn api_keys() -> ApiKeys {
    ApiKeys {
        environment: "bench".into(),
        header: HEADER,
        pepper: b"a pepper that only a bench has seen".to_vec(),
        previous_peppers: Vec::new(),
    }
}

fn open(url: &str, bounds: Bounds) -> Result<Postgres> {
    let settings = Settings::parse(url, None, None, bounds)?;
    Ok(Postgres::connect(settings, Reactor::start()?, Clock::system()))
}

/// Makes the tables.
pub(crate) async fn migrate(url: &str) -> Result<()> {
    migrations::apply(&open(url, Bounds::default())?).await?;
    Ok(())
}

/// Store, directory and authenticator.
pub(crate) struct Gateway {
    pub(crate) store: Arc<Postgres>,
    pub(crate) directory: Arc<Directory>,
    authenticator: Authenticator,
    required: Requirement,
    clock: Clock,
}

impl Gateway {
    /// A gateway that keeps `known` keys and may ask PostgreSQL so often; all else is as by default.
    pub(crate) fn start(url: &str, known: usize, look_ups_per_second: u32) -> Result<Self> {
        let store = Arc::new(open(url, Bounds { look_ups_per_second, ..Bounds::default() })?);
        let clock = Clock::system();
        let sizes = Sizes { known, ..Sizes::default() };
        let source = Arc::<Postgres>::clone(&store);
        let directory = Arc::new(Directory::with_settings(source, sizes, clock.clone()));
        let tokens = Arc::new(TokenCache::new(1));
        let remote = RemoteKeySets::new(clock.clone());
        let known_keys = Arc::clone(&directory);
        let authenticator =
            Authenticator::new(api_keys(), Vec::new(), known_keys, tokens, &remote, clock.clone());
        let required = Requirement::Required { methods: vec![Method::ApiKey], scopes: Vec::new() };
        Ok(Self { store, directory, authenticator, required, clock })
    }

    /// Runs `work` while the changes are followed.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let asked_at = self.clock.now();
        let mut revision = match self.store.changes_since(None).await {
            Ok(Changes::Reset(reset)) => {
                self.directory.reset(&reset, asked_at);
                reset.revision
            }
            other => bail!("where the store stands was asked for, and it said {other:?}"),
        };
        let follow = async {
            loop {
                tokio::time::sleep(POLLED_EVERY).await;
                let asked_at = self.clock.now();
                match self.store.changes_since(Some(revision)).await {
                    Ok(Changes::Since { revision: next, changes, .. }) => {
                        self.directory.apply(next, &changes, asked_at);
                        revision = next;
                    }
                    other => break other,
                }
            }
        };
        tokio::select! {
            done = work => done,
            other = follow => bail!("what has changed was asked for, and the store said {other:?}"),
        }
    }

    /// Who has this key, if it is at hand.
    pub(crate) fn glance(&self, key: &[u8]) -> Result<Option<Result<Option<Arc<Caller>>, Denied>>> {
        Ok(self.authenticator.identify_cached(&self.required, &headers(key)?, CLIENT))
    }

    /// Has a good key become known, however often the store must be asked: the machine may be busy.
    pub(crate) async fn learn(&self, key: &[u8]) -> Result<()> {
        loop {
            match self.identify(key).await? {
                Ok(Some(_)) => return Ok(()),
                Err(Denied::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                other => bail!("a good key: {other:?}"),
            }
        }
    }

    /// Who has this key.
    pub(crate) async fn identify(&self, key: &[u8]) -> Result<Result<Option<Arc<Caller>>, Denied>> {
        Ok(self.authenticator.identify(&self.required, &headers(key)?, CLIENT).await)
    }
}

/// How long to wait for a store that could not answer.
const PAUSE: Duration = Duration::from_millis(5);

/// The headers of a request with this key.
fn headers(key: &[u8]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(HEADER, HeaderValue::from_bytes(key)?);
    Ok(headers)
}
