//! `[plans.*]`, `[policies.*]`, and the limits that both and routes have.

use super::{At, CostForm, Entries, Per, PerForm, Text};
use crate::limits::{Quota, Rate};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// A set of limits; each applies to every request of the plan's consumers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    /// The limits, by name.
    pub(crate) limits: Entries<Limit<OfPlan>>,
}

/// A set of conditions and limits. It holds for the routes that name it in `policies`, and for
/// consumers that have it.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Whether its conditions and limits refuse; a limit can say less, not more.
    pub(crate) mode: At<Mode>,
    /// Scopes that the credential must carry, all of them (403).
    pub(crate) scopes: Vec<At<String>>,
    /// The caller's plan must be one of them (403).
    pub(crate) plans: Option<At<Vec<At<String>>>>,
    /// The caller's username must be one of them (403).
    pub(crate) consumers: Option<At<Vec<At<String>>>>,
    /// Networks that the client's address must be in (403).
    pub(crate) addresses: Option<At<Vec<At<Text<IpNet>>>>>,
    /// Networks that the client's address must not be in (403).
    pub(crate) deny_addresses: Vec<At<Text<IpNet>>>,
    /// An expression in CEL that must be true (403).
    pub(crate) when: Option<At<String>>,
    /// The limits, by name.
    pub(crate) limits: Entries<Limit<OfPolicy>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: At::default_is(Mode::Enforce),
            scopes: Vec::new(),
            plans: None,
            consumers: None,
            addresses: None,
            deny_addresses: Vec::new(),
            when: None,
            limits: Entries::default(),
        }
    }
}

/// Whose limits they are: they differ in nothing but in whom they count unless told otherwise.
pub(crate) trait LimitOwner {
    /// As messages and rule ids name it.
    const KIND: &'static str;
    /// The table that it stands in.
    const TABLE: &'static str;
    /// Whom its limits count.
    const PER: Per;
}

/// Marks limits of plans.
#[derive(JsonSchema)]
#[schemars(rename = "Plan")]
pub(crate) struct OfPlan;

/// Marks limits of policies.
#[derive(JsonSchema)]
#[schemars(rename = "Policy")]
pub(crate) struct OfPolicy;

/// Marks limits of routes.
#[derive(JsonSchema)]
#[schemars(rename = "Route")]
pub(crate) struct OfRoute;

impl LimitOwner for OfPlan {
    const KIND: &'static str = "plan";
    const TABLE: &'static str = "plans";
    const PER: Per = Per::Consumer;
}

impl LimitOwner for OfPolicy {
    const KIND: &'static str = "policy";
    const TABLE: &'static str = "policies";
    const PER: Per = Per::Route;
}

impl LimitOwner for OfRoute {
    const KIND: &'static str = "route";
    const TABLE: &'static str = "routes";
    const PER: Per = Per::Route;
}

/// A limit: a flow (`rate`), so many in a calendar period (`quota`), or so many at the same time
/// (`concurrency`).
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound(deserialize = "W: LimitOwner"))]
#[schemars(rename = "{W}Limit", bound = "W: LimitOwner + JsonSchema")]
#[schemars(extend("oneOf" = [
    { "required": ["rate"] }, { "required": ["quota"] }, { "required": ["concurrency"] }
]))]
pub(crate) struct Limit<W> {
    /// Permits per s, min, h or d.
    pub(crate) rate: Option<At<Text<Rate>>>,
    /// At once after a rest; default: the permits of the rate.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub(crate) burst: Option<At<u32>>,
    /// Instead of a rate: permits per minute, hour, day or month of the calendar, in UTC.
    pub(crate) quota: Option<At<Text<Quota>>>,
    /// Instead of both: requests in flight at the same time. Each task counts for itself.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) concurrency: Option<At<u32>>,
    /// Permits that one request takes, of a rate or a quota.
    pub(crate) cost: At<CostForm>,
    /// Whom it counts.
    pub(crate) per: At<PerForm>,
    /// Whether it refuses.
    pub(crate) mode: At<Mode>,
    /// Who counts together.
    pub(crate) scope: At<Scope>,
    /// How the fleet counts.
    pub(crate) precision: At<Precision>,
    /// What happens while Redis cannot be reached.
    pub(crate) on_store_failure: At<OnStoreFailure>,
    #[serde(skip)]
    of: PhantomData<fn() -> W>,
}

impl<W: LimitOwner> Default for Limit<W> {
    fn default() -> Self {
        Self {
            rate: None,
            burst: None,
            quota: None,
            concurrency: None,
            cost: At::default_is(CostForm::Permits(1)),
            per: At::default_is(PerForm::Whom(W::PER)),
            mode: At::default_is(Mode::Enforce),
            scope: At::default_is(Scope::Fleet),
            precision: At::default_is(Precision::Leased),
            on_store_failure: At::default_is(OnStoreFailure::Share),
            of: PhantomData,
        }
    }
}

/// Whether a limit, a policy or the guard refuses.
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

/// Who counts together.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Scope {
    /// All tasks, through Redis; without Redis each counts for itself.
    Fleet,
    /// Each task counts for itself.
    Task,
}

/// How the fleet counts.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Precision {
    /// Each request asks Redis.
    Exact,
    /// Tasks take permits ahead of need, so that no request waits for Redis.
    Leased,
}

/// What happens while Redis cannot be reached.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum OnStoreFailure {
    /// Each task lets through its share of the limit.
    Share,
    /// Everything is let through.
    Open,
    /// Requests are refused with 503.
    Closed,
}
