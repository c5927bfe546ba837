//! Any of the keys, one as often as another.

use crate::gateway::Gateway;
use crate::stock::Stock;
use anyhow::{Context as _, Result, bail};
use datahub_gateway::auth::Denied;
use futures_util::future::try_join_all;
use nix::sys::resource::{UsageWho, getrusage};
use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// So many in a second, evenly.
    Paced(u32),
    /// As many as are answered, with so many under way at the same time.
    Saturating(usize),
}

impl Load {
    fn in_flight(self) -> usize {
        match self {
            Self::Paced(_) => LANES,
            Self::Saturating(in_flight) => in_flight,
        }
    }

    /// When one of the lanes sends its next request.
    async fn wait(self, began: Instant, lane: usize, turn: usize) {
        if let Self::Paced(per_second) = self {
            let due = (turn * LANES + lane) as f64 / f64::from(per_second);
            tokio::time::sleep_until((began + Duration::from_secs_f64(due)).into()).await;
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paced(per_second) => write!(f, "{per_second} in a second"),
            Self::Saturating(in_flight) => write!(f, "{in_flight} in flight"),
        }
    }
}

/// Requests that may be under way when they are sent evenly.
const LANES: usize = 64;

/// What was seen.
pub(crate) struct Uniform {
    load: Load,
    seen: Seen,
    wall: Duration,
    cpu: Duration,
    connections: u32,
}

#[derive(Default)]
struct Seen {
    hits: u64,
    /// How long each miss took; sorted at the end.
    misses: Vec<Duration>,
    /// Misses that PostgreSQL did not answer in time.
    unanswered: u64,
}

impl Uniform {
    /// Look-ups in a second of CPU time.
    pub(crate) fn per_core(&self) -> f64 {
        self.seen.misses.len() as f64 / self.cpu.as_secs_f64()
    }

    /// What 99 of 100 misses did not exceed.
    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    fn percentile(&self, part: usize) -> Duration {
        let place =
            (self.seen.misses.len() * part / 100).min(self.seen.misses.len().saturating_sub(1));
        self.seen.misses.get(place).copied().unwrap_or_default()
    }
}

impl fmt::Display for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misses = self.seen.misses.len();
        let wall = misses as f64 / self.wall.as_secs_f64();
        write!(
            f,
            "uniform, {}, {} connections: {:.0} look-ups/s per core, {wall:.0} by the wall \
             clock; a miss takes p50 {:.2?} p99 {:.2?} max {:.2?}; {:.1} % hits, \
             {} not answered in time",
            self.load,
            self.connections,
            self.per_core(),
            self.percentile(50),
            self.p99(),
            self.percentile(100),
            self.seen.hits as f64 * 100.0 / (self.seen.hits as f64 + misses as f64),
            self.seen.unanswered,
        )
    }
}

/// CPU time of this process so far, all threads.
fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |seconds: i64, micros: i64| -> Result<Duration> {
        Ok(Duration::from_secs(u64::try_from(seconds)?)
            + Duration::from_micros(u64::try_from(micros)?))
    };
    let (user, system) = (usage.user_time(), usage.system_time());
    Ok(time(user.tv_sec(), user.tv_usec())? + time(system.tv_sec(), system.tv_usec())?)
}

/// Identifies keys for so long, after a third of it to get warm.
pub(crate) async fn uniform(
    gateway: &Gateway,
    stock: &Stock,
    load: Load,
    span: Duration,
) -> Result<Uniform> {
    gateway
        .during(async {
            access(gateway, stock, load, span / 3).await?;
            let (cpu_before, began) = (cpu()?, Instant::now());
            let mut seen = access(gateway, stock, load, span).await?;
            let (cpu, wall) = (cpu()?.saturating_sub(cpu_before), began.elapsed());
            seen.misses.sort_unstable();
            let connections = gateway.store.vitals().primary.connections;
            Ok(Uniform { load, seen, wall, cpu, connections })
        })
        .await
}

async fn access(gateway: &Gateway, stock: &Stock, load: Load, span: Duration) -> Result<Seen> {
    let all = RefCell::new(Seen::default());
    let seen = &all;
    let began = Instant::now();
    let client = |lane| async move {
        for turn in 0.. {
            load.wait(began, lane, turn).await;
            if began.elapsed() >= span {
                break;
            }
            let key = stock.key(rand::random_range(0..stock.len()))?;
            if let Some(identified) = gateway.glance(key)? {
                identified?.context("a route without credentials")?;
                seen.borrow_mut().hits += 1;
                continue;
            }
            let asked = Instant::now();
            match gateway.identify(key).await? {
                Ok(Some(_)) => seen.borrow_mut().misses.push(asked.elapsed()),
                Err(Denied::Unavailable(_)) => seen.borrow_mut().unanswered += 1,
                other => bail!("a good key: {other:?}"),
            }
        }
        Ok(())
    };
    try_join_all((0..load.in_flight()).map(client)).await?;
    Ok(all.into_inner())
}
