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
    let name = match value.split_once(':') {
        Some((name, port)) if !port.contains(['@', ',']) => {
            check_port(port)?;
            name
        }
        // `user:password@host` and `a:1,b:2` have better reasons than their port.
        _ => value,
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
            b'@' => return Err(BadHost::UserInfo),
            b',' => return Err(BadHost::List),
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
