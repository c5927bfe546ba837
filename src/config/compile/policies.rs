//! `[policies.*]`: conditions and limits that have a name, and the routes that use it.

use super::expressions::condition;
use super::{Context, Names, Owner, limits, routes};
use crate::auth::access::Access;
use crate::auth::registry::MAX_POLICIES;
use crate::config::PolicyDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, Entries, Text};
use crate::config::source::Span;
use crate::config::words;
use crate::expressions::Sees;
use crate::limits::Rule;
use ipnet::IpNet;
use std::sync::Arc;

/// Compiles the table; `plans` are those of the files, where it is known which there are.
pub(crate) fn compile(
    policies: &Entries<schema::Policy>,
    plans: Option<&Names<'_>>,
    cx: &mut Context<'_>,
) -> Option<Vec<PolicyDef>> {
    let compiled: Vec<Option<PolicyDef>> = (policies.0.iter())
        .map(|(name, policy)| self::policy(name, &policy.value, plans, cx))
        .collect();
    let mut policies: Vec<PolicyDef> = compiled.into_iter().collect::<Option<_>>()?;
    policies.sort_by(|one, other| one.name.cmp(&other.name));
    Some(policies)
}

fn policy(
    name: &At<String>,
    policy: &schema::Policy,
    plans: Option<&Names<'_>>,
    cx: &mut Context<'_>,
) -> Option<PolicyDef> {
    let owner = Owner { path: &["policies", &name.value], span: name.span };
    let mode = limits::mode(policy.mode.value);
    let rules = limits::compile(name, &policy.limits, cx);
    warn_of_shadow(owner, policy, cx);
    let scopes = routes::scopes(&policy.scopes, cx);
    let named = policy.plans.as_ref().map(|list| {
        if let Some(plans) = plans {
            list.value.iter().for_each(|plan| warn_of_plan(owner, plan, plans, cx));
        }
        names(owner, "plans", list, "plan", cx)
    });
    let consumers =
        policy.consumers.as_ref().map(|list| names(owner, "consumers", list, "consumer", cx));
    let addresses = policy.addresses.as_ref().map(|list| networks(owner, list, cx));
    let deny_addresses = cx.read_set(&policy.deny_addresses, "network");
    warn_of_everyone(owner, &policy.deny_addresses, cx);
    let when = condition(owner, &policy.when, Sees::Caller, cx);
    let name = cx.name(name);
    Some(PolicyDef {
        name: name?,
        when: when?,
        access: Access {
            scopes,
            plans: some(named)?.map(Vec::into_iter).map(Iterator::collect),
            consumers: some(consumers)?.map(Vec::into_iter).map(Iterator::collect),
            addresses: some(addresses)?,
            deny_addresses: deny_addresses?,
        },
        rules: rules?
            .into_iter()
            .map(|rule| Rule { mode: rule.mode.within(mode), ..rule })
            .collect(),
        mode,
    })
}

/// A limit can say less than its policy, not more.
fn warn_of_shadow(owner: Owner<'_>, policy: &schema::Policy, cx: &mut Context<'_>) {
    if policy.mode.value != schema::Mode::Shadow {
        return;
    }
    for (name, limit) in &policy.limits.0 {
        let mode = &limit.value.mode;
        if mode.is_given() && mode.value == schema::Mode::Enforce {
            let name = super::shorten(&name.value);
            let message = format!("limit `{name}` of {} is not enforced", owner.subject());
            cx.report(
                Diagnostic::warning(message)
                    .at(mode.span, "the policy is in the shadow, so this refuses nobody")
                    .at(policy.mode.span, "here")
                    .help("enforce the policy, with `mode = \"shadow\"` at its other limits"),
            );
        }
    }
}

/// What is given must be good.
fn some<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        Some(value) => Some(Some(value?)),
        None => Some(None),
    }
}

/// A list that lets nobody through is more likely one that was meant to let everyone through.
fn refuse_empty<T>(owner: Owner<'_>, key: &str, list: &At<Vec<T>>, cx: &mut Context<'_>) -> bool {
    if list.value.is_empty() {
        let message = format!("`{key}` of {} is empty", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(list.span, "nobody would be let through")
                .help(format!("leave `{key}` out if it does not matter")),
        );
    }
    list.value.is_empty()
}

fn names(
    owner: Owner<'_>,
    key: &str,
    list: &At<Vec<At<String>>>,
    what: &str,
    cx: &mut Context<'_>,
) -> Option<Vec<Arc<str>>> {
    let mut good = !refuse_empty(owner, key, list, cx);
    for name in &list.value {
        if name.value.is_empty() || name.value.chars().any(char::is_control) {
            let wrong = Diagnostic::error(format!("this is not the name of a {what}"));
            cx.report(wrong.at(name.span, "nobody has it").help("remove it, or mend it"));
            good = false;
        }
    }
    let places: Vec<(Span, &str)> =
        list.value.iter().map(|name| (name.span, name.value.as_str())).collect();
    cx.refuse_twice(&places, what);
    good.then(|| list.value.iter().map(|name| name.value.as_str().into()).collect())
}

fn networks(
    owner: Owner<'_>,
    list: &At<Vec<At<Text<IpNet>>>>,
    cx: &mut Context<'_>,
) -> Option<Vec<IpNet>> {
    let empty = refuse_empty(owner, "addresses", list, cx);
    cx.read_set(&list.value, "network").filter(|_| !empty)
}

/// A plan may be a row of the store, which nobody can see from here.
fn warn_of_plan(owner: Owner<'_>, plan: &At<String>, known: &Names<'_>, cx: &mut Context<'_>) {
    let name = plan.value.as_str();
    if known.contains_key(name) || !cx.complete || cx.lost.contains(&["plans", name]) {
        return;
    }
    let help = match words::nearest(name, known.keys().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "it can be a row of the store; then all is well".to_owned(),
    };
    cx.report(
        Diagnostic::warning(format!("{} names a plan that no file defines", owner.subject()))
            .at(plan.span, "no plan of the files has this name")
            .help(help),
    );
}

fn warn_of_everyone(owner: Owner<'_>, list: &[At<Text<IpNet>>], cx: &mut Context<'_>) {
    for network in list {
        if cx.read_quietly(network).is_some_and(|network| network.prefix_len() == 0) {
            cx.report(
                Diagnostic::warning(format!("{} lets nobody through", owner.subject()))
                    .at(network.span, "every address of its family is in this network")
                    .help("name the networks that are to be kept out"),
            );
        }
    }
}

/// The policies that a route names.
pub(crate) fn of_route(
    owner: Owner<'_>,
    route: &schema::Route,
    open: Option<Span>,
    policies: (&Entries<schema::Policy>, &Names<'_>),
    cx: &mut Context<'_>,
) -> Option<Vec<Arc<str>>> {
    let (policies, known) = policies;
    let places: Vec<(Span, &str)> =
        route.policies.iter().map(|name| (name.span, name.value.as_str())).collect();
    if let Some((span, _)) = places.get(MAX_POLICIES) {
        let many = Diagnostic::error(format!("{} has too many policies", owner.subject()));
        cx.report(many.at(*span, format!("at most {MAX_POLICIES}")).help("join some of them"));
        return None;
    }
    cx.refuse_twice(&places, "policy");
    let mut found = Vec::new();
    for name in &route.policies {
        if let (Some(open), Some(policy)) = (open, policies.find(&name.value)) {
            refuse_callers(owner, name, open, policy, cx);
        }
        if let Some(policy) = policies.find(&name.value) {
            warn_of_off(owner, name, policy, cx);
        }
        found.push(reference(owner, name, known, cx));
    }
    found.into_iter().collect()
}

/// A route looks protected by a policy that does nothing.
fn warn_of_off(owner: Owner<'_>, name: &At<String>, policy: &schema::Policy, cx: &mut Context<'_>) {
    if policy.mode.value == schema::Mode::Off {
        let label = format!("policy `{}` refuses and counts nobody", super::shorten(&name.value));
        cx.report(
            Diagnostic::warning(format!("{} names a policy that is off", owner.subject()))
                .at(name.span, label)
                .at(policy.mode.span, "here")
                .help("`mode = \"shadow\"` counts and refuses nobody; or remove the name"),
        );
    }
}

/// A row can be removed at any time, so a route's policy must stand in the files.
fn reference(
    owner: Owner<'_>,
    name: &At<String>,
    known: &Names<'_>,
    cx: &mut Context<'_>,
) -> Option<Arc<str>> {
    let table = format!("[policies.{}]", super::shorten(&name.value));
    let rows = format!(
        "a row of the store can be removed at any time: for one that is a row, put `{table}` into \
         a file, if need be an empty one; the row goes before it"
    );
    cx.reference_or(owner, ("policy", "policies"), name, known, &rows)
}

/// On an open route nobody is a caller.
fn refuse_callers(
    owner: Owner<'_>,
    name: &At<String>,
    open: Span,
    policy: &schema::Policy,
    cx: &mut Context<'_>,
) {
    let language = cx.language.clone();
    let limit = limits::counting_callers(&policy.limits, &language).next();
    let asks = (policy.scopes.first().map(|scope| ("asks for scopes".to_owned(), scope.span)))
        .or_else(|| policy.plans.as_ref().map(|at| ("asks for a plan".to_owned(), at.span)))
        .or_else(|| policy.consumers.as_ref().map(|at| ("asks who calls".to_owned(), at.span)))
        .or_else(|| {
            let when = policy.when.as_ref()?;
            let asks = cx.asks_for_a_caller(&when.value);
            asks.then(|| ("asks who calls".to_owned(), when.span))
        })
        .or_else(|| {
            limit.map(|(limit, span)| (format!("counts callers (`{}`)", limit.value), span))
        });
    let Some((asks, place)) = asks else { return };
    let message = format!("{} has a policy that asks for a caller", owner.subject());
    cx.report(
        Diagnostic::error(message)
            .at(name.span, format!("policy `{}` {asks}", super::shorten(&name.value)))
            .at(place, "here")
            .at(open, "no credential is read")
            .help("name the accepted credentials in `auth`, or use a policy without callers"),
    );
}
