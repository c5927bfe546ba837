//! What a route asks of a head.

use super::expressions::condition;
use super::{Context, Owner};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, Entries};
use crate::expressions::Sees;
use crate::routing::{Matcher, PathPattern, ValueMatch};
use http::HeaderName;

pub(crate) fn compile(
    owner: Owner<'_>,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<Matcher> {
    let hosts = cx.read_set(&route.hosts, "host");
    let paths = paths(owner, route, cx);
    let methods = cx.read_set(&route.methods, "method");
    let headers = headers(owner, &route.headers, cx);
    let query = (route.query.0.iter())
        .map(|(name, value)| (name.value.as_str().into(), value_match(&value.value)))
        .collect();
    let when = condition(owner, &route.when, Sees::Request, cx);
    Some(Matcher {
        when: when?,
        hosts: hosts?,
        paths: paths?,
        methods: methods?,
        headers: headers?,
        query,
        keep_encoded_slash: route.encoded_slash.value == schema::EncodedSlash::Keep,
    })
}

fn paths(
    owner: Owner<'_>,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<Vec<PathPattern>> {
    let help = "add a path, as `path = \"/orders/*\"`; `/*` is every path";
    let list = cx.required(route.path.as_ref(), owner, "path", help)?;
    let items = list.items();
    if items.is_empty() {
        let message = format!("{} has no path", owner.subject());
        cx.report(Diagnostic::error(message).at(list.span, "the list is empty").help(help));
        return None;
    }
    let read: Vec<Option<PathPattern>> =
        items.iter().map(|(span, text)| cx.parse(&text.text, *span)).collect();
    let paths: Vec<PathPattern> = read.into_iter().collect::<Option<_>>()?;
    let places: Vec<_> = items.iter().map(|(span, _)| *span).zip(&paths).collect();
    cx.refuse_twice(&places, "path");
    Some(paths)
}

fn headers(
    owner: Owner<'_>,
    entries: &Entries<String>,
    cx: &mut Context<'_>,
) -> Option<Vec<(HeaderName, ValueMatch)>> {
    let mut headers = Vec::new();
    let mut places = Vec::new();
    for (name, value) in &entries.0 {
        let read: Option<HeaderName> = cx.parse(&name.value, name.span);
        if let Some(header) = &read {
            places.push((name.span, header.clone()));
            if header == http::header::HOST {
                misplaced(owner, name, cx);
            }
        }
        headers.push(read.map(|header| (header, value_match(&value.value))));
    }
    cx.refuse_twice(&places, "header");
    headers.into_iter().collect()
}

fn misplaced(owner: Owner<'_>, name: &At<String>, cx: &mut Context<'_>) {
    let message = format!("{} matches `Host` as a header", owner.subject());
    let wrong = Diagnostic::error(message).at(name.span, "hosts have a key of their own");
    cx.report(wrong.help("write `hosts = [\"api.example.com\"]`"));
}

fn value_match(text: &str) -> ValueMatch {
    match text {
        "*" => ValueMatch::Present,
        text => ValueMatch::Exact(text.into()),
    }
}
