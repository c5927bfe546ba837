//! `[plans.*]`, and the limits of routes.

use super::{At, Entries, Text};
use crate::limits::Rate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A set of limits; each applies to every request of the plan's consumers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    /// The limits, by name.
    pub(crate) limits: Entries<PlanLimit>,
}

/// A limit of a plan.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["rate"]))]
pub(crate) struct PlanLimit {
    /// Permits per s, min, h or d.
    pub(crate) rate: Option<At<Text<Rate>>>,
    /// At once after a rest; default: the permits of the rate.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub(crate) burst: Option<At<u32>>,
    /// Whom it counts.
    pub(crate) per: At<Per>,
    /// Whether it refuses.
    pub(crate) mode: At<Mode>,
}

impl Default for PlanLimit {
    fn default() -> Self {
        Self {
            rate: None,
            burst: None,
            per: At::default_is(Per::Consumer),
            mode: At::default_is(Mode::Enforce),
        }
    }
}

/// A limit of a route, beside the caller's plan.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["rate"]))]
pub(crate) struct RouteLimit {
    /// Permits per s, min, h or d.
    pub(crate) rate: Option<At<Text<Rate>>>,
    /// At once after a rest; default: the permits of the rate.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub(crate) burst: Option<At<u32>>,
    /// Whom it counts.
    pub(crate) per: At<Per>,
    /// Whether it refuses.
    pub(crate) mode: At<Mode>,
}

impl Default for RouteLimit {
    fn default() -> Self {
        let PlanLimit { mode, .. } = PlanLimit::default();
        Self { rate: None, burst: None, per: At::default_is(Per::Route), mode }
    }
}

/// Whom a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Per {
    /// The consumer, over all of its keys and tokens.
    Consumer,
    /// The single credential.
    Key,
    /// The client address.
    Address,
    /// All requests that the limit applies to, together.
    Route,
}

/// Whether a limit refuses.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Mode {
    /// Refuse.
    Enforce,
    /// Count and log only.
    Shadow,
    /// Do not even count.
    Off,
}
