//! The table of HTTP/2: what no library would send, and what becomes of it behind the gateway.

use crate::case::Seen;
use crate::h2_wire::{
    DATA, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, WHOLE, block, frame, status,
};
use crate::recorder::{Message, Recorder};
use crate::support::gateway::Gateway;
use crate::support::soon;
use crate::support::wire::{Framing, Reader, Stream};
use crate::table::{Words, no_upstream_is_blamed};
use crate::{h2_frames, h2_heads, table};
use tokio::io::AsyncWriteExt;

/// What an attacker sends behind the preface and its settings, and what comes of stream 1.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frames: Vec<u8>,
    pub(crate) told: Told,
    /// Whether a request on stream 101, sent right behind, is answered as itself.
    pub(crate) stays: bool,
    pub(crate) seen: Option<Seen>,
}

/// What the attacker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A response with this status, and this in its body.
    Status(u16, &'static str),
    /// The stream is reset.
    Reset,
    /// Nothing, or the connection's end.
    Nothing,
}

impl Case {
    /// Answered by the gateway, and the connection carries on.
    pub(crate) fn refused(name: &str, frames: Vec<u8>, status: u16, code: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            frames,
            told: Told::Status(status, code),
            stays: true,
            seen: None,
        }
    }

    /// Malformed: the stream is reset, and the connection carries on.
    pub(crate) fn reset(name: &str, frames: Vec<u8>) -> Self {
        Self { told: Told::Reset, ..Self::refused(name, frames, 0, "") }
    }

    /// The connection ends.
    pub(crate) fn gone(name: &str, frames: Vec<u8>) -> Self {
        Self { told: Told::Nothing, stays: false, ..Self::refused(name, frames, 0, "") }
    }

    /// Passed on as this.
    pub(crate) fn passed(name: &str, frames: Vec<u8>, seen: Seen) -> Self {
        Self { seen: Some(seen), ..Self::refused(name, frames, 200, "") }
    }

    /// The upstream sees the beginning of it, and that it is cut off.
    pub(crate) fn cut(self, seen: Seen) -> Self {
        Self { seen: Some(Seen { cut: true, ..seen }), ..self }
    }
}

#[tokio::test]
async fn no_hostile_http2_reaches_the_upstream_as_something_else_than_it_was_judged_as() {
    let (recorder, address) = Recorder::start().await;
    let gateway = table::describe(address).tls_listener("secure").start().await;
    let (mut rows, mut wrong, mut in_all) = (0, Vec::new(), 0);
    for case in h2_heads::rows().into_iter().chain(h2_frames::rows()) {
        rows += 1;
        let before = recorder.count();
        let outcome = soon(&case.name, attack(&gateway, &case)).await;
        let expected = usize::from(case.seen.is_some()) + usize::from(outcome.follower);
        let seen = recorder.since(before, expected.min(1)).await;
        in_all += seen.len();
        if let Err(fault) = judge(&gateway, &case, &outcome, &seen) {
            wrong.push(format!("{}\n    {fault}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= 60, "{rows} rows");
    assert_eq!(recorder.count(), in_all, "something came late");
    no_upstream_is_blamed(&gateway).await;
}

/// What a row led to.
#[derive(Debug)]
struct Outcome {
    told: Option<u16>,
    reset: bool,
    body: String,
    follower: bool,
}

async fn attack(gateway: &Gateway, case: &Case) -> Outcome {
    let secure = gateway.listener("secure");
    let mut stream: Stream = Box::new(gateway.trust().connect(secure, &["h2"]).await.unwrap());
    let fields: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":scheme", b"https"),
        (":path", b"/canary"),
        (":authority", b"canary"),
    ];
    let follower = frame(HEADERS, WHOLE, 101, block(&fields));
    let settings = frame(SETTINGS, 0, 0, []);
    let opening =
        if case.frames.starts_with(b"!") { Vec::new() } else { [PREFACE, &settings].concat() };
    let frames = case.frames.strip_prefix(b"!").unwrap_or(&case.frames);
    // The connection may have ended before all is sent.
    drop(stream.write_all(&[&opening, frames, &follower].concat()).await);
    drop(stream.flush().await);
    let mut reader = Reader::new(stream);
    let mut outcome = Outcome { told: None, reset: false, body: String::new(), follower: false };
    let mut canary = String::new();
    let (mut answered, mut followed) = (false, false);
    while !(answered && followed) {
        let Ok(head) = reader.body(Framing::Length(9)).await else { break };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let length = Framing::Length(usize::try_from(length).unwrap());
        let Ok(payload) = reader.body(length).await else { break };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let ends = head[4] & END_STREAM != 0 && matches!(head[3], DATA | HEADERS);
        match (head[3], stream) {
            (GOAWAY, _) => break,
            (HEADERS, 1) if outcome.told.is_none() => outcome.told = Some(status(&payload)),
            (DATA, 1) => outcome.body += &String::from_utf8_lossy(&payload),
            (RST_STREAM, 1) => outcome.reset = true,
            (HEADERS, 101) => outcome.follower = status(&payload) == 200,
            (DATA, 101) => canary += &String::from_utf8_lossy(&payload),
            _ => {}
        }
        answered |= stream == 1 && (ends || head[3] == RST_STREAM);
        followed |= stream == 101 && (ends || head[3] == RST_STREAM);
    }
    outcome.follower &= canary == "canary";
    outcome
}

fn judge(
    gateway: &Gateway,
    case: &Case,
    outcome: &Outcome,
    seen: &[Message],
) -> Result<(), String> {
    let right = match case.told {
        Told::Status(status, code) => {
            outcome.told == Some(status)
                && (code.is_empty() || outcome.body.contains(&format!("\"code\":\"{code}\"")))
        }
        Told::Reset => outcome.told.is_none() && outcome.reset,
        Told::Nothing => outcome.told.is_none(),
    };
    if !right || outcome.follower != case.stays {
        return Err(format!("{outcome:?}, not {:?}, stays: {}", case.told, case.stays));
    }
    let words = Words { proto: "https", port: gateway.listener("secure").port() };
    let follower =
        Seen { line: "GET /canary HTTP/1.1", fields: &["host: canary"], body: b"", cut: false };
    // Streams are served side by side: either may be the first.
    let mut expected: Vec<_> =
        case.seen.iter().copied().chain(case.stays.then_some(follower)).collect();
    for message in seen {
        let line = message.head.first_line();
        let at = expected.iter().position(|one| one.line == line);
        let at = at.ok_or_else(|| format!("the upstream saw {line}"))?;
        words.compare(&expected.remove(at), message)?;
    }
    match expected.first() {
        Some(missing) => Err(format!("the upstream did not see {}", missing.line)),
        None => Ok(()),
    }
}
