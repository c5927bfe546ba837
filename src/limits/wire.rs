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

/// `RateLimit-Policy` of several policies; `None` if there are none.
pub(super) fn policies<'a>(policies: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    let mut list = Vec::new();
    for policy in policies {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(policy);
    }
    if list.is_empty() { None } else { HeaderValue::try_from(list).ok() }
}

/// `RateLimit`: `remaining` requests now, one more after `next`. One allocation, of the exact size.
pub(super) fn rate_limit(quoted: &str, remaining: u32, next: Duration) -> Option<HeaderValue> {
    let (mut r, mut t) = (itoa::Buffer::new(), itoa::Buffer::new());
    let parts = [quoted, ";r=", r.format(remaining), ";t=", t.format(whole_seconds(next))];
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        text.extend_from_slice(part.as_bytes());
    }
    HeaderValue::try_from(text).ok()
}

/// Rounded up, at least 1.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).max(1)
}
