//! AWS's client, set up so that its waits have bounds and its retries are ours.

use super::failure::Failure;
use super::guard::Guard;
use crate::telemetry::cloudwatch::{Datum, Interval, Unit, Values};
use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::{Region, StalledStreamProtectionConfig};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use std::sync::Arc;
use std::time::Duration;

/// Where to, and under which names.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The region.
    pub region: Arc<str>,
    /// Another URL than the region's.
    pub endpoint: Option<Arc<str>>,
    /// The namespace of all metrics.
    pub namespace: Arc<str>,
    /// The dimension `Service`.
    pub service: Arc<str>,
    /// The dimension `Environment`.
    pub environment: Arc<str>,
}

/// CloudWatch.
pub(super) struct Client {
    cloudwatch: aws_sdk_cloudwatch::Client,
    namespace: Arc<str>,
    dimensions: [Dimension; 2],
    within: Duration,
}

impl Client {
    /// A client that gives a call up after `within`, looking for credentials included. Nothing is asked
    /// before the first call.
    pub(super) async fn new(to: &Destination, within: Duration) -> Self {
        let mut settings = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(to.region.to_string()))
            // The caller repeats: it knows what else waits, and until when it makes sense.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(within).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &to.endpoint {
            settings = settings.endpoint_url(&**endpoint);
        }
        let dimensions =
            [dimension("Service", &to.service), dimension("Environment", &to.environment)];
        let settings = aws_sdk_cloudwatch::config::Builder::from(&settings.load().await);
        Self {
            cloudwatch: aws_sdk_cloudwatch::Client::from_conf(settings.interceptor(Guard).build()),
            namespace: Arc::clone(&to.namespace),
            dimensions,
            within,
        }
    }

    /// Hands intervals over in one call.
    pub(super) async fn put(&self, intervals: &[Interval]) -> Result<(), Failure> {
        let datums = intervals.iter().flat_map(|interval| {
            let began = DateTime::from_secs(i64::try_from(interval.began.as_secs()).unwrap_or(0));
            interval.datums.iter().map(move |datum| self.datum(datum, began))
        });
        let call = self
            .cloudwatch
            .put_metric_data()
            .namespace(&*self.namespace)
            .set_metric_data(Some(datums.collect()))
            .send();
        match tokio::time::timeout(self.within, call).await {
            Err(_) => Err(Failure::timeout()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of(&error)),
        }
    }

    fn datum(&self, datum: &Datum, began: DateTime) -> MetricDatum {
        let third = datum.metric.third().zip(datum.third.as_deref());
        let third = third.map(|(third, value)| dimension(third.name(), value));
        let named = MetricDatum::builder()
            .metric_name(datum.metric.name())
            .unit(unit(datum.metric.unit()))
            .timestamp(began)
            .set_dimensions(Some(self.dimensions.iter().cloned().chain(third).collect()));
        match &datum.values {
            Values::One(value) => named.value(*value),
            Values::Many { values, counts } => {
                named.set_values(Some(values.clone())).set_counts(Some(counts.clone()))
            }
        }
        .build()
    }
}

fn dimension(name: &str, value: &str) -> Dimension {
    Dimension::builder().name(name).value(value).build()
}

const fn unit(unit: Unit) -> StandardUnit {
    match unit {
        Unit::Count => StandardUnit::Count,
        Unit::Milliseconds => StandardUnit::Milliseconds,
        Unit::Percent => StandardUnit::Percent,
        Unit::None => StandardUnit::None,
    }
}
