//! Keys and consumers for the request path: one statement, on the copy that was asked for.
//!
//! The row and the revision come in one statement, so from one moment.
//!
//! Must stay true: a look-up costs one round trip; what is asked for is only ever a parameter.

use super::error::PostgresError;
use super::pool::{Lane, Pool, Work};
use super::rows::{self, Reader, askable};
use super::{Postgres, Shared};
use crate::auth::Consumer;
use crate::auth::api_key::KeyId;
use crate::auth::directory::{Answer, KeyRecord, Source};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

/// What is looked up.
enum Question {
    Consumer(Box<str>),
    Key(KeyId),
}

#[async_trait]
impl Source for Postgres {
    fn copies(&self) -> usize {
        1 + usize::from(self.shared.replica.is_some())
    }

    async fn look_up_key(&self, id: KeyId, copy: usize) -> Answer<KeyRecord> {
        self.look_up(Question::Key(id), copy, rows::key_record).await
    }

    async fn look_up_consumer(&self, username: &str, copy: usize) -> Answer<Consumer> {
        let question = Question::Consumer(askable(username).into());
        self.look_up(question, copy, rows::consumer).await
    }
}

impl Postgres {
    async fn look_up<T>(
        &self,
        question: Question,
        copy: usize,
        read: fn(Reader<'_>, usize) -> Result<T, PostgresError>,
    ) -> Answer<T> {
        let Shared { primary, replica, bounds, budget, .. } = &*self.shared;
        let (pool, deadline) = match replica {
            Some(replica) if copy == 0 => (replica, bounds.replica_look_up),
            _ => (primary, bounds.primary_look_up),
        };
        let answer = async {
            if !budget.spend() {
                return Err(PostgresError::Throttled { at: Arc::clone(&pool.at) });
            }
            let (admitted, asked) = (pool.admit(Lane::LookUps)?, Arc::clone(pool));
            let row = self.reactor.run(async move {
                let row = asked.within(deadline, ask(&asked, &question)).await;
                drop(admitted);
                row
            });
            let row = row.await.unwrap_or_else(|| Err(pool.stopped()))?;
            let answer = answer(Reader::new(&pool.at, &row), read);
            answer.inspect_err(|error| pool.finds_unreadable(error))
        };
        answer.await.unwrap_or_else(|error| Answer::Unavailable(error.outage()))
    }
}

fn answer<T>(
    row: Reader<'_>,
    read: fn(Reader<'_>, usize) -> Result<T, PostgresError>,
) -> Result<Answer<T>, PostgresError> {
    let revision = row.number(0)?;
    Ok(match row.get::<Option<&str>>(1)? {
        Some(_) => Answer::Known { row: read(row, 1)?, revision },
        None => Answer::Unknown { revision },
    })
}

/// Asks, and asks again where the connection turns out to be dead: all that stood may be.
async fn ask(pool: &Pool, question: &Question) -> Result<Row, PostgresError> {
    let mut tries = 0;
    loop {
        match ask_once(pool, question).await {
            Err(error) if error.is_passing() && tries < pool.most() => tries += 1,
            answer => return answer,
        }
    }
}

async fn ask_once(pool: &Pool, question: &Question) -> Result<Row, PostgresError> {
    let work = pool.take(Lane::LookUps).await?;
    let connection = work.connection();
    let (sql, prepared, text) = match question {
        Question::Consumer(username) => {
            (consumer_sql as fn() -> String, &connection.consumer, &**username)
        }
        Question::Key(id) => (key_sql as fn() -> String, &connection.key, id.as_str()),
    };
    let statement = prepare(&work, prepared, sql).await?;
    let values: [&(dyn ToSql + Sync); 1] = [&text];
    work.ask(connection.client.query_one(statement, &values)).await
}

/// The statement, prepared once for each connection.
pub(super) async fn prepare<'w>(
    work: &'w Work<'_>,
    prepared: &'w OnceCell<Statement>,
    sql: fn() -> String,
) -> Result<&'w Statement, PostgresError> {
    let init = || async { work.ask(work.connection().client.prepare(&sql())).await };
    prepared.get_or_try_init(init).await
}

fn key_sql() -> String {
    format!(
        "SELECT r.n, {}, {} FROM revision r LEFT JOIN keys k ON k.id = $1 \
         LEFT JOIN consumers c ON c.id = k.consumer",
        rows::CONSUMER,
        rows::RECORD
    )
}

fn consumer_sql() -> String {
    format!(
        "SELECT r.n, {} FROM revision r LEFT JOIN consumers c ON c.username = $1",
        rows::CONSUMER
    )
}
