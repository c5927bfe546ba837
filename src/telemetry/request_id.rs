//! The id that follows a request through logs, upstreams and answers: `X-Request-Id`.

use http::HeaderValue;
use rand::RngCore as _;
use std::time::Duration;
use uuid::Builder;
use uuid::fmt::Hyphenated;

/// Longest id that is taken from a trusted hop.
const MAX: usize = 64;

/// A new id: a UUID of version 7, which sorts by time, drawn by the thread's own generator.
#[must_use]
#[expect(clippy::expect_used, reason = "a UUID is hex digits and hyphens")]
pub fn request_id(unix_time: Duration) -> HeaderValue {
    let millis = u64::try_from(unix_time.as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 10];
    rand::rng().fill_bytes(&mut random);
    let id = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; Hyphenated::LENGTH];
    let text = id.as_hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("hex digits and hyphens are a header value")
}

/// The id that a request brought with it, if it is one that is safe to log and to pass on.
///
/// Only for requests from a trusted hop: anyone else could choose an id to confuse the log.
#[must_use]
pub fn accept_request_id(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    let fits = (1..=MAX).contains(&bytes.len());
    let clean = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    (fits && clean).then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use uuid::{Uuid, Variant};

    #[test]
    fn an_id_is_a_uuid_of_version_7_with_the_time_in_front() {
        let time = Duration::from_millis(1_800_000_000_123);
        let id = Uuid::parse_str(request_id(time).to_str().unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), Variant::RFC4122);
        assert_eq!(id.as_u128() >> 80, 1_800_000_000_123);
    }

    #[test]
    fn ids_of_one_instant_differ() {
        let ids: HashSet<_> = (0..10_000).map(|_| request_id(Duration::ZERO)).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn only_plain_short_ids_are_taken_from_others() {
        let longest = "a".repeat(64);
        for good in ["a", "0198c6d2-7e3f-7abc-8def-0123456789ab", "ABC-9", &longest] {
            let value = HeaderValue::from_str(good).unwrap();
            assert_eq!(accept_request_id(&value), Some(value), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in ["", "a b", "a_b", "a.b", "a,b", "\"a\"", "a;b", &too_long] {
            let value = HeaderValue::from_str(bad).unwrap();
            assert_eq!(accept_request_id(&value), None, "{bad}");
        }
        let bytes = HeaderValue::from_bytes(b"a\xe4").unwrap();
        assert_eq!(accept_request_id(&bytes), None);
    }
}
