//! The connection that hears of writes as they are committed.
//!
//! It only saves waiting: whoever follows polls as well, so nothing is lost while it is away. Every
//! few seconds it is asked something, since a machine that is gone says nothing; and it must lead to the
//! primary that the other connections lead to.

use super::Shared;
use super::dial::timeline;
use super::error::PostgresError;
use super::seats::{Line, Seats};
use super::settings::Server;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Config, Error, SimpleQueryMessage};

/// How long after it broke it is made again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is seen to that it stands.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Whom writes tell is `write::CHANNEL`.
const LISTEN: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; \
                      SET tcp_keepalives_count = 3; LISTEN datahub_gateway";
const ASK: &str = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
/// The one that listens, and one that was given up.
const SEATS: u32 = 2;

/// Listens until the store is closed.
pub(super) async fn listen(store: Weak<Shared>) {
    let seats = Seats::new(SEATS);
    loop {
        let Some((server, stir)) = store.upgrade().map(|shared| shared.to_listen()) else { return };
        for host in &server.hosts {
            // That the server is away is told by those who need it.
            if let Err(error) = attend(&server, host, &seats, &stir, &store).await {
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
    seats: &Seats,
    stir: &Notify,
    store: &Weak<Shared>,
) -> Result<(), PostgresError> {
    let (client, line) = seats.call(host, server, ANSWERS_WITHIN).await?;
    let mut ear = Ear { at: &server.at, line, stir };
    let heard = hear(server, &client, &mut ear, store).await;
    drop(client);
    // It counts until the server has let go of it.
    ear.line.end_alone();
    heard
}

fn late(server: &Server) -> PostgresError {
    PostgresError::Timeout { at: Arc::clone(&server.at), within: ANSWERS_WITHIN }
}

async fn hear(
    server: &Server,
    client: &Client,
    ear: &mut Ear<'_>,
    store: &Weak<Shared>,
) -> Result<(), PostgresError> {
    let asked = ear.hear_until(client.simple_query(LISTEN));
    timeout(ANSWERS_WITHIN, asked).await.map_err(|_| late(server))??;
    // There may have been writes before.
    ear.stir.notify_one();
    while let Some(expected) = store.upgrade().map(|shared| shared.primary.timeline()) {
        let asked = ear.hear_until(client.simple_query(ASK));
        let said = timeout(ANSWERS_WITHIN, asked).await.map_err(|_| late(server))??;
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
    line: Line,
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
                message = poll_fn(|context| self.line.link.poll_message(context)) => message,
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
