//! Fields of a response that are between the upstream and us, and end here (RFC 9110 7.6.1).
//!
//! Pingora does this for requests, and for responses only on the way into HTTP/2. `Connection`
//! itself and, but for HTTP/1.0, the framing are its own business: it writes them anew for each
//! client.

use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Version};
use pingora_proxy::Session;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

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
    let options = headers.get_all(CONNECTION).iter();
    options
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| {
            let known: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
            !known.iter().any(|word| word.eq_ignore_ascii_case(option))
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
