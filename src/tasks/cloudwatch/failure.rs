//! Why a call of CloudWatch failed, and what an operator can do about it.

use super::guard::Unencrypted;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_cloudwatch::config::http::HttpResponse;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::operation::put_metric_data::PutMetricDataError;
use std::error::Error;

/// Characters of a failure's detail, about.
const DETAIL: usize = 1024;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// All that is known, for the log.
    pub(super) detail: String,
}

/// The kinds that an operator does different things about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The credentials do not allow it.
    AccessDenied,
    /// CloudWatch's clock and ours are too far apart.
    Clock,
    /// There are no credentials, or not in time.
    Credentials,
    /// No connection came about.
    Connect,
    /// The endpoint is one that nothing is sent to.
    Endpoint,
    /// The name of the endpoint leads nowhere.
    Name,
    /// What was sent is not taken, now or later.
    Refused,
    /// CloudWatch answered with 5xx, or with something else than CloudWatch would.
    Server,
    /// Too many calls.
    Throttled,
    /// No answer in time.
    Timeout,
}

impl Kind {
    /// For logs and metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::Connect => "connect",
            Self::Endpoint => "endpoint",
            Self::Name => "name",
            Self::Refused => "refused",
            Self::Server => "server",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
        }
    }

    /// The way out.
    pub(super) const fn help(self) -> &'static str {
        match self {
            Self::AccessDenied => {
                "allow the task's role cloudwatch:PutMetricData in this namespace; of keys in the \
                 environment, see that they are valid"
            }
            Self::Clock => "set the clock of this machine: signatures carry its time",
            Self::Credentials => {
                "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            }
            Self::Connect => {
                "let the task reach CloudWatch on port 443: by NAT, or by a VPC endpoint of \
                 `monitoring` whose security group lets it in"
            }
            Self::Endpoint => {
                "write https:// in AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_CLOUDWATCH or the profile; plain \
                 http is for an emulator on this machine"
            }
            Self::Name => "is there such a region? see `region` and `endpoint` in [cloudwatch]",
            Self::Refused => {
                "is the clock right? if so, this is a fault of the gateway: report it with this line"
            }
            Self::Server => "CloudWatch has a problem, or something else answers at `endpoint`",
            Self::Throttled => "the account calls CloudWatch too often; ask AWS to raise its quota",
            Self::Timeout => "look for a firewall or a route that swallows packets to CloudWatch",
        }
    }

    /// Whether the same can succeed later.
    pub(super) const fn may_pass(self) -> bool {
        !matches!(self, Self::Refused)
    }
}

impl Failure {
    /// No answer came within the time that a call may take.
    pub(super) fn timeout() -> Self {
        Self { kind: Kind::Timeout, detail: "no answer in time".to_owned() }
    }

    pub(super) fn of(error: &SdkError<PutMetricDataError, HttpResponse>) -> Self {
        Self { kind: kind(error), detail: causes(error) }
    }
}

/// An error and what caused it, without the answer that it came with.
fn causes(error: &SdkError<PutMetricDataError, HttpResponse>) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let room = DETAIL.saturating_sub(text.len());
        text.push_str(": ");
        text.extend(error.to_string().chars().take(room));
        cause = error.source();
    }
    if let Some(message) = error.message() {
        let room = DETAIL.saturating_sub(text.len());
        text.push_str(": ");
        text.extend(message.chars().take(room));
    }
    text
}

fn kind(error: &SdkError<PutMetricDataError, HttpResponse>) -> Kind {
    if caused_by(error, |cause| cause.is::<Unencrypted>()) {
        return Kind::Endpoint;
    }
    if caused_by(error, |cause| cause.is::<CredentialsError>()) {
        return Kind::Credentials;
    }
    match error {
        SdkError::TimeoutError(_) => Kind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Kind::Timeout,
        SdkError::DispatchFailure(_) => {
            let resolving = caused_by(error, |cause| cause.to_string().contains("dns error"));
            if resolving { Kind::Name } else { Kind::Connect }
        }
        SdkError::ServiceError(answer) => {
            answered(answer.raw().status().as_u16(), error.code().unwrap_or_default())
        }
        // No identity, for one: what the chain of credentials has nobody for.
        SdkError::ConstructionFailure(_) => Kind::Credentials,
        _ => Kind::Server,
    }
}

/// What an error is by its code, and by its status where the code says nothing.
fn answered(status: u16, code: &str) -> Kind {
    const SKEWED: [&str; 2] = ["RequestExpired", "RequestTimeTooSkewed"];
    const DENIED: [&str; 12] = [
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ];
    if code.starts_with("Throttl") || code.contains("LimitExceeded") || status == 429 {
        return Kind::Throttled;
    }
    match status {
        _ if SKEWED.contains(&code) => Kind::Clock,
        _ if DENIED.contains(&code) => Kind::AccessDenied,
        401 | 403 => Kind::AccessDenied,
        400 | 413 => Kind::Refused,
        _ => Kind::Server,
    }
}

fn caused_by(error: &dyn Error, is_it: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if is_it(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_by_its_code_and_else_by_its_status() {
        for (status, code, kind) in [
            (400, "Throttling", Kind::Throttled),
            (400, "ThrottlingException", Kind::Throttled),
            (429, "", Kind::Throttled),
            (400, "AccessDenied", Kind::AccessDenied),
            (403, "RequestTimeTooSkewed", Kind::Clock),
            (403, "", Kind::AccessDenied),
            (400, "InvalidParameterValue", Kind::Refused),
            (413, "", Kind::Refused),
            (404, "", Kind::Server),
            (500, "InternalServiceFault", Kind::Server),
            (503, "", Kind::Server),
        ] {
            assert_eq!(answered(status, code), kind, "{status} {code}");
        }
    }

    #[test]
    fn only_what_is_wrong_for_ever_is_given_up() {
        assert!(!Kind::Refused.may_pass());
        assert!(Kind::AccessDenied.may_pass() && Kind::Timeout.may_pass());
    }
}
