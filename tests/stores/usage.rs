//! Usage, quotas and heartbeats.

use crate::{Lab, Place, me};
use datahub_gateway::auth::registry::Registry as _;
use datahub_gateway::limits::usage::{
    Batch, Day, QuotaCount, TaskId, UsageCount, UsageLog as _, UsageQuery,
};
use datahub_gateway::telemetry::Clock;
use std::sync::Arc;
use uuid::Uuid;

impl<P: Place> Lab<P> {
    fn today(&self) -> u32 {
        u32::try_from(self.now() / 86_400).unwrap()
    }

    /// Everything that is asked for by `query`, read in one page.
    async fn used(&self, query: UsageQuery<'_>) -> Vec<(u32, String, String, u64, u64)> {
        let rows = self.store.usage(query).await.unwrap();
        rows.into_iter()
            .map(|row| {
                let consumer = format!("{}={}", row.consumer, row.username);
                (row.day.0, consumer, row.class.to_string(), row.admitted, row.refused)
            })
            .collect()
    }
}

/// To the end of the year 9999.
const ALL: UsageQuery<'static> =
    UsageQuery { consumer: None, from: Day(0), to: Day(2_932_896), after: None, limit: 1000 };

fn task(number: u128) -> TaskId {
    TaskId(Uuid::from_u128(number))
}

/// Requests of the consumer called `name`, whose id is `id-<name>`.
fn count(day: u32, name: &str, class: &str, admitted: u64, refused: u64) -> UsageCount {
    UsageCount {
        day: Day(day),
        consumer: format!("id-{name}").into(),
        username: name.into(),
        class: class.into(),
        admitted,
        refused,
    }
}

fn quota(rule: &str, subject: u128, period: u64, used: u64) -> QuotaCount {
    QuotaCount { rule: rule.into(), subject, period, ends: period + 86_400, used }
}

fn batch(task: TaskId, number: u64, usage: Vec<UsageCount>, quotas: Vec<QuotaCount>) -> Batch {
    Batch { task, number, usage, quotas }
}

pub(super) async fn a_batch_is_applied_once_however_often_it_is_handed_over<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let (day, now) = (lab.today(), lab.now());
    let batch = |number| {
        let usage = vec![count(day, "alice", "read", 10, 1), count(day, "bob", "read", 0, 2)];
        batch(task(1), number, usage, vec![quota("plan/free/month", 7, now, 10)])
    };
    let other = lab.place.open(lab.clock.clone());
    let rows = |times: u64| {
        vec![
            (day, "id-alice=alice".to_owned(), "read".to_owned(), 10 * times, times),
            (day, "id-bob=bob".to_owned(), "read".to_owned(), 0, 2 * times),
        ]
    };
    for number in 1..=3 {
        for again in 0..3 {
            let store = if again == 1 { &other } else { &lab.store };
            let totals = store.apply(&batch(number)).await.unwrap();
            assert_eq!(totals, [10 * number], "batch {number}, time {again}");
        }
        assert_eq!(lab.used(ALL).await, rows(number));
    }
    assert_eq!(lab.store.apply(&batch(1)).await.unwrap(), [30], "an old one");
    assert_eq!(lab.used(ALL).await, rows(3));
    let nothing = self::batch(task(1), 4, Vec::new(), Vec::new());
    assert_eq!(lab.store.apply(&nothing).await.unwrap(), [0; 0]);
    assert_eq!(lab.revision().await, 0, "usage is no change");
}

pub(super) async fn totals_of_quotas_are_those_of_all_tasks<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let now = lab.now();
    let used =
        async |rule, subject, period| lab.store.quota_used(rule, subject, period).await.unwrap();
    assert_eq!(used("plan/free/month", 1, now).await, 0);
    let first = vec![quota("a", u128::MAX, now, 5), quota("a", 0, now, 6), quota("b", 0, now, 7)];
    let totals = lab.store.apply(&batch(task(1), 1, Vec::new(), first)).await.unwrap();
    assert_eq!(totals, [5, 6, 7]);
    let next = vec![quota("b", 0, now + 60, 1), quota("b", 0, now, 2), quota("a", 0, now, 3)];
    let totals = lab.store.apply(&batch(task(2), 1, Vec::new(), next)).await.unwrap();
    assert_eq!(totals, [1, 9, 9], "in the order of the batch");
    for (rule, subject, period, total) in [
        ("a", u128::MAX, now, 5),
        ("a", 0, now, 9),
        ("b", 0, now, 9),
        ("b", 0, now + 60, 1),
        ("b", 1, now, 0),
        ("c", 0, now, 0),
        ("' OR 1 = 1 --", 0, now, 0),
    ] {
        assert_eq!(used(rule, subject, period).await, total, "{rule} {subject} {period}");
    }
}

pub(super) async fn it_comes_in_pages_and_by_consumer<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let day = lab.today();
    let mut counts = Vec::new();
    for day in [day, day - 1] {
        for name in ["carol", "alice", "bob"] {
            counts.extend(["write", "read"].map(|class| count(day, name, class, 1, 0)));
        }
    }
    lab.store.apply(&batch(task(1), 1, counts.clone(), Vec::new())).await.unwrap();
    counts.sort_by(|one, other| {
        (one.day, &one.consumer, &one.class).cmp(&(other.day, &other.consumer, &other.class))
    });
    let mut seen: Vec<UsageCount> = Vec::new();
    for expected in [5, 5, 2, 0] {
        let last = seen.last().cloned();
        let after = last.as_ref().map(|row| (row.day, &*row.consumer, &*row.class));
        let rows = lab.store.usage(UsageQuery { after, limit: 5, ..ALL }).await.unwrap();
        assert_eq!(rows.len(), expected);
        seen.extend(rows);
    }
    assert_eq!(seen, counts);
    for name in ["bob", "id-bob"] {
        let query = UsageQuery { consumer: Some(name), ..ALL };
        let rows = lab.store.usage(query).await.unwrap();
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| &*row.username == "bob"), "{rows:?}");
        let after = Some((rows[2].day, &*rows[2].consumer, &*rows[2].class));
        assert_eq!(lab.store.usage(UsageQuery { after, ..query }).await.unwrap(), rows[3..]);
    }
    for nobody in ["", "nobody", "%", "' OR 1 = 1 --"] {
        assert_eq!(lab.used(UsageQuery { consumer: Some(nobody), ..ALL }).await, []);
    }
}

pub(super) async fn days_are_asked_for_from_the_first_to_the_last<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let today = lab.today();
    let counts = (0..5).map(|ago| count(today - ago, "alice", "read", 1, 0)).collect();
    lab.store.apply(&batch(task(1), 1, counts, Vec::new())).await.unwrap();
    for (from, to, days) in [(4, 0, 5), (3, 1, 3), (2, 2, 1), (1, 2, 0), (9, 5, 0), (9, 4, 1)] {
        let query = UsageQuery { from: Day(today - from), to: Day(today - to), ..ALL };
        let rows = lab.used(query).await;
        assert_eq!(rows.len(), days, "from {from} to {to} days ago: {rows:?}");
        let inside = |day| (today - from..=today - to).contains(&day);
        assert!(rows.iter().all(|row| inside(row.0)), "{rows:?}");
    }
}

pub(super) async fn it_outlives_its_consumer<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let id = lab.store.consumer("alice").await.unwrap().consumer.id;
    let mut counted = count(lab.today(), "alice", "read", 5, 1);
    counted.consumer = Arc::clone(&id);
    let batch = batch(task(1), 1, vec![counted.clone()], Vec::new());
    lab.store.apply(&batch).await.unwrap();
    lab.store.remove_consumer(&me(), "alice").await.unwrap();
    lab.add("alice").await;
    for name in ["alice", &id] {
        let query = UsageQuery { consumer: Some(name), ..ALL };
        assert_eq!(lab.store.usage(query).await.unwrap(), std::slice::from_ref(&counted), "{name}");
    }
}

/// All of them write the same rows, each in another order.
pub(super) async fn many_tasks_at_once_lose_nothing<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let (day, now) = (lab.today(), lab.now());
    let stores = [0, 1, 2, 3].map(|number| (number, lab.place.open(lab.clock.clone())));
    let hand_over = async |(number, store): &(u8, P::Store)| {
        for round in 1..=10 {
            let names = (0..8).map(|index| (index + number * 3) % 8);
            let usage = names.clone().map(|name| count(day, &format!("c{name}"), "all", 1, 1));
            let quotas = names.map(|name| quota("q", u128::from(name), now, 1));
            let batch =
                batch(task(u128::from(*number) + 1), round, usage.collect(), quotas.collect());
            let totals = store.apply(&batch).await.unwrap();
            assert!(totals.iter().all(|total| (round..=40).contains(total)), "{totals:?}");
        }
    };
    let [one, two, three, four] = &stores;
    tokio::join!(hand_over(one), hand_over(two), hand_over(three), hand_over(four));
    let rows = lab.used(ALL).await;
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| (row.3, row.4) == (40, 40)), "{rows:?}");
    for subject in 0..8 {
        assert_eq!(lab.store.quota_used("q", subject, now).await.unwrap(), 40);
    }
}

pub(super) async fn a_heartbeat_counts_those_who_live<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let other = lab.place.open(lab.clock.clone());
    assert_eq!(lab.store.heartbeat(task(1)).await.unwrap(), 1);
    assert_eq!(lab.store.heartbeat(task(1)).await.unwrap(), 1);
    assert_eq!(other.heartbeat(task(2)).await.unwrap(), 2);
    assert_eq!(other.heartbeat(task(u128::MAX)).await.unwrap(), 3);
    assert_eq!(lab.store.heartbeat(task(1)).await.unwrap(), 3);
    assert_eq!(lab.revision().await, 0, "a heartbeat is no change");
}
