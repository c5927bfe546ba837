//! What answers: exactly one of `upstream`, `redirect` and `reply`.

use super::upstreams::{check_timeouts, read_timeout};
use super::{Context, Names, Owner};
use crate::config::ActionDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, File};
use crate::config::source::Span;
use crate::upstreams::Timeouts;

/// Bytes of a fixed reply.
const LARGEST_REPLY: usize = 64 * 1024;

pub(crate) fn compile(
    owner: Owner<'_>,
    route: &schema::Route,
    file: &File,
    upstreams: &Names<'_>,
    cx: &mut Context<'_>,
) -> Option<ActionDef> {
    let given: Vec<(&str, Span)> = [
        ("upstream", route.upstream.as_ref().map(|at| at.span)),
        ("redirect", route.redirect.as_ref().map(|at| at.span)),
        ("reply", route.reply.as_ref().map(|at| at.span)),
    ]
    .into_iter()
    .filter_map(|(key, span)| span.map(|span| (key, span)))
    .collect();
    if let [(_, first), (_, second), ..] = given.as_slice() {
        let message = format!("{} has more than one answer", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(*second, "this")
                .at(*first, "and this")
                .help("keep one of `upstream`, `redirect` and `reply`"),
        );
    }
    if let Some(upstream) = &route.upstream {
        let compiled = proxy(owner, upstream, route, file, upstreams, cx);
        return compiled.filter(|_| given.len() == 1);
    }
    let answer = match (&route.redirect, &route.reply) {
        (Some(redirect), _) => redirect_to(owner, redirect, cx),
        (None, Some(reply)) => reply_with(owner, reply, cx),
        (None, None) => {
            let lost = ["upstream", "redirect", "reply"].iter().any(|key| cx.is_lost(owner, key));
            if !lost {
                let message = format!("{} has no answer", owner.subject());
                cx.report(
                    Diagnostic::error(message)
                        .at(owner.span, "nothing says what a request gets")
                        .help("add `upstream`, `redirect` or `reply`"),
                );
            }
            return None;
        }
    };
    refuse_idle(owner, route, cx);
    answer
}

/// Keys that need an upstream have no effect on a fixed answer.
fn refuse_idle(owner: Owner<'_>, route: &schema::Route, cx: &mut Context<'_>) {
    let edits = &route.request_headers;
    let edit = (edits.remove.first().map(|at| at.span))
        .or_else(|| edits.set.0.first().map(|(name, _)| name.span))
        .or_else(|| edits.add.0.first().map(|(name, _)| name.span));
    let forward = &route.forward_credential;
    let keys = [
        ("strip_prefix", route.strip_prefix.as_ref().map(|at| at.span)),
        ("replace_prefix", route.replace_prefix.as_ref().map(|at| at.span)),
        ("host", route.host.as_ref().map(|at| at.span)),
        ("timeouts", route.timeouts.as_ref().map(|at| at.span)),
        ("stream", route.stream.value.then_some(route.stream.span)),
        ("forward_credential", forward.value.then_some(forward.span)),
        ("request_headers", edit),
    ];
    for (key, span) in keys {
        let Some(span) = span else { continue };
        let message = format!("`{key}` has no effect in {}", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(span, "no upstream sees the request")
                .help(format!("remove `{key}`")),
        );
    }
}

fn proxy(
    owner: Owner<'_>,
    upstream: &At<String>,
    route: &schema::Route,
    file: &File,
    upstreams: &Names<'_>,
    cx: &mut Context<'_>,
) -> Option<ActionDef> {
    let name = cx.reference(owner, "upstream", "upstreams", upstream, upstreams);
    let inherited = (file.upstreams.0.iter())
        .find(|(known, _)| known.value == upstream.value)
        .map(|(_, upstream)| &upstream.value.timeouts);
    let own = route.timeouts.as_ref().map(|timeouts| &timeouts.value);
    let timeouts = timeouts(own, inherited, cx);
    Some(ActionDef::Proxy { upstream: name?, timeouts: timeouts?, stream: route.stream.value })
}

/// The route's own timeouts where it has them, else the upstream's.
fn timeouts(
    own: Option<&schema::RouteTimeouts>,
    inherited: Option<&schema::Timeouts>,
    cx: &mut Context<'_>,
) -> Option<Timeouts> {
    let keys = [
        (own.and_then(|own| own.connect.as_ref()), inherited.map(|it| &it.connect)),
        (own.and_then(|own| own.per_try.as_ref()), inherited.map(|it| &it.per_try)),
        (own.and_then(|own| own.total.as_ref()), inherited.map(|it| &it.total)),
    ];
    let own_is_good = keys.map(|(own, inherited)| match own {
        Some(own) => read_timeout(own, cx),
        // What is wrong with the upstream's own is told with the upstream.
        None => inherited.and_then(|text| cx.read_text_quietly(&text.value.text)),
    });
    let [connect, per_try, total] = own_is_good;
    let timeouts = Timeouts { connect: connect?, per_try: per_try?, total: total? };
    let places = keys.map(|(own, _)| own.map_or(Span::NOWHERE, |own| own.span));
    if places.iter().any(|place| place.is_somewhere()) {
        check_timeouts(&timeouts, places, cx);
    }
    Some(timeouts)
}

fn redirect_to(
    owner: Owner<'_>,
    redirect: &At<schema::Redirect>,
    cx: &mut Context<'_>,
) -> Option<ActionDef> {
    let path: Vec<&str> = owner.path.iter().copied().chain(["redirect"]).collect();
    let inner = Owner { path: &path, span: redirect.span };
    let help = "say where to, as `location = \"https://www.example.com{path}{query}\"`";
    let text = cx.required(redirect.value.location.as_ref(), inner, "location", help);
    let location = text.and_then(|text| cx.read(text));
    let status = &redirect.value.status;
    if !matches!(status.value, 301 | 302 | 303 | 307 | 308) {
        cx.report(
            Diagnostic::error(format!("{} is not the status of a redirect", status.value))
                .at(status.span, "clients would not follow")
                .help("use 308 or 301 for good, 307 or 302 for now, 303 after a POST"),
        );
    }
    Some(ActionDef::Redirect { status: u16::try_from(status.value).ok()?, location: location?.0 })
}

fn reply_with(
    owner: Owner<'_>,
    reply: &At<schema::Reply>,
    cx: &mut Context<'_>,
) -> Option<ActionDef> {
    let schema::Reply { status, content_type, body } = &reply.value;
    let place = content_type.span;
    let content_type = cx.read(content_type);
    if content_type.as_ref().is_some_and(|it| !it.as_bytes().contains(&b'/')) {
        let wrong = Diagnostic::error("this is not a content type").at(place, "the `/` is missing");
        cx.report(wrong.help("write it as `application/json`"));
    }
    if body.value.len() > LARGEST_REPLY {
        let message = format!("the reply of {} is too large", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(body.span, "more than 64 KiB")
                .help("let an upstream serve it"),
        );
    }
    if matches!(status.value, 204 | 205 | 304) && !body.value.is_empty() {
        cx.report(
            Diagnostic::error(format!("a reply with status {} has no body", status.value))
                .at(body.span, "this could not be sent")
                .help("remove `body`, or use status 200"),
        );
    }
    Some(ActionDef::Reply {
        status: u16::try_from(status.value).ok()?,
        content_type: content_type?,
        body: body.value.clone().into(),
    })
}
