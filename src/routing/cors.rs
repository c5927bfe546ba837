//! What browsers are told about scripts of other origins (Fetch standard, "CORS protocol").
//!
//! All answers are built when a route is compiled; a request only picks one. A request that the
//! policy does not allow is not refused here: it gets no permission, and the browser refuses.
//!
//! Must stay true: an origin is answered with `*` or, after it was found in the list, with itself,
//! and never with `*` and credentials; `Vary` stands wherever the answer depends on the request,
//! or a shared cache would give one origin's permission to another.

use super::rewrite::Cors;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Field = (HeaderName, HeaderValue);

const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// Response fields that only the policy may say: on a route that has one, an upstream's own are
/// removed before [`CorsPolicy::actual`] is added.
pub const CORS_FIELDS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// A route's cross-origin policy, ready to answer.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    origins: Origins,
    methods: Vec<Method>,
    headers: HashSet<HeaderName>,
    credentials: bool,
    expose: Option<HeaderValue>,
    refused: Preflight,
}

/// Who is allowed, with what they are answered.
#[derive(Clone, Debug)]
enum Origins {
    Any(Preflight),
    Listed(HashMap<Box<str>, Allowed>),
}

#[derive(Clone, Debug)]
struct Allowed {
    origin: HeaderValue,
    preflight: Preflight,
}

/// The answer to a CORS preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight(Arc<[Field]>);

impl Preflight {
    /// Its fields.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0
    }
}

impl CorsPolicy {
    /// Builds every answer. Credentials count for listed origins only.
    #[must_use]
    pub fn compile(cors: &Cors) -> Self {
        let origins = if cors.any_origin {
            Origins::Any(permission(cors, HeaderValue::from_static("*"), false))
        } else {
            // What no header can carry, no browser sends as its origin.
            let allowed = cors.origins.iter().filter_map(|text| {
                let origin = HeaderValue::from_str(text).ok()?;
                let preflight = permission(cors, origin.clone(), cors.credentials);
                Some((text.clone(), Allowed { origin, preflight }))
            });
            Origins::Listed(allowed.collect())
        };
        Self {
            origins,
            methods: cors.methods.clone(),
            headers: cors.headers.iter().cloned().collect(),
            credentials: cors.credentials && !cors.any_origin,
            expose: list(cors.expose.iter().map(HeaderName::as_str)),
            refused: Preflight(Arc::new([(VARY, VARY_PREFLIGHT)])),
        }
    }

    /// The answer to a preflight; `None` when the fields are not those of one. The caller knows
    /// that the method is OPTIONS.
    #[must_use]
    pub fn preflight(&self, headers: &HeaderMap) -> Option<Preflight> {
        let (Some(_), Some(method)) =
            (headers.get(ORIGIN), headers.get(ACCESS_CONTROL_REQUEST_METHOD))
        else {
            return None;
        };
        let allowed = match &self.origins {
            Origins::Any(preflight) => Some(preflight),
            Origins::Listed(listed) => {
                origin(headers).and_then(|text| listed.get(text)).map(|found| &found.preflight)
            }
        };
        let takes = self.takes_method(method) && self.takes_headers(headers);
        Some(allowed.filter(|_| takes).unwrap_or(&self.refused).clone())
    }

    /// The fields that an ordinary response gets.
    pub fn actual(
        &self,
        headers: &HeaderMap,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let (allow, vary) = match &self.origins {
            Origins::Any(_) => (Some(HeaderValue::from_static("*")), None),
            Origins::Listed(listed) => {
                let allowed = origin(headers).and_then(|text| listed.get(text));
                (allowed.map(|found| found.origin.clone()), Some((VARY, VARY_ORIGIN)))
            }
        };
        let granted = allow.is_some();
        [
            allow.map(|value| (ACCESS_CONTROL_ALLOW_ORIGIN, value)),
            (granted && self.credentials).then_some((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE)),
            self.expose
                .clone()
                .filter(|_| granted)
                .map(|value| (ACCESS_CONTROL_EXPOSE_HEADERS, value)),
            vary,
        ]
        .into_iter()
        .flatten()
    }

    /// Methods are compared with their case, as browsers do.
    fn takes_method(&self, asked: &HeaderValue) -> bool {
        self.methods.iter().any(|method| method.as_str().as_bytes() == asked.as_bytes())
    }

    fn takes_headers(&self, headers: &HeaderMap) -> bool {
        headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().all(|line| {
            line.as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|name| !name.is_empty())
                .all(|name| {
                    HeaderName::from_bytes(name).is_ok_and(|name| self.headers.contains(&name))
                })
        })
    }
}

/// The one origin that a request says it comes from.
fn origin(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(ORIGIN).iter();
    match (all.next(), all.next()) {
        (Some(origin), None) => origin.to_str().ok(),
        _ => None,
    }
}

/// The preflight answer that allows what the policy allows.
fn permission(cors: &Cors, origin: HeaderValue, credentials: bool) -> Preflight {
    let methods = list(cors.methods.iter().map(Method::as_str));
    let headers = list(cors.headers.iter().map(HeaderName::as_str));
    let fields = [
        Some((ACCESS_CONTROL_ALLOW_ORIGIN, origin)),
        credentials.then_some((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE)),
        methods.map(|value| (ACCESS_CONTROL_ALLOW_METHODS, value)),
        headers.map(|value| (ACCESS_CONTROL_ALLOW_HEADERS, value)),
        Some((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()))),
        Some((VARY, VARY_PREFLIGHT)),
    ];
    Preflight(fields.into_iter().flatten().collect())
}

/// A comma-separated list; `None` when it is empty.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let text = names.collect::<Vec<_>>().join(", ");
    if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
}
