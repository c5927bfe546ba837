//! A connection in use: asking, and beginning and ending transactions.
//!
//! Must stay true: an error is counted, and says whether the connection is kept; who stops waiting in the
//! middle of a question gives the connection up.

use super::connection::Connection;
use super::dial::Manager;
use super::error::{PostgresError, Verdict};
use super::lane::{Gate, Held};
use super::pool::Pool;
use bb8_postgres::bb8::PooledConnection;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// A value for a statement.
pub(super) type Value<'v> = &'v (dyn ToSql + Sync);

/// A connection in use.
pub(super) struct Work<'p> {
    pub(super) pool: &'p Pool,
    /// Goes back to the pool before the lane is free.
    pub(super) connection: PooledConnection<'p, Manager>,
    pub(super) gate: &'p Gate,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Work<'_> {
    /// Where.
    pub(super) fn at(&self) -> &Arc<str> {
        &self.pool.at
    }

    /// The connection, to find what was prepared on it.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits for the answer to a question that this connection was asked.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, PostgresError> {
        let marks = &self.pool.dialer.marks;
        self.connection.asks();
        let answer = question.await;
        self.connection.is_answered(marks);
        if answer.is_ok() {
            self.pool.dialer.news.works();
        }
        answer.map_err(|error| {
            let error = PostgresError::of(&self.pool.at, &error);
            match error.verdict() {
                Verdict::Kept => {}
                Verdict::Gone => self.connection.give_up(),
                Verdict::Wrong => {
                    self.connection.give_up();
                    marks.note_wrong();
                }
            }
            self.pool.counters.count(&error);
            error
        })
    }

    /// The rows that a statement answers with.
    pub(super) async fn rows(
        &self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        self.ask(self.connection.client.query(sql, values)).await
    }

    /// The one row that a statement answers with.
    pub(super) async fn row(&self, sql: &str, values: &[Value<'_>]) -> Result<Row, PostgresError> {
        self.ask(self.connection.client.query_one(sql, values)).await
    }

    /// How many rows a statement touches.
    pub(super) async fn change(
        &self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<u64, PostgresError> {
        self.ask(self.connection.client.execute(sql, values)).await
    }

    /// Begins a transaction with `sql`. It ends by [`Work::commit`] or [`Work::roll_back`]; a connection
    /// that is left without is given up, and the server rolls back.
    pub(super) async fn begin(&self, sql: &str) -> Result<(), PostgresError> {
        self.connection.set_in_transaction(true);
        self.ask(self.connection.client.batch_execute(sql)).await
    }

    /// Makes a transaction final.
    pub(super) async fn commit(&self) -> Result<(), PostgresError> {
        let done = self.ask(self.connection.client.batch_execute("COMMIT")).await;
        self.connection.set_in_transaction(false);
        done.map_err(|error| match error {
            PostgresError::Lost { at, detail } => PostgresError::Unsure { at, detail },
            other => other,
        })
    }

    /// Undoes a transaction.
    pub(super) async fn roll_back(&self) -> Result<(), PostgresError> {
        let done = self.ask(self.connection.client.batch_execute("ROLLBACK")).await;
        self.connection.set_in_transaction(false);
        done
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // Nobody waits for the answer any more: it took too long.
        if self.connection.is_asking() {
            self.pool.dialer.marks.note_silence();
            self.pool.counters.lost.fetch_add(1, Ordering::Relaxed);
            if let Some(permit) = self.permit.take() {
                self.gate.held.fetch_add(1, Ordering::Relaxed);
                let count = Arc::clone(&self.gate.held);
                self.connection.hold.keep(Held { _permit: permit, count });
            }
        }
    }
}
