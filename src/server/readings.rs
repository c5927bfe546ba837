//! What the parts of a process have counted, as readings for the metrics.

use crate::auth::{RemoteVitals, directory};
use crate::limits;
use crate::stores::postgres::{self, PoolVitals};
use crate::stores::redis;
use crate::telemetry::metrics::{Metric, Reading};

/// A count as it is shown.
fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

pub(super) fn of_directory(vitals: directory::Vitals, readings: &mut Vec<Reading>) {
    for (kind, entries) in [
        ("keys", vitals.keys),
        ("unknown_keys", vitals.unknown_keys),
        ("consumers", vitals.consumers),
        ("denied_tokens", vitals.denied),
    ] {
        readings.push(Reading::new(Metric::CacheEntries, &[kind], count(entries)));
    }
    for (result, number) in [
        ("loaded", vitals.loaded),
        ("unavailable", vitals.unavailable),
        ("stale", vitals.served_stale),
    ] {
        readings.push(Reading::new(Metric::Lookups, &[result], number));
    }
}

pub(super) fn of_issuer_keys(vitals: RemoteVitals, readings: &mut Vec<Reading>) {
    for (result, number) in
        [("set", vitals.changed), ("unchanged", vitals.unchanged), ("failed", vitals.failed)]
    {
        readings.push(Reading::new(Metric::JwksFetches, &[result], number));
    }
    for (state, number) in
        [("fresh", vitals.fresh), ("stale", vitals.stale), ("missing", vitals.missing)]
    {
        readings.push(Reading::new(Metric::JwksUrls, &[state], number));
    }
}

pub(super) fn of_postgres(vitals: postgres::Vitals, readings: &mut Vec<Reading>) {
    of_pool("primary", vitals.primary, readings);
    if let Some(replica) = vitals.replica {
        of_pool("replica", replica, readings);
    }
    readings.push(Reading::new(Metric::Lookups, &["throttled"], vitals.throttled));
}

fn of_pool(pool: &'static str, vitals: PoolVitals, readings: &mut Vec<Reading>) {
    let busy = vitals.connections.saturating_sub(vitals.idle);
    for (state, number) in [("idle", vitals.idle), ("busy", busy)] {
        readings.push(Reading::new(Metric::PoolConnections, &[pool, state], number.into()));
    }
    readings.push(Reading::new(Metric::PoolStarved, &[pool], vitals.starved));
    readings.push(Reading::new(Metric::PoolWaiting, &[pool], vitals.waiting.into()));
    for (kind, number) in [
        ("timeout", vitals.timeouts),
        ("exhausted", vitals.refused),
        ("connect", vitals.failed_to_connect),
        ("lost", vitals.lost),
        ("read_only", vitals.read_only),
        ("error", vitals.errors),
    ] {
        readings.push(Reading::new(Metric::PoolFailures, &[pool, kind], number));
    }
}

pub(super) fn of_redis(vitals: redis::Vitals, readings: &mut Vec<Reading>) {
    readings.push(Reading::new(Metric::RedisUp, &[], u64::from(vitals.up)));
    readings.push(Reading::new(Metric::RedisBreakersOpen, &[], count(vitals.open_breakers)));
    for (kind, number) in
        [("timeout", vitals.timeouts), ("broken", vitals.broken), ("refused", vitals.refused)]
    {
        readings.push(Reading::new(Metric::RedisFailures, &[kind], number));
    }
}

pub(super) fn of_limits(vitals: limits::Vitals, readings: &mut Vec<Reading>) {
    readings.push(Reading::new(Metric::LimitsDegraded, &[], u64::from(vitals.degraded)));
    readings.push(Reading::new(Metric::FleetTasks, &[], vitals.tasks.into()));
    for (kind, number) in [
        ("lease", vitals.leases_asked),
        ("exact", vitals.exact_calls),
        ("memory", vitals.denied_from_memory),
    ] {
        readings.push(Reading::new(Metric::LimitQuestions, &[kind], number));
    }
    for (result, number) in [("leased", vitals.permits_leased), ("unused", vitals.permits_died)] {
        readings.push(Reading::new(Metric::LimitPermits, &[result], number));
    }
    for (kind, number) in [
        ("share", vitals.fell_back_to_share),
        ("open", vitals.fell_back_to_open),
        ("closed", vitals.fell_back_to_closed),
    ] {
        readings.push(Reading::new(Metric::LimitFallbacks, &[kind], number));
    }
}
