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
use std::collections::HashMap;
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
    headers: Vec<HeaderName>,
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
            headers: cors.headers.clone(),
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
                .all(|name| self.takes_header(name))
        })
    }

    fn takes_header(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|allowed| allowed.as_str().as_bytes().eq_ignore_ascii_case(name))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const APP: &str = "https://app.example.com";

    fn policy() -> Cors {
        Cors {
            origins: vec![APP.into(), "http://localhost:5173".into()],
            any_origin: false,
            methods: vec![Method::GET, Method::PUT],
            headers: vec![HeaderName::from_static("x-api-key"), http::header::CONTENT_TYPE],
            expose: vec![HeaderName::from_static("x-request-id")],
            credentials: true,
            max_age: Duration::from_secs(600),
        }
    }

    fn any_origin() -> Cors {
        Cors { origins: vec![], any_origin: true, credentials: false, ..policy() }
    }

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn preflight(cors: &Cors, fields: &[(&'static str, &str)]) -> Option<Vec<String>> {
        let answer = CorsPolicy::compile(cors).preflight(&head(fields))?;
        Some(show(answer.headers().iter().cloned()))
    }

    fn actual(cors: &Cors, fields: &[(&'static str, &str)]) -> Vec<String> {
        show(CorsPolicy::compile(cors).actual(&head(fields)))
    }

    fn show(fields: impl Iterator<Item = (HeaderName, HeaderValue)>) -> Vec<String> {
        fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    const VARY: &str =
        "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

    #[test]
    fn a_preflight_of_a_listed_origin_is_told_everything_that_is_allowed() {
        let fields = [
            ("origin", APP),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "content-type,X-Api-Key"),
        ];
        let expected = [
            "access-control-allow-origin: https://app.example.com",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-headers: x-api-key, content-type",
            "access-control-max-age: 600",
            VARY,
        ];
        assert_eq!(preflight(&policy(), &fields).unwrap(), expected);
    }

    #[test]
    fn any_origin_is_answered_with_a_star_and_never_with_credentials() {
        let fields = [("origin", "https://elsewhere"), ("access-control-request-method", "GET")];
        let careless = Cors { credentials: true, ..any_origin() };
        for cors in [any_origin(), careless] {
            let expected = [
                "access-control-allow-origin: *",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: x-api-key, content-type",
                "access-control-max-age: 600",
                VARY,
            ];
            assert_eq!(preflight(&cors, &fields).unwrap(), expected);
            let expected =
                ["access-control-allow-origin: *", "access-control-expose-headers: x-request-id"];
            assert_eq!(actual(&cors, &fields), expected);
            assert_eq!(actual(&cors, &[]), expected);
        }
    }

    #[test]
    fn what_is_not_allowed_gets_no_permission_but_an_answer() {
        const METHOD: &str = "access-control-request-method";
        const HEADERS: &str = "access-control-request-headers";
        for fields in [
            &[("origin", "https://evil.example"), (METHOD, "GET")][..],
            &[("origin", "https://app.example.com.evil.example"), (METHOD, "GET")],
            &[("origin", "https://APP.example.com"), (METHOD, "GET")],
            &[("origin", "null"), (METHOD, "GET")],
            &[("origin", "*"), (METHOD, "GET")],
            &[("origin", ""), (METHOD, "GET")],
            &[("origin", APP), ("origin", APP), (METHOD, "GET")],
            &[("origin", APP), (METHOD, "DELETE")],
            &[("origin", APP), (METHOD, "get")],
            &[("origin", APP), (METHOD, "")],
            &[("origin", APP), (METHOD, "GET"), (HEADERS, "x-other")],
            &[("origin", APP), (METHOD, "GET"), (HEADERS, "x-api-key, x-other")],
            &[("origin", APP), (METHOD, "GET"), (HEADERS, "x-api-key"), (HEADERS, "x-other")],
            &[("origin", APP), (METHOD, "GET"), (HEADERS, "*")],
            &[("origin", APP), (METHOD, "GET"), (HEADERS, "x-api key")],
        ] {
            assert_eq!(preflight(&policy(), fields).unwrap(), [VARY], "{fields:?}");
        }
    }

    #[test]
    fn a_list_of_header_names_may_have_gaps() {
        for list in ["", " ", ",", "x-api-key,", " x-api-key ,, content-type", "CONTENT-TYPE"] {
            let fields = [
                ("origin", APP),
                ("access-control-request-method", "GET"),
                ("access-control-request-headers", list),
            ];
            assert_eq!(preflight(&policy(), &fields).unwrap().len(), 6, "{list:?}");
        }
    }

    #[test]
    fn without_origin_or_announced_method_it_is_no_preflight() {
        assert_eq!(preflight(&policy(), &[]), None);
        assert_eq!(preflight(&policy(), &[("origin", APP)]), None);
        assert_eq!(preflight(&policy(), &[("access-control-request-method", "GET")]), None);
    }

    #[test]
    fn an_ordinary_response_depends_on_its_origin_and_says_so() {
        let granted = [
            "access-control-allow-origin: https://app.example.com",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: x-request-id",
            "vary: Origin",
        ];
        assert_eq!(actual(&policy(), &[("origin", APP)]), granted);
        for fields in [
            &[][..],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", APP), ("origin", "https://evil.example")],
        ] {
            assert_eq!(actual(&policy(), fields), ["vary: Origin"], "{fields:?}");
        }
    }

    #[test]
    fn a_policy_with_nothing_in_it_allows_nothing() {
        let empty = Cors {
            origins: vec![],
            any_origin: false,
            methods: vec![],
            headers: vec![],
            expose: vec![],
            credentials: false,
            max_age: Duration::ZERO,
        };
        let fields = [("origin", APP), ("access-control-request-method", "GET")];
        assert_eq!(preflight(&empty, &fields).unwrap(), [VARY]);
        assert_eq!(actual(&empty, &fields), ["vary: Origin"]);
        let bare = Cors { any_origin: true, methods: vec![Method::GET], ..empty };
        let expected = [
            "access-control-allow-origin: *",
            "access-control-allow-methods: GET",
            "access-control-max-age: 0",
            VARY,
        ];
        assert_eq!(preflight(&bare, &fields).unwrap(), expected);
        assert_eq!(actual(&bare, &fields), ["access-control-allow-origin: *"]);
    }
}
