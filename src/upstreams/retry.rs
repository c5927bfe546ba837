//! When another try is safe.
//!
//! The rule is about what the endpoint may have done already. Without a connection it has done
//! nothing, so any method may go elsewhere. Once a byte of the request was sent it may have acted on
//! it, and only a method that means the same when repeated (RFC 9110, section 9.2.2) may be sent
//! again. A reused connection that closes before a byte of the response is no exception: the
//! endpoint may have read the request before it went, and a POST must never be sent twice.
//!
//! A status of 5xx is an answer and not a failure: it is passed on, not tried again.
//!
//! Must stay true: pure; no try after bytes of a response reached the client.

use http::Method;

use super::definition::Retry;

/// The most further tries, whatever the file says.
const MOST: u32 = 2;

/// How far a failed try came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was no connection, so nothing was sent.
    Unsent,
    /// Some or all of the request was sent, on a new or on a reused connection; it broke or nothing
    /// came in time, and no byte of a response was passed on to the client.
    Sent,
    /// Bytes of a response reached the client.
    Answered,
}

/// Whether the request's body can be sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, it was not read yet, or all that was read is still held.
    Replayable,
    /// Some of it is gone.
    Consumed,
}

/// Whether a request that was tried `tries` times may be tried again after the last try came this
/// far.
#[must_use]
pub fn may_retry(
    retry: Retry,
    tries: u32,
    method: &Method,
    body: Body,
    progress: Progress,
) -> bool {
    let left = tries <= retry.retries.min(MOST);
    let safe = match progress {
        Progress::Unsent => true,
        Progress::Sent => method.is_idempotent(),
        Progress::Answered => false,
    };
    left && safe && body == Body::Replayable
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDEMPOTENT: [Method; 6] =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];

    fn others() -> [Method; 4] {
        let own = Method::from_bytes(b"PURGE").expect("a method");
        [Method::POST, Method::PATCH, Method::CONNECT, own]
    }

    #[test]
    fn only_what_cannot_happen_twice_is_tried_again() {
        for (body, progress, idempotent, other) in [
            (Body::Replayable, Progress::Unsent, true, true),
            (Body::Replayable, Progress::Sent, true, false),
            (Body::Replayable, Progress::Answered, false, false),
            (Body::Consumed, Progress::Unsent, false, false),
            (Body::Consumed, Progress::Sent, false, false),
            (Body::Consumed, Progress::Answered, false, false),
        ] {
            let may = |method: &Method| may_retry(Retry { retries: 1 }, 1, method, body, progress);
            for method in IDEMPOTENT {
                assert_eq!(may(&method), idempotent, "{method} {body:?} {progress:?}");
            }
            for method in others() {
                assert_eq!(may(&method), other, "{method} {body:?} {progress:?}");
            }
        }
    }

    #[test]
    fn there_are_never_more_tries_than_the_file_says_nor_more_than_three() {
        for (retries, most) in [(0, 1), (1, 2), (2, 3), (3, 3), (u32::MAX, 3)] {
            for tries in 1..6 {
                let may = may_retry(
                    Retry { retries },
                    tries,
                    &Method::GET,
                    Body::Replayable,
                    Progress::Unsent,
                );
                assert_eq!(may, tries < most, "{retries} retries after {tries}");
            }
        }
    }
}
