//! `RateLimit` and `RateLimit-Policy` as text: the fields of the IETF draft
//! draft-ietf-httpapi-ratelimit-headers as of 2025-09, lists of strings after RFC 9651.
//!
//! The draft still changes; this file is the only one that knows its syntax. It defines `t` as the
//! time before which no more than `r` requests should come, so `t` is when there is one more.

use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// A name as a string item. What RFC 9651 does not let into a string is shown as `?`.
pub(super) fn quote(name: &str) -> Arc<str> {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    Arc::from(quoted)
}

/// A policy: `burst` requests in `window`.
pub(super) fn policy(quoted: &str, burst: u32, window: Duration) -> String {
    format!("{quoted};q={burst};w={}", whole_seconds(window))
}

/// A policy: `most` requests in flight at the same time.
pub(super) fn concurrency_policy(quoted: &str, most: u32) -> String {
    format!("{quoted};q={most};qu=\"concurrent-requests\"")
}

/// Several lists as one; `None` if there are none. One allocation, of the exact size.
pub(super) fn join<'a>(lists: impl Iterator<Item = &'a [u8]> + Clone) -> Option<HeaderValue> {
    let size = lists.clone().map(|list| list.len() + 2).sum::<usize>().checked_sub(2)?;
    let mut joined = Vec::with_capacity(size);
    for list in lists {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(list);
    }
    HeaderValue::try_from(joined).ok()
}

/// `RateLimit-Policy` of the sets that a request met: prebuilt for each set, and put together only
/// when asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies([Option<HeaderValue>; 2]);

impl Policies {
    pub(super) fn of<'a>(sets: impl Iterator<Item = &'a HeaderValue> + Clone) -> Self {
        let mut each = sets.clone();
        match (each.next(), each.next(), each.next()) {
            (Some(_), Some(_), Some(_)) => Self([join(sets.map(HeaderValue::as_bytes)), None]),
            (first, second, _) => Self([first.cloned(), second.cloned()]),
        }
    }

    pub(super) fn value(&self) -> Option<HeaderValue> {
        match &self.0 {
            [Some(first), Some(second)] => {
                join([first, second].map(HeaderValue::as_bytes).into_iter())
            }
            [first, _] => first.clone(),
        }
    }
}

/// `RateLimit`: `remaining` permits now, one more after `next`, where that is known. One allocation,
/// of the exact size.
pub(super) fn rate_limit(
    quoted: &str,
    remaining: u32,
    next: Option<Duration>,
) -> Option<HeaderValue> {
    let (mut r, mut t) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (name, seconds) = match next {
        Some(next) => (";t=", t.format(whole_seconds(next))),
        None => ("", ""),
    };
    let parts = [quoted, ";r=", r.format(remaining), name, seconds];
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        text.extend_from_slice(part.as_bytes());
    }
    HeaderValue::try_from(text).ok()
}

/// `X-RateLimit-*`, for clients from before the draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Legacy {
    /// `X-RateLimit-Limit`: the burst, the quota, or how many may be in flight.
    pub limit: u32,
    /// `X-RateLimit-Remaining`: permits that are left.
    pub remaining: u32,
    /// `X-RateLimit-Reset`: seconds until there is one more, where that is known.
    pub reset: Option<u64>,
}

impl Legacy {
    pub(super) fn new(limit: u32, remaining: u32, next: Option<Duration>) -> Self {
        Self { limit, remaining, reset: next.map(whole_seconds) }
    }
}

/// Rounded up, at least 1.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sfv::{List, ListEntry, Parser};

    /// Each item's string and its parameters, as a client reads them.
    fn parse(value: &HeaderValue) -> Vec<(String, Vec<(String, i64)>)> {
        let list = Parser::new(value).parse::<List>().unwrap();
        let item = |entry| match entry {
            ListEntry::Item(item) => item,
            ListEntry::InnerList(list) => panic!("{list:?} is no item"),
        };
        let read = |item: sfv::Item| {
            let name = item.bare_item.as_string().unwrap().as_str().to_owned();
            let number = |(key, value): (&sfv::Key, &sfv::BareItem)| {
                (key.as_str().to_owned(), i64::from(value.as_integer().unwrap()))
            };
            (name, item.params.iter().map(number).collect())
        };
        list.into_iter().map(item).map(read).collect()
    }

    fn params(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
    }

    #[test]
    fn a_client_reads_back_what_was_meant() {
        let (burst, daily) = (quote("burst"), quote("daily"));
        let policies = join(
            [
                policy(&burst, 20, Duration::from_millis(300)),
                policy(&daily, u32::MAX, Duration::from_secs(86_400 * u64::from(u32::MAX))),
            ]
            .iter()
            .map(String::as_bytes),
        );
        let expected = [
            ("burst".to_owned(), params(&[("q", 20), ("w", 1)])),
            ("daily".to_owned(), params(&[("q", 4_294_967_295), ("w", 371_085_174_288_000)])),
        ];
        assert_eq!(parse(&policies.unwrap()), expected);

        let limit = rate_limit(&daily, 812, Some(Duration::new(30_119, 1))).unwrap();
        assert_eq!(limit, "\"daily\";r=812;t=30120");
        assert_eq!(parse(&limit), [("daily".to_owned(), params(&[("r", 812), ("t", 30_120)]))]);
        let limit = rate_limit(&daily, 7, None).unwrap();
        assert_eq!(parse(&limit), [("daily".to_owned(), params(&[("r", 7)]))]);
    }

    #[test]
    fn requests_in_flight_are_told_in_their_unit() {
        let text = concurrency_policy(&quote("a \"b\""), 10);
        let value = HeaderValue::try_from(text).unwrap();
        let list = Parser::new(&value).parse::<List>().unwrap();
        let [ListEntry::Item(item)] = &list[..] else { panic!("{list:?}") };
        assert_eq!(item.bare_item.as_string().unwrap().as_str(), "a \"b\"");
        let params = &item.params;
        assert_eq!(params.len(), 2);
        assert_eq!(i64::from(params["q"].as_integer().unwrap()), 10);
        assert_eq!(params["qu"].as_string().unwrap().as_str(), "concurrent-requests");
    }

    #[test]
    fn any_name_makes_a_valid_string() {
        let table = [
            ("burst", "burst"),
            ("a \"b\" \\c", "a \"b\" \\c"),
            ("tab\there", "tab?here"),
            ("größe\r\nx: y", "gr??e??x: y"),
            ("", ""),
        ];
        for (name, read) in table {
            let limit = rate_limit(&quote(name), 0, Some(Duration::from_secs(1))).unwrap();
            assert_eq!(parse(&limit), [(read.to_owned(), params(&[("r", 0), ("t", 1)]))], "{name}");
        }
    }

    #[test]
    fn seconds_are_rounded_up_and_never_zero() {
        let table = [(0, 1), (1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)];
        for (nanos, seconds) in table {
            assert_eq!(whole_seconds(Duration::from_nanos(nanos)), seconds, "{nanos}");
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
