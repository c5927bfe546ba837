//! What went wrong, as RFC 9457 has it: a stable code for programs, a sentence on what to do for
//! people.
//!
//! Those who read it have the token of an operator, so it may name what they named. What a store says
//! goes to the log, under the request's id, and not into the answer.

use super::super::answers;
use crate::auth::registry::RegistryError;
use crate::limits::usage::UsageError;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// How the API is turned on.
pub(super) const TURN_ON: &str = "the admin API is off, because it has no token: set ADMIN_TOKEN, or \
    name one in `[admin.tokens.NAME]` with `token = \"env:VARIABLE\"`, and restart";

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer (RFC 6901) into the document.
    pub pointer: String,
    /// What, and what to do about it.
    pub message: String,
}

/// A stable word for each problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    ApiOff,
    BadCursor,
    BadPath,
    BadQuery,
    BodyMissing,
    BodyTimeout,
    BodyTooLarge,
    Internal,
    Invalid,
    KeyNotLive,
    MalformedBody,
    MethodNotAllowed,
    NoToken,
    NotFound,
    StoreTimeout,
    StoreUnavailable,
    Taken,
    TooMany,
    TooManyFailures,
    UnknownConsumer,
    UnknownDenial,
    UnknownDocument,
    UnknownKey,
    UnsupportedMediaType,
    WrongToken,
}

impl Code {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 25] = [
        Self::ApiOff,
        Self::BadCursor,
        Self::BadPath,
        Self::BadQuery,
        Self::BodyMissing,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::Internal,
        Self::Invalid,
        Self::KeyNotLive,
        Self::MalformedBody,
        Self::MethodNotAllowed,
        Self::NoToken,
        Self::NotFound,
        Self::StoreTimeout,
        Self::StoreUnavailable,
        Self::Taken,
        Self::TooMany,
        Self::TooManyFailures,
        Self::UnknownConsumer,
        Self::UnknownDenial,
        Self::UnknownDocument,
        Self::UnknownKey,
        Self::UnsupportedMediaType,
        Self::WrongToken,
    ];

    /// Status, code and title.
    pub(super) const fn told(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::ApiOff => (S::NOT_FOUND, "api_off", "The admin API is off"),
            Self::BadCursor => (S::BAD_REQUEST, "bad_cursor", "The cursor is not one of this list"),
            Self::BadPath => (S::BAD_REQUEST, "bad_path", "The path is malformed"),
            Self::BadQuery => (S::BAD_REQUEST, "bad_query", "The query is malformed"),
            Self::BodyMissing => (S::BAD_REQUEST, "body_missing", "A body is required here"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "The body took too long"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "The gateway failed"),
            Self::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid", "The values are not valid"),
            Self::KeyNotLive => (S::CONFLICT, "key_not_live", "The key is revoked or expired"),
            Self::MalformedBody => (S::BAD_REQUEST, "malformed_body", "The body is not JSON"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed here")
            }
            Self::NoToken => (S::UNAUTHORIZED, "no_token", "A token is required"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Nothing is here"),
            Self::StoreTimeout => {
                (S::SERVICE_UNAVAILABLE, "store_timeout", "The store did not answer in time")
            }
            Self::StoreUnavailable => {
                (S::SERVICE_UNAVAILABLE, "store_unavailable", "The store cannot be used")
            }
            Self::Taken => (S::CONFLICT, "taken", "The name is taken"),
            Self::TooMany => (S::CONFLICT, "too_many", "There are as many as there can be"),
            Self::TooManyFailures => {
                (S::TOO_MANY_REQUESTS, "too_many_failures", "Too many requests without a token")
            }
            Self::UnknownConsumer => (S::NOT_FOUND, "unknown_consumer", "No such consumer"),
            Self::UnknownDenial => (S::NOT_FOUND, "unknown_denial", "No such entry"),
            Self::UnknownDocument => (S::NOT_FOUND, "unknown_document", "No such plan or policy"),
            Self::UnknownKey => (S::NOT_FOUND, "unknown_key", "No such key"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is not JSON")
            }
            Self::WrongToken => (S::UNAUTHORIZED, "wrong_token", "The token is not valid"),
        }
    }
}

/// Why an operation was not done, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    faults: Vec<Fault>,
    /// For the log.
    cause: Option<Arc<str>>,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), faults: Vec::new(), cause: None }
    }

    /// Values that cannot be taken.
    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        let detail = "nothing is changed; `errors` has everything that is wrong";
        Self { faults, ..Self::new(Code::Invalid, detail) }
    }

    /// A defect of ours, which is logged.
    pub(super) fn internal(cause: &str) -> Self {
        let detail = "the log says more, under this request's id";
        Self { cause: Some(cause.into()), ..Self::new(Code::Internal, detail) }
    }

    /// The store failed; what it said is logged.
    fn store(error: &dyn std::error::Error) -> Self {
        let detail = "try again in a moment; the log says more, under this request's id";
        Self { cause: Some(error.to_string().into()), ..Self::new(Code::StoreUnavailable, detail) }
    }

    pub(super) const fn code(&self) -> Code {
        self.code
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The answer to the request `id`.
    pub(super) fn rendered(&self, id: &HeaderValue) -> Response {
        let (status, code, title) = self.code.told();
        let mut document = json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut document {
            if let Ok(id) = id.to_str() {
                members.insert("request_id".to_owned(), id.into());
            }
            if !self.faults.is_empty() {
                let faults = self.faults.iter();
                let faults = faults
                    .map(|it| json!({ "pointer": it.pointer, "message": it.message }))
                    .collect();
                members.insert("errors".to_owned(), faults);
            }
        }
        let mut response =
            answers::answer(status, "application/problem+json", document.to_string());
        let fields: &[(_, &'static str)] = match self.code {
            Code::NoToken => &[(WWW_AUTHENTICATE, r#"Bearer realm="datahub-admin""#)],
            Code::WrongToken => {
                &[(WWW_AUTHENTICATE, r#"Bearer realm="datahub-admin", error="invalid_token""#)]
            }
            Code::StoreTimeout | Code::StoreUnavailable | Code::TooManyFailures => {
                &[(RETRY_AFTER, "1")]
            }
            // What was not read must not be taken for the next request.
            Code::BodyTimeout | Code::BodyTooLarge => &[(CONNECTION, "close")],
            _ => &[],
        };
        for (name, value) in fields {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A place holder: `access` renders the problem, since it knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.told().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let told = error.to_string();
        match error {
            RegistryError::Invalid { what, problem } => {
                let pointer = pointer_to(what).to_owned();
                Self::invalid(vec![Fault { pointer, message: format!("{what} {problem}") }])
            }
            RegistryError::NotLive(_) => Self::new(Code::KeyNotLive, told),
            RegistryError::Store(error) => Self::store(&*error),
            RegistryError::Taken { .. } => Self::new(Code::Taken, told),
            RegistryError::TooMany { .. } => Self::new(Code::TooMany, told),
            RegistryError::UnknownConsumer(_) => {
                Self::new(Code::UnknownConsumer, format!("{told}; GET /v1/consumers lists all"))
            }
            RegistryError::UnknownDenial(_) => {
                Self::new(Code::UnknownDenial, format!("{told}; GET /v1/denials lists all"))
            }
            RegistryError::UnknownDocument { .. } => {
                Self::new(Code::UnknownDocument, format!("{told}; the list has all names"))
            }
            RegistryError::UnknownKey(_) => {
                Self::new(Code::UnknownKey, format!("{told}; GET /v1/keys lists all"))
            }
        }
    }
}

impl From<UsageError> for Problem {
    fn from(error: UsageError) -> Self {
        Self::store(&error)
    }
}

/// The member that the ports call `what`.
fn pointer_to(what: &str) -> &'static str {
    match what {
        "custom id" => "/custom_id",
        "issuer" => "/issuer",
        "jti" => "/jti",
        "key name" => "/name",
        "plan" => "/plan",
        "policies" | "policy" => "/policies",
        "reason" => "/reason",
        "scope" | "scopes" => "/scopes",
        "subject" => "/subject",
        "the end of the entry" => "/until",
        "the end of the key" => "/expires_at",
        "username" => "/username",
        _ => "",
    }
}
