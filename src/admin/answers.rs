//! The answers of the operator's listener.

use super::Shared;
use crate::telemetry::metrics;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{StatusCode, Uri};
use serde_json::{Value, json};

const TEXT: &str = "text/plain; charset=utf-8";
const HEALTH: &str = "application/health+json";
const PROBLEM: &str = "application/problem+json";

/// The exposition. It is rendered beside the event loop, which may be the one that serves requests.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let _turn = shared.scrape.lock().await;
    let state = shared.state.clone();
    let rendered = tokio::task::spawn_blocking(move || {
        (state.before_scrape)(&state.metrics);
        state.metrics.render()
    });
    match rendered.await {
        Ok(text) => answer(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => {
            log::error!(error:% = error; "metrics cannot be rendered");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "Metrics cannot be rendered", "see the log")
        }
    }
}

/// The process answers, and that is all that is asked here.
pub(super) async fn livez() -> Response {
    answer(StatusCode::OK, TEXT, "alive\n")
}

/// Whether requests are welcome.
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    match (shared.state.ready)() {
        Ok(()) => answer(StatusCode::OK, TEXT, "ready\n"),
        Err(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

/// Readiness with everything around it, for people.
pub(super) async fn healthz(State(shared): State<Shared>) -> Response {
    let mut document = match (shared.state.detail)() {
        Value::Object(members) => members,
        Value::Null => serde_json::Map::new(),
        other => serde_json::Map::from_iter([("detail".to_owned(), other)]),
    };
    let ready = (shared.state.ready)();
    let status = if ready.is_ok() { "pass" } else { "fail" };
    document.insert("status".to_owned(), status.into());
    if let Err(reason) = ready {
        document.insert("output".to_owned(), reason.into());
    }
    document.entry("version").or_insert_with(|| env!("CARGO_PKG_VERSION").into());
    let code = if ready.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, HEALTH, Value::Object(document).to_string())
}

/// Nothing else is here.
pub(super) async fn not_found(uri: Uri) -> Response {
    let known = "this listener answers /metrics, /livez, /readyz, /healthz and, with a token, /v1";
    log::debug!(path = uri.path(); "the operator's listener was asked for something else");
    problem(StatusCode::NOT_FOUND, "Nothing is here", known)
}

/// Nothing can be changed here.
pub(super) async fn method_not_allowed() -> Response {
    let mut response =
        problem(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed here", "use GET");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// A `Host` that only a tricked browser would send.
pub(super) fn misdirected() -> Response {
    let detail = "this listener is asked by its address or as localhost";
    problem(StatusCode::MISDIRECTED_REQUEST, "The Host is not one of this listener", detail)
}

fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let document = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    answer(status, PROBLEM, document.to_string())
}

/// A whole answer; nothing on this listener is for a cache.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
