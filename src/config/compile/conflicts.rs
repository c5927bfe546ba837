//! Two routes of which neither is more specific: which one answers would be chance. Everything
//! else is decided by specificity.

use super::Context;
use crate::config::RouteDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::source::Span;
use crate::routing::{HostPattern, Matcher, PathPattern, Segment, ValueMatch};
use http::Method;
use std::collections::HashMap;

/// A host and a path that routes have in common; the names of parameters do not matter.
#[derive(PartialEq, Eq, Hash)]
struct Spot<'a> {
    host: Option<&'a HostPattern>,
    segments: Vec<Option<&'a str>>,
    prefix: bool,
    trailing_slash: bool,
}

/// Reports every route that another one can take the place of, once.
pub(crate) fn check(routes: &[(Span, Option<RouteDef>)], cx: &mut Context<'_>) {
    let mut routes: Vec<(Span, &RouteDef)> =
        routes.iter().filter_map(|(span, route)| Some((*span, route.as_ref()?))).collect();
    routes.sort_by_key(|(span, _)| *span);
    let mut spots: HashMap<Spot<'_>, Vec<(Span, &RouteDef)>> = HashMap::new();
    for (span, route) in routes {
        let mut told = false;
        for spot in self::spots(&route.matcher) {
            let others = spots.entry(spot).or_default();
            let other = others.iter().find(|(place, other)| {
                *place != span && is_undecided(&route.matcher, &other.matcher)
            });
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
                            "tell them apart by `hosts`, `path`, `methods`, `headers` or `query`",
                        ),
                );
            }
            others.push((span, route));
        }
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

/// Whether a request can match both, on one host and path, with nothing to decide between them.
/// Two values of one header or parameter are taken to exclude each other.
fn is_undecided(one: &Matcher, other: &Matcher) -> bool {
    specificity(one) == specificity(other)
        && methods_meet(&one.methods, &other.methods)
        && !exclude(&one.headers, &other.headers)
        && !exclude(&one.query, &other.query)
}

/// What is compared after host and path; the larger wins.
fn specificity(matcher: &Matcher) -> (bool, usize, usize, usize, usize) {
    fn exact<N>(list: &[(N, ValueMatch)]) -> usize {
        list.iter().filter(|(_, value)| *value != ValueMatch::Present).count()
    }
    (
        !matcher.methods.is_empty(),
        matcher.headers.len(),
        matcher.query.len(),
        exact(&matcher.headers),
        exact(&matcher.query),
    )
}

/// `GET` brings `HEAD` with it.
fn methods_meet(one: &[Method], other: &[Method]) -> bool {
    let takes = |methods: &[Method], method: &Method| {
        methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
    };
    (one.is_empty() && other.is_empty())
        || one.iter().any(|method| takes(other, method))
        || other.iter().any(|method| takes(one, method))
}

fn exclude<N: PartialEq>(one: &[(N, ValueMatch)], other: &[(N, ValueMatch)]) -> bool {
    one.iter().any(|(name, value)| {
        other.iter().any(|(known, wanted)| match (value, wanted) {
            (ValueMatch::Exact(value), ValueMatch::Exact(wanted)) => {
                name == known && value != wanted
            }
            _ => false,
        })
    })
}
