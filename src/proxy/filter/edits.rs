//! Changes of header fields by filters, and the fields that are not for them to change.
//!
//! Must stay true: a name is judged in the spelling in which a server could read it (`X_Consumer_Id`
//! is `X-Consumer-Id` to CGI and its heirs), and what is removed is judged as what is set.

use super::super::forward;
use crate::routing::CORS_FIELDS;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection or to the framing of a message (RFC 9110 7.6.1), and `Expect`,
/// which Pingora answers.
const FRAMING: [HeaderName; 12] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::EXPECT,
    http::header::HOST,
    HeaderName::from_static("keep-alive"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

/// What only the gateway says to clients, the fields of CORS aside.
const TOLD: [HeaderName; 3] = [
    forward::REQUEST_ID,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
];

/// A header field that is not for filters to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not for filters to change")]
pub struct Protected(pub HeaderName);

/// Refuses what an upstream must be able to believe: framing, `Host`, and who calls.
pub(super) fn check_request(name: &HeaderName, claims: &[HeaderName]) -> Result<(), Protected> {
    let ours = forward::is_reserved(name, false)
        || [&forward::TRACEPARENT, &forward::TRACESTATE].iter().any(|it| forward::same(name, it))
        || FRAMING.iter().chain(claims).any(|owned| forward::same(name, owned));
    if ours { Err(Protected(name.clone())) } else { Ok(()) }
}

/// Refuses what a client must be able to believe: framing, and the gateway's own words.
pub(super) fn check_response(name: &HeaderName) -> Result<(), Protected> {
    let ours = FRAMING.iter().chain(&TOLD).chain(&CORS_FIELDS).any(|own| forward::same(name, own));
    if ours { Err(Protected(name.clone())) } else { Ok(()) }
}

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

impl Edit {
    pub(super) const fn name(&self) -> &HeaderName {
        match self {
            Self::Set(name, _) | Self::Add(name, _) | Self::Remove(name) => name,
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => {
                forward::remove_twins(headers, std::iter::once(name));
                headers.insert(name.clone(), value.clone());
            }
            Self::Add(name, value) => {
                headers.append(name.clone(), value.clone());
            }
            Self::Remove(name) => {
                forward::remove_twins(headers, std::iter::once(name));
                headers.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_must_be_able_to_believe_is_not_for_filters() {
        let claims = [HeaderName::from_static("x-tenant")];
        // Name, free in a request, free in a response.
        for (name, request, response) in [
            ("connection", false, false),
            ("content-length", false, false),
            ("content_length", false, false),
            ("transfer-encoding", false, false),
            ("Transfer_Encoding", false, false),
            ("host", false, false),
            ("te", false, false),
            ("trailer", false, false),
            ("upgrade", false, false),
            ("expect", false, false),
            ("keep-alive", false, false),
            ("proxy-connection", false, false),
            ("x-consumer-id", false, true),
            ("x_consumer_id", false, true),
            ("X-Consumer-Anything", false, true),
            ("x-credential-identifier", false, true),
            ("x-anonymous-consumer", false, true),
            ("x-tenant", false, true),
            ("x_tenant", false, true),
            ("forwarded", false, true),
            ("x-forwarded-for", false, true),
            ("x-forwarded_for", false, true),
            ("x-real-ip", false, true),
            ("traceparent", false, true),
            ("tracestate", false, true),
            ("x-request-id", false, false),
            ("ratelimit", true, false),
            ("ratelimit-policy", true, false),
            ("access-control-allow-origin", true, false),
            ("authorization", true, true),
            ("cookie", true, true),
            ("set-cookie", true, true),
            ("vary", true, true),
            ("x-signature", true, true),
        ] {
            let name = HeaderName::try_from(name).unwrap();
            assert_eq!(check_request(&name, &claims).is_ok(), request, "{name} of a request");
            assert_eq!(check_response(&name).is_ok(), response, "{name} of a response");
        }
    }

    #[test]
    fn what_is_set_or_removed_has_no_twin() {
        let (name, value) = (HeaderName::from_static("x-a-b"), HeaderValue::from_static("ours"));
        let names = ["x-a-b", "x_a-b", "x_a_b", "x-a_c"].map(HeaderName::from_static);
        let forged: HeaderMap =
            names.map(|name| (name, HeaderValue::from_static("forged"))).into_iter().collect();
        for (edit, expected) in [
            (Edit::Set(name.clone(), value), &[("x-a-b", "ours"), ("x-a_c", "forged")][..]),
            (Edit::Remove(name), &[("x-a_c", "forged")]),
        ] {
            let mut headers = forged.clone();
            edit.apply(&mut headers);
            let mut left: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            left.sort_unstable();
            assert_eq!(left, expected, "{edit:?}");
        }
    }

    #[test]
    fn edits_are_made_in_their_order() {
        let name = HeaderName::from_static("x-a");
        let value = HeaderValue::from_static;
        let mut headers = HeaderMap::new();
        headers.insert(name.clone(), value("client"));
        for (edit, left) in [
            (Edit::Add(name.clone(), value("1")), &["client", "1"][..]),
            (Edit::Set(name.clone(), value("2")), &["2"]),
            (Edit::Remove(name.clone()), &[]),
            (Edit::Add(name.clone(), value("3")), &["3"]),
        ] {
            edit.apply(&mut headers);
            assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), left, "{edit:?}");
        }
    }
}
