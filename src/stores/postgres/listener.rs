//! The connection that hears of writes as they are committed.
//!
//! It only saves waiting: whoever follows polls as well, so nothing is lost while it is away. Every
//! few seconds it is asked something, since a machine that is gone says nothing; and it must lead to the
//! primary that the other connections lead to.

use super::Shared;
use super::dial::timeline;
use super::error::PostgresError;
use super::settings::Server;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Config, Error, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long after it broke it is made again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is seen to that it stands.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Whom writes tell is `write::CHANNEL`.
const LISTEN: &str = "LISTEN datahub_gateway";
const ASK: &str = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Listens until the store is closed.
pub(super) async fn listen(store: Weak<Shared>) {
    loop {
        let Some((server, stir)) = store.upgrade().map(|shared| shared.to_listen()) else { return };
        for host in &server.hosts {
            // That the server is away is told by those who need it.
            if let Err(error) = attend(&server, host, &stir, &store).await {
                log::debug!(error:%; "PostgreSQL notifies of nothing");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Listens to one host, until the connection breaks or the store is closed.
async fn attend(
    server: &Server,
    host: &Config,
    stir: &Notify,
    store: &Weak<Shared>,
) -> Result<(), PostgresError> {
    let within = ANSWERS_WITHIN;
    let late = || PostgresError::Timeout { at: Arc::clone(&server.at), within };
    let connected = timeout(within, host.connect(server.tls.clone())).await;
    let connected = connected.map_err(|_| late())?;
    let (client, link) = connected.map_err(|error| PostgresError::of_dial(&server.at, &error))?;
    let mut ear = Ear { at: &server.at, link, stir };
    let asked = ear.hear_until(client.simple_query(LISTEN));
    timeout(within, asked).await.map_err(|_| late())??;
    // There may have been writes before.
    stir.notify_one();
    while let Some(expected) = store.upgrade().map(|shared| shared.primary.timeline()) {
        let asked = ear.hear_until(client.simple_query(ASK));
        let said = timeout(within, asked).await.map_err(|_| late())??;
        let found = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).and_then(timeline),
            _ => None,
        });
        if expected != 0 && found != Some(expected) {
            let detail = "it is not the primary any more".to_owned();
            return Err(PostgresError::ReadOnly { at: Arc::clone(&server.at), detail });
        }
        let quiet = ear.hear_until(async {
            tokio::time::sleep(ASKED_EVERY).await;
            Ok(())
        });
        quiet.await?;
    }
    Ok(())
}

/// Takes what comes in.
struct Ear<'e> {
    at: &'e Arc<str>,
    link: tokio_postgres::Connection<Socket, Stream>,
    stir: &'e Notify,
}

impl Ear<'_> {
    /// Hears notifications until `work` is done.
    async fn hear_until<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, PostgresError> {
        let mut work = pin!(work);
        let lost = |detail: &str| PostgresError::Lost {
            at: Arc::clone(self.at),
            detail: detail.to_owned(),
        };
        loop {
            let message = tokio::select! {
                biased;
                done = &mut work => return done.map_err(|error| PostgresError::of(self.at, &error)),
                message = poll_fn(|context| self.link.poll_message(context)) => message,
            };
            match message {
                Some(Ok(AsyncMessage::Notification(_))) => self.stir.notify_one(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(PostgresError::of(self.at, &error)),
                None => return Err(lost("the connection was closed")),
            }
        }
    }
}
