//! Two routes that ask for exactly the same: neither is more specific, so which one answers would
//! be chance. Everything else is decided by specificity.

use super::Context;
use crate::config::RouteDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::source::Span;
use crate::routing::{HostPattern, Matcher, PathPattern, Segment, ValueMatch};
use http::{HeaderName, Method};
use std::collections::HashMap;

/// What a route asks, apart from the method; the names of parameters do not matter.
#[derive(PartialEq, Eq, Hash)]
struct Question<'a> {
    host: Option<&'a HostPattern>,
    path: Path<'a>,
    headers: Vec<(&'a str, Option<&'a str>)>,
    query: Vec<(&'a str, Option<&'a str>)>,
}

#[derive(PartialEq, Eq, Hash)]
struct Path<'a> {
    segments: Vec<Option<&'a str>>,
    prefix: bool,
    trailing_slash: bool,
}

/// Reports every pair of routes of which neither is more specific.
pub(crate) fn check(routes: &[(Span, Option<RouteDef>)], cx: &mut Context<'_>) {
    let mut asked: HashMap<Question<'_>, Vec<(Span, &RouteDef)>> = HashMap::new();
    let mut told: Vec<(Span, Span)> = Vec::new();
    for (span, route) in routes {
        let Some(route) = route else { continue };
        for question in questions(&route.matcher) {
            let others = asked.entry(question).or_default();
            let same = others.iter().find(|(place, other)| {
                place != span && methods_meet(&route.matcher.methods, &other.matcher.methods)
            });
            if let Some((first, other)) = same
                && !told.contains(&(*first, *span))
            {
                told.push((*first, *span));
                let names = format!("routes `{}` and `{}`", other.name, route.name);
                cx.report(
                    Diagnostic::error(format!("{names} match the same requests"))
                        .at(*span, "neither this")
                        .at(*first, "nor this is more specific")
                        .help(
                            "tell them apart by `hosts`, `path`, `methods`, `headers` or `query`",
                        ),
                );
            }
            others.push((*span, route));
        }
    }
}

/// No method is less specific than some; some meet where one is in both.
fn methods_meet(one: &[Method], other: &[Method]) -> bool {
    match (one, other) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        (one, other) => one.iter().any(|method| other.contains(method)),
    }
}

fn questions(matcher: &Matcher) -> Vec<Question<'_>> {
    let hosts: Vec<Option<&HostPattern>> = match matcher.hosts.as_slice() {
        [] => vec![None],
        hosts => hosts.iter().map(Some).collect(),
    };
    let mut questions = Vec::new();
    for host in hosts {
        for path in &matcher.paths {
            questions.push(Question {
                host,
                path: shape(path),
                headers: sorted(matcher.headers.iter().map(|(n, v)| (HeaderName::as_str(n), v))),
                query: sorted(matcher.query.iter().map(|(name, value)| (name.as_ref(), value))),
            });
        }
    }
    questions
}

fn shape(path: &PathPattern) -> Path<'_> {
    let (segments, prefix, trailing_slash) = match path {
        PathPattern::Exact { segments, trailing_slash } => (segments, false, *trailing_slash),
        PathPattern::Prefix { segments } => (segments, true, false),
    };
    let segments = (segments.iter())
        .map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_ref()),
            Segment::Param(_) => None,
        })
        .collect();
    Path { segments, prefix, trailing_slash }
}

fn sorted<'a>(
    conditions: impl Iterator<Item = (&'a str, &'a ValueMatch)>,
) -> Vec<(&'a str, Option<&'a str>)> {
    let mut list: Vec<_> = conditions
        .map(|(name, value)| match value {
            ValueMatch::Exact(text) => (name, Some(text.as_ref())),
            ValueMatch::Present => (name, None),
        })
        .collect();
    list.sort_unstable();
    list
}
