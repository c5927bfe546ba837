//! `[cloudwatch]`: metrics for Amazon CloudWatch.

use super::fleet::first_given;
use super::{At, Text};
use crate::config::cloudwatch::{Endpoint, Namespace, Region, Word};
use crate::config::source::Span;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Metrics for Amazon CloudWatch: sent where there is a region.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CloudWatch {
    /// The AWS region; "off" sends nothing. Without it, env:AWS_REGION or env:AWS_DEFAULT_REGION if
    /// set; without those too, nothing is sent.
    pub(crate) region: Option<At<Text<Region>>>,
    /// The namespace of all metrics.
    pub(crate) namespace: At<Text<Namespace>>,
    /// The dimension `Service` of all metrics.
    pub(crate) service: At<Text<Word>>,
    /// The dimension `Environment` of all metrics.
    pub(crate) environment: At<Text<Word>>,
    /// Another URL than the region's: of a VPC endpoint, or of an emulator on this machine.
    pub(crate) endpoint: Option<At<Text<Endpoint>>>,
    /// How often; the alarms expect a minute.
    pub(crate) interval: At<Text<Duration>>,
    /// Upstreams that have metrics of their own, at most six; the rest are `other`. Default: the
    /// first six by name, as they are at the start.
    #[schemars(length(max = 6))]
    pub(crate) upstreams: Vec<At<String>>,
}

impl CloudWatch {
    /// Where it is spoken of.
    pub(crate) fn span(&self) -> Span {
        first_given([
            self.region.as_ref().map(|at| at.span),
            Some(self.namespace.span),
            Some(self.service.span),
            Some(self.environment.span),
            self.endpoint.as_ref().map(|at| at.span),
            Some(self.interval.span),
            self.upstreams.first().map(|at| at.span),
        ])
    }
}

impl Default for CloudWatch {
    fn default() -> Self {
        Self {
            region: None,
            namespace: Text::default_is("DataHub/Gateway"),
            service: Text::default_is("datahub-gateway"),
            environment: Text::default_is("development"),
            endpoint: None,
            interval: Text::default_is("60s"),
            upstreams: Vec::new(),
        }
    }
}
