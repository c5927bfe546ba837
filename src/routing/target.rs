//! A request target, read once.
//!
//! Origin-form, absolute-form (a server must take it, RFC 9112 3.2.2) and `*`. Nothing after this
//! sees the client's own spelling of the path.
//!
//! A `;` in the path is refused: some servers cut `;x` off a segment before they look at it
//! (`/admin;x` is `/admin` to them, `/..;/` a climb) and others do not. A client that means the
//! character writes `%3B`, which every server takes as data.
//!
//! Must stay true: a target whose path is canonical already is parsed without allocating.

use super::canonical::{Canonical, canonicalise};
use super::host::parse_host;
use std::borrow::Cow;

/// A request target whose path is canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
    authority: Option<&'a str>,
    encoded_slash: bool,
}

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// `/../x`
    #[error("the path climbs above its root")]
    AboveRoot,
    /// An absolute-form target without a usable host.
    #[error("the authority of the target is malformed")]
    Authority,
    /// `\` or `%5C`, a slash to some servers.
    #[error("a backslash in the path")]
    Backslash,
    /// Raw or escaped.
    #[error("a control character or a space in the target")]
    Control,
    /// `%` without two hex digits in the path.
    #[error("an invalid percent-escape in the path")]
    Escape,
    /// Neither `/path`, nor `http://host/path`, nor `*`.
    #[error("not a form of target that is served")]
    Form,
    /// `#` never reaches a server.
    #[error("a fragment in the target")]
    Fragment,
    /// `..%2F` or `%2F/..`, another climb to servers that take `%2F` for a slash.
    #[error("a dot segment beside an encoded slash")]
    HiddenDots,
    /// Must be escaped.
    #[error("a raw non-ASCII byte in the target")]
    NonAscii,
    /// `%C0%AF`: a character with more bytes than it needs.
    #[error("an overlong UTF-8 sequence in the path")]
    Overlong,
    /// `;`, cut off by some servers.
    #[error("a `;` in the path")]
    Parameter,
}

impl<'a> Target<'a> {
    /// Parses what stands between method and version. For `*` the caller checks that the method is
    /// OPTIONS. `http://host` without a path asks for `/`.
    ///
    /// # Errors
    /// What is malformed, or can be read in two ways.
    pub fn parse(raw: &'a str) -> Result<Self, BadTarget> {
        if raw == "*" {
            return Ok(Self {
                path: Cow::Borrowed("*"),
                query: None,
                authority: None,
                encoded_slash: false,
            });
        }
        if raw.starts_with('/') {
            return Self::parse_origin(raw, None);
        }
        let rest = strip_scheme(raw).ok_or(BadTarget::Form)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, origin) = rest.split_at(end);
        parse_host(authority).map_err(|_| BadTarget::Authority)?;
        Self::parse_origin(origin, Some(authority))
    }

    fn parse_origin(origin: &'a str, authority: Option<&'a str>) -> Result<Self, BadTarget> {
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin, None),
        };
        check_query(query.unwrap_or_default())?;
        let path = if path.is_empty() { "/" } else { path };
        if !path.starts_with('/') {
            return Err(BadTarget::Fragment);
        }
        let Canonical { path, encoded_slash } = canonicalise(path)?;
        Ok(Self { path, query, authority, encoded_slash })
    }

    /// The canonical path; `*` for a question about the server itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the `?`, as the client wrote it; visible ASCII only.
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The authority of an absolute-form target; it takes the place of `Host`.
    #[must_use]
    pub const fn authority(&self) -> Option<&'a str> {
        self.authority
    }

    /// Whether the path has a `%2F`.
    #[must_use]
    pub const fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }
}

fn strip_scheme(raw: &str) -> Option<&str> {
    let (scheme, rest) = raw.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then_some(rest)
}

/// A query is data: nothing in it is changed, so nothing in it may need a change.
fn check_query(query: &str) -> Result<(), BadTarget> {
    for byte in query.bytes() {
        match byte {
            b'#' => return Err(BadTarget::Fragment),
            b'!'..=b'~' => {}
            0x80.. => return Err(BadTarget::NonAscii),
            _ => return Err(BadTarget::Control),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_one_spelling() {
        for (raw, path) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b.c_d-e~f", "/a/b.c_d-e~f"),
            ("/A", "/A"),
            // Slashes and dots.
            ("//", "/"),
            ("///a", "/a"),
            ("/a//b", "/a/b"),
            ("/a/b//", "/a/b/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../..", "/"),
            ("/a/b/../../c", "/c"),
            ("/a//../b", "/b"),
            ("/public/../denied/x", "/denied/x"),
            ("/a/.../b", "/a/.../b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b", "/a/..b"),
            ("/a/b..", "/a/b.."),
            // The same with escapes.
            ("/%2e", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/%2ewell-known", "/.well-known"),
            ("/%64enied/x", "/denied/x"),
            ("/%64%65nied/%78", "/denied/x"),
            ("/%7euser", "/~user"),
            ("/%7Euser", "/~user"),
            ("/%5f%2d", "/_-"),
            // What stays an escape.
            ("/a%20b", "/a%20b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%3a%3B%40", "/%3A%3B%40"),
            ("/%25", "/%25"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/%252f", "/%252f"),
            ("/%e2%82%ac", "/%E2%82%AC"),
            ("/caf%e9", "/caf%E9"),
            ("/%c3%af", "/%C3%AF"),
            ("/%3f%23", "/%3F%23"),
            // What a path cannot carry as it is.
            ("/a|b", "/a%7Cb"),
            ("/a%7cb", "/a%7Cb"),
            ("/\"<>[]^`{}", "/%22%3C%3E%5B%5D%5E%60%7B%7D"),
            ("/!$&'()*+,=:@", "/!$&'()*+,=:@"),
            ("/x?y", "/x"),
            ("/a//b?c//d", "/a/b"),
        ] {
            let target = Target::parse(raw).unwrap();
            assert_eq!(target.path(), path, "{raw}");
            assert_eq!(target.authority(), None, "{raw}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (raw, reason) in [
            ("/..", BadTarget::AboveRoot),
            ("/../", BadTarget::AboveRoot),
            ("/../denied/x", BadTarget::AboveRoot),
            ("/a/../../b", BadTarget::AboveRoot),
            ("/%2e%2e/x", BadTarget::AboveRoot),
            ("//..", BadTarget::AboveRoot),
            ("/a/./../..", BadTarget::AboveRoot),
            ("/a\\b", BadTarget::Backslash),
            ("/..\\b", BadTarget::Backslash),
            ("/a%5Cb", BadTarget::Backslash),
            ("/a%5cb", BadTarget::Backslash),
            ("/a%00", BadTarget::Control),
            ("/a\0", BadTarget::Control),
            ("/a b", BadTarget::Control),
            ("/a\tb", BadTarget::Control),
            ("/a\r\nb", BadTarget::Control),
            ("/a\x7f", BadTarget::Control),
            ("/a%0d%0aX:y", BadTarget::Control),
            ("/a%7f", BadTarget::Control),
            ("/a%1F", BadTarget::Control),
            ("/%", BadTarget::Escape),
            ("/%2", BadTarget::Escape),
            ("/%2/", BadTarget::Escape),
            ("/%zz", BadTarget::Escape),
            ("/%u002e", BadTarget::Escape),
            ("/%+2e", BadTarget::Escape),
            ("/%%32%65", BadTarget::Escape),
            ("/a#b", BadTarget::Fragment),
            ("/a?b#c", BadTarget::Fragment),
            ("/#", BadTarget::Fragment),
            ("/..%2fb", BadTarget::HiddenDots),
            ("/a/%2e%2e%2Fb", BadTarget::HiddenDots),
            ("/a%2F..%2Fb", BadTarget::HiddenDots),
            ("/a%2f.", BadTarget::HiddenDots),
            ("/.%2F", BadTarget::HiddenDots),
            ("/a%2Fb/../c", BadTarget::HiddenDots),
            ("/%2f/..", BadTarget::HiddenDots),
            ("/\u{e9}", BadTarget::NonAscii),
            ("/\u{ff0f}", BadTarget::NonAscii),
            ("/a?\u{e9}", BadTarget::NonAscii),
            ("/%c0%af", BadTarget::Overlong),
            ("/%c0%ae%c0%ae/", BadTarget::Overlong),
            ("/%e0%80%af", BadTarget::Overlong),
            ("/%F0%80%80%AF", BadTarget::Overlong),
            ("/a;b", BadTarget::Parameter),
            ("/..;/a", BadTarget::Parameter),
            ("/a;/b", BadTarget::Parameter),
            ("/a?b c", BadTarget::Control),
            ("/a?b\0", BadTarget::Control),
            ("/a?b\x7f", BadTarget::Control),
        ] {
            assert_eq!(Target::parse(raw), Err(reason), "{raw:?}");
        }
    }

    #[test]
    fn a_form_that_is_not_served_is_refused() {
        for (raw, reason) in [
            ("", BadTarget::Form),
            ("a", BadTarget::Form),
            ("**", BadTarget::Form),
            ("*?a", BadTarget::Form),
            ("?a", BadTarget::Form),
            (" /a", BadTarget::Form),
            ("\\a", BadTarget::Form),
            ("example.com:443", BadTarget::Form),
            ("example.com/a", BadTarget::Form),
            ("ftp://example.com/", BadTarget::Form),
            ("http:/example.com/", BadTarget::Form),
            ("http:example.com", BadTarget::Form),
            ("http://", BadTarget::Authority),
            ("http:///a", BadTarget::Authority),
            ("http://?a", BadTarget::Authority),
            ("http://user@example.com/", BadTarget::Authority),
            ("http://a b/", BadTarget::Authority),
            ("http://a\\@b/", BadTarget::Authority),
            ("http://a:b/", BadTarget::Authority),
            ("http://a#b", BadTarget::Fragment),
            ("http://a/../b", BadTarget::AboveRoot),
        ] {
            assert_eq!(Target::parse(raw), Err(reason), "{raw:?}");
        }
    }

    #[test]
    fn an_absolute_form_names_its_host() {
        for (raw, authority, path, query) in [
            ("http://example.com", "example.com", "/", None),
            ("http://example.com/", "example.com", "/", None),
            ("HTTPS://Example.com:8443/a//b?c", "Example.com:8443", "/a/b", Some("c")),
            ("http://example.com?a=b", "example.com", "/", Some("a=b")),
            ("http://[::1]:80/a", "[::1]:80", "/a", None),
            ("http://a//b", "a", "/b", None),
            ("http://a/http://b/", "a", "/http:/b/", None),
        ] {
            let target = Target::parse(raw).unwrap();
            assert_eq!(target.authority(), Some(authority), "{raw}");
            assert_eq!((target.path(), target.query()), (path, query), "{raw}");
        }
    }

    #[test]
    fn a_query_stays_as_it_was_written() {
        for (raw, query) in [
            ("/a", None),
            ("/a?", Some("")),
            ("/a?b=%2e%2E&c=/../d", Some("b=%2e%2E&c=/../d")),
            ("/a?b?c", Some("b?c")),
            ("/a?100%", Some("100%")),
            ("/a?\\;|{}[]\"", Some("\\;|{}[]\"")),
        ] {
            assert_eq!(Target::parse(raw).unwrap().query(), query, "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_is_data_and_reported() {
        for (raw, encoded) in [
            ("/a%2Fb", true),
            ("/a%2fb", true),
            ("/%2F%2F", true),
            ("/..a%2Fb..", true),
            ("/a/b", false),
            ("/a%252Fb", false),
            ("/a?%2F", false),
        ] {
            assert_eq!(Target::parse(raw).unwrap().has_encoded_slash(), encoded, "{raw}");
        }
    }

    #[test]
    fn a_question_about_the_server_has_no_path() {
        let target = Target::parse("*").unwrap();
        assert_eq!((target.path(), target.query(), target.authority()), ("*", None, None));
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for raw in ["/", "/a/b/", "/.well-known/a..b?c", "/a%20b%2Fc%E2%82%AC", "http://a/b:c@d"] {
            assert!(matches!(Target::parse(raw).unwrap().path, Cow::Borrowed(_)), "{raw}");
        }
    }

    /// Text that is dense in what matters.
    fn raw_path() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/",
            "/",
            "/",
            ".",
            "..",
            "a",
            "B",
            "~",
            "%2e",
            "%2E",
            "%2f",
            "%2F",
            "%41",
            "%7e",
            "%25",
            "%20",
            "%3a",
            ":",
            "@",
            "|",
            "%7C",
            "%e2%82%ac",
            "%C3",
            "%A9",
            "?",
            "q",
        ]);
        prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_canonical_path_is_its_own_canonical_form(raw in raw_path()) {
            if let Ok(target) = Target::parse(&raw) {
                let again = Target::parse(target.path()).unwrap();
                prop_assert_eq!(again.path(), target.path());
                prop_assert!(matches!(&again.path, Cow::Borrowed(_)));
                prop_assert_eq!(again.has_encoded_slash(), target.has_encoded_slash());
            }
        }

        #[test]
        fn a_canonical_path_has_nothing_that_a_server_could_resolve(raw in raw_path()) {
            if let Ok(target) = Target::parse(&raw) {
                let path = target.path();
                prop_assert!(path.starts_with('/') && !path.contains("//"));
                prop_assert!(!path.split('/').any(|part| part == "." || part == ".."));
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!path.contains(['\\', ';', '#', '?', '|']));
                prop_assert_eq!(path.contains("%2F"), target.has_encoded_slash());
            }
        }

        #[test]
        fn escaping_a_letter_changes_nothing(raw in "(/[a-z.]{0,3}){1,5}", at in 0..20_usize) {
            let Some(byte) = raw.as_bytes().get(at).filter(|byte| **byte != b'/') else { return Ok(()) };
            let escaped = format!("{}%{byte:02x}{}", &raw[..at], &raw[at + 1..]);
            let path = |text: &str| Target::parse(text).map(|target| target.path().to_owned());
            prop_assert_eq!(path(&raw), path(&escaped));
        }

        #[test]
        fn no_text_is_too_strange_to_read(raw in "\\PC*|/[ -~]*|http://[ -~]*") {
            if let Ok(target) = Target::parse(&raw) {
                prop_assert!(target.path() == "*" || target.path().starts_with('/'));
            }
        }
    }
}
