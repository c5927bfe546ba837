//! The limits of plans, policies and routes: one compiler for the three tables.

use super::{Context, Owner};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, Entries, Limit, LimitOwner, Text};
use crate::config::source::Span;
use crate::limits::{Measure, Mode, OnStoreFailure, Precision, Quota, Rate, Rule, Scope, Subject};
use std::num::NonZeroU32;
use std::time::Duration;

/// The rules of a table with the name `of`, sorted by name.
pub(crate) fn compile<W: LimitOwner>(
    of: &At<String>,
    limits: &Entries<Limit<W>>,
    cx: &mut Context<'_>,
) -> Option<Vec<Rule>> {
    let mut compiled = Vec::new();
    for (name, limit) in &limits.0 {
        let path = [W::TABLE, of.value.as_str(), "limits", name.value.as_str()];
        compiled.push(rule(Owner { path: &path, span: name.span }, name, &limit.value, cx));
    }
    let mut rules: Vec<Rule> = compiled.into_iter().collect::<Option<_>>()?;
    rules.sort_by(|one, other| one.name.cmp(&other.name));
    Some(rules)
}

/// The limits that count callers, and where they say so.
pub(crate) fn counting_callers<W>(
    limits: &Entries<Limit<W>>,
) -> impl Iterator<Item = (&At<String>, Span)> {
    limits.0.iter().filter_map(|(name, limit)| {
        let per = &limit.value.per;
        matches!(per.value, schema::Per::Consumer | schema::Per::Key).then_some((name, per.span))
    })
}

fn rule<W: LimitOwner>(
    owner: Owner<'_>,
    name: &At<String>,
    limit: &Limit<W>,
    cx: &mut Context<'_>,
) -> Option<Rule> {
    let of = owner.path.get(1).copied().unwrap_or_default();
    refuse_idle(owner, limit, cx);
    let measure = measure(owner, limit, cx);
    let name = cx.name(name)?;
    Some(Rule {
        id: format!("{}/{of}/{name}", W::KIND).into(),
        name,
        measure: measure?,
        subject: match limit.per.value {
            schema::Per::Address => Subject::Address,
            schema::Per::Consumer => Subject::Consumer,
            schema::Per::Key => Subject::Key,
            schema::Per::Route => Subject::Route,
        },
        mode: mode(limit.mode.value),
        scope: match limit.scope.value {
            schema::Scope::Fleet => Scope::Fleet,
            schema::Scope::Task => Scope::Task,
        },
        precision: match limit.precision.value {
            schema::Precision::Exact => Precision::Exact,
            schema::Precision::Leased => Precision::Leased,
        },
        on_store_failure: match limit.on_store_failure.value {
            schema::OnStoreFailure::Share => OnStoreFailure::Share,
            schema::OnStoreFailure::Open => OnStoreFailure::Open,
            schema::OnStoreFailure::Closed => OnStoreFailure::Closed,
        },
    })
}

/// Whether something refuses.
pub(crate) const fn mode(mode: schema::Mode) -> Mode {
    match mode {
        schema::Mode::Enforce => Mode::Enforce,
        schema::Mode::Off => Mode::Off,
        schema::Mode::Shadow => Mode::Shadow,
    }
}

/// Exactly one of `rate` and `quota`.
fn measure<W>(owner: Owner<'_>, limit: &Limit<W>, cx: &mut Context<'_>) -> Option<Measure> {
    let rate = limit.rate.as_ref().map(|text| (text, cx.read(text)));
    let quota = limit.quota.as_ref().map(|text| (text, cx.read(text)));
    match (rate, quota) {
        (Some((text, rate)), None) => self::rate(text, rate?, limit.burst.as_ref(), cx),
        (None, Some((_, quota))) => self::quota(owner, quota?, limit.burst.as_ref(), cx),
        (Some((rate, _)), Some((quota, _))) => {
            let message = format!("{} has a rate and a quota", owner.subject());
            cx.report(
                Diagnostic::error(message)
                    .at(quota.span, "this")
                    .at(rate.span, "and this")
                    .help("give one of the two to a limit of its own"),
            );
            None
        }
        (None, None) => {
            if !cx.is_lost(owner, "rate") && !cx.is_lost(owner, "quota") {
                let message = format!("{} counts nothing", owner.subject());
                cx.report(
                    Diagnostic::error(message)
                        .at(owner.span, "`rate` or `quota` is missing")
                        .help("add a rate, as `rate = \"10/s\"`, or `quota = \"10000/day\"`"),
                );
            }
            None
        }
    }
}

fn rate(
    text: &At<Text<Rate>>,
    rate: Rate,
    burst: Option<&At<u32>>,
    cx: &mut Context<'_>,
) -> Option<Measure> {
    check_rate(rate, text, cx);
    let permits = match burst {
        Some(burst) => NonZeroU32::new(burst.value)?,
        None => rate.permits,
    };
    check_burst(rate, permits, burst.map_or(text.span, |burst| burst.span), cx);
    Some(Measure::Rate { rate, burst: permits })
}

fn quota(
    owner: Owner<'_>,
    quota: Quota,
    burst: Option<&At<u32>>,
    cx: &mut Context<'_>,
) -> Option<Measure> {
    if let Some(burst) = burst {
        let message = format!("`burst` has no effect in {}", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(burst.span, "a quota can be used up at once")
                .help("remove `burst`; a second limit with a `rate` can slow its use"),
        );
    }
    Some(Measure::Quota(quota))
}

/// A task that counts for itself asks nobody else.
fn refuse_idle<W>(owner: Owner<'_>, limit: &Limit<W>, cx: &mut Context<'_>) {
    if limit.scope.value != schema::Scope::Task {
        return;
    }
    let keys =
        [("precision", limit.precision.span), ("on_store_failure", limit.on_store_failure.span)];
    for (key, span) in keys {
        if !span.is_somewhere() {
            continue;
        }
        let message = format!("`{key}` has no effect in {}", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(span, "nothing is counted in Redis")
                .at(limit.scope.span, "each task counts for itself")
                .help(format!("remove `{key}`, or let the fleet count: `scope = \"fleet\"`")),
        );
    }
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
fn check_burst(rate: Rate, burst: NonZeroU32, span: Span, cx: &mut Context<'_>) {
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
