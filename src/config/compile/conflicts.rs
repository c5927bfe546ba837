//! Two routes of which neither is more specific: which one answers would be chance. Everything
//! else is decided by specificity, but for two conditions that can both be met: what they mean is not
//! known here, so that is a warning, where it decides who is let in.

use super::Context;
use crate::auth::{Method, Requirement};
use crate::config::RouteDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::source::Span;
use crate::expressions::Expression;
use crate::routing::{
    HostPattern, Matcher, PathPattern, Segment, conflict, only_conditions_decide,
};
use std::collections::HashMap;
use std::sync::Arc;

/// A host and a path that routes have in common; the names of parameters do not matter.
#[derive(PartialEq, Eq, Hash)]
struct Spot<'a> {
    host: Option<&'a HostPattern>,
    segments: Vec<Option<&'a str>>,
    prefix: bool,
    trailing_slash: bool,
}

/// Reports every route that another one can take the place of, once, and every one that lets others in
/// than one whose condition can be met too, once.
pub(crate) fn check(routes: &[(Span, Option<RouteDef>)], cx: &mut Context<'_>) {
    let mut routes: Vec<(Span, &RouteDef)> =
        routes.iter().filter_map(|(span, route)| Some((*span, route.as_ref()?))).collect();
    routes.sort_by_key(|(span, _)| *span);
    let mut spots: HashMap<Spot<'_>, Vec<(Span, &RouteDef)>> = HashMap::new();
    for (span, route) in routes {
        let (mut told, mut warned) = (false, false);
        for spot in self::spots(&route.matcher) {
            let others = spots.entry(spot).or_default();
            let other = others
                .iter()
                .find(|(place, other)| *place != span && conflict(&route.matcher, &other.matcher));
            if let Some((first, other)) = other
                && !told
            {
                told = true;
                let names = format!("routes `{}` and `{}`", other.name, route.name);
                cx.report(
                    Diagnostic::error(format!("{names} can match the same request"))
                        .at(span, "neither is more specific")
                        .at(*first, "this is the other one")
                        .help(
                            "tell them apart by `hosts`, `path`, `methods`, `headers`, `query` or `when`",
                        ),
                );
            }
            let rival = others.iter().filter(|_| !told && !warned).find_map(|(place, other)| {
                let apart = *place == span || excluded(route, other);
                let undecided = !apart && only_conditions_decide(&route.matcher, &other.matcher);
                let differing = differing(route, other);
                (undecided && !differing.is_empty()).then_some((*place, *other, differing))
            });
            if let Some((first, other, differing)) = rival {
                warned = true;
                cx.report(both_conditions(&differing, (span, route), (first, other)));
            }
            others.push((span, route));
        }
    }
}

fn both_conditions(
    differing: &str,
    (span, route): (Span, &RouteDef),
    (first, other): (Span, &RouteDef),
) -> Diagnostic {
    let names = format!("routes `{}` and `{}`", other.name, route.name);
    Diagnostic::warning(format!("{names} differ in {differing}, and only `when` tells them apart"))
        .at(span, "both may match one request; the first by text wins")
        .at(first, "this is the other one")
        .help(
            "exclude the other's condition, as `!(…) && …`, or make one of them a route without `when`",
        )
}

/// In what of those that say who is let in.
fn differing(a: &RouteDef, b: &RouteDef) -> String {
    let (methods, scopes) = asked(&a.auth);
    let (other_methods, other_scopes) = asked(&b.auth);
    let keys = [
        ("`auth`", !same(methods, other_methods)),
        ("`scopes`", !same(scopes, other_scopes)),
        ("`policies`", !same(&a.policies, &b.policies)),
    ];
    let keys: Vec<&str> = keys.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect();
    keys.join(" and ")
}

fn asked(auth: &Requirement) -> (&[Method], &[Arc<str>]) {
    match auth {
        Requirement::Open => (&[], &[]),
        Requirement::Required { methods, scopes } => (methods, scopes),
    }
}

/// In whatever order.
fn same<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.iter().all(|one| b.contains(one)) && b.iter().all(|one| a.contains(one))
}

/// Whether their conditions are seen to exclude each other: one says `!(the other)`, or both ask the
/// same for two different texts.
fn excluded(a: &RouteDef, b: &RouteDef) -> bool {
    let text = |route: &RouteDef| {
        route.matcher.when.as_ref().map(|when| Expression::source(when).trim().to_owned())
    };
    let (Some(one), Some(other)) = (text(a), text(b)) else { return false };
    denies(&one, &other) || denies(&other, &one) || asks_for_another(&one, &other)
}

fn denies(condition: &str, other: &str) -> bool {
    let denied = format!("!({other})");
    let rest = condition.strip_prefix(&denied).or_else(|| condition.strip_suffix(&denied));
    // An alternative could be met beside it.
    rest.is_some_and(|rest| {
        let rest = rest.trim();
        let joined = rest.is_empty() || rest.starts_with("&&") || rest.ends_with("&&");
        joined && !rest.contains("||") && !rest.contains('?')
    })
}

fn asks_for_another(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let (asked, value) = text.split_once(" == ")?;
        let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
        let plain = !value.contains(['\'', '\\']) && !asked.contains(['&', '|', '?', '!']);
        plain.then(|| (asked.to_owned(), value.to_owned()))
    };
    match (parts(one), parts(other)) {
        (Some((asked, value)), Some((also, wanted))) => asked == also && value != wanted,
        _ => false,
    }
}

fn spots(matcher: &Matcher) -> Vec<Spot<'_>> {
    let hosts: Vec<Option<&HostPattern>> = match matcher.hosts.as_slice() {
        [] => vec![None],
        hosts => hosts.iter().map(Some).collect(),
    };
    (hosts.into_iter())
        .flat_map(|host| matcher.paths.iter().map(move |path| spot(host, path)))
        .collect()
}

fn spot<'a>(host: Option<&'a HostPattern>, path: &'a PathPattern) -> Spot<'a> {
    let (segments, prefix, trailing_slash) = match path {
        PathPattern::Exact { segments, trailing_slash } => (segments, false, *trailing_slash),
        PathPattern::Prefix { segments } => (segments, true, false),
    };
    let segments = segments.iter().map(|segment| match segment {
        Segment::Literal(text) => Some(text.as_ref()),
        Segment::Param(_) => None,
    });
    Spot { host, segments: segments.collect(), prefix, trailing_slash }
}
