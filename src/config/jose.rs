//! Values of `[auth.jwt.*]` that are text: algorithms, kinds of tokens, files and URLs with keys.

use super::pattern::check_name;
use super::value::{Invalid, Written};
use crate::auth::{Algorithm, JwksUrl};
use std::net::IpAddr;
use std::path::PathBuf;

impl Written for Algorithm {
    const WHAT: &'static str = "an algorithm";
    const PATTERN: Option<&'static str> = Some("^((HS|RS|PS)(256|384|512)|ES256|ES384|EdDSA)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name() == text);
        known.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|algorithm| algorithm.name()).collect();
            Invalid::new("no algorithm that is supported", format!("one of {}", names.join(", ")))
        })
    }
}

/// A file that others may read, as `file:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicFile(pub(crate) PathBuf);

impl Written for PublicFile {
    const WHAT: &'static str = "a file";
    const PATTERN: Option<&'static str> = Some("^file:.+$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write `file:PATH`, from the folder of the configuration";
        match text.strip_prefix("file:") {
            None if text.contains("://") => {
                Err(Invalid::new("a URL", "keys at a URL have the key `jwks_url`"))
            }
            None => Err(Invalid::new("it does not start with `file:`", HELP)),
            Some(path) if path.is_empty() || path.contains('\0') => {
                Err(Invalid::new("not a path", HELP))
            }
            Some(path) => Ok(Self(path.into())),
        }
    }
}

/// A `typ`: small letters, without `application/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenType(pub(crate) String);

impl Written for TokenType {
    const WHAT: &'static str = "a type of tokens";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let lower = text.to_ascii_lowercase();
        let bare = lower.strip_prefix("application/").unwrap_or(&lower);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._/".contains(&byte);
        if bare.is_empty() || bare.len() > 64 || !bare.bytes().all(plain) {
            return Err(Invalid::new("no token says this", "write it as `at+jwt` or `JWT`"));
        }
        Ok(Self(bare.to_owned()))
    }
}

impl Written for JwksUrl {
    const WHAT: &'static str = "a URL of keys";
    const PATTERN: Option<&'static str> = Some("^https?://");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write it as `https://id.example.com/.well-known/jwks.json`";
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(Invalid::new("it does not start with `https://`", HELP)),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Invalid::new("a URL of keys has no user", "remove what is before the `@`"));
        }
        if text.contains('#') {
            return Err(Invalid::new("a fragment is never sent", "remove the `#` and the rest"));
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let sent: Result<http::uri::PathAndQuery, _> = target.parse();
        if sent.is_err() || !target.is_ascii() || text.len() > 2048 {
            return Err(Invalid::new("this cannot be asked for", HELP));
        }
        let (host, port) = host_and_port(authority)
            .ok_or_else(|| Invalid::new("it names no host, or no port that there is", HELP))?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host: host.into(), port, target: target.into() })
    }
}

/// A name or an address, and the port if one is given.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None if port.is_empty() => None,
        None => return None,
    };
    let is_address =
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == authority.starts_with('['));
    // What ends in a number is an old spelling of an address to some (`127.1`, `0x7f.1`).
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with(|c: char| c.is_ascii_digit());
    let is_name = !authority.starts_with('[') && !is_number && check_name(host).is_ok();
    (is_address || is_name).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, shown, authority) in [
            ("https://Id.example.com/keys", "https://id.example.com/keys", "id.example.com"),
            ("https://id.example.com", "https://id.example.com/", "id.example.com"),
            ("https://id:8443?a=b", "https://id:8443/", "id:8443"),
            ("http://id:80/a?b", "http://id/a", "id"),
            ("https://[2001:DB8::1]:444/a", "https://[2001:db8::1]:444/a", "[2001:db8::1]:444"),
            ("https://192.0.2.1/a", "https://192.0.2.1/a", "192.0.2.1"),
        ] {
            let url = JwksUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.authority().as_str()), (shown, authority));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_url_of_keys() {
        for text in [
            "",
            "id.example.com/keys",
            "ftp://id/keys",
            "https:/id",
            "https://",
            "https:///keys",
            "https://user@id/keys",
            "https://id@evil/keys",
            "https://id/keys#x",
            "https://id:0/",
            "https://id:99999/",
            "https://id:/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://::1/",
            "https://[::1/",
            "https://[id]/",
            "https://[::1]x/",
            "https://id example/",
            "https://id/a b",
            "https://id/\r\nHost: evil",
            "https://id\\@evil/",
        ] {
            assert!(JwksUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_type_is_compared_in_one_form() {
        assert_eq!(TokenType::parse("application/AT+jwt").unwrap().0, "at+jwt");
        assert!(TokenType::parse("").is_err() && TokenType::parse("a b").is_err());
    }
}
