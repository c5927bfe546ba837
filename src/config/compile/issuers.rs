//! `[auth.jwt.*]`: who issues tokens, and what is read from them. Where its keys are stands in
//! `issuer_keys`.

use super::issuer_keys::{KeysOf, keys};
use super::{Context, Names, Owner};
use crate::auth::{IssuerKeys, JwtIssuer};
use crate::config::diagnostic::Diagnostic;
use crate::config::jose::TokenType;
use crate::config::schema::{self, At, Entries};
use crate::config::source::Span;
use http::HeaderName;
use std::sync::Arc;
use std::time::Duration;

/// Headers that one issuer may set.
const MAX_HEADERS: usize = 32;

/// An issuer without its secrets yet.
pub(super) struct Draft<'a> {
    pub(super) issuer: JwtIssuer,
    pub(super) name: &'a At<String>,
    pub(super) keys: KeysOf<'a>,
}

pub(super) fn draft<'a>(
    name: &'a At<String>,
    jwt: &'a schema::Jwt,
    plans: &Names<'_>,
    key_header: Option<&HeaderName>,
    cx: &mut Context<'_>,
) -> Option<Draft<'a>> {
    let owner = Owner { path: &["auth", "jwt", &name.value], span: name.span };
    let leeway = cx.bounded(&jwt.leeway, Duration::ZERO, Duration::from_secs(60));
    refuse_empty(owner, jwt, cx);
    let plan = jwt.default_plan.as_ref();
    let default_plan = plan.map(|plan| cx.reference(owner, "plan", "plans", plan, plans));
    let types: Option<Vec<TokenType>> = cx.read_set(&jwt.types, "type");
    let headers = headers(&jwt.headers, key_header, cx);
    let keys = keys(owner, jwt, cx);
    let compiled_name = cx.name(name);
    let issuer = JwtIssuer {
        name: compiled_name?,
        keys: IssuerKeys::Given(Arc::default()),
        issuer: jwt.issuer.as_ref().map(|issuer| issuer.value.clone()),
        audiences: jwt.audiences.iter().map(|audience| audience.value.clone()).collect(),
        types: types?.into_iter().map(|kind| kind.0).collect(),
        leeway: leeway?,
        consumer_claim: jwt.consumer_claim.value.clone(),
        scopes_claim: jwt.scopes_claim.value.clone(),
        plan_claim: jwt.plan_claim.as_ref().map(|claim| claim.value.clone()),
        default_plan: match default_plan {
            Some(plan) => Some(plan?),
            None => None,
        },
        headers: headers?,
    };
    Some(Draft { issuer, name, keys: keys? })
}

fn refuse_empty(owner: Owner<'_>, jwt: &schema::Jwt, cx: &mut Context<'_>) {
    let texts = [jwt.issuer.as_ref(), Some(&jwt.consumer_claim), Some(&jwt.scopes_claim)];
    let texts = texts.into_iter().chain([jwt.plan_claim.as_ref()]).flatten();
    for text in texts.chain(&jwt.audiences).chain(jwt.headers.0.iter().map(|(_, claim)| claim)) {
        if text.value.is_empty() {
            let empty = Diagnostic::error(format!("{} has an empty text", owner.subject()));
            cx.report(empty.at(text.span, "this is empty").help("leave the key out"));
        }
    }
}

/// Which claims the upstream is told, in which header.
fn headers(
    entries: &Entries<String>,
    key_header: Option<&HeaderName>,
    cx: &mut Context<'_>,
) -> Option<Vec<(HeaderName, String)>> {
    let mut headers = Vec::new();
    let mut places = Vec::new();
    for (name, claim) in &entries.0 {
        let header: Option<HeaderName> = cx.parse(&name.value, name.span);
        if let Some(header) = &header {
            check_header(header, key_header, name.span, cx);
            places.push((name.span, header.clone()));
        }
        headers.push(header.map(|header| (header, claim.value.clone())));
    }
    cx.refuse_twice(&places, "header");
    if let Some((span, _)) = places.get(MAX_HEADERS) {
        let many = Diagnostic::error("there are too many headers of claims");
        cx.report(many.at(*span, format!("more than {MAX_HEADERS}")));
    }
    headers.into_iter().collect()
}

/// Every request loses what a client says under this name, so it must be one that has no other
/// meaning.
fn check_header(
    header: &HeaderName,
    key_header: Option<&HeaderName>,
    span: Span,
    cx: &mut Context<'_>,
) {
    const MEANT: [&str; 22] = [
        "age",
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "dnt",
        "expect",
        "forwarded",
        "from",
        "last-event-id",
        "link",
        "max-forwards",
        "origin",
        "pragma",
        "priority",
        "range",
        "referer",
        "traceparent",
        "tracestate",
        "user-agent",
        "via",
        "warning",
    ];
    const FAMILIES: [&str; 9] = [
        "accept",
        "access-control-",
        "content-",
        "grpc-",
        "if-",
        "sec-",
        "x-authenticated-",
        "x-credential-",
        "x-forwarded-",
    ];
    const OURS: [&str; 3] = ["x-real-ip", "x-request-id", "x-amzn-trace-id"];
    let name = header.as_str();
    let meant = super::rewrite::is_protected(header)
        || MEANT.contains(&name)
        || OURS.contains(&name)
        || FAMILIES.iter().any(|start| name.starts_with(start))
        || key_header == Some(header);
    let (label, help) = if name.contains('_') {
        ("some servers read `_` as `-`", format!("write `{}`", name.replace('_', "-")))
    } else if meant {
        ("it has another meaning", "choose a name of your own, as `X-Tenant`".to_owned())
    } else {
        return;
    };
    let message = format!("the header `{header}` cannot carry a claim");
    cx.report(Diagnostic::error(message).at(span, label).help(help));
}
