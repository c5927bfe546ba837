//! Two routes of which neither is more specific: which one answers would be chance. Everything
//! else is decided by specificity.

use super::Context;
use crate::config::RouteDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::source::Span;
use crate::routing::{HostPattern, Matcher, PathPattern, Segment, conflict};
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
