//! The request as the upstream sees it.
//!
//! Must stay true: nothing that a client sends can look like something that we say. Every name we
//! own is removed first, in any spelling that a server could read as the same (`X_Consumer_Id` is
//! `X-Consumer-Id` to CGI and its heirs), and only then set.

use super::client::Client;
use super::exchange::internal;
use crate::auth::{Caller, Credential, Field};
use crate::routing::{PathRewrite, Target};
use crate::telemetry::trace::TraceContext;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, TRANSFER_ENCODING};
use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use std::net::{IpAddr, SocketAddr};

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
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Names that are never passed on from a client. Load balancers do not set the last five, so from
/// behind one they are the client's word as well.
const OWNED: [HeaderName; 7] = [
    name::ANONYMOUS,
    REQUEST_ID,
    name::FORWARDED_HOST,
    name::REAL_IP,
    FORWARDED,
    HeaderName::from_static("x-client-dn"),
    HeaderName::from_static("x-client-verify"),
];

/// Beginnings of names that say who calls, here and in other gateways' words.
const IDENTITY: [&str; 3] = ["x-consumer-", "x-credential-", "x-authenticated-"];

/// Beginnings of names in which proxies tell of a client's certificate (RFC 9440, and before it each in
/// its own words).
const CERTIFICATE: [&str; 10] = [
    "client-cert",
    "ssl-cert",
    "ssl-client-",
    "x-arr-clientcert",
    "x-client-cert",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
    "x-ssl-cert",
    "x-ssl-client-",
    "x-ssl-subject-dn",
];

/// The same of a load balancer. It sets no others, so these alone are passed on from a trusted proxy, and
/// only as it spells them.
const BALANCER_CERTIFICATE: &str = "x-amzn-mtls-";

/// Names that are passed on from a trusted proxy only.
const HOP: [HeaderName; 3] = [name::FORWARDED_FOR, name::FORWARDED_PROTO, name::FORWARDED_PORT];

/// Names whose spelling with `_` some server could take for the framing of the message.
const FRAMING: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING];

/// Takes a request out of Pingora's type for as long as it is edited.
///
/// Pingora keeps a second map with the spelling of every name, and each edit there parses, copies
/// and hashes the name once more. What is taken out goes back without that map: names leave in
/// lower case, as in HTTP/2, but for the best known.
pub(super) fn take_request(request: &mut RequestHeader) -> RequestParts {
    let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts: RequestParts = std::mem::replace(request, nothing).into();
    parts.headers.reserve(ADDED);
    parts
}

/// Drops a received request's map of spellings before it is copied for the upstream.
pub(super) fn forget_spelling(request: &mut RequestHeader) {
    // A target in absolute-form is kept beside the URI, and would be lost.
    if request.has_case() && request.raw_path().starts_with(b"/") {
        *request = take_request(request).into();
    }
}

/// The same for a response. Its reason phrase becomes the status's own.
pub(super) fn take_response(response: &mut ResponseHeader) -> ResponseParts {
    let nothing = ResponseHeader::from(http::Response::new(()).into_parts().0);
    std::mem::replace(response, nothing).into()
}

/// Fields that a forwarded request gets at most, edits of the route aside.
const ADDED: usize = 12;

/// Removes every field that only we may say: in our own words, and in those of `stop_here`, which are
/// credentials and claims.
pub(super) fn strip(headers: &mut HeaderMap, trusted: bool, stop_here: &[&[HeaderName]]) {
    loop {
        // Requests rarely carry any of these: the first pass nearly always ends the loop.
        let found = headers
            .keys()
            .find(|name| {
                is_reserved(name, trusted)
                    || stop_here.iter().copied().flatten().any(|owned| same(name, owned))
            })
            .cloned();
        match found {
            Some(name) => headers.remove(&name),
            None => return,
        };
    }
}

/// Whether a name is ours to say, or could be read as one that is.
pub(super) fn is_reserved(name: &HeaderName, trusted: bool) -> bool {
    let text = name.as_str().as_bytes();
    let begins =
        |start: &&str| alike(text.get(..start.len()).unwrap_or_default(), start.as_bytes());
    if matches!(text.first(), Some(b'c' | b's' | b'x')) {
        let balancer = begins(&BALANCER_CERTIFICATE) && (!trusted || text.contains(&b'_'));
        if balancer || CERTIFICATE.iter().any(begins) {
            return true;
        }
    }
    match text.first() {
        Some(b'x' | b'f') => {
            IDENTITY.iter().any(begins)
                || OWNED.iter().any(|owned| same(name, owned))
                || HOP.iter().any(|hop| same(name, hop) && (!trusted || name != hop))
        }
        Some(b'c' | b'h' | b't') => {
            FRAMING.iter().any(|framing| same(name, framing) && name != framing)
        }
        _ => false,
    }
}

/// Whether a server could read `name` as `owned`; names are lower case already.
pub(super) fn same(name: &HeaderName, owned: &HeaderName) -> bool {
    alike(name.as_str().as_bytes(), owned.as_str().as_bytes())
}

/// Removes every other spelling of `owned` that a server could read as one of these names.
pub(super) fn remove_twins<'n>(
    headers: &mut HeaderMap,
    owned: impl Iterator<Item = &'n HeaderName> + Clone,
) {
    loop {
        let twin = headers.keys().find(|name| {
            name.as_str().contains('_')
                && owned.clone().any(|owned| *name != owned && same(name, owned))
        });
        let Some(twin) = twin.cloned() else { return };
        headers.remove(twin);
    }
}

fn alike(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| a == b || (a == b'_' && b == b'-'))
}

/// Sets the target that the upstream gets: the canonical one after the route's rewrite, never the
/// client's spelling of it. An authority that HTTP/2 brought along stays.
///
/// # Errors
/// Never for a target that was parsed.
pub(super) fn set_target(uri: &mut Uri, target: &Target<'_>, rewrite: &PathRewrite) -> Result<()> {
    let path = rewrite.apply(target.path());
    let query = target.query();
    if uri.path() == path && uri.query() == query {
        return Ok(());
    }
    let mut wire = Vec::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    wire.extend_from_slice(path.as_bytes());
    if let Some(query) = query {
        wire.push(b'?');
        wire.extend_from_slice(query.as_bytes());
    }
    let wire = PathAndQuery::from_maybe_shared(wire)
        .map_err(|_| internal("a canonical target is no URI"))?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(wire);
    *uri = Uri::from_parts(parts).map_err(|_| internal("a canonical target is no URI"))?;
    Ok(())
}

/// Makes one field of the crumbs in which HTTP/2 may bring a cookie (RFC 9113 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) -> Result<()> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return Ok(()) };
    let mut cookie = first.as_bytes().to_vec();
    for crumb in [second].into_iter().chain(crumbs) {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(crumb.as_bytes());
    }
    let cookie = HeaderValue::try_from(cookie).map_err(|_| internal("cookies do not join"))?;
    headers.insert(COOKIE, cookie);
    Ok(())
}

/// Says which request this is, to the upstream's own logs and traces.
pub(super) fn trace(headers: &mut HeaderMap, request_id: &HeaderValue, trace: &TraceContext) {
    headers.insert(REQUEST_ID, request_id.clone());
    if trace.parent_id().is_none() {
        // It belongs to a trace that was not ours to continue.
        headers.remove(TRACESTATE);
    }
    headers.insert(TRACEPARENT, trace.header_value());
}

/// Says who calls.
///
/// # Errors
/// A name that no header can carry; the store and the token check let none pass.
pub(super) fn identify(headers: &mut HeaderMap, caller: Option<&Caller>) -> Result<()> {
    let Some(caller) = caller else {
        headers.insert(name::ANONYMOUS, HeaderValue::from_static("true"));
        return Ok(());
    };
    let fields = caller
        .fields
        .get_or_make(|| identity(caller))
        .ok_or_else(|| internal("an identity is no header value"))?;
    for (name, value) in fields {
        headers.insert(name.clone(), value.clone());
    }
    Ok(())
}

/// The fields that say who calls; `None` if a value is none that a header can carry.
fn identity(caller: &Caller) -> Option<Box<[Field]>> {
    let consumer = &caller.consumer;
    let credential = match &caller.credential {
        Credential::ApiKey(id) => id,
        Credential::Jwt { subject, .. } => subject,
        Credential::Certificate { fingerprint, .. } => fingerprint,
    };
    let fields = [
        (name::CONSUMER_ID, Some(&consumer.id)),
        (name::CONSUMER_USERNAME, Some(&consumer.username)),
        (name::CONSUMER_CUSTOM_ID, consumer.custom_id.as_ref()),
        (name::CONSUMER_PLAN, Some(&caller.plan)),
        (name::CREDENTIAL, Some(credential)),
    ];
    let given = fields.into_iter().filter_map(|(name, text)| Some((name, text?)));
    let claims = caller.claims.fields.iter().map(|field| Some(field.clone()));
    given
        .map(|(name, text)| Some((name, HeaderValue::from_bytes(text.as_bytes()).ok()?)))
        .chain(claims)
        .collect()
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

/// The host that was asked for: `Host`, or HTTP/2's `:authority`.
pub(super) fn asked_host(request: &RequestParts) -> Option<HeaderValue> {
    let host = request.headers.get(HOST).cloned();
    host.or_else(|| HeaderValue::from_str(request.uri.authority()?.as_str()).ok())
}

/// Says where the request came from. A trusted proxy's own words stay, and ours are appended.
///
/// # Errors
/// Never for fields that were parsed.
pub(super) fn forwarded(headers: &mut HeaderMap, arrival: Arrival) -> Result<()> {
    let hop = address_text(arrival.client.peer.ip().to_canonical());
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(name::FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(hop.as_str().as_bytes());
    let list = HeaderValue::from_maybe_shared(bytes::Bytes::from(list))
        .map_err(|_| internal("addresses are no header value"))?;
    headers.insert(name::FORWARDED_FOR, list);
    let proto = headers.get(name::FORWARDED_PROTO).map(HeaderValue::as_bytes);
    if !matches!(proto, Some(b"http" | b"https")) {
        let scheme = HeaderValue::from_static(if arrival.tls { "https" } else { "http" });
        headers.insert(name::FORWARDED_PROTO, scheme);
    }
    if let Some(host) = arrival.host {
        headers.insert(name::FORWARDED_HOST, host);
    }
    let port = headers.get(name::FORWARDED_PORT).and_then(|port| port.to_str().ok());
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        headers.insert(name::FORWARDED_PORT, HeaderValue::from(arrival.port));
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
///
/// # Errors
/// Never for an authority that was parsed.
pub(super) fn host(
    request: &mut RequestParts,
    rewrite: Option<&HeaderValue>,
    authority: Option<&str>,
    here: Option<SocketAddr>,
) -> Result<()> {
    let (headers, h2) = (&mut request.headers, request.uri.authority().is_some());
    let told = headers.contains_key(HOST);
    let host = match (rewrite, authority) {
        (Some(host), _) => host.clone(),
        (None, Some(authority)) => HeaderValue::from_str(authority)
            .map_err(|_| internal("an authority is no header value"))?,
        // HTTP/1.0 may leave it out, but the upstream speaks a later version with us: it is told the
        // address that was called.
        (None, None) if !told && !h2 => match here {
            Some(here) => HeaderValue::from_str(&here.to_string())
                .map_err(|_| internal("an address is no header value"))?,
            None => return Ok(()),
        },
        (None, None) => return Ok(()),
    };
    headers.insert(HOST, host);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&str]) -> HeaderMap {
        let pairs = names
            .iter()
            .map(|name| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_static("v")));
        pairs.collect()
    }

    #[test]
    fn names_that_only_we_may_say_are_removed_in_every_spelling() {
        let mut forged = headers(&[
            "X-Consumer-ID",
            "x_consumer_id",
            "X-Consumer_Plan",
            "X-Consumer-Groups",
            "x_authenticated-userid",
            "Transfer_Encoding",
            "content_length",
            "x-credential-identifier",
            "X-Request-Id",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Real-IP",
            "Forwarded",
            "X-API-Key",
            "x_api_key",
            "X-Tenant",
            "x_tenant",
            "Client-Cert",
            "client_cert_chain",
            "SSL_Client_Verify",
            "X-Forwarded-Client-Cert",
            "X-SSL-Client-S-DN",
            "X_Client_Cert_CN",
            "X-Amzn-Mtls-Clientcert-Subject",
            "X-Forwarded-Tls-Client-Cert",
            "X-Forwarded-Tls-Client-Cert-Info",
            "X-ARR-ClientCert",
            "X-Client-DN",
            "X_Client_Verify",
            "Ssl-Cert",
            "ssl_cert",
            "X-SSL-Subject-DN",
            "X-Other",
            "Accept",
        ]);
        let stop_here = ["x-api-key", "x-tenant"].map(|name| [HeaderName::from_static(name)]);
        strip(&mut forged, false, &[&stop_here[0], &stop_here[1]]);
        let mut left: Vec<_> = forged.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-other"]);
    }

    #[test]
    fn a_trusted_proxy_keeps_its_words_and_ours_are_appended() {
        let names = ["X-Forwarded-For", "X-Forwarded-Proto", "X_Forwarded_For"];
        let mut headers = headers(&names);
        strip(&mut headers, true, &[]);
        let client = Client {
            peer: "10.0.0.9:4000".parse().unwrap(),
            address: "203.0.113.9".parse().unwrap(),
            trusted: true,
        };
        forwarded(&mut headers, Arrival { client, tls: true, port: 443, host: None }).unwrap();
        assert_eq!(headers["x-forwarded-for"], "v, 10.0.0.9");
        assert_eq!(headers["x-forwarded-proto"], "https", "`v` is no scheme");
        assert_eq!(headers["x-forwarded-port"], "443");
        assert!(!headers.contains_key("x_forwarded_for"));
    }

    #[test]
    fn of_a_certificate_a_trusted_proxy_tells_in_a_load_balancers_words_only() {
        let mut headers = headers(&[
            "X-Amzn-Mtls-Clientcert",
            "X-Amzn-Mtls-Clientcert-Serial-Number",
            "X_Amzn_Mtls_Clientcert",
            "X-Amzn-Mtls-Clientcert_Subject",
            "Client-Cert",
            "x_client_cert",
            "X-Client-Cert",
            "X-Client-DN",
            "x_client_dn",
            "X-Client-Verify",
            "X-Forwarded-Client-Cert",
            "X-Forwarded-Tls-Client-Cert-Info",
            "X-ARR-ClientCert",
            "Ssl-Cert",
            "SSL_Client_Verify",
            "X-SSL-Subject-DN",
            "X-Client-Dns",
        ]);
        strip(&mut headers, true, &[]);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let balancer = ["x-amzn-mtls-clientcert", "x-amzn-mtls-clientcert-serial-number"];
        assert_eq!(left, [&balancer[..], &["x-client-dns"]].concat());
    }

    #[test]
    fn an_address_of_full_length_fits() {
        let ip: IpAddr = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().unwrap();
        assert_eq!(address_text(ip).as_str(), ip.to_string());
    }
}
