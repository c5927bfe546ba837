//! Text about requests: hosts, paths, methods, headers, origins, locations.
//!
//! Must stay true: what is accepted here is already canonical, because a request is compared in
//! its canonical form; a pattern that could never match is an error, not a silent no.

use super::value::{Invalid, Written};
use crate::routing::{HostPattern, PathPattern, Segment};
use http::{HeaderName, HeaderValue, Method};
use std::net::Ipv6Addr;

impl Written for HostPattern {
    const WHAT: &'static str = "a host";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write a name as `api.example.com`, or `*.example.com` for all below it";
        let lower = text.to_ascii_lowercase();
        if let Some(inner) = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr =
                inner.parse().map_err(|_| Invalid::new("not an IPv6 address", HELP))?;
            return Ok(Self::Exact(format!("[{address}]").into()));
        }
        if lower.contains("://") || lower.contains('/') {
            return Err(Invalid::new("only the name of the host stands here", HELP));
        }
        if lower.contains(':') {
            return Err(Invalid::new("a host has no port here; every port matches", HELP));
        }
        if lower.ends_with('.') {
            let help = format!("write `{}`", lower.trim_end_matches('.'));
            return Err(Invalid::new("the final dot is never there when hosts are compared", help));
        }
        let (wildcard, name) = match lower.strip_prefix('*') {
            Some(rest) => (true, rest.strip_prefix('.').unwrap_or("*")),
            None => (false, lower.as_str()),
        };
        if name.contains('*') {
            return Err(Invalid::new("`*` stands only for whole labels at the front", HELP));
        }
        check_name(name).map_err(|label| Invalid::new(label, HELP))?;
        Ok(if wildcard {
            Self::Wildcard(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }
}

/// A name of letters, digits, `-` and `_` between dots.
fn check_name(name: &str) -> Result<(), &'static str> {
    if !name.is_ascii() {
        return Err("not ASCII: write the `xn--` form of the name");
    }
    let good = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    if name.len() > 253 || !name.split('.').all(good) {
        Err("not the name of a host")
    } else {
        Ok(())
    }
}

impl Written for PathPattern {
    const WHAT: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str =
            "write `/orders` for this path, `/orders/*` for all below, `/orders/{id}` for any one";
        let Some(rest) = text.strip_prefix('/') else {
            return Err(Invalid::new("a path starts with `/`", HELP));
        };
        if text.len() > 2048 {
            return Err(Invalid::new("longer than 2048 bytes", HELP));
        }
        let (rest, prefix) = match rest.strip_suffix('*') {
            Some("") => ("", true),
            Some(front) => match front.strip_suffix('/') {
                Some(front) => (front, true),
                None => return Err(Invalid::new("`*` stands only for whole segments", HELP)),
            },
            None => (rest, false),
        };
        let (rest, trailing_slash) = match rest.strip_suffix('/') {
            Some(front) if !prefix => (front, true),
            _ => (rest, false),
        };
        let mut segments = Vec::new();
        if !rest.is_empty() || trailing_slash {
            for part in rest.split('/') {
                segments.push(segment(part).map_err(|label| Invalid::new(label, HELP))?);
            }
        }
        let params: Vec<_> = segments.iter().filter_map(param).collect();
        if let Some(twice) = (params.iter().enumerate())
            .find_map(|(index, name)| params.iter().skip(index + 1).find(|other| *other == name))
        {
            return Err(Invalid::new(format!("`{{{twice}}}` stands here twice"), HELP));
        }
        Ok(if prefix {
            Self::Prefix { segments }
        } else {
            Self::Exact { segments, trailing_slash }
        })
    }
}

fn param(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Param(name) => Some(name),
        Segment::Literal(_) => None,
    }
}

fn segment(part: &str) -> Result<Segment, String> {
    if part.is_empty() {
        return Err("there is an empty segment; `//` never matches".to_owned());
    }
    if let Some(inner) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        return if !inner.is_empty() && inner.len() <= 64 && inner.bytes().all(plain) {
            Ok(Segment::Param(inner.into()))
        } else {
            Err(format!("`{part}` is no parameter: letters, digits and `_` between braces"))
        };
    }
    check_literal(part)?;
    Ok(Segment::Literal(part.into()))
}

/// Whether a segment can occur in a canonical path as it stands.
fn check_literal(part: &str) -> Result<(), String> {
    if matches!(part, "." | "..") {
        return Err(format!("`{part}` is resolved before paths are compared"));
    }
    let Some(bad) = part.chars().find(|symbol| !is_path_symbol(*symbol)) else { return Ok(()) };
    Err(match bad {
        '*' => "`*` stands only for the whole end of a path".to_owned(),
        '{' | '}' => "a parameter is a whole segment".to_owned(),
        '%' => "paths are compared after decoding; `%` cannot stand here".to_owned(),
        '?' => "the query is not a part of the path; use `query`".to_owned(),
        '#' => "a fragment never reaches a server".to_owned(),
        other => format!("`{}` cannot stand in a path as it is", other.escape_debug()),
    })
}

/// RFC 3986 pchar without percent-encoding, without `*`, which means something here, and without
/// `;`, which is refused in requests.
fn is_path_symbol(symbol: char) -> bool {
    symbol.is_ascii_alphanumeric() || "-._~!$&'()+,=:@".contains(symbol)
}

/// `/v1/orders`: whole segments without anything special, as `strip_prefix` takes them.
pub(crate) fn parse_prefix(text: &str) -> Result<Vec<&str>, Invalid> {
    const HELP: &str = "write whole segments, as `/v1/orders`";
    let Some(rest) = text.strip_prefix('/') else {
        return Err(Invalid::new("a prefix starts with `/`", HELP));
    };
    if rest.is_empty() {
        return Err(Invalid::new("this is no prefix to take away", HELP));
    }
    if rest.ends_with('/') {
        let help = format!("write `{}`", text.trim_end_matches('/'));
        return Err(Invalid::new("a prefix does not end with `/`", help));
    }
    let parts: Vec<&str> = rest.split('/').collect();
    for part in &parts {
        if part.is_empty() {
            return Err(Invalid::new("there is an empty segment", HELP));
        }
        check_literal(part).map_err(|label| Invalid::new(label, HELP))?;
    }
    Ok(parts)
}

impl Written for Method {
    const WHAT: &'static str = "a method";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const KNOWN: [&str; 17] = [
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "DELETE",
            "PATCH",
            "OPTIONS",
            "PROPFIND",
            "PROPPATCH",
            "MKCOL",
            "COPY",
            "MOVE",
            "LOCK",
            "UNLOCK",
            "REPORT",
            "SEARCH",
            "QUERY",
        ];
        if KNOWN.contains(&text)
            && let Ok(method) = text.parse()
        {
            return Ok(method);
        }
        let upper = text.to_ascii_uppercase();
        let help = match super::words::nearest(&upper, KNOWN) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "methods are written in capitals, as `GET`; CONNECT and TRACE are never \
                     passed on"
                .to_owned(),
        };
        Err(Invalid::new("not a method that is passed on", help))
    }
}

impl Written for HeaderName {
    const WHAT: &'static str = "a header name";

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "write letters, digits and `-`, as `X-Version`";
        if text == "*" {
            return Err(Invalid::new("`*` is not a header", "name each header"));
        }
        Self::from_bytes(text.as_bytes()).map_err(|_| Invalid::new("no header is called so", HELP))
    }
}

impl Written for HeaderValue {
    const WHAT: &'static str = "a header value";

    fn parse(text: &str) -> Result<Self, Invalid> {
        let visible = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        match Self::from_str(text) {
            Ok(value) if visible && text.trim() == text => Ok(value),
            _ => Err(Invalid::new(
                "a header cannot carry this",
                "use visible ASCII characters, without space at the ends",
            )),
        }
    }
}

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

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.into())
    }

    #[test]
    fn a_path_has_three_forms() {
        let exact = |segments, trailing_slash| PathPattern::Exact { segments, trailing_slash };
        for (text, pattern) in [
            ("/", exact(vec![], false)),
            ("/*", PathPattern::Prefix { segments: vec![] }),
            ("/orders", exact(vec![literal("orders")], false)),
            ("/orders/", exact(vec![literal("orders")], true)),
            ("/orders/*", PathPattern::Prefix { segments: vec![literal("orders")] }),
            ("/o/{id}", exact(vec![literal("o"), Segment::Param("id".into())], false)),
        ] {
            assert_eq!(PathPattern::parse(text).unwrap(), pattern, "{text}");
        }
    }

    #[test]
    fn a_path_that_could_never_match_is_refused() {
        for text in [
            "", "orders", "//", "/a//b", "/a/../b", "/./a", "/a%20b", "/a?b", "/a#b", "/a*",
            "/*/b", "/{}", "/{a}/{a}", "/a{b}", "/{a-b}", "/ü", "/a b", "/a//*", "/a\u{0}",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_without_port() {
        for (text, pattern) in [
            ("api.example.com", HostPattern::Exact("api.example.com".into())),
            ("API.example.com", HostPattern::Exact("api.example.com".into())),
            ("*.example.com", HostPattern::Wildcard(".example.com".into())),
            ("10.0.0.1", HostPattern::Exact("10.0.0.1".into())),
            ("[2001:DB8::1]", HostPattern::Exact("[2001:db8::1]".into())),
        ] {
            assert_eq!(HostPattern::parse(text).unwrap(), pattern, "{text}");
        }
        for text in [
            "",
            "*",
            "*.",
            "*example.com",
            "a.*.com",
            "example.com:80",
            "http://example.com",
            "example.com.",
            "a..b",
            "bücher.example",
            "[::1",
            "*.*.com",
            " a",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

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

    #[test]
    fn a_method_is_in_capitals() {
        assert_eq!(Method::parse("PATCH").unwrap(), Method::PATCH);
        assert_eq!(Method::parse("get").unwrap_err().help, "did you mean `GET`?");
        assert!(Method::parse("CONNECT").is_err());
    }
}
