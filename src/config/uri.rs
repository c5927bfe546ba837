//! Text that goes into messages: hosts, probed paths, server names, origins, locations.
//!
//! Must stay true: a redirect leads to the host that the file names, never to one that a client
//! chose.

use super::pattern::check_name;
use super::value::{Invalid, Written};
use std::net::Ipv6Addr;

/// What stands in a `Host` header: a name or address, and a port if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostHeader(pub(crate) String);

impl Written for HostHeader {
    const WHAT: &'static str = "a host";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write a name and a port if any, as `orders.internal:8080`";
        let authority: http::uri::Authority =
            text.parse().map_err(|_| Invalid::new("not the name of a host", HELP))?;
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        if text.contains('@') || (check_name(bare).is_err() && bare.parse::<Ipv6Addr>().is_err()) {
            return Err(Invalid::new("not the name of a host", HELP));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// The path of a probe, with query if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbePath(pub(crate) String);

impl Written for ProbePath {
    const WHAT: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write a path as `/health`, percent-encoded where needed";
        let good = text.starts_with('/') && !text.contains('#') && text.len() <= 2048;
        match text.parse::<http::uri::PathAndQuery>() {
            Ok(_) if good && text.is_ascii() => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new("not a path that can be asked for", HELP)),
        }
    }
}

/// The name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerName(pub(crate) String);

impl Written for ServerName {
    const WHAT: &'static str = "a server name";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write the name in the certificate, as `orders.internal`";
        rustls_pki_types::ServerName::try_from(text)
            .map_err(|_| Invalid::new("no certificate can carry this name", HELP))?;
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Where scripts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `"*"`
    Any,
    /// As browsers send it.
    Exact(Box<str>),
}

impl Written for Origin {
    const WHAT: &'static str = "an origin";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write it as browsers send it: `https://app.example.com`";
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            let label = "`null` is what any sandboxed page can send";
            return Err(Invalid::new(label, "name the origins that you trust"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Invalid::new("the scheme is missing", HELP));
        };
        if rest.contains(['/', '?', '#']) {
            return Err(Invalid::new("an origin has no path and no final `/`", HELP));
        }
        if rest.contains('*') {
            return Err(Invalid::new("`*` is possible only alone", "name each origin"));
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let help = format!("write `{}`", text.to_ascii_lowercase());
            return Err(Invalid::new("browsers send it in lower case", help));
        }
        let default = matches!(
            (scheme, rest.rsplit_once(':')),
            ("https", Some((_, "443"))) | ("http", Some((_, "80")))
        );
        if default {
            return Err(Invalid::new("browsers leave out the usual port", HELP));
        }
        let scheme_is_plain = !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        HostHeader::parse(rest).map_err(|_| Invalid::new("not an origin", HELP))?;
        if !scheme_is_plain {
            return Err(Invalid::new("not an origin", HELP));
        }
        Ok(Self::Exact(text.into()))
    }
}

/// `Location` of a redirect, with `{path}` and `{query}` for the request's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocationTemplate(pub(crate) String);

impl Written for LocationTemplate {
    const WHAT: &'static str = "a location";
    const PATTERN: Option<&'static str> = Some("^(https?://|/)");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str =
            "write `https://www.example.com{path}{query}`, or a path on the same host";
        if !text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) || text.len() > 2048 {
            return Err(Invalid::new("a header cannot carry this", HELP));
        }
        let plain = text.replace("{path}", "").replace("{query}", "");
        if plain.contains(['{', '}']) {
            return Err(Invalid::new("only `{path}` and `{query}` can stand in braces", HELP));
        }
        if text.starts_with("//") || text.starts_with("/{path}") {
            return Err(Invalid::new("this leads to another host without saying so", HELP));
        }
        if text.starts_with('/') {
            return Ok(Self(text.to_owned()));
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = rest.ok_or_else(|| Invalid::new("neither `https://` nor a path", HELP))?;
        let host = rest.split(['/', '{', '?', '#']).next().unwrap_or_default();
        HostHeader::parse(host).map_err(|_| Invalid::new("the host is missing or wrong", HELP))?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for text in ["https://app.example.com", "http://localhost:5173", "https://[::1]:8443"] {
            assert_eq!(Origin::parse(text).unwrap(), Origin::Exact(text.into()));
        }
        for text in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://a/",
            "https://*.example.com",
            "https://A.com",
            "https://a:443",
            "http://a:80",
            "://a",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_redirect_cannot_be_led_to_a_host_that_the_client_chose() {
        for text in ["/new{query}", "https://www.example.com{path}{query}", "http://a:8080/x"] {
            assert!(LocationTemplate::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "{path}",
            "/{path}",
            "//evil",
            "https://{path}",
            "https:///x",
            "ftp://a",
            "/a b",
            "/{x}",
            "https://a\r\nX: y",
            "https://example.com@evil",
        ] {
            assert!(LocationTemplate::parse(text).is_err(), "{text}");
        }
    }
}
