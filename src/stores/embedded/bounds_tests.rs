//! That the file does not grow without end: what is refused, and what is forgotten.

use super::*;
use crate::auth::UnixTime;
use crate::auth::audit::Audit as _;
use crate::auth::denials::{Denials as _, DeniedTokens, LEEWAY, MAX_DENIALS, NewDenial};
use crate::auth::documents::{DocumentKind, Documents as _, MAX_DOCUMENTS};
use crate::auth::registry::{Actor, RegistryError};
use crate::limits::usage::{Batch, Day, QuotaCount, TaskId, UsageCount, UsageLog as _, UsageQuery};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const DAY: u64 = 86_400;

struct Lab {
    _folder: tempfile::TempDir,
    clock: Clock,
    store: Embedded,
}

impl Lab {
    fn new() -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let store = Embedded::open(&folder.path().join("gateway.db"), clock.clone()).unwrap();
        Self { _folder: folder, clock, store }
    }

    fn now(&self) -> u64 {
        self.clock.unix_time().as_secs()
    }

    fn sql(&self, sql: &str) {
        self.store.writer.lock().execute_batch(sql).unwrap();
    }

    fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.store.writer.lock().query_row(&sql, (), |row| row.get(0)).unwrap()
    }

    async fn deny(&self, span: u64) -> Result<(), RegistryError> {
        let new = NewDenial {
            issuer: "corporate".to_owned(),
            tokens: DeniedTokens::Id("t".into()),
            until: UnixTime::from_secs(self.now() + span),
            reason: None,
        };
        self.store.deny(&me(), new).await.map(drop)
    }

    async fn hand_over(&self, task: u128, number: u64) -> Vec<u64> {
        let usage = vec![UsageCount {
            day: Day(u32::try_from(self.now() / DAY).unwrap()),
            consumer: "id".into(),
            username: "alice".into(),
            class: "all".into(),
            admitted: u64::MAX / 2,
            refused: 1,
        }];
        let period = self.now() / DAY * DAY;
        let quotas = vec![QuotaCount {
            rule: "q".into(),
            subject: 1,
            period,
            ends: period + DAY,
            used: u64::MAX,
        }];
        let batch = Batch { task: TaskId(Uuid::from_u128(task)), number, usage, quotas };
        self.store.apply(&batch).await.unwrap()
    }
}

fn me() -> Actor {
    Actor::named("test")
}

/// As many numbers as `most`, as a table `n(i)`.
fn numbers(most: usize) -> String {
    format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})")
}

#[tokio::test]
async fn more_documents_than_a_gateway_takes_are_refused() {
    let lab = Lab::new();
    let fill = numbers(MAX_DOCUMENTS);
    lab.sql(&format!("{fill} INSERT INTO documents SELECT 'plan', 'plan-' || i, '1', 0 FROM n"));
    let put = async |kind, name| lab.store.put_document(&me(), kind, name, &json!(2)).await;
    let error = put(DocumentKind::Plan, "one-more").await.unwrap_err().to_string();
    assert!(error.starts_with("there are 10000 plans in the store already"), "{error}");
    put(DocumentKind::Plan, "plan-7").await.unwrap();
    put(DocumentKind::Policy, "one-more").await.unwrap();
    lab.store.remove_document(&me(), DocumentKind::Plan, "plan-8").await.unwrap();
    put(DocumentKind::Plan, "one-more").await.unwrap();
    assert_eq!(lab.store.load_documents().await.unwrap().0.len(), MAX_DOCUMENTS + 1);
}

#[tokio::test]
async fn more_denials_than_a_gateway_takes_are_refused_until_some_end() {
    let lab = Lab::new();
    let (fill, until) = (numbers(MAX_DENIALS), lab.now() + 60);
    lab.sql(&format!(
        "{fill} INSERT INTO denials (issuer, jti, until, created_at) \
         SELECT 'corporate', 't-' || i, {until}, 0 FROM n"
    ));
    let error = lab.deny(60).await.unwrap_err().to_string();
    assert!(error.starts_with("there are 100000 entries of the deny list already"), "{error}");
    lab.clock.advance(LEEWAY + Duration::from_secs(60));
    lab.deny(60).await.unwrap();
    assert_eq!(lab.store.load_denials().await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn ended_denials_are_forgotten_a_few_at_a_time_and_no_id_comes_again() {
    let lab = Lab::new();
    for _ in 0..20 {
        lab.deny(60).await.unwrap();
    }
    lab.clock.advance(LEEWAY + Duration::from_secs(60));
    for left in [5, 2, 3] {
        lab.deny(600).await.unwrap();
        assert_eq!(lab.count("denials"), left);
    }
    lab.sql("DELETE FROM denials");
    lab.deny(60).await.unwrap();
    let page = crate::auth::registry::Page { after: None, limit: 9 };
    let ids: Vec<_> = lab.store.denials(page).await.unwrap().into_iter().map(|d| d.id).collect();
    assert_eq!(ids, [Arc::<str>::from("0000000024")]);
    assert!(lab.store.allow(&me(), "24").await.is_ok(), "without its zeros too");
}

#[tokio::test]
async fn the_audit_keeps_the_last_million_lines() {
    let lab = Lab::new();
    let fill = numbers(40);
    lab.sql(&format!(
        "{fill} INSERT INTO audit (at, actor, action, subject, detail) \
         SELECT 0, 'a', 'plan.put', 'p', '{{}}' FROM n;
         INSERT INTO audit VALUES (1000037, 0, 'a', 'plan.put', 'p', '{{}}');"
    ));
    for (line, left) in [26, 11, 4, 5].into_iter().enumerate() {
        let body = json!(line);
        lab.store.put_document(&me(), DocumentKind::Plan, "p", &body).await.unwrap();
        assert_eq!(lab.count("audit"), left, "{line}");
    }
    assert_eq!(lab.store.audit(None, 1).await.unwrap()[0].id, 1_000_041);
}

#[tokio::test]
async fn usage_is_kept_for_400_days_and_quotas_a_day_longer_than_they_hold() {
    let lab = Lab::new();
    lab.hand_over(1, 1).await;
    let fill = numbers(300);
    let day = lab.now() / DAY;
    lab.sql(&format!("{fill} INSERT INTO usage SELECT {day}, i, 'all', 'a', 1, 0 FROM n"));
    lab.sql(&format!(
        "{fill} INSERT INTO quotas SELECT 'q' || i, zeroblob(16), 0, {}, 1 FROM n",
        (day + 1) * DAY
    ));
    let mut number = 1;
    for (days, usage, quotas) in
        [(1, 302, 302), (1, 303, 303 - 256), (398, 304, 1), (1, 305 - 256, 2), (0, 4, 2), (1, 4, 2)]
    {
        lab.clock.advance(Duration::from_secs(days * DAY));
        number += 1;
        lab.hand_over(1, number).await;
        assert_eq!((lab.count("usage"), lab.count("quotas")), (usage, quotas), "{number}");
    }
}

#[tokio::test]
async fn counts_that_do_not_fit_stay_at_the_most() {
    let lab = Lab::new();
    let most = i64::MAX.unsigned_abs();
    for number in 1..=3 {
        assert_eq!(lab.hand_over(1, number).await, [most]);
    }
    let query =
        UsageQuery { consumer: None, from: Day(0), to: Day(u32::MAX), after: None, limit: 9 };
    let rows = lab.store.usage(query).await.unwrap();
    assert_eq!((rows[0].admitted, rows[0].refused), (most, 3));
}

#[tokio::test]
async fn tasks_that_fell_silent_are_forgotten() {
    let lab = Lab::new();
    let beat = async |task| lab.store.heartbeat(TaskId(Uuid::from_u128(task))).await.unwrap();
    assert_eq!((beat(1).await, beat(2).await), (1, 2));
    lab.clock.advance(Duration::from_secs(10));
    assert_eq!(beat(2).await, 2);
    lab.clock.advance(Duration::from_secs(6));
    assert_eq!((beat(2).await, lab.count("tasks")), (1, 1));
    assert_eq!(beat(1).await, 2, "it came back");

    lab.hand_over(1, 1).await;
    lab.hand_over(2, 1).await;
    lab.clock.advance(Duration::from_secs(8 * DAY));
    lab.hand_over(2, 2).await;
    assert_eq!(lab.count("usage_batches"), 1);
}

#[tokio::test]
async fn loading_says_when_the_store_is_away() {
    let lab = Lab::new();
    std::fs::rename(lab.store.path(), lab.store.path().with_extension("away")).unwrap();
    assert_eq!(lab.store.load_documents().await, Err(Outage::Failed));
    assert_eq!(lab.store.load_denials().await, Err(Outage::Failed));
    std::fs::rename(lab.store.path().with_extension("away"), lab.store.path()).unwrap();
    assert_eq!(lab.store.load_denials().await, Ok((Vec::new(), 0)));
}
