//! Who is at the other end: the peer, or the client that a trusted proxy speaks for.
//!
//! Proxies append to `X-Forwarded-For`, so it is read from the right: trusted addresses are
//! skipped and the first other one is the client. What stands further left is the client's own
//! claim and is never believed.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The client itself.
    pub address: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub trusted: bool,
}

impl Client {
    /// Finds the client behind `peer`.
    #[must_use]
    pub fn resolve(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let ip = peer.ip().to_canonical();
        let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
        if !is_trusted(&ip) {
            return Self { peer, address: ip, trusted: false };
        }
        let address = forwarded(headers, is_trusted).unwrap_or(ip);
        Self { peer, address, trusted: true }
    }
}

/// The first address from the right that is no trusted proxy; the leftmost if all are. `None`
/// when there is none, or when one that is needed cannot be read.
fn forwarded(headers: &HeaderMap, is_trusted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let mut leftmost = None;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        // Byte by byte, so that what a client has put further left cannot spoil the rest.
        for hop in value.as_bytes().rsplit(|&byte| byte == b',') {
            let ip = parse_hop(std::str::from_utf8(hop).ok()?.trim())?;
            if !is_trusted(&ip) {
                return Some(ip);
            }
            leftmost = Some(ip);
        }
    }
    leftmost
}

/// An address, with or without brackets and port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn bytes_that_are_no_text_spoil_nothing_to_their_right() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"\xff, 203.0.113.9").unwrap();
        headers.append("x-forwarded-for", value);
        let client = Client::resolve(
            "10.0.0.1:80".parse().unwrap(),
            &headers,
            &["10.0.0.0/8".parse().unwrap()],
        );
        assert_eq!(client.address.to_string(), "203.0.113.9");
    }

    fn resolve(peer: &str, values: &[&'static str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let client = Client::resolve(peer.parse().unwrap(), &headers, &trusted);
        (client.address.to_string(), client.trusted)
    }

    #[test]
    fn the_client_is_the_first_untrusted_hop_from_the_right() {
        let table: &[(&str, &[&'static str], &str)] = &[
            ("10.0.0.1:80", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:80", &["6.6.6.6, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
            ("10.0.0.1:80", &["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:80", &["10.9.9.9, 10.1.1.1"], "10.9.9.9"),
            ("10.0.0.1:80", &["203.0.113.9:1234"], "203.0.113.9"),
            ("10.0.0.1:80", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1:80", &["[2001:db8::1]"], "2001:db8::1"),
            ("[::ffff:10.0.0.1]:80", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:80", &["203.0.113.9, nonsense"], "10.0.0.1"),
            ("10.0.0.1:80", &["nonsense, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:80", &["203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1:80", &[], "10.0.0.1"),
        ];
        for (peer, values, expected) in table {
            assert_eq!(resolve(peer, values), ((*expected).to_owned(), true), "{values:?}");
        }
    }

    #[test]
    fn an_untrusted_peer_cannot_speak_for_another() {
        let claim = ["10.0.0.1"];
        assert_eq!(resolve("192.0.2.7:80", &claim), ("192.0.2.7".to_owned(), false));
    }
}
