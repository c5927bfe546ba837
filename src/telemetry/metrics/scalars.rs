//! The metrics without labels of their own, straight from the `prometheus` crate.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};
use std::sync::atomic::{AtomicUsize, Ordering};

/// From a revocation's commit to its effect; the promise is one second.
const DELAY_BUCKETS: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Debug)]
pub(super) struct Scalars {
    pub(super) revision: IntGauge,
    pub(super) reloads_succeeded: IntCounter,
    pub(super) reloads_failed: IntCounter,
    pub(super) last_reload_successful: IntGauge,
    pub(super) rows_refused: IntGauge,
    pub(super) revocation_delay: Histogram,
    pub(super) access_log_dropped: IntCounter,
    pub(super) store_up: IntGauge,
    pub(super) new_epochs: IntCounter,
    pub(super) cloudwatch_published: IntCounter,
    pub(super) cloudwatch_late: IntCounter,
    pub(super) cloudwatch_dropped: IntCounter,
    last_size: AtomicUsize,
}

impl Scalars {
    pub(super) fn register(registry: &Registry) -> Self {
        let reloads = |result| {
            let help = "Attempts to load a configuration.";
            let options = Opts::new("gateway_config_reloads_total", help);
            counter(registry, options.const_label("result", result))
        };
        Self {
            revision: gauge(
                registry,
                "gateway_config_revision",
                "The revision of the configuration in force.",
            ),
            reloads_succeeded: reloads("success"),
            reloads_failed: reloads("failure"),
            last_reload_successful: gauge(
                registry,
                "gateway_config_last_reload_successful",
                "Whether the last attempt to load a configuration succeeded.",
            ),
            rows_refused: gauge(
                registry,
                "gateway_config_rows_refused",
                "Plans and policies in the store that do not compile and are not in force.",
            ),
            revocation_delay: delay(registry),
            access_log_dropped: counter(
                registry,
                Opts::new(
                    "gateway_access_log_dropped_total",
                    "Lines of the access log that were thrown away because nobody took them.",
                ),
            ),
            store_up: gauge(
                registry,
                "gateway_store_up",
                "Whether the store of consumers and keys answers.",
            ),
            new_epochs: counter(
                registry,
                Opts::new(
                    "gateway_store_new_epochs_total",
                    "How often the store went on from a history that may lack changes.",
                ),
            ),
            cloudwatch_published: intervals(registry, "published", "have reached CloudWatch"),
            cloudwatch_late: intervals(
                registry,
                "late",
                "did not reach CloudWatch before the next",
            ),
            cloudwatch_dropped: intervals(registry, "dropped", "will never reach CloudWatch"),
            last_size: AtomicUsize::new(16 * 1024),
        }
    }

    /// How large the next exposition will about be.
    pub(super) fn size_hint(&self) -> usize {
        self.last_size.load(Ordering::Relaxed) + 1024
    }

    /// Remembers how large the last exposition was.
    pub(super) fn rendered(&self, size: usize) {
        self.last_size.store(size, Ordering::Relaxed);
    }
}

/// Intervals whose metrics went, or did not go, to CloudWatch.
fn intervals(registry: &Registry, what: &str, help: &str) -> IntCounter {
    let name = format!("gateway_cloudwatch_{what}_total");
    counter(registry, Opts::new(name, format!("Intervals whose metrics {help}.")))
}

fn delay(registry: &Registry) -> Histogram {
    registered(
        registry,
        Histogram::with_opts(
            HistogramOpts::new(
                "gateway_revocation_delay_seconds",
                "From a revocation's commit to its effect in this process.",
            )
            .buckets(DELAY_BUCKETS.to_vec()),
        ),
    )
}

fn counter(registry: &Registry, options: Opts) -> IntCounter {
    registered(registry, IntCounter::with_opts(options))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::with_opts(Opts::new(name, help)))
}

#[expect(clippy::expect_used, reason = "names are constants, and a test builds every metric")]
fn registered<M>(registry: &Registry, metric: prometheus::Result<M>) -> M
where
    M: Collector + Clone + 'static,
{
    let metric = metric.expect("a valid constant name");
    registry.register(Box::new(metric.clone())).expect("a distinct constant name");
    metric
}
