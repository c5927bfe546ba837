//! Text that requests are compared with: hosts, paths, methods, headers.
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
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
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
    fn a_method_is_in_capitals() {
        assert_eq!(Method::parse("PATCH").unwrap(), Method::PATCH);
        assert_eq!(Method::parse("get").unwrap_err().help, "did you mean `GET`?");
        assert!(Method::parse("CONNECT").is_err());
    }
}
