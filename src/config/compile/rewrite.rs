//! What a route changes on the way through, and what it must not touch.

use super::expressions::computed;
use super::{Context, Owner};
use crate::config::diagnostic::Diagnostic;
use crate::config::pattern::parse_prefix;
use crate::config::schema::{self, At, Computed, Entries, File, Text, TextOrTable};
use crate::config::source::Span;
use crate::config::uri::Origin;
use crate::expressions::Wanted;
use crate::routing::{Cors, FieldValue, HeaderEdits, PathPattern, PathRewrite, Rewrite, Segment};
use http::{HeaderName, HeaderValue, Method};
use std::time::Duration;

/// Headers that belong to one connection or to the framing of a message (RFC 9110, 7.6.1).
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers by which upstreams know the caller; only the gateway may say them.
const IDENTITY: [&str; 2] = ["x-anonymous-consumer", "x-credential-identifier"];

fn is_identity(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-consumer-") || IDENTITY.contains(&name.as_str())
}

/// Whether a header is not for routes to change.
pub(crate) fn is_protected(name: &HeaderName) -> bool {
    is_identity(name) || FRAMING.contains(&name.as_str())
}

pub(crate) fn compile(
    owner: Owner<'_>,
    route: &schema::Route,
    file: &File,
    cx: &mut Context<'_>,
) -> Option<Rewrite> {
    let path = path(owner, route, cx);
    let host = match &route.host {
        Some(host) => cx.read(host).map(|host| HeaderValue::from_str(&host.0).ok()),
        None => Some(None),
    };
    let request = edits(owner, "request_headers", route, cx);
    let response = edits(owner, "response_headers", route, cx);
    if let Some(name) = cx.read_quietly(&file.auth.api_key.header) {
        keep_credential(owner, &route.request_headers, &name, cx);
    }
    Some(Rewrite { path: path?, host: host?, request: request?, response: response? })
}

/// The gateway takes the key away itself; a route that sets it would hide what it does.
fn keep_credential(
    owner: Owner<'_>,
    edits: &schema::HeaderEdits,
    credential: &HeaderName,
    cx: &mut Context<'_>,
) {
    let named = edits.remove.iter().map(|name| (name.value.text.as_str(), name.span));
    for (name, span) in named {
        if name.eq_ignore_ascii_case(credential.as_str()) {
            let message = format!("{} removes the credential by hand", owner.subject());
            cx.report(
                Diagnostic::warning(message)
                    .at(span, "the upstream does not see it anyway")
                    .help("`forward_credential = true` would pass it on"),
            );
        }
    }
}

fn path(owner: Owner<'_>, route: &schema::Route, cx: &mut Context<'_>) -> Option<PathRewrite> {
    if let (Some(strip), Some(replace)) = (&route.strip_prefix, &route.replace_prefix) {
        let message = format!("{} changes the path twice", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(replace.span, "this")
                .at(strip.span, "and this")
                .help("`replace_prefix` alone can do both"),
        );
        return None;
    }
    if let Some(strip) = &route.strip_prefix {
        prefix(owner, strip, route, cx)?;
        return Some(PathRewrite::ReplacePrefix {
            prefix: strip.value.as_str().into(),
            with: "".into(),
        });
    }
    let Some(replace) = &route.replace_prefix else { return Some(PathRewrite::Keep) };
    let inner = Owner { path: owner.path, span: replace.span };
    let help = "write `replace_prefix = { from = \"/v1\", to = \"/api\" }`";
    let from = cx.required(replace.value.from.as_ref(), inner, "from", help);
    let to = cx.required(replace.value.to.as_ref(), inner, "to", help);
    let from_is_good = from.map(|from| prefix(owner, from, route, cx));
    let to = to?;
    if let Err(invalid) = parse_prefix(&to.value) {
        let wrong = Diagnostic::error(format!("{} is not a prefix", super::quoted(&to.value)));
        let instead = "; to take the prefix away, use `strip_prefix`";
        let instead = if to.value.len() < 2 { instead } else { "" };
        cx.report(wrong.at(to.span, invalid.label).help(format!("{}{instead}", invalid.help)));
        return None;
    }
    from_is_good??;
    Some(PathRewrite::ReplacePrefix {
        prefix: from?.value.as_str().into(),
        with: to.value.as_str().into(),
    })
}

/// A prefix must be at the front of every path of its route.
fn prefix(
    owner: Owner<'_>,
    at: &At<String>,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<()> {
    let parts = match parse_prefix(&at.value) {
        Ok(parts) => parts,
        Err(invalid) => {
            let wrong = format!("{} is not a prefix", super::quoted(&at.value));
            cx.report(Diagnostic::error(wrong).at(at.span, invalid.label).help(invalid.help));
            return None;
        }
    };
    let mut fits = Some(());
    for (span, text) in route.path.iter().flat_map(At::items) {
        let Some(pattern) = cx.read_text_quietly::<PathPattern>(&text.text) else { continue };
        let (PathPattern::Exact { segments, .. } | PathPattern::Prefix { segments }) = &pattern;
        let front = segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_ref()),
            Segment::Param(_) => None,
        });
        if front.take(parts.len()).eq(parts.iter().map(|part| Some(*part))) {
            continue;
        }
        let message = format!("`{}` is not the front of a path of {}", at.value, owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(at.span, "nothing could be taken away")
                .at(span, "this path starts otherwise")
                .help("the prefix must be the first whole segments of every path of the route"),
        );
        fits = None;
    }
    fits
}

fn edits(
    owner: Owner<'_>,
    key: &str,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<HeaderEdits> {
    let file =
        if key == "request_headers" { &route.request_headers } else { &route.response_headers };
    let remove: Option<Vec<HeaderName>> = cx.read_set(&file.remove, "header");
    for (name, at) in remove.iter().flatten().zip(&file.remove) {
        protect(name, at.span, cx);
    }
    let set = values(owner, [key, "set"], &file.set, route, cx);
    let add = values(owner, [key, "add"], &file.add, route, cx);
    let edits = HeaderEdits { remove: remove?, set: set?, add: add? };
    let removed: Vec<(Span, HeaderName)> =
        file.remove.iter().map(|at| at.span).zip(edits.remove.iter().cloned()).collect();
    for ((name, _), (at, _)) in edits.set.iter().zip(&file.set.0) {
        if let Some((first, _)) = removed.iter().find(|(_, removed)| removed == name) {
            cx.report(
                Diagnostic::error(format!("`{name}` is removed and set"))
                    .at(at.span, "`set` replaces what is there")
                    .at(*first, "so this has no effect")
                    .help("keep `set` alone"),
            );
        }
    }
    Some(edits)
}

fn values(
    owner: Owner<'_>,
    keys: [&str; 2],
    entries: &Entries<TextOrTable<HeaderValue, Computed>>,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<Vec<(HeaderName, FieldValue)>> {
    let mut compiled = Vec::new();
    let mut places = Vec::new();
    for (name, value) in &entries.0 {
        let header: Option<HeaderName> = cx.parse(&name.value, name.span);
        if let Some(header) = &header {
            protect(header, name.span, cx);
            places.push((name.span, header.clone()));
        }
        let read = match &value.value {
            TextOrTable::Text(text) => {
                cx.parse::<HeaderValue>(&text.text, value.span).map(FieldValue::Fixed)
            }
            TextOrTable::Table(table) => {
                let path: Vec<&str> =
                    owner.path.iter().copied().chain(keys).chain([name.value.as_str()]).collect();
                let entry = Owner { path: &path, span: value.span };
                computed(entry, table, Wanted::Text, route, cx).map(FieldValue::Computed)
            }
        };
        compiled.push(header.zip(read));
    }
    cx.refuse_twice(&places, "header");
    compiled.into_iter().collect()
}

fn protect(name: &HeaderName, span: Span, cx: &mut Context<'_>) {
    let (label, help) = match name.as_str() {
        "host" => ("the host has a key of its own", "use `host` of the route"),
        _ if is_identity(name) => (
            "upstreams trust it to name the caller",
            "the gateway itself sets and removes it; choose another name",
        ),
        _ if is_protected(name) => (
            "it belongs to one connection",
            "the gateway speaks to both sides on its own; leave this header to it",
        ),
        _ => return,
    };
    let message = format!("`{name}` is not for routes to change");
    cx.report(Diagnostic::error(message).at(span, label).help(help));
}

pub(crate) fn cors(
    owner: Owner<'_>,
    file: &At<schema::Cors>,
    cx: &mut Context<'_>,
) -> Option<Cors> {
    let path: Vec<&str> = owner.path.iter().copied().chain(["cors"]).collect();
    let inner = Owner { path: &path, span: file.span };
    let cors = &file.value;
    let help = "list the pages that may call, as `origins = [\"https://app.example.com\"]`";
    let list = cx.required(cors.origins.as_ref(), inner, "origins", help);
    let origins: Option<Vec<Origin>> = list.and_then(|list| cx.read_set(&list.value, "origin"));
    if let (Some(list), Some(origins)) = (list, &origins) {
        check_origins(inner, list, origins, cors, cx);
    }
    let methods: Option<Vec<Method>> = cx.read_set(&cors.methods, "method");
    let headers = cx.read_set(&cors.headers, "header");
    let expose = cx.read_set(&cors.expose, "header");
    let max_age = cx.bounded(&cors.max_age, Duration::ZERO, Duration::from_secs(86_400));
    let origins = origins?;
    Some(Cors {
        any_origin: origins.contains(&Origin::Any),
        origins: (origins.into_iter())
            .filter_map(|origin| match origin {
                Origin::Exact(text) => Some(text),
                Origin::Any => None,
            })
            .collect(),
        methods: methods?,
        headers: headers?,
        expose: expose?,
        credentials: cors.credentials.value,
        max_age: max_age?,
    })
}

fn check_origins(
    owner: Owner<'_>,
    list: &At<Vec<At<Text<Origin>>>>,
    origins: &[Origin],
    cors: &schema::Cors,
    cx: &mut Context<'_>,
) {
    let subject = owner.subject();
    if origins.is_empty() {
        let none = Diagnostic::error(format!("{subject} allows no origin"));
        let none = none.at(list.span, "the list is empty");
        cx.report(none.help("name the pages that may call, or remove the table"));
    }
    let places: Vec<_> = list.value.iter().map(|origin| origin.span).zip(origins).collect();
    let Some((any, _)) = places.iter().find(|(_, origin)| **origin == Origin::Any) else { return };
    if cors.credentials.value {
        cx.report(
            Diagnostic::error(format!(
                "{subject} lets any page act with its visitor's credentials"
            ))
            .at(*any, "any page")
            .at(cors.credentials.span, "with credentials")
            .help("name the origins that you trust, or remove `credentials`"),
        );
    } else if origins.len() > 1 {
        let mixed = Diagnostic::error(format!("{subject} allows any origin and some"));
        cx.report(
            mixed.at(*any, "the others have no effect").help("keep `\"*\"` alone, or remove it"),
        );
    }
}
