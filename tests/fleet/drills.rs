//! Redis goes away, in every way, under load: what a rule says for this case happens, in time, and all
//! is as before once Redis is back.

use crate::fleet::{Caller, Fleet, answering};
use crate::redis_lab::fault::Mode;
use crate::support::load::{Load, Running, Summary};
use crate::support::sized;
use std::time::{Duration, Instant};

/// A limit that nobody reaches.
fn limited(precision: &str, failure: &str) -> String {
    format!(
        "limits.all = {{ rate = \"100000/s\", precision = {precision:?}, \
         on_store_failure = {failure:?} }}"
    )
}

const ROUTES: [(&str, &str, &str); 4] = [
    ("/share/exact", "exact", "share"),
    ("/share/leased", "leased", "share"),
    ("/closed/exact", "exact", "closed"),
    ("/closed/leased", "leased", "closed"),
];

/// A way in which Redis goes away.
#[derive(Clone, Copy, Debug)]
enum Harm {
    BlackHoled,
    Flushed,
    Frozen,
    Killed,
    Reset,
}

impl Harm {
    fn begin(self, fleet: &mut Fleet, masters: &[usize]) {
        match self {
            Self::BlackHoled => fleet.redis().fault_all(Mode::Blackhole),
            Self::Flushed => fleet.redis().flush(),
            Self::Frozen => masters.iter().for_each(|node| fleet.redis().freeze(*node)),
            Self::Killed => masters.iter().for_each(|node| fleet.redis_mut().kill(*node)),
            Self::Reset => fleet.redis().fault_all(Mode::Reset),
        }
    }

    fn end(self, fleet: &mut Fleet, masters: &[usize]) {
        match self {
            Self::BlackHoled | Self::Reset => fleet.redis().fault_all(Mode::Pass),
            Self::Flushed => {}
            Self::Frozen => masters.iter().for_each(|node| fleet.redis().thaw(*node)),
            Self::Killed => masters.iter().for_each(|node| fleet.redis_mut().restart(*node)),
        }
    }
}

/// A route whose requests Redis does not concern: what is slow there is the machine.
const CONTROL: &str = "/";

/// A load on every route of every task, by route.
fn loads(fleet: &Fleet, caller: &Caller) -> Vec<(&'static str, Running)> {
    let (name, value) = caller.field();
    let mut all = Vec::new();
    for path in ROUTES.map(|(path, ..)| path).into_iter().chain([CONTROL]) {
        for task in &fleet.tasks {
            let load = Load::on(task.address()).get(path).header(name, &value);
            all.push((path, load.connections(2).rate(50).start()));
        }
    }
    all
}

/// What became of the requests of one drill.
struct Seen {
    /// Those with `share`.
    shared: Summary,
    closed: Summary,
}

async fn drill(fleet: &mut Fleet, caller: &Caller, harm: Harm) -> Seen {
    let masters = fleet.redis().masters();
    let running = loads(fleet, caller);
    let (before, away) = (Duration::from_secs(2), Duration::from_secs(sized(3, 20)));
    tokio::time::sleep(before).await;
    let harmed_at = running[0].1.elapsed();
    harm.begin(fleet, &masters);
    tokio::time::sleep(away).await;
    let up = async |task: &crate::support::gateway::Gateway| {
        task.metrics().await.sum("gateway_redis_up", &[])
    };
    if !matches!(harm, Harm::Flushed) {
        for task in &fleet.tasks {
            assert_eq!(up(task).await, 0.0, "{harm:?}: Redis is away");
        }
    }
    harm.end(fleet, &masters);
    tokio::task::block_in_place(|| fleet.redis().wait_until_whole());
    let well = Instant::now();
    for (path, ..) in ROUTES {
        fleet.until_all(well, 200, caller, path).await;
    }
    for task in &fleet.tasks {
        task.metric_is("gateway_redis_up", &[], 1.0).await;
        task.metric_is("gateway_limits_degraded", &[], 0.0).await;
    }
    let back = well.elapsed();
    let [shared, closed, mut control] = [(); 3].map(|()| Summary { outcomes: Vec::new() });
    let mut seen = Seen { shared, closed };
    for (path, load) in running {
        let outcomes = load.stop().await.outcomes;
        let side = match path {
            CONTROL => &mut control,
            path if path.starts_with("/share") => &mut seen.shared,
            _ => &mut seen.closed,
        };
        side.outcomes.extend(outcomes);
    }
    control.expect_only(200);
    let second = Duration::from_secs(1);
    let p99 = |from: Duration, to: Duration| {
        [&seen.shared, &control].map(|side| side.between(from, to).percentile(0.99))
    };
    let [calm, _] = p99(Duration::ZERO, harmed_at);
    let [first, beside_first] = p99(harmed_at, harmed_at + second);
    let [later, beside_later] = p99(harmed_at + second, harmed_at + away);
    let figures = format!(
        "Redis {harm:?}: p99 {calm:?} before, {first:?} in the first second (beside it \
         {beside_first:?}), {later:?} later (beside it {beside_later:?}); back {} ms after Redis",
        back.as_millis()
    );
    let (share, closed) = (seen.shared.statuses(), seen.closed.statuses());
    println!("{figures}; share {share:?}, closed {closed:?}");
    assert!(back < Duration::from_secs(2), "{figures}");
    // The promise is 25 ms and 1 ms more; the rest is a build without optimization.
    let bound = |beside: Duration, more: u64| calm + beside * 2 + Duration::from_millis(more);
    assert!(first <= bound(beside_first, 35), "{figures}");
    assert!(later <= bound(beside_later, 10), "{figures}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_share_fails_nobody_and_closed_says_so_in_time() {
    let described = Fleet::builder().tasks(2).redis().describe(|mut task| {
        for (path, precision, failure) in ROUTES {
            let name = path.trim_start_matches('/').replace('/', "-");
            task = task.route(&name, &answering(path, &limited(precision, failure)));
        }
        task
    });
    let mut fleet = described.start().await;
    fleet.consumer(0, "acme", "free").await;
    let key = fleet.key(0, "acme").await;
    for (path, ..) in ROUTES {
        fleet.until_all(Instant::now(), 200, &key, path).await;
    }
    for harm in [Harm::Frozen, Harm::BlackHoled, Harm::Reset, Harm::Flushed, Harm::Killed] {
        let seen = drill(&mut fleet, &key, harm).await;
        seen.shared.expect_only(200);
        let closed = &seen.closed;
        let ok = closed.statuses().keys().all(|status| matches!(status, 200 | 503));
        assert!(ok && closed.failures().is_empty(), "{harm:?}: {closed:?}");
        let refused = closed.outcomes.iter().filter(|outcome| outcome.result == Ok(503));
        for outcome in refused.clone() {
            let body = String::from_utf8_lossy(&outcome.body);
            assert!(body.contains("\"limits_unavailable\""), "{body}");
        }
        let away = !matches!(harm, Harm::Flushed);
        assert_eq!(refused.count() > 0, away, "{harm:?}: {closed:?}");
    }
}
