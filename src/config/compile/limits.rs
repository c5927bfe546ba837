//! The limits of plans, policies and routes: one compiler for the three tables.

use super::expressions::value;
use super::{Context, Owner};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{
    self, At, CostForm, Entries, File, Limit, LimitOwner, PartOfRequest, PerForm, Text,
};
use crate::config::source::Span;
use crate::expressions::{Language, Sees, Wanted};
use crate::limits::{
    Cost, MAX_CLAIMS, Measure, Mode, OnStoreFailure, Precision, Rate, Rule, Scope, Subject,
};
use http::HeaderName;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

/// The longest name of a claim.
const MAX_CLAIM_NAME: usize = 256;

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

/// All claims that limits of the files count by and expressions read are kept with each token, so there are not many.
pub(crate) fn refuse_many_claims(file: &File, cx: &mut Context<'_>) {
    let of_plans = file.plans.0.iter().flat_map(|(_, plan)| claims(&plan.value.limits));
    let of_policies = file.policies.0.iter().flat_map(|(_, policy)| claims(&policy.value.limits));
    let of_routes = file.routes.0.iter().flat_map(|(_, route)| claims(&route.value.limits));
    let of_limits = of_plans.chain(of_policies).chain(of_routes);
    let of_limits = of_limits.map(|claim| (claim.value.as_str(), claim.span));
    let of_expressions = cx.claims.iter().map(|(claim, span)| (&**claim, *span));
    let mut seen = BTreeSet::new();
    let many = of_limits
        .chain(of_expressions)
        .find(|(claim, _)| seen.insert(*claim) && seen.len() > MAX_CLAIMS);
    if let Some((_, span)) = many {
        cx.report(
            Diagnostic::error("limits count by too many claims")
                .at(span, format!("more than {MAX_CLAIMS} different ones"))
                .help("each is kept with every token; count by fewer"),
        );
    }
}

fn claims<W>(limits: &Entries<Limit<W>>) -> impl Iterator<Item = &At<String>> {
    limits.0.iter().filter_map(|(_, limit)| match &limit.value.per.value {
        PerForm::Part(part) => part.claim.as_ref(),
        PerForm::Whom(_) => None,
    })
}

/// The limits that count callers, and where they say so.
pub(crate) fn counting_callers<'l, W>(
    limits: &'l Entries<Limit<W>>,
    language: &'l Language,
) -> impl Iterator<Item = (&'l At<String>, Span)> {
    limits.0.iter().filter_map(|(name, limit)| {
        let per = &limit.value.per;
        let counts = match &per.value {
            PerForm::Whom(whom) => matches!(whom, schema::Per::Consumer | schema::Per::Key),
            PerForm::Part(PartOfRequest { expr: Some(expr), .. }) => language
                .compile(&expr.value, "", Sees::Caller, Wanted::Text)
                .is_ok_and(|expression| expression.asks_for_a_caller()),
            PerForm::Part(part) => part.claim.is_some(),
        };
        counts.then_some((name, per.span))
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
    let cost = cost(owner, &limit.cost, measure, cx);
    let subject = subject(owner, &limit.per, cx);
    let name = cx.name(name)?;
    Some(Rule {
        id: format!("{}/{of}/{name}", W::KIND).into(),
        name,
        measure: measure?,
        subject: subject?,
        cost: cost?,
        mode: mode(limit.mode.value),
        scope: match limit.scope.value {
            schema::Scope::Fleet if limit.concurrency.is_none() => Scope::Fleet,
            schema::Scope::Fleet | schema::Scope::Task => Scope::Task,
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

/// Exactly one of `rate`, `quota` and `concurrency`.
fn measure<W>(owner: Owner<'_>, limit: &Limit<W>, cx: &mut Context<'_>) -> Option<Measure> {
    let rate = limit.rate.as_ref().map(|text| cx.read(text));
    let quota = limit.quota.as_ref().map(|text| cx.read(text));
    let given = [
        limit.rate.as_ref().map(|it| ("a rate", it.span)),
        limit.quota.as_ref().map(|it| ("a quota", it.span)),
        limit.concurrency.as_ref().map(|it| ("a concurrency", it.span)),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some((first, one)), Some((second, other))) => {
            let message = format!("{} has {first} and {second}", owner.subject());
            cx.report(
                Diagnostic::error(message)
                    .at(other, "this")
                    .at(one, "and this")
                    .help("give one of the two to a limit of its own"),
            );
            None
        }
        (None, _) => {
            let keys = ["rate", "quota", "concurrency"];
            if !keys.iter().any(|key| cx.is_lost(owner, key)) {
                let message = format!("{} counts nothing", owner.subject());
                cx.report(
                    Diagnostic::error(message)
                        .at(owner.span, "`rate`, `quota` or `concurrency` is missing")
                        .help("add a rate, as `rate = \"10/s\"`, or `quota = \"10000/day\"`"),
                );
            }
            None
        }
        (Some(_), None) => {
            let burst = limit.burst.as_ref();
            if let (Some(rate), Some(text)) = (rate, &limit.rate) {
                return self::rate(text, rate?, burst, cx);
            }
            if let Some(quota) = quota {
                refuse_burst(owner, burst, "a quota can be used up at once", cx);
                return Some(Measure::Quota(quota?));
            }
            refuse_burst(owner, burst, "this many may be in flight at once anyway", cx);
            let most = limit.concurrency.as_ref()?;
            Some(Measure::Concurrency(NonZeroU32::new(most.value)?))
        }
    }
}

/// What a request takes: no more than there can ever be.
fn cost(
    owner: Owner<'_>,
    cost: &At<CostForm>,
    measure: Option<Measure>,
    cx: &mut Context<'_>,
) -> Option<Cost> {
    let permits = match &cost.value {
        CostForm::Permits(permits) => NonZeroU32::new(*permits)?,
        CostForm::Computed(_) if matches!(measure, Some(Measure::Concurrency(_))) => {
            NonZeroU32::MIN
        }
        CostForm::Computed(table) => {
            return value(owner, ("cost", cost.span), table.expr.as_ref(), Wanted::Number, cx)
                .map(Cost::Expression);
        }
    };
    let (most, what) = match measure {
        Some(Measure::Concurrency(_)) if cost.is_given() => {
            let message = format!("`cost` has no effect in {}", owner.subject());
            cx.report(
                Diagnostic::error(message)
                    .at(cost.span, "a request in flight is one request")
                    .help("remove `cost`"),
            );
            return None;
        }
        Some(Measure::Concurrency(_)) | None => return Some(Cost::Fixed(permits)),
        Some(Measure::Quota(quota)) => (quota.permits, "quota"),
        Some(Measure::Rate { burst, .. }) => (burst, "burst"),
    };
    if permits > most {
        let message = format!("{} lets nothing through", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(cost.span, format!("a request takes more than the whole {what} of {most}"))
                .help(format!("lower `cost`, or raise the {what}")),
        );
        return None;
    }
    Some(Cost::Fixed(permits))
}

fn subject(owner: Owner<'_>, per: &At<PerForm>, cx: &mut Context<'_>) -> Option<Subject> {
    match &per.value {
        PerForm::Whom(schema::Per::Address) => Some(Subject::Address),
        PerForm::Whom(schema::Per::Consumer) => Some(Subject::Consumer),
        PerForm::Whom(schema::Per::Key) => Some(Subject::Key),
        PerForm::Whom(schema::Per::Route) => Some(Subject::Route),
        PerForm::Part(PartOfRequest { claim: Some(claim), header: None, expr: None }) => {
            let length = claim.value.len();
            if length == 0 || length > MAX_CLAIM_NAME {
                let message = format!("{} counts by no claim", owner.subject());
                let label = format!("a name has 1 to {MAX_CLAIM_NAME} bytes");
                cx.report(Diagnostic::error(message).at(claim.span, label));
                return None;
            }
            Some(Subject::Claim(claim.value.as_str().into()))
        }
        PerForm::Part(PartOfRequest { claim: None, header: Some(header), expr: None }) => {
            let name: HeaderName = cx.read(header)?;
            Some(Subject::Header(name))
        }
        PerForm::Part(PartOfRequest { claim: None, header: None, expr: Some(expr) }) => {
            value(owner, ("per", per.span), Some(expr), Wanted::Text, cx).map(Subject::Expression)
        }
        PerForm::Part(_) => {
            let message = format!("{} does not say whom it counts", owner.subject());
            cx.report(
                Diagnostic::error(message)
                    .at(per.span, "exactly one of `claim`, `header` and `expr` is needed")
                    .help("as `per = { claim = \"tenant\" }`"),
            );
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

fn refuse_burst(owner: Owner<'_>, burst: Option<&At<u32>>, why: &str, cx: &mut Context<'_>) {
    if let Some(burst) = burst {
        let message = format!("`burst` has no effect in {}", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(burst.span, why)
                .help("remove `burst`; a second limit with a `rate` can slow its use"),
        );
    }
}

/// A task that counts for itself asks nobody else, and requests in flight are always counted so.
fn refuse_idle<W>(owner: Owner<'_>, limit: &Limit<W>, cx: &mut Context<'_>) {
    let (by, label) = match &limit.concurrency {
        Some(concurrency) => {
            refuse_fleet(owner, concurrency, &limit.scope, cx);
            (concurrency.span, "each task counts its own requests in flight")
        }
        None if limit.scope.value == schema::Scope::Task => {
            (limit.scope.span, "each task counts for itself")
        }
        None => return,
    };
    let keys =
        [("precision", limit.precision.span), ("on_store_failure", limit.on_store_failure.span)];
    for (key, span) in keys {
        if !span.is_somewhere() {
            continue;
        }
        let message = format!("`{key}` has no effect in {}", owner.subject());
        let help = match limit.concurrency {
            Some(_) => format!("remove `{key}`"),
            None => format!("remove `{key}`, or let the fleet count: `scope = \"fleet\"`"),
        };
        cx.report(
            Diagnostic::error(message)
                .at(span, "nothing is counted in Redis")
                .at(by, label)
                .help(help),
        );
    }
}

fn refuse_fleet(
    owner: Owner<'_>,
    concurrency: &At<u32>,
    scope: &At<schema::Scope>,
    cx: &mut Context<'_>,
) {
    if scope.is_given() && scope.value == schema::Scope::Fleet {
        let message = format!("{} cannot be counted for the fleet", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(scope.span, "only rates and quotas can")
                .at(concurrency.span, "each task counts its own requests in flight")
                .help("remove `scope`, and divide the number by the tasks that you run"),
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
