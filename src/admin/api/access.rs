//! What goes with every request: its id, who sent it, how long it may take, and a line in the log.
//!
//! Must stay true: few requests are worked on at once, since an answer may be megabytes. The line has the pattern of the path, not the path, and no query: both may hold
//! what somebody pasted there by mistake.

use super::ApiState;
use super::problem::{Code, Problem};
use crate::admin::door::Peer;
use crate::auth::registry::Actor;
use crate::telemetry::request_id::request_id;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, Method};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// For everything between the head and the answer; the connection has a little more.
const DEADLINE: Duration = Duration::from_secs(8);
/// Requests that are worked on at once; others wait.
const TURNS: usize = 4;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the requests share.
#[derive(Clone)]
pub(super) struct Counter {
    api: Arc<ApiState>,
    turns: Arc<Semaphore>,
}

impl Counter {
    pub(super) fn new(api: Arc<ApiState>) -> Self {
        Self { api, turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

/// Goes with a request, in and out.
pub(super) async fn accompany(
    State(Counter { api, turns }): State<Counter>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(api.clock.unix_time());
    let entry = Entry::of(&request);
    let mut actor = None;
    let response = match api.tokens.identify(request.headers()) {
        Err(problem) => problem.into_response(),
        Ok(known) => {
            actor = Some(known.clone());
            request.extensions_mut().insert(known);
            match entry.check_query(&request) {
                Err(problem) => problem.into_response(),
                Ok(()) => work(&turns, request, next).await,
            }
        }
    };
    entry.finish(response, &id, actor.as_ref())
}

async fn work(turns: &Semaphore, request: Request, next: Next) -> Response {
    let worked = async {
        // Only a closed semaphore refuses, and nobody closes this one.
        let _turn = turns.acquire().await;
        next.run(request).await
    };
    tokio::time::timeout(DEADLINE, worked).await.unwrap_or_else(|_| {
        let detail = "what was asked for may be done nevertheless: look before you try again";
        Problem::new(Code::StoreTimeout, detail).into_response()
    })
}

/// What the log is told of a request.
struct Entry {
    method: Method,
    /// The pattern that matched.
    path: Option<MatchedPath>,
    peer: Option<Peer>,
}

impl Entry {
    fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        Self {
            method: request.method().clone(),
            path: extensions.get().cloned(),
            peer: extensions.get().map(|ConnectInfo(peer)| *peer),
        }
    }

    /// Only lists are asked by a query: a `?dry_run=1` must not be overlooked.
    fn check_query(&self, request: &Request) -> Result<(), Problem> {
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        let of_one = self.path.as_ref().is_some_and(|path| path.as_str().ends_with('}'));
        match request.uri().query() {
            Some(query) if !query.is_empty() && (of_one || !reads) => {
                Err(Problem::new(Code::BadQuery, "there are no parameters here"))
            }
            _ => Ok(()),
        }
    }

    /// The answer as it is sent, and its line in the log.
    fn finish(&self, mut response: Response, id: &HeaderValue, actor: Option<&Actor>) -> Response {
        let problem = response.extensions_mut().remove::<Problem>();
        if let Some(problem) = &problem {
            let mut rendered = problem.rendered(id);
            // What is known of the way, such as `Allow`.
            for (name, value) in response.headers() {
                rendered.headers_mut().entry(name).or_insert_with(|| value.clone());
            }
            response = rendered;
        }
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REQUEST_ID, id.clone());
        self.log(id, actor, response.status().as_u16(), problem.as_ref());
        response
    }

    fn log(&self, id: &HeaderValue, actor: Option<&Actor>, status: u16, problem: Option<&Problem>) {
        let id = id.to_str().unwrap_or("-");
        let path = self.path.as_ref().map_or("-", MatchedPath::as_str);
        let peer = self.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let peer = peer.as_str();
        let code = problem.map_or("-", |problem| problem.code().told().1);
        if let Some(cause) = problem.and_then(Problem::cause) {
            log::error!(request_id = id, cause; "the admin API cannot do what it was asked for");
        }
        match (actor, problem.map(Problem::code)) {
            (Some(actor), _) => {
                let (actor, method) = (actor.as_str(), self.method.as_str());
                log::info!(request_id = id, actor, peer, method, path, status, code;
                    "the admin API was used");
            }
            // There can be any number of these.
            (None, Some(Code::TooManyFailures)) => {
                log::debug!(peer, status, code; "the admin API was asked without a token");
            }
            (None, _) => {
                log::warn!(request_id = id, peer, path, status, code;
                    "the admin API was asked without a token");
            }
        }
    }
}
