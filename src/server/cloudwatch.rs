//! What of a process is published to CloudWatch.

use super::Process;
use crate::config::CloudWatchDef;
use crate::stores::postgres::PoolVitals;
use crate::tasks::cloudwatch::{Destination, Look, Work};
use crate::telemetry::cloudwatch::{MOST_UPSTREAMS, Observed, PoolUse};
use anyhow::Context as _;
use std::sync::Arc;

pub(super) use crate::tasks::cloudwatch::Publisher;

impl Process {
    /// Publishes until the end of the process, if there is a region.
    pub(super) fn publish(&mut self, wanted: &CloudWatchDef) -> anyhow::Result<()> {
        let Some(region) = &wanted.region else {
            log::info!(help = "set AWS_REGION, or `region` in [cloudwatch]";
                "no metrics go to CloudWatch: there is no region, or it is off");
            return Ok(());
        };
        let mut upstreams = wanted.upstreams.clone();
        if upstreams.is_empty() {
            // What a reload adds is counted with the others: series are for the life of a process.
            let snapshot = self.live.load();
            let names = snapshot.upstreams.iter().map(|upstream| Arc::clone(upstream.name()));
            upstreams.extend(names.take(MOST_UPSTREAMS));
        }
        let publisher = Publisher::start(Work {
            to: Destination {
                region: Arc::clone(region),
                endpoint: wanted.endpoint.clone(),
                namespace: Arc::clone(&wanted.namespace),
                service: Arc::clone(&wanted.service),
                environment: Arc::clone(&wanted.environment),
            },
            interval: wanted.interval,
            upstreams,
            metrics: Arc::clone(&self.parts.metrics),
            look: self.look(),
            clock: self.parts.clock.clone(),
        });
        self.cloudwatch = Some(publisher.context("no thread for the publisher of metrics")?);
        Ok(())
    }

    fn look(&self) -> Box<Look> {
        let (live, drain) = (Arc::clone(&self.live), Arc::clone(&self.drain));
        let (limiter, tally) = (Arc::clone(&self.parts.limiter), Arc::clone(&self.parts.tally));
        let (postgres, redis) = (self.stores.postgres.clone(), self.stores.redis.clone());
        Box::new(move || {
            let postgres = postgres.as_ref().map(|postgres| postgres.vitals());
            let replica = postgres.and_then(|vitals| vitals.replica);
            let snapshot = live.load();
            let states = snapshot.upstreams.iter().flat_map(|upstream| upstream.states());
            let endpoints_down = states.filter(|(_, state)| !state.up()).count();
            Observed {
                connections: drain.connections(),
                endpoints_down,
                limits_degraded: limiter.vitals().degraded,
                usage_lost: tally.lost(),
                primary: postgres.map(|vitals| pool(vitals.primary)),
                replica: replica.map(pool),
                postgres_failures: postgres
                    .map(|vitals| failures(vitals.primary) + vitals.replica.map_or(0, failures)),
                redis_failures: redis.as_ref().map(|redis| {
                    let vitals = redis.vitals();
                    vitals.timeouts + vitals.broken + vitals.refused
                }),
            }
        })
    }
}

fn pool(vitals: PoolVitals) -> PoolUse {
    PoolUse {
        most: vitals.most,
        busy: vitals.connections.saturating_sub(vitals.idle),
        waiting: vitals.waiting,
        starved: vitals.starved,
    }
}

/// Questions that failed: what was refused because others waited is told as the pool's timeouts.
fn failures(vitals: PoolVitals) -> u64 {
    vitals.timeouts + vitals.failed_to_connect + vitals.lost + vitals.read_only + vitals.errors
}
