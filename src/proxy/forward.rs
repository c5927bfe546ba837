//! The request as the upstream sees it.
//!
//! Must stay true: nothing that a client sends can look like something that we say. Every name we
//! own is removed first, in any spelling that a server could read as the same (`X_Consumer_Id` is
//! `X-Consumer-Id` to CGI and its heirs), and only then set.

use super::client::Client;
use crate::auth::{Caller, Credential};
use crate::routing::{HeaderEdits, PathRewrite, Target};
use crate::telemetry::trace::TraceContext;
use http::header::{FORWARDED, HOST};
use http::{HeaderName, HeaderValue};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use std::net::IpAddr;

/// Names that only we may say.
mod name {
    use http::HeaderName;

    pub(super) const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
    pub(super) const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
    pub(super) const CONSUMER_CUSTOM_ID: HeaderName =
        HeaderName::from_static("x-consumer-custom-id");
    pub(super) const CONSUMER_PLAN: HeaderName = HeaderName::from_static("x-consumer-plan");
    pub(super) const CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
    pub(super) const ANONYMOUS: HeaderName = HeaderName::from_static("x-anonymous-consumer");
    pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    pub(super) const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
    pub(super) const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
}

/// The request id's header.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where a request stands in a trace (W3C Trace Context).
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Names that are never passed on from a client.
const OWNED: [HeaderName; 7] = [
    name::CONSUMER_ID,
    name::CONSUMER_USERNAME,
    name::CONSUMER_CUSTOM_ID,
    name::CONSUMER_PLAN,
    name::CREDENTIAL,
    name::ANONYMOUS,
    REQUEST_ID,
];

/// Names that are passed on from a trusted proxy only.
const HOP: [HeaderName; 6] = [
    name::FORWARDED_FOR,
    name::FORWARDED_PROTO,
    name::FORWARDED_HOST,
    name::FORWARDED_PORT,
    name::REAL_IP,
    FORWARDED,
];

/// Removes every field that only we may say, and credentials that stop here.
pub(super) fn strip(request: &mut RequestHeader, trusted: bool, credentials: &[HeaderName]) {
    loop {
        // Requests rarely carry any of these: the first pass nearly always ends the loop.
        let found = request
            .headers
            .keys()
            .find(|name| is_reserved(name, trusted) || credentials.iter().any(|c| same(name, c)))
            .cloned();
        match found {
            Some(name) => request.remove_header(&name),
            None => return,
        };
    }
}

fn is_reserved(name: &HeaderName, trusted: bool) -> bool {
    let text = name.as_str().as_bytes();
    if !matches!(text.first(), Some(b'x' | b'f')) {
        return false;
    }
    OWNED.iter().any(|owned| same(name, owned))
        || HOP.iter().any(|hop| same(name, hop) && (!trusted || name != hop))
}

/// Whether a server could read `name` as `owned`; names are lower case already.
fn same(name: &HeaderName, owned: &HeaderName) -> bool {
    let (a, b) = (name.as_str().as_bytes(), owned.as_str().as_bytes());
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| a == b || (a == b'_' && b == b'-'))
}

/// Sets the target that the upstream gets: the canonical one after the route's rewrite, never the
/// client's spelling of it.
pub(super) fn target(
    request: &mut RequestHeader,
    target: &Target<'_>,
    rewrite: &PathRewrite,
) -> Result<()> {
    let path = rewrite.apply(target.path());
    let mut wire = Vec::with_capacity(path.len() + target.query().map_or(0, |q| q.len() + 1));
    wire.extend_from_slice(path.as_bytes());
    if let Some(query) = target.query() {
        wire.push(b'?');
        wire.extend_from_slice(query.as_bytes());
    }
    if wire != request.raw_path() {
        request.set_raw_path(&wire)?;
    }
    Ok(())
}

/// Says which request this is, to the upstream's own logs and traces.
pub(super) fn trace(
    request: &mut RequestHeader,
    request_id: &HeaderValue,
    trace: &TraceContext,
) -> Result<()> {
    request.insert_header(REQUEST_ID, request_id.clone())?;
    if trace.parent_id().is_none() {
        // It belongs to a trace that was not ours to continue.
        request.remove_header(&TRACESTATE);
    }
    request.insert_header(TRACEPARENT, trace.header_value())
}

/// Says who calls.
pub(super) fn identify(request: &mut RequestHeader, caller: Option<&Caller>) -> Result<()> {
    let Some(caller) = caller else {
        return request.insert_header(name::ANONYMOUS, HeaderValue::from_static("true"));
    };
    let consumer = &caller.consumer;
    request.insert_header(name::CONSUMER_ID, &*consumer.id)?;
    request.insert_header(name::CONSUMER_USERNAME, &*consumer.username)?;
    if let Some(custom_id) = &consumer.custom_id {
        request.insert_header(name::CONSUMER_CUSTOM_ID, &**custom_id)?;
    }
    request.insert_header(name::CONSUMER_PLAN, &*caller.plan)?;
    let credential = match &caller.credential {
        Credential::ApiKey(id) => id,
        Credential::Jwt { subject, .. } => subject,
    };
    request.insert_header(name::CREDENTIAL, &**credential)
}

/// Where a request came in.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    /// Who is at the other end.
    pub client: Client,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The port that it came in at.
    pub port: u16,
    /// The host that was asked for.
    pub host: Option<HeaderValue>,
}

/// Says where the request came from. A trusted proxy's own words stay, and ours are appended.
pub(super) fn forwarded(request: &mut RequestHeader, arrival: Arrival) -> Result<()> {
    let hop = address_text(arrival.client.peer.ip().to_canonical());
    let before = request.headers.get_all(name::FORWARDED_FOR).iter();
    let mut list: Vec<u8> = Vec::new();
    for value in before {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        request.insert_header(name::FORWARDED_FOR, hop.as_str())?;
    } else {
        list.extend_from_slice(hop.as_str().as_bytes());
        request.insert_header(name::FORWARDED_FOR, list)?;
    }
    if !request.headers.contains_key(name::FORWARDED_PROTO) {
        let scheme = HeaderValue::from_static(if arrival.tls { "https" } else { "http" });
        request.insert_header(name::FORWARDED_PROTO, scheme)?;
    }
    if let Some(host) = arrival.host
        && !request.headers.contains_key(name::FORWARDED_HOST)
    {
        request.insert_header(name::FORWARDED_HOST, host)?;
    }
    if !request.headers.contains_key(name::FORWARDED_PORT) {
        request.insert_header(name::FORWARDED_PORT, HeaderValue::from(arrival.port))?;
    }
    Ok(())
}

/// An address as text, on the stack.
struct AddressText {
    bytes: [u8; 46],
    len: usize,
}

impl AddressText {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("")
    }
}

fn address_text(ip: IpAddr) -> AddressText {
    use std::io::Write as _;
    let mut bytes = [0; 46];
    let mut rest = &mut bytes[..];
    // 45 bytes hold the longest address, so this cannot fail; an empty text would be the result.
    let left = write!(rest, "{ip}").map_or(46, |()| rest.len());
    AddressText { bytes, len: 46 - left }
}

/// The `Host` that the upstream sees: the route's, or the one the client meant.
pub(super) fn host(
    request: &mut RequestHeader,
    rewrite: Option<&HeaderValue>,
    authority: Option<&str>,
) -> Result<()> {
    match (rewrite, authority) {
        (Some(host), _) => request.insert_header(HOST, host.clone()),
        (None, Some(authority)) => request.insert_header(HOST, authority),
        (None, None) => Ok(()),
    }
}

/// Applies a route's edits to a request.
pub(super) fn edit_request(request: &mut RequestHeader, edits: &HeaderEdits) -> Result<()> {
    for name in &edits.remove {
        request.remove_header(name);
    }
    for (name, value) in &edits.set {
        request.insert_header(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        request.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// Applies a route's edits to a response.
pub(super) fn edit_response(response: &mut ResponseHeader, edits: &HeaderEdits) -> Result<()> {
    for name in &edits.remove {
        response.remove_header(name);
    }
    for (name, value) in &edits.set {
        response.insert_header(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        response.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(names: &[&'static str]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for name in names {
            request.append_header(*name, "v").unwrap();
        }
        request
    }

    #[test]
    fn names_that_only_we_may_say_are_removed_in_every_spelling() {
        let mut forged = request(&[
            "X-Consumer-ID",
            "x_consumer_id",
            "X-Consumer_Plan",
            "x-credential-identifier",
            "X-Request-Id",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Real-IP",
            "Forwarded",
            "X-API-Key",
            "x_api_key",
            "X-Other",
            "Accept",
        ]);
        strip(&mut forged, false, &[HeaderName::from_static("x-api-key")]);
        let mut left: Vec<_> = forged.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-other"]);
    }

    #[test]
    fn a_trusted_proxy_keeps_its_words_and_ours_are_appended() {
        let mut request = request(&["X-Forwarded-For", "X-Forwarded-Proto", "X_Forwarded_For"]);
        strip(&mut request, true, &[]);
        let client = Client {
            peer: "10.0.0.9:4000".parse().unwrap(),
            address: "203.0.113.9".parse().unwrap(),
            trusted: true,
        };
        forwarded(&mut request, Arrival { client, tls: true, port: 443, host: None }).unwrap();
        assert_eq!(request.headers["x-forwarded-for"], "v, 10.0.0.9");
        assert_eq!(request.headers["x-forwarded-proto"], "v");
        assert_eq!(request.headers["x-forwarded-port"], "443");
        assert!(!request.headers.contains_key("x_forwarded_for"));
    }

    #[test]
    fn an_address_of_full_length_fits() {
        let ip: IpAddr = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().unwrap();
        assert_eq!(address_text(ip).as_str(), ip.to_string());
    }
}
