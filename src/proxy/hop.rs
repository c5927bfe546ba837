//! Fields that are between two neighbours, and end here (RFC 9110 7.6.1), and the one wish for
//! another protocol that is passed on.
//!
//! Pingora does this for requests, but only once they are passed on: what `Connection` names is taken out
//! here before that, so that nobody is judged by a field that the upstream does not get. For responses it
//! does so only on the way into HTTP/2. `Connection` itself and, but for HTTP/1.0, the framing are its own
//! business: it writes them anew for each client.
//!
//! Must stay true: decisions, filters and the upstream read the same fields.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Names that `Connection` does not take away from a request as it is read here. The first are how Pingora
/// reads the message itself. Where the rest are named, Pingora refuses to pass it on: until then the client
/// stays who it is.
const KEPT: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRANSFER_ENCODING,
    HOST,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Takes what `Connection` names out of a request, before anybody reads it. HTTP/2 has no `Connection`.
pub(super) fn forget_nominated(request: &mut RequestHeader) {
    for name in nominated(&request.headers) {
        if !KEPT.contains(&name) {
            request.remove_header(&name);
        }
    }
}

/// Removes what a client must not see of our connection to the upstream.
pub(super) fn strip(response: &mut HeaderMap, status: u16) {
    for name in nominated(response) {
        response.remove(name);
    }
    // 101 and 426 answer the client's own wish for another protocol.
    let switches = matches!(status, 101 | 426);
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TE, &UPGRADE] {
        if !(switches && name == UPGRADE) {
            response.remove(name);
        }
    }
}

/// Ends the connection after this request where any `Connection` says so; Pingora reads the first.
pub(super) fn close_when_told(session: &mut Session) {
    let headers = &session.req_header().headers;
    let several = headers.get_all(CONNECTION).iter().nth(1).is_some();
    if several && options(headers).any(|option| option.eq_ignore_ascii_case(b"close")) {
        session.set_keepalive(None);
    }
}

/// Whether the client asks for a WebSocket, in so many words and without a body (RFC 6455 4.1). Only
/// such a request may go on to be something else than HTTP.
pub(super) fn is_websocket(request: &RequestHeader) -> bool {
    let headers = &request.headers;
    let mut wishes = headers.get_all(UPGRADE).iter();
    let websocket = |wish: &HeaderValue| wish.as_bytes().eq_ignore_ascii_case(b"websocket");
    wishes.next().is_some_and(websocket)
        && wishes.next().is_none()
        && request.method == Method::GET
        && request.version == Version::HTTP_11
        && options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && !headers.contains_key(TRANSFER_ENCODING)
        && headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// Takes any other such wish out of a request that is passed on.
pub(super) fn refuse_upgrade(request: &mut HeaderMap) {
    if request.remove(UPGRADE).is_some() {
        request.remove(CONNECTION);
    }
}

/// Ends a body without a length by the end of the connection for HTTP/1.0, which knows no chunks.
pub(super) fn unchunk(session: &mut Session, response: &mut HeaderMap) {
    if session.req_header().version == Version::HTTP_10
        && response.remove(TRANSFER_ENCODING).is_some()
    {
        session.set_keepalive(None);
    }
}

/// The fields that `Connection` names, without those that stand for the connection itself.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    options(headers)
        .filter(|option| {
            let known: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
            !known.iter().any(|word| word.eq_ignore_ascii_case(option))
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect()
}

/// What `Connection` lists.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lists = headers.get_all(CONNECTION).iter();
    lists.flat_map(|list| list.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_wish_for_a_websocket_is_one() {
        type Sent = &'static [(&'static str, &'static str)];
        let table: &[(&str, Sent, bool)] = &[
            ("GET", &[("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")], true),
            (
                "GET",
                &[("upgrade", "websocket"), ("connection", "upgrade"), ("content-length", "0")],
                true,
            ),
            ("GET", &[("upgrade", "websocket")], false),
            ("GET", &[("upgrade", "foo"), ("connection", "upgrade")], false),
            ("GET", &[("upgrade", "h2c, websocket"), ("connection", "upgrade")], false),
            ("POST", &[("upgrade", "websocket"), ("connection", "upgrade")], false),
            (
                "GET",
                &[("upgrade", "websocket"), ("connection", "upgrade"), ("content-length", "9")],
                false,
            ),
            ("GET", &[("connection", "upgrade")], false),
        ];
        for (method, fields, expected) in table {
            let mut request = RequestHeader::build(*method, b"/", None).unwrap();
            request.set_version(Version::HTTP_11);
            for (name, value) in *fields {
                request.append_header(*name, *value).unwrap();
            }
            assert_eq!(is_websocket(&request), *expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn what_a_request_names_is_gone_before_it_is_read() {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        for (name, value) in [
            ("connection", "X-Approved, keep-alive,, Upgrade"),
            ("connection", "cookie,connection, close"),
            ("connection", "host, content-length, transfer-encoding, te, X-Forwarded-For"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("content-length", "1"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-approved", "yes"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-left", "1"),
        ] {
            request.append_header(name, value).unwrap();
        }
        forget_nominated(&mut request);
        let mut left: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let framing = ["connection", "content-length", "host", "keep-alive", "te"];
        let rest = ["transfer-encoding", "upgrade", "x-forwarded-for", "x-left"];
        assert_eq!(left, [&framing[..], &rest[..]].concat());
    }

    fn left(status: u16, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut response = HeaderMap::new();
        for (name, value) in fields {
            response.append(*name, HeaderValue::from_static(value));
        }
        strip(&mut response, status);
        let mut left: Vec<_> = response.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn what_the_upstream_says_of_its_connection_is_removed() {
        let fields = [
            ("connection", "Keep-Alive, X-Private,, close"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-other", "1"),
            ("x-private", "1"),
            ("x-left", "1"),
        ];
        assert_eq!(left(200, &fields), ["connection", "x-left"]);
    }

    #[test]
    fn an_answer_to_an_upgrade_says_to_what() {
        let fields = [("connection", "Upgrade"), ("upgrade", "websocket")];
        assert_eq!(left(101, &fields), ["connection", "upgrade"]);
        assert_eq!(left(426, &fields), ["connection", "upgrade"]);
        assert_eq!(left(200, &fields), ["connection"]);
    }
}
