//! The host that a request is for, in the one form that routes are written in.
//!
//! Names are letters, digits, `-` and `_` between dots: RFC 3986 lets a reg-name carry more
//! (escapes, `!`, `,` ...), but no name in DNS does, and each is a way to look like another host.
//!
//! Must stay true: a host that is in its form already is borrowed.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

/// RFC 1035 2.3.4.
const MAX_LENGTH: usize = 255;

/// Why the value of `Host` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing, or nothing before the port.
    #[error("the host is empty")]
    Empty,
    /// `a..b`, `.a`
    #[error("the host has an empty label")]
    EmptyLabel,
    /// `[` without an IPv6 address and `]`.
    #[error("the host is not an IPv6 address in brackets")]
    Ipv6,
    /// More than one host.
    #[error("the host is a list")]
    List,
    /// Not a number from 1 to 65535.
    #[error("the port is malformed")]
    Port,
    /// A character that no host has.
    #[error("the host has a character that no host name has")]
    Symbol,
    /// More than 255 bytes.
    #[error("the host is too long")]
    TooLong,
    /// `user@host`
    #[error("the host has user information")]
    UserInfo,
}

/// Reads the value of `Host` or an authority: lower case, without port and final dot.
///
/// # Errors
/// What is not one host and, if any, its port.
pub fn parse_host(value: &str) -> Result<Cow<'_, str>, BadHost> {
    if let Some(rest) = value.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(BadHost::Ipv6)?;
        match port.strip_prefix(':') {
            Some(port) => check_port(port)?,
            None if port.is_empty() => {}
            None => return Err(BadHost::Ipv6),
        }
        return parse_ipv6(value, address);
    }
    // Before the port, which neither has in one place.
    if value.contains('@') {
        return Err(BadHost::UserInfo);
    }
    if value.contains(',') {
        return Err(BadHost::List);
    }
    let name = match value.split_once(':') {
        Some((name, port)) => {
            check_port(port)?;
            name
        }
        None => value,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    check_name(name)?;
    Ok(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// An empty port is the scheme's own (RFC 3986 3.2.3).
fn check_port(port: &str) -> Result<(), BadHost> {
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        _ if port.is_empty() => Ok(()),
        Ok(1..) if digits => Ok(()),
        _ => Err(BadHost::Port),
    }
}

fn check_name(name: &str) -> Result<(), BadHost> {
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if name.len() > MAX_LENGTH {
        return Err(BadHost::TooLong);
    }
    let mut before = b'.';
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if before != b'.' => {}
            b'.' => return Err(BadHost::EmptyLabel),
            _ => return Err(BadHost::Symbol),
        }
        before = byte;
    }
    if before == b'.' { Err(BadHost::EmptyLabel) } else { Ok(()) }
}

fn parse_ipv6<'v>(value: &'v str, address: &str) -> Result<Cow<'v, str>, BadHost> {
    let parsed: Ipv6Addr = address.parse().map_err(|_| BadHost::Ipv6)?;
    let mut rest = Rest(address);
    // Writing against the text finds out whether it is the usual spelling, without allocating.
    if write!(rest, "{parsed}").is_ok() && rest.0.is_empty() {
        let bracketed = value.get(..address.len() + 2);
        return bracketed.map(Cow::Borrowed).ok_or(BadHost::Ipv6);
    }
    Ok(Cow::Owned(format!("[{parsed}]")))
}

/// What is left of a text after what was written is taken off its front.
struct Rest<'a>(&'a str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_has_one_form() {
        for (value, host) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("Example.Com.:8080", "example.com"),
            ("example.com:80", "example.com"),
            ("example.com:1", "example.com"),
            ("example.com:65535", "example.com"),
            ("example.com:00080", "example.com"),
            ("example.com:", "example.com"),
            ("localhost", "localhost"),
            ("a", "a"),
            ("a_b.example", "a_b.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("-", "-"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:443", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8443", "[::1]"),
            ("[::1]:", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[2001:db8:0:0:0:0:0:1]:80", "[2001:db8::1]"),
            ("[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"),
        ] {
            assert_eq!(parse_host(value).as_deref(), Ok(host), "{value}");
        }
    }

    #[test]
    fn what_could_be_another_host_is_refused() {
        for (value, reason) in [
            ("", BadHost::Empty),
            (":80", BadHost::Empty),
            (".", BadHost::Empty),
            (".:80", BadHost::Empty),
            ("..", BadHost::EmptyLabel),
            ("a..b", BadHost::EmptyLabel),
            (".a", BadHost::EmptyLabel),
            ("a..", BadHost::EmptyLabel),
            ("a, b", BadHost::List),
            ("a,b", BadHost::List),
            ("a:1,b:2", BadHost::List),
            ("user@host", BadHost::UserInfo),
            ("user:password@host", BadHost::UserInfo),
            ("@host", BadHost::UserInfo),
            ("a b", BadHost::Symbol),
            (" a", BadHost::Symbol),
            ("a/b", BadHost::Symbol),
            ("a\\b", BadHost::Symbol),
            ("a%2eb", BadHost::Symbol),
            ("a?b", BadHost::Symbol),
            ("a#b", BadHost::Symbol),
            ("a\tb", BadHost::Symbol),
            ("a\0b", BadHost::Symbol),
            ("*.example.com", BadHost::Symbol),
            ("b\u{fc}cher.example", BadHost::Symbol),
            ("http://a", BadHost::Port),
            ("a:b", BadHost::Port),
            ("a:0", BadHost::Port),
            ("a:65536", BadHost::Port),
            ("a:+80", BadHost::Port),
            ("a: 80", BadHost::Port),
            ("a:000080", BadHost::Port),
            ("a:80:80", BadHost::Port),
            ("::1", BadHost::Port),
            ("[::1", BadHost::Ipv6),
            ("[]", BadHost::Ipv6),
            ("[a]", BadHost::Ipv6),
            ("[::1].", BadHost::Ipv6),
            ("[::1]80", BadHost::Ipv6),
            ("[10.0.0.1]", BadHost::Ipv6),
            ("[fe80::1%25eth0]", BadHost::Ipv6),
            ("[v1.a]", BadHost::Ipv6),
            ("[::1]:x", BadHost::Port),
        ] {
            assert_eq!(parse_host(value), Err(reason), "{value}");
        }
    }

    #[test]
    fn a_host_has_at_most_255_bytes() {
        let name = "a".repeat(255);
        assert_eq!(parse_host(&format!("{name}.:80")).as_deref(), Ok(&*name));
        assert_eq!(parse_host(&format!("{name}a")), Err(BadHost::TooLong));
    }

    #[test]
    fn a_host_in_its_form_is_borrowed() {
        for value in ["example.com", "example.com.:80", "[::1]:80", "10.0.0.1", "[2001:db8::1]"] {
            assert!(matches!(parse_host(value), Ok(Cow::Borrowed(_))), "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_host_that_was_read_reads_as_itself(value in "[a-zA-Z0-9.:,@\\[\\]%-]{0,20}|\\PC*") {
            if let Ok(host) = parse_host(&value) {
                let again = parse_host(&host);
                prop_assert!(matches!(&again, Ok(Cow::Borrowed(same)) if *same == host), "{again:?}");
            }
        }
    }
}
