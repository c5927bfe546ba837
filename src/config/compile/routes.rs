//! `[routes.*]`: who may call, what answers, and that each key has an effect.

use super::{Context, Names, Owner, action, conflicts, limits, matcher, policies, rewrite};
use crate::auth::{Method, Requirement};
use crate::config::RouteDef;
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, AuthMethod, File};
use crate::config::source::Span;
use crate::config::value::ByteSize;
use std::sync::Arc;

/// A body that anyone could want to send through a gateway.
const LARGEST_BODY: u64 = 1 << 40;

pub(crate) fn compile(
    file: &File,
    upstreams: &Names<'_>,
    cx: &mut Context<'_>,
) -> Option<Vec<RouteDef>> {
    let known = super::names(&file.policies);
    let compiled: Vec<(Span, Option<RouteDef>)> = (file.routes.0.iter())
        .map(|(name, route)| {
            (name.span, self::route(name, &route.value, file, (upstreams, &known), cx))
        })
        .collect();
    conflicts::check(&compiled, cx);
    warn_of_tokens(file, cx);
    let mut routes: Vec<RouteDef> =
        compiled.into_iter().map(|(_, route)| route).collect::<Option<_>>()?;
    routes.sort_by(|one, other| one.name.cmp(&other.name));
    Some(routes)
}

fn route(
    name: &At<String>,
    route: &schema::Route,
    file: &File,
    (upstreams, known): (&Names<'_>, &Names<'_>),
    cx: &mut Context<'_>,
) -> Option<RouteDef> {
    let owner = Owner { path: &["routes", &name.value], span: name.span };
    let matcher = matcher::compile(owner, route, cx);
    let auth = requirement(owner, route, cx);
    let open = route.auth.as_ref().filter(|auth| is_open(auth)).map(|auth| auth.span);
    if open.is_some() {
        refuse_callers(name, route, cx);
    }
    let limits = limits::compile(name, &route.limits, cx);
    let policies = policies::of_route(owner, route, open, (&file.policies, known), cx);
    let class = route.class.as_ref().map(|class| cx.name(class));
    let cors = route.cors.as_ref().map(|cors| rewrite::cors(owner, cors, cx));
    let max_body = cx.bounded(&route.max_body, ByteSize(0), ByteSize(LARGEST_BODY));
    let rewrite = rewrite::compile(owner, route, file, cx);
    let action = action::compile(owner, route, file, upstreams, cx);
    let compiled_name = cx.name(name)?;
    Some(RouteDef {
        class: match class {
            Some(class) => class?,
            None => Arc::clone(&compiled_name),
        },
        name: compiled_name,
        matcher: matcher?,
        auth: auth?,
        forward_credential: route.forward_credential.value,
        limits: limits?,
        policies: policies?,
        cors: match cors {
            Some(cors) => Some(cors?),
            None => None,
        },
        max_body: max_body?.0,
        require_length: route.require_length.value,
        rewrite: rewrite?,
        action: action?,
    })
}

/// Tokens without an issuer are never accepted; said once.
fn warn_of_tokens(file: &File, cx: &mut Context<'_>) {
    if !file.auth.jwt.0.is_empty() || !cx.complete || cx.lost.contains(&["auth", "jwt"]) {
        return;
    }
    let place = (file.routes.0.iter())
        .filter_map(|(name, route)| Some((name, route.value.auth.as_ref()?)))
        .flat_map(|(name, auth)| auth.items().into_iter().map(move |item| (name, item)))
        .find(|(_, (_, method))| **method == AuthMethod::Jwt);
    if let Some((name, (span, _))) = place {
        let message = format!("route `{}` accepts tokens, but no issuer is defined", name.value);
        cx.report(
            Diagnostic::warning(message)
                .at(span, "every token is refused")
                .help("add `[auth.jwt.default]`, or take `jwt` away"),
        );
    }
}

pub(crate) fn is_open(auth: &At<schema::OneOrMany<AuthMethod>>) -> bool {
    auth.items().iter().any(|(_, method)| **method == AuthMethod::None)
}

/// What is asked of callers; there is no default.
fn requirement(
    owner: Owner<'_>,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<Requirement> {
    let help = "name the accepted credentials, as `auth = [\"api_key\", \"jwt\"]`; to open the \
                route to anyone, say `auth = \"none\"` aloud";
    let auth = cx.required(route.auth.as_ref(), owner, "auth", help)?;
    let items = auth.items();
    cx.refuse_twice(&items, "method");
    let scopes = scopes(&route.scopes, cx);
    if items.is_empty() {
        let message = format!("{} accepts no credential", owner.subject());
        cx.report(Diagnostic::error(message).at(auth.span, "the list is empty").help(help));
        return None;
    }
    if is_open(auth) {
        return open(owner, auth.span, &items, route, cx);
    }
    let methods: Vec<Method> = (items.iter())
        .filter_map(|(_, method)| match method {
            AuthMethod::ApiKey => Some(Method::ApiKey),
            AuthMethod::Jwt => Some(Method::Jwt),
            AuthMethod::Mtls => Some(Method::Certificate),
            AuthMethod::None => None,
        })
        .collect();
    if methods == [Method::Certificate] {
        refuse_for_certificates(owner, auth.span, route, cx);
    }
    Some(Requirement::Required { methods, scopes })
}

/// A certificate carries no scopes, and nothing that could be passed on.
fn refuse_for_certificates(
    owner: Owner<'_>,
    span: Span,
    route: &schema::Route,
    cx: &mut Context<'_>,
) {
    if let Some(scope) = route.scopes.first() {
        let message = format!("{} asks for scopes, but takes only certificates", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(scope.span, "nobody can show this scope")
                .at(span, "certificates have none")
                .help("ask for a policy's `consumers` or `plans` instead, or remove `scopes`"),
        );
    }
    if route.forward_credential.value && route.upstream.is_some() {
        let message = format!("{} reads no credential that could be passed on", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(route.forward_credential.span, "this has no effect")
                .help("remove `forward_credential`; the upstream is told who calls anyway"),
        );
    }
}

/// Scopes, as routes and policies name them.
pub(crate) fn scopes(list: &[At<String>], cx: &mut Context<'_>) -> Vec<Arc<str>> {
    for scope in list {
        let plain = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
        if scope.value.is_empty() || !scope.value.bytes().all(plain) {
            let wrong = Diagnostic::error("this is not a scope");
            let wrong = wrong.at(scope.span, "it has a space, a quote, or nothing");
            cx.report(wrong.help("one scope is one word, as `orders:read`"));
        }
    }
    let places: Vec<_> = list.iter().map(|scope| (scope.span, scope.value.as_str())).collect();
    cx.refuse_twice(&places, "scope");
    list.iter().map(|scope| scope.value.as_str().into()).collect()
}

/// On an open route nobody is a caller.
fn refuse_callers(name: &At<String>, route: &schema::Route, cx: &mut Context<'_>) {
    let language = cx.language.clone();
    for (limit, span) in limits::counting_callers(&route.limits, &language) {
        let message = format!("limit `{}` counts callers that nobody knows", limit.value);
        cx.report(
            Diagnostic::error(message)
                .at(span, format!("route `{}` has `auth = \"none\"`", name.value))
                .help("count per `address` or per `route`, or ask for credentials"),
        );
    }
}

fn open(
    owner: Owner<'_>,
    span: Span,
    items: &[(Span, &AuthMethod)],
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<Requirement> {
    if items.len() > 1 {
        let message = format!("{} is open and closed at once", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(span, "`none` cannot stand beside other methods")
                .help("keep `\"none\"` alone, or remove it"),
        );
        return None;
    }
    if let Some(scope) = route.scopes.first() {
        let message = format!("{} asks for scopes but not for a credential", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(scope.span, "nobody can show this scope")
                .at(span, "no credential is read")
                .help("name the accepted credentials in `auth`, or remove `scopes`"),
        );
    }
    if route.forward_credential.value && route.upstream.is_some() {
        let message = format!("{} reads no credential that could be passed on", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(route.forward_credential.span, "this has no effect")
                .help("remove `forward_credential`"),
        );
    }
    Some(Requirement::Open)
}
