//! What the log hears of a server: that it cannot be used, why, and that it works again.
//!
//! Must stay true: each kind of failure is told at once and then only now and then, however often it
//! happens; that it works again is told once for each time that it was told not to.

use super::dial::Role;
use super::error::PostgresError;
use crate::telemetry::{Clock, Moment};
use parking_lot::Mutex;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the log hears of errors of one kind.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What was told of one server.
#[derive(Debug)]
pub(super) struct News {
    at: Arc<str>,
    role: Role,
    clock: Clock,
    /// When each kind was last told.
    told: Mutex<Vec<(Discriminant<PostgresError>, Moment)>>,
    is_down: AtomicBool,
}

impl News {
    pub(super) fn new(at: &Arc<str>, role: Role, clock: Clock) -> Self {
        let (told, is_down) = (Mutex::default(), AtomicBool::new(false));
        Self { at: Arc::clone(at), role, clock, told, is_down }
    }

    /// Logs an error, but not each of a thousand.
    pub(super) fn fails(&self, error: &PostgresError) {
        if !self.is_to_be_told(error) {
            return;
        }
        if error.is_of_server() {
            self.is_down.store(true, Ordering::Relaxed);
        }
        match (error, self.role) {
            (PostgresError::Unreadable { .. }, _) => {
                log::error!(error:%; "PostgreSQL holds a row that cannot be read");
            }
            (_, Role::Primary) => log::error!(error:%; "PostgreSQL cannot be used"),
            (_, Role::Replica) => {
                log::warn!(error:%; "the replica cannot be used, look-ups go to the primary");
            }
        }
    }

    /// Logs that it works again, if it was told not to.
    pub(super) fn works(&self) {
        let was_down =
            self.is_down.load(Ordering::Relaxed) && self.is_down.swap(false, Ordering::Relaxed);
        match self.role {
            _ if !was_down => {}
            Role::Primary => log::info!(at = &*self.at; "PostgreSQL works again"),
            Role::Replica => log::info!(at = &*self.at; "the replica works again"),
        }
    }

    fn is_to_be_told(&self, error: &PostgresError) -> bool {
        let (now, kind) = (self.clock.now(), discriminant(error));
        let mut told = self.told.lock();
        match told.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, at)) if now.since(*at) < TOLD_EVERY => return false,
            Some((_, at)) => *at = now,
            None => told.push((kind, now)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_of_failure_is_told_at_once_and_the_same_now_and_then() {
        let (clock, at) = (Clock::manual(), Arc::<str>::from("db:5432/gw"));
        let news = News::new(&at, Role::Replica, clock.clone());
        let detail = || "no".to_owned();
        let away = PostgresError::Unreachable { at: Arc::clone(&at), detail: detail() };
        let denied = PostgresError::Denied { at, detail: detail() };
        let told = |error| news.is_to_be_told(error);
        assert_eq!(
            [&away, &away, &denied, &away, &denied].map(told),
            [true, false, true, false, false]
        );
        clock.advance(TOLD_EVERY);
        assert_eq!([&away, &denied, &away].map(told), [true, true, false]);
    }

    #[test]
    fn only_what_the_server_cannot_do_makes_it_work_again() {
        let (clock, at) = (Clock::manual(), Arc::<str>::from("db:5432/gw"));
        let news = News::new(&at, Role::Primary, clock);
        news.fails(&PostgresError::Unreadable { at: Arc::clone(&at), detail: String::new() });
        assert!(!news.is_down.load(Ordering::Relaxed));
        news.fails(&PostgresError::Unreachable { at, detail: String::new() });
        assert!(news.is_down.load(Ordering::Relaxed));
        news.works();
        assert!(!news.is_down.load(Ordering::Relaxed));
    }
}
