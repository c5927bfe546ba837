//! `[plans.*]`, and the limits that plans and routes share.

use super::{Context, Owner};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, Entries, Text};
use crate::limits::{Measure, Mode, OnStoreFailure, Plan, Precision, Rate, Rule, Scope, Subject};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// A limit as both tables have it.
struct Limit<'a> {
    rate: Option<&'a At<Text<Rate>>>,
    burst: Option<&'a At<u32>>,
    per: schema::Per,
    mode: schema::Mode,
}

pub(crate) fn compile(plans: &Entries<schema::Plan>, cx: &mut Context<'_>) -> Option<Vec<Plan>> {
    let mut compiled = Vec::new();
    for (name, plan) in &plans.0 {
        let limits = plan.value.limits.0.iter().map(|(rule, limit)| {
            let schema::PlanLimit { rate, burst, per, mode } = &limit.value;
            let (rate, burst) = (rate.as_ref(), burst.as_ref());
            (rule, Limit { rate, burst, per: per.value, mode: mode.value })
        });
        let rules = rules("plan", name, limits, cx);
        let name = cx.name(name);
        compiled.push(name.zip(rules).map(|(name, rules)| Plan { name, rules }));
    }
    let mut plans: Vec<Plan> = compiled.into_iter().collect::<Option<_>>()?;
    plans.sort_by(|one, other| one.name.cmp(&other.name));
    Some(plans)
}

/// The limits of a route; `open` routes know no caller.
pub(crate) fn of_route(
    route: &At<String>,
    limits: &Entries<schema::RouteLimit>,
    open: bool,
    cx: &mut Context<'_>,
) -> Option<Vec<Rule>> {
    for (name, limit) in &limits.0 {
        let per = &limit.value.per;
        if open && matches!(per.value, schema::Per::Consumer | schema::Per::Key) {
            let message = format!("limit `{}` counts callers that nobody knows", name.value);
            cx.report(
                Diagnostic::error(message)
                    .at(per.span, format!("route `{}` has `auth = \"none\"`", route.value))
                    .help("count per `address` or per `route`, or ask for credentials"),
            );
        }
    }
    let limits = limits.0.iter().map(|(rule, limit)| {
        let schema::RouteLimit { rate, burst, per, mode } = &limit.value;
        let (rate, burst) = (rate.as_ref(), burst.as_ref());
        (rule, Limit { rate, burst, per: per.value, mode: mode.value })
    });
    rules("route", route, limits, cx)
}

fn rules<'a>(
    kind: &str,
    owner: &At<String>,
    limits: impl Iterator<Item = (&'a At<String>, Limit<'a>)>,
    cx: &mut Context<'_>,
) -> Option<Vec<Rule>> {
    let table = format!("{kind}s");
    let mut compiled = Vec::new();
    for (name, limit) in limits {
        let path = [table.as_str(), owner.value.as_str(), "limits", name.value.as_str()];
        compiled.push(rule(kind, Owner { path: &path, span: name.span }, name, &limit, cx));
    }
    let mut rules: Vec<Rule> = compiled.into_iter().collect::<Option<_>>()?;
    rules.sort_by(|one, other| one.name.cmp(&other.name));
    Some(rules)
}

fn rule(
    kind: &str,
    owner: Owner<'_>,
    name: &At<String>,
    limit: &Limit<'_>,
    cx: &mut Context<'_>,
) -> Option<Rule> {
    let of = owner.path.get(1).copied().unwrap_or_default();
    let text = cx.required(limit.rate, owner, "rate", "add a rate, as `rate = \"10/s\"`");
    let rate = text.and_then(|text| cx.read(text));
    let name = cx.name(name);
    let (rate, name) = (rate?, name?);
    check_rate(rate, text?, cx);
    let burst = match limit.burst {
        Some(burst) => NonZeroU32::new(burst.value)?,
        None => rate.permits,
    };
    check_burst(rate, burst, limit.burst.map_or(text?.span, |burst| burst.span), cx);
    let id: Arc<str> = format!("{kind}/{of}/{name}").into();
    let subject = match limit.per {
        schema::Per::Address => Subject::Address,
        schema::Per::Consumer => Subject::Consumer,
        schema::Per::Key => Subject::Key,
        schema::Per::Route => Subject::Route,
    };
    let mode = match limit.mode {
        schema::Mode::Enforce => Mode::Enforce,
        schema::Mode::Off => Mode::Off,
        schema::Mode::Shadow => Mode::Shadow,
    };
    Some(Rule {
        name,
        id,
        measure: Measure::Rate { rate, burst },
        subject,
        mode,
        scope: Scope::default(),
        precision: Precision::default(),
        on_store_failure: OnStoreFailure::default(),
    })
}

/// More than one permit in a microsecond cannot be told apart.
fn check_rate(rate: Rate, text: &At<Text<Rate>>, cx: &mut Context<'_>) {
    if rate.per.span() < Duration::from_micros(1).saturating_mul(rate.permits.get()) {
        let message = format!("`{}` is out of range", text.value.text);
        cx.report(
            Diagnostic::error(message)
                .at(text.span, "at most 1000000 per second are counted")
                .help("leave the limit out if there is none"),
        );
    }
}

/// A burst must come back within a month: it is told to clients as a window.
fn check_burst(
    rate: Rate,
    burst: NonZeroU32,
    span: crate::config::source::Span,
    cx: &mut Context<'_>,
) {
    let window = rate.per.span().as_secs().saturating_mul(u64::from(burst.get()))
        / u64::from(rate.permits.get());
    if window > 31 * 86_400 {
        cx.report(
            Diagnostic::error("the burst is too large for its rate")
                .at(span, format!("it would take {} days to come back", window / 86_400))
                .help("at most 31 days; lower `burst` or raise `rate`"),
        );
    }
}
