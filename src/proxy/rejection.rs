//! Why a request is refused, as one sum over all stages, and what a client is told of it.
//!
//! Each stage owns its reasons and knows nothing of HTTP; this file gives each a status, a stable
//! code and a sentence. A new reason does not compile until it has all three.

use super::crowd::Crowded;
use super::filter::{Stopped as Filtered, Why};
use super::policies::Excluded;
use crate::auth::access::Unmet;
use crate::auth::{Denied, Method};
use crate::limits::{self, Limited, Refused, Stopped};
use crate::routing::{BadHost, BadTarget, NoMatch};
use crate::upstreams;
use http::StatusCode;
use std::sync::Arc;

/// A head that is refused before any route is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// A field breaks RFC 9110 5.
    #[error("a header field is malformed")]
    Field,
    /// `Content-Length` and `Transfer-Encoding` do not say one clear thing.
    #[error("the message framing is ambiguous")]
    Framing,
    /// Not exactly one valid `Host`, or another one in the target.
    #[error("the Host header is missing, repeated, malformed or contradicted by the target")]
    Host,
    /// A line that does not end in CRLF.
    #[error("a line does not end in CRLF")]
    Line,
    /// Not a method, or one that is never served.
    #[error("the method is not supported")]
    Method,
    /// Not `method target version`.
    #[error("the request line is malformed")]
    RequestLine,
    /// Bytes that no target may contain, or a path that can be read in two ways.
    #[error("the request target is malformed or ambiguous")]
    Target,
    /// Above `http.max_target`.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Not complete within `http.head_timeout`.
    #[error("the request head took too long")]
    Timeout,
    /// Above `http.max_head`.
    #[error("the request head is too large")]
    TooLarge,
    /// Above `http.max_headers`.
    #[error("the request has too many header fields")]
    TooManyFields,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("this HTTP version is not supported")]
    Version,
}

impl BadHead {
    /// A stable word for metrics, logs and the problem document.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Field => "malformed_field",
            Self::Framing => "ambiguous_framing",
            Self::Host => "bad_host",
            Self::Line => "malformed_line",
            Self::Method => "bad_method",
            Self::RequestLine => "malformed_request_line",
            Self::Target => "bad_target",
            Self::TargetTooLong => "target_too_long",
            Self::Timeout => "head_timeout",
            Self::TooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::Version => "bad_version",
        }
    }

    /// Its status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Field
            | Self::Framing
            | Self::Host
            | Self::Line
            | Self::RequestLine
            | Self::Target => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::NOT_IMPLEMENTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl From<BadTarget> for BadHead {
    fn from(_: BadTarget) -> Self {
        Self::Target
    }
}

impl From<BadHost> for BadHead {
    fn from(_: BadHost) -> Self {
        Self::Host
    }
}

/// What is wrong with a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// No `Content-Length` where the route wants one.
    #[error("a Content-Length is required here")]
    LengthRequired,
    /// Its framing is broken.
    #[error("the request body is malformed")]
    Malformed,
    /// The client stopped sending in the middle.
    #[error("the request body took too long")]
    Timeout,
    /// More than the route takes.
    #[error("the request body is too large")]
    TooLarge,
}

/// What went wrong between us and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFailure {
    /// It broke off or answered something that is not HTTP.
    #[error("the upstream's answer was broken")]
    Broken,
    /// No connection to any endpoint that was tried.
    #[error("the upstream cannot be reached")]
    Connect,
    /// Silent for too long, or not done within the route's total timeout.
    #[error("the upstream did not answer in time")]
    Timeout,
}

impl From<upstreams::Failure> for UpstreamFailure {
    fn from(failure: upstreams::Failure) -> Self {
        match failure {
            upstreams::Failure::Broken => Self::Broken,
            upstreams::Failure::Connect => Self::Connect,
            upstreams::Failure::Timeout => Self::Timeout,
        }
    }
}

/// Why a request does not get the answer that it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Who calls, and what they may do.
    #[error(transparent)]
    Access(#[from] Denied),
    /// How much comes from one address.
    #[error(transparent)]
    Address(#[from] Limited),
    /// The body.
    #[error(transparent)]
    Body(#[from] BadBody),
    /// Code of who embeds the gateway.
    #[error(transparent)]
    Filter(#[from] Filtered),
    /// The head.
    #[error(transparent)]
    Head(#[from] BadHead),
    /// A defect of ours.
    #[error("the gateway failed")]
    Internal,
    /// How often.
    #[error(transparent)]
    Limit(#[from] Refused),
    /// A limit that cannot be counted now, and must be.
    #[error(transparent)]
    LimitUnavailable(#[from] limits::Unavailable),
    /// As many requests are in flight, or connections open, as there may be.
    #[error("the gateway serves as many as it can")]
    Overloaded(Crowded),
    /// The consumer's plan is not in force anywhere.
    #[error("the consumer's plan does not exist")]
    PlanUnknown,
    /// A condition of a policy.
    #[error(transparent)]
    Policy(#[from] Excluded),
    /// A policy of the consumer or the route is not in force anywhere.
    #[error("a policy is not in force")]
    PolicyUnknown {
        /// Its name.
        policy: Arc<str>,
    },
    /// Where to.
    #[error(transparent)]
    Route(#[from] NoMatch),
    /// The upstream, after it was tried.
    #[error(transparent)]
    Upstream(#[from] UpstreamFailure),
    /// The upstream, before it was tried.
    #[error(transparent)]
    Unavailable(#[from] upstreams::Unavailable),
}

impl From<Stopped> for Rejection {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refused) => refused.into(),
            Stopped::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

/// What a client is told: the fields of a problem document (RFC 9457), beside its status.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The status.
    pub status: StatusCode,
    /// A stable word, also the label in metrics and the `reason` in the access log.
    pub code: &'static str,
    /// The problem type's URI.
    pub kind: &'static str,
    /// A sentence.
    pub title: &'static str,
    /// `grpc-status` for gRPC callers.
    pub grpc: u8,
}

const QUOTA: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const ABNORMAL: &str = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
const BLANK: &str = "about:blank";

impl Rejection {
    /// What the client is told. A missing key, an unknown, an expired and a revoked one look alike.
    #[must_use]
    pub fn told(&self) -> Told {
        match self {
            Self::Access(denied) => access(denied),
            Self::Address(_) => Told {
                kind: ABNORMAL,
                ..told(429, "address_limited", "Too much comes from this address", 8)
            },
            Self::Body(bad) => body(*bad),
            Self::Filter(stopped) => filtered(stopped.why),
            Self::Head(bad) => head(*bad),
            Self::Internal => internal(),
            Self::Limit(_) => Told {
                kind: QUOTA,
                ..told(
                    429,
                    "rate_limited",
                    "Request cannot be satisfied as assigned quota has been exceeded",
                    8,
                )
            },
            Self::LimitUnavailable(_) => Told {
                kind: REDUCED,
                ..told(503, "limits_unavailable", "Limits cannot be counted at the moment", 14)
            },
            Self::Overloaded(_) => Told {
                kind: REDUCED,
                ..told(503, "overloaded", "The gateway serves as many requests as it can", 14)
            },
            Self::PlanUnknown => {
                told(403, "plan_unknown", "The consumer has no plan that is in force", 7)
            }
            Self::Policy(Excluded { unmet: Unmet::Scopes, .. }) => lacking_scope(),
            Self::Policy(_) => told(403, "policy_denied", "A policy does not let this through", 7),
            Self::PolicyUnknown { .. } => {
                told(403, "policy_unknown", "A policy that holds here is not in force", 7)
            }
            Self::Route(NoMatch::Method { .. }) => {
                told(405, "method_not_allowed", "The method is not allowed here", 12)
            }
            Self::Route(NoMatch::Unclear) => told(
                400,
                "unclear_condition",
                "A condition of a route cannot be evaluated for this",
                3,
            ),
            Self::Route(NoMatch::EncodedSlash) => {
                told(400, "bad_target", "An encoded slash is not accepted here", 3)
            }
            Self::Route(NoMatch::Route) => {
                told(404, "no_route", "No route matches the request", 12)
            }
            Self::Upstream(failure) => upstream(*failure),
            Self::Unavailable(upstreams::Unavailable::AllTried) => {
                upstream(UpstreamFailure::Connect)
            }
            Self::Unavailable(upstreams::Unavailable::NoneHealthy) => Told {
                kind: REDUCED,
                ..told(503, "upstream_unhealthy", "No endpoint of the upstream is healthy", 14)
            },
        }
    }
}

fn told(status: u16, code: &'static str, title: &'static str, grpc: u8) -> Told {
    Told {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        code,
        kind: BLANK,
        title,
        grpc,
    }
}

fn internal() -> Told {
    told(500, "internal", "The gateway failed to handle the request", 13)
}

fn filtered(why: Why) -> Told {
    match why {
        Why::Panicked => internal(),
        Why::Late => Told {
            kind: REDUCED,
            ..told(503, "filtered", "The request cannot be checked at the moment", 14)
        },
        Why::Refused(refusal) => match refusal.status().as_u16() {
            status @ 400..=599 => {
                told(status, "filtered", "A filter does not let this through", refusal.grpc())
            }
            // It means to refuse, and does not know how.
            _ => Told { code: "filtered", ..internal() },
        },
    }
}

fn lacking_scope() -> Told {
    told(403, "insufficient_scope", "The credential lacks a required scope", 7)
}

fn access(denied: &Denied) -> Told {
    match denied {
        Denied::NoCredential => told(401, "no_credential", "A credential is required", 16),
        Denied::Invalid { method: Method::ApiKey, .. } => {
            told(401, "invalid_key", "The API key is not valid", 16)
        }
        Denied::Invalid { method: Method::Jwt, .. } => {
            told(401, "invalid_token", "The token is not valid", 16)
        }
        Denied::Invalid { method: Method::Certificate, .. } => {
            told(401, "invalid_certificate", "The client certificate is not valid", 16)
        }
        Denied::Ambiguous { .. } => {
            told(401, "ambiguous_credentials", "More than one credential was sent", 16)
        }
        Denied::Scope { .. } => lacking_scope(),
        Denied::Unavailable(_) => Told {
            kind: REDUCED,
            ..told(503, "directory_unavailable", "Credentials cannot be checked at the moment", 14)
        },
    }
}

fn body(bad: BadBody) -> Told {
    match bad {
        BadBody::LengthRequired => {
            told(411, "length_required", "A Content-Length is required here", 3)
        }
        BadBody::Malformed => told(400, "malformed_body", "The request body is malformed", 3),
        BadBody::Timeout => told(408, "body_timeout", "The request body took too long", 4),
        BadBody::TooLarge => told(413, "body_too_large", "The request body is too large", 8),
    }
}

fn head(bad: BadHead) -> Told {
    let title = match bad {
        BadHead::Field => "A header field is malformed",
        BadHead::Framing => "The message framing is ambiguous",
        BadHead::Host => "The Host header is missing, repeated, malformed or contradicted",
        BadHead::Line => "A line of the request head is malformed",
        BadHead::Method => "The method is not supported",
        BadHead::RequestLine => "The request line is malformed",
        BadHead::Target => "The request target is malformed or ambiguous",
        BadHead::TargetTooLong => "The request target is too long",
        BadHead::Timeout => "The request head took too long",
        BadHead::TooLarge => "The request head is too large",
        BadHead::TooManyFields => "The request has too many header fields",
        BadHead::Version => "This HTTP version is not supported",
    };
    Told { status: bad.status(), code: bad.code(), kind: BLANK, title, grpc: 3 }
}

fn upstream(failure: UpstreamFailure) -> Told {
    match failure {
        UpstreamFailure::Broken => {
            told(502, "upstream_broken", "The upstream's answer was broken", 14)
        }
        UpstreamFailure::Connect => {
            told(502, "upstream_unreachable", "The upstream cannot be reached", 14)
        }
        UpstreamFailure::Timeout => {
            told(504, "upstream_timeout", "The upstream did not answer in time", 4)
        }
    }
}
