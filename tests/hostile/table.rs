//! The table as a whole: one gateway, one upstream, every row in turn.

use crate::case::{Case, FOLLOWER, Seen};
use crate::recorder::{End, Message, Recorder};
use crate::support::gateway::{Builder, Gateway};
use crate::support::soon;
use crate::support::wire::{Framing, Head, Reader};
use crate::{chunks, closed, framing, head, hops, host, identity, targets};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What a row led to.
struct Outcome {
    status: u16,
    body: String,
    stays: bool,
}

/// Everything goes to one upstream, but `/denied` and one host are closed to who has no key.
pub(crate) fn describe(upstream: std::net::SocketAddr) -> Builder {
    Gateway::builder()
        .toml("workers = 1\n[http]\nbody_timeout = \"300ms\"\nhead_timeout = \"1s\"\nidle_timeout = \"1s\"")
        .upstream("u", &[upstream])
        .route("open", "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"\nmax_body = \"64KiB\"")
        .route("denied", "path = \"/denied/*\"\nauth = \"api_key\"\nupstream = \"u\"")
        .route(
            "inner",
            "path = \"/*\"\nhosts = [\"inner.test\"]\nauth = \"api_key\"\nupstream = \"u\"",
        )
        .route("fixed", "path = \"/fixed\"\nauth = \"none\"\nreply = { body = \"fixed\" }")
        .route("gets", "path = \"/gets\"\nmethods = [\"GET\"]\nauth = \"none\"\nupstream = \"u\"")
        .route("changes", "path = \"/gets\"\nauth = \"api_key\"\nupstream = \"u\"")
        .route(
            "approved",
            "path = \"/approved\"\nauth = \"none\"\nupstream = \"u\"\n\
             when = \"request.headers['x-approved'] == 'yes' || request.headers['cookie'] == 'a=b'\"",
        )
        .route("unapproved", "path = \"/approved\"\nauth = \"api_key\"\nupstream = \"u\"")
        .plan("basic", "1000/s")
        .key("alice", "basic")
}

/// Every theme.
fn themes() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("framing", framing::rows()),
        ("chunks", chunks::rows()),
        ("head", head::rows()),
        ("host", host::rows()),
        ("targets", targets::rows()),
        ("hops", hops::rows()),
        ("identity", identity::rows()),
        ("closed", closed::rows()),
    ]
}

#[tokio::test]
async fn no_hostile_request_reaches_the_upstream_as_something_else_than_it_was_judged_as() {
    let (recorder, address) = Recorder::start().await;
    let gateway = describe(address).start().await;
    let (mut rows, mut wrong, mut in_all) = (0, Vec::new(), 0);
    for (theme, cases) in themes() {
        for case in cases {
            rows += 1;
            let before = recorder.count();
            let outcome = soon(&case.text(), attack(&gateway, &case)).await;
            let expected = usize::from(case.seen.is_some()) + usize::from(outcome.stays);
            let seen = recorder.since(before, expected.min(1)).await;
            in_all += seen.len();
            if let Err(fault) = judge(&gateway, &case, &outcome, &seen) {
                wrong.push(format!("{theme}: {}\n    {fault}", case.text()));
            }
            // 501 is for methods that are never served, 505 for other versions.
            if outcome.status >= 500 && !matches!(outcome.status, 501 | 505) {
                wrong.push(format!("{theme}: {}\n    {}", case.text(), outcome.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= 200, "{rows} rows");
    assert_eq!(recorder.count(), in_all, "something came late");
    no_upstream_is_blamed(&gateway).await;
}

/// A client's mistakes leave an upstream what it was.
pub(crate) async fn no_upstream_is_blamed(gateway: &Gateway) {
    let metrics = gateway.metrics().await;
    for name in ["upstream_failures_total", "upstream_retries_total", "upstream_errors_total"] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    assert!(metrics.sum("upstream_tries_total", &[]) > 0.0);
    assert_eq!(metrics.sum("upstream_endpoint_up", &[]), 1.0);
    assert_eq!(metrics.sum("requests_in_flight", &[]), 0.0);
    let log = gateway.stdout().all();
    let at_fault = |line: &&String| {
        line.contains("\"status\":500")
            || line.contains("\"status\":502")
            || line.contains("\"status\":503")
            || line.contains("\"status\":504")
    };
    assert_eq!(log.iter().find(at_fault), None);
    let err = gateway.stderr().text();
    assert!(!err.contains("panicked"), "{err}");
}

async fn attack(gateway: &Gateway, case: &Case) -> Outcome {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let follower = if case.ends || case.waits { &[][..] } else { FOLLOWER };
    // The answer may come before all is sent.
    drop(stream.write_all(&[case.raw, follower].concat()).await);
    if case.ends {
        drop(stream.shutdown().await);
    }
    let mut reader = Reader::new(stream);
    let method = if case.raw.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let Ok(Some((head, body))) = response(&mut reader, method).await else {
        return Outcome { status: 0, body: String::new(), stays: false };
    };
    let status = head.status();
    if status == 101 {
        // What the other side sends now is not HTTP.
        let rest = reader.some().await.unwrap_or_default();
        let body = String::from_utf8_lossy(&rest).into_owned();
        return Outcome { status, body, stays: false };
    }
    let mut outcome = Outcome { status, body, stays: false };
    if case.waits {
        drop(reader.stream.write_all(FOLLOWER).await);
    }
    if let Ok(Some((head, body))) = response(&mut reader, "GET").await {
        outcome.stays = true;
        if (head.status(), &*body) != (200, "canary") {
            outcome.body = format!("{} and then {} {body}", outcome.body, head.status());
            outcome.stays = false;
        }
    }
    outcome
}

/// The next response that is not provisional; `None` where the connection ends instead.
async fn response(
    reader: &mut Reader<TcpStream>,
    method: &str,
) -> io::Result<Option<(Head, String)>> {
    loop {
        let Some(head) = reader.head().await? else { return Ok(None) };
        if head.status() == 100 {
            continue;
        }
        let framing =
            if head.status() == 101 { Framing::Length(0) } else { head.response_framing(method) };
        let body = reader.body(framing).await?;
        return Ok(Some((head, String::from_utf8_lossy(&body).into_owned())));
    }
}

fn judge(
    gateway: &Gateway,
    case: &Case,
    outcome: &Outcome,
    seen: &[Message],
) -> Result<(), String> {
    let problem = format!("\"code\":\"{}\"", case.code);
    let told = case.code.is_empty() || outcome.body.contains(&problem);
    if outcome.status != case.status || !told || outcome.stays != case.stays {
        return Err(format!(
            "{}{}, not {} {}{}; the upstream saw {:?}",
            outcome.status,
            if outcome.stays { "" } else { " and the end" },
            case.status,
            case.code,
            if case.stays { "" } else { " and the end" },
            seen.iter().map(|message| message.head.first_line()).collect::<Vec<_>>(),
        ) + &format!("; {}", outcome.body));
    }
    let words = Words { proto: "http", port: gateway.address().port() };
    let mut seen = seen.iter();
    if let Some(expected) = &case.seen {
        let message = seen.next().ok_or("the upstream saw nothing")?;
        words.compare(expected, message)?;
    }
    if case.stays {
        let message = seen.next().ok_or("the follower is missing")?;
        let follower =
            Seen { line: "GET /canary HTTP/1.1", fields: &["host: canary"], body: b"", cut: false };
        words.compare(&follower, message)?;
    }
    match seen.next() {
        Some(message) => Err(format!("the upstream saw more: {message:?}")),
        None => Ok(()),
    }
}

/// What the gateway itself says of a request's arrival.
pub(crate) struct Words {
    pub(crate) proto: &'static str,
    pub(crate) port: u16,
}

impl Words {
    /// Whether a message is what a row says, with the gateway's own words besides.
    pub(crate) fn compare(&self, expected: &Seen, message: &Message) -> Result<(), String> {
        let fields = self.fields_of_client(&message.head)?;
        let end = if expected.cut { End::Cut } else { End::Whole };
        let same = message.head.first_line() == expected.line
            && fields == expected.fields
            && if expected.cut {
                expected.body.starts_with(&message.body)
            } else {
                message.body == expected.body
            }
            && message.end == end;
        if same {
            return Ok(());
        }
        let body = message.body.get(..200).unwrap_or(&message.body).escape_ascii();
        Err(format!(
            "the upstream saw {:?} {fields:?} {body} {:?}",
            message.head.first_line(),
            message.end
        ))
    }

    /// The fields that are the client's, sorted, once ours are found to be there and right.
    fn fields_of_client(&self, head: &Head) -> Result<Vec<String>, String> {
        let host = head.header("host").unwrap_or_default();
        let port = self.port.to_string();
        let own = [
            ("x-anonymous-consumer", "true"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", &host),
            ("x-forwarded-port", &port),
            ("x-forwarded-proto", self.proto),
        ];
        for (name, value) in own {
            let values = head.headers(name);
            let absent = name == "x-forwarded-host" && values.is_empty();
            if values != [value] && !absent {
                return Err(format!("{name}: {values:?}, not {value}"));
            }
        }
        for name in ["x-request-id", "traceparent"] {
            if head.headers(name).len() != 1 {
                return Err(format!("{name}: {:?}", head.headers(name)));
            }
        }
        let ours = |name: &str| {
            own.iter().any(|(own, _)| *own == name)
                || matches!(name, "x-request-id" | "traceparent")
        };
        let mut fields: Vec<_> = head
            .fields()
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| !ours(name))
            .map(|(name, value)| format!("{name}: {value}"))
            .filter(|field| field != "host: a")
            .collect();
        fields.sort_unstable();
        Ok(fields)
    }
}
