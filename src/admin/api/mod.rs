//! The admin API: consumers, keys, plans, policies, the deny list, usage and the audit, under `/v1`.
//!
//! ```text
//! access (id, time limit, log) ─▶ auth (bearer token) ─▶ route ─▶ port of the store
//! ```
//!
//! It is the store's ports over HTTP: what it writes takes effect in every gateway through the store's
//! changes, not through this process, so any task of a fleet can be asked. `openapi.json` describes it
//! and is tested against the handlers.
//!
//! Must stay true: without a token there is no API. A plain key stands in the answer that made it and
//! nowhere else. Nothing here is on the path of a client's request, and a handler only awaits.

mod access;
mod audit;
mod auth;
mod body;
mod consumers;
mod denials;
mod documents;
mod json;
mod keys;
mod notation;
mod openapi;
mod page;
mod problem;
mod usage;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;

pub use auth::Tokens;
pub use problem::Fault;

use crate::auth::api_key::KeyForm;
use crate::auth::audit::Audit;
use crate::auth::denials::Denials;
use crate::auth::documents::{DocumentKind, Documents};
use crate::auth::registry::Registry;
use crate::limits::usage::UsageLog;
use crate::stores::Store;
use crate::telemetry::Clock;
use axum::extract::{FromRequestParts, Path, State};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Extension, Router};
pub(super) use body::MAX_BODY;
use http::header::{HeaderValue, LOCATION};
use http::request::Parts;
use http::{StatusCode, Uri};
use problem::{Code, Problem};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Where the API is.
pub(super) const ROOT: &str = "/v1";

/// The ports of the store that the API reads and writes.
#[derive(Clone)]
pub struct Ports {
    /// Consumers and keys.
    pub registry: Arc<dyn Registry>,
    /// Plans and policies.
    pub documents: Arc<dyn Documents>,
    /// The deny list.
    pub denials: Arc<dyn Denials>,
    /// Who changed what.
    pub audit: Arc<dyn Audit>,
    /// What was used.
    pub usage: Arc<dyn UsageLog>,
}

impl Ports {
    /// All of them are one store.
    #[must_use]
    pub fn of(store: &Arc<dyn Store>) -> Self {
        Self {
            registry: Arc::clone(store) as _,
            documents: Arc::clone(store) as _,
            denials: Arc::clone(store) as _,
            audit: Arc::clone(store) as _,
            usage: Arc::clone(store) as _,
        }
    }
}

/// Where a plan or policy that is in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A table of the configuration's files.
    File,
    /// A row of the store.
    Row,
}

/// Compiles a document as if it were put in force now; says all that is wrong with it.
pub type CheckDocument = dyn Fn(DocumentKind, &str, &Value) -> Result<(), Vec<Fault>> + Send + Sync;
/// The names in force in this process, and where each comes from.
pub type InForce = dyn Fn(DocumentKind) -> Vec<(Arc<str>, Origin)> + Send + Sync;
/// The names of the issuers whose tokens are believed now.
pub type Issuers = dyn Fn() -> Vec<Arc<str>> + Send + Sync;
/// The form of the keys that are issued now.
pub type CurrentKeyForm = dyn Fn() -> KeyForm + Send + Sync;

/// What the API works with.
#[derive(Clone)]
pub struct ApiState {
    /// The store.
    pub ports: Ports,
    /// Who may ask.
    pub tokens: Tokens,
    /// The time.
    pub clock: Clock,
    /// For issuing keys.
    pub key_form: Arc<CurrentKeyForm>,
    /// Asked before a plan or a policy is written.
    pub check_document: Arc<CheckDocument>,
    /// Asked when plans and policies are read.
    pub in_force: Arc<InForce>,
    /// Asked before a token is denied.
    pub issuers: Arc<Issuers>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// The state, in a handler.
type Api = State<Arc<ApiState>>;

/// How an operation ends.
type Outcome = Result<Response, Problem>;

/// What stands below [`ROOT`].
pub(super) fn router(state: ApiState) -> Router {
    let state = Arc::new(state);
    let counter = access::Counter::new(Arc::clone(&state));
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(counter, access::accompany))
        .with_state(state)
}

/// What stands there when the API is off.
pub(super) fn off() -> Router {
    Router::new().fallback(async || {
        Problem::new(Code::ApiOff, problem::TURN_ON).rendered(&HeaderValue::from_static("-"))
    })
}

/// Every operation; the same ones stand in `openapi.json`.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<ApiState>>)> {
    vec![
        ("/audit", get(audit::list)),
        ("/consumers", get(consumers::list).post(consumers::add)),
        (
            "/consumers/{name}",
            get(consumers::one).patch(consumers::change).delete(consumers::remove),
        ),
        ("/consumers/{name}/keys", get(keys::list_of_consumer).post(keys::issue)),
        ("/denials", get(denials::list).post(denials::add)),
        ("/denials/{id}", delete(denials::remove)),
        ("/keys", get(keys::list)),
        ("/keys/{id}", get(keys::one)),
        ("/keys/{id}/revoke", post(keys::revoke)),
        ("/keys/{id}/rotate", post(keys::rotate)),
        ("/openapi.json", get(openapi::document)),
        ("/plans", of_kind(DocumentKind::Plan, get(documents::list))),
        ("/plans/{name}", one_of_kind(DocumentKind::Plan)),
        ("/policies", of_kind(DocumentKind::Policy, get(documents::list))),
        ("/policies/{name}", one_of_kind(DocumentKind::Policy)),
        ("/usage", get(usage::list)),
    ]
}

fn one_of_kind(kind: DocumentKind) -> MethodRouter<Arc<ApiState>> {
    of_kind(kind, get(documents::one).put(documents::put).delete(documents::remove))
}

/// Plans and policies are handled alike; the handlers are told which it is.
fn of_kind(
    kind: DocumentKind,
    methods: MethodRouter<Arc<ApiState>>,
) -> MethodRouter<Arc<ApiState>> {
    methods.layer(Extension(kind))
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "GET /v1/openapi.json describes what is here")
}

async fn method_not_allowed() -> Problem {
    let detail = "`Allow` names the methods of this path, GET /v1/openapi.json describes them";
    Problem::new(Code::MethodNotAllowed, detail)
}

/// The name or id in the path.
struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => {
                let detail = "a name in the path is percent-encoded UTF-8";
                Err(Problem::new(Code::BadPath, detail))
            }
        }
    }
}

/// The document `value`, with `status`.
fn told(status: StatusCode, value: &Value) -> Response {
    super::answers::answer(status, "application/json", value.to_string())
}

/// The document of something new, which is at `location` from now on.
fn created(location: &str, value: &Value) -> Response {
    let mut response = told(StatusCode::CREATED, value);
    // Whatever is in a path of ours is ASCII, so this never fails.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// It is gone.
fn removed() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A path below [`ROOT`] that ends in a name.
fn path_of(list: &str, name: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("{ROOT}/{list}/{}", name.replace('+', "%20"))
}

/// Names a plan or policies that nobody knows here: whoever has them is refused.
fn warn_of_unknown(
    api: &ApiState,
    kind: DocumentKind,
    names: &[impl AsRef<str>],
    warnings: &mut Vec<String>,
) {
    if names.is_empty() {
        return;
    }
    let known = (api.in_force)(kind);
    for name in names.iter().map(AsRef::as_ref) {
        if !known.iter().any(|(known, _)| &**known == name) {
            let kind = kind.as_str();
            warnings.push(format!(
                "no {kind} called `{name}` is in force here; requests are refused until there is one"
            ));
        }
    }
}

/// Puts warnings into a document, if there are any.
fn with_warnings(mut value: Value, warnings: Vec<String>) -> Value {
    if let (Value::Object(members), false) = (&mut value, warnings.is_empty()) {
        members.insert("warnings".to_owned(), warnings.into());
    }
    value
}

/// The query of a request, read strictly.
fn query<'q>(uri: &'q Uri, known: &[&str]) -> Result<page::Query<'q>, Problem> {
    page::Query::read(uri.query().unwrap_or_default(), known)
}
