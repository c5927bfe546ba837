//! One line of JSON per request.
//!
//! Must stay true: no request waits for it and, once the buffers are warm, none allocates for it;
//! whatever a client sends, a line stays one line and no field of it is longer than 1 KiB.

use super::json::Object;
use super::metrics::Metrics;
use super::record::{Credential, End, Record};
use super::sink::{Sink, StartError, Unflushed};
use http::Version;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "access-log";

/// Shadow rules named in one line.
const MAX_RULES: usize = 16;

/// The access log; clones write to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Sink>>);

impl AccessLog {
    /// Writes to `out` from a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<W: Write + Send + 'static>(out: W, metrics: &Metrics) -> Result<Self, StartError> {
        let failed = |error: &io::Error| {
            log::warn!(error:% = error; "the access log cannot be written, lines are lost");
        };
        Sink::start(NAME, out, metrics.access_log_dropped(), failed)
            .map(|sink| Self(Some(Arc::new(sink))))
    }

    /// Writes to the standard output, past the buffer and the lock that it has in this process.
    ///
    /// # Errors
    /// If the thread cannot be started, or the standard output is closed.
    pub fn stdout(metrics: &Metrics) -> Result<Self, StartError> {
        let out = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| StartError::new(NAME, source))?;
        Self::start(File::from(out), metrics)
    }

    /// No access log.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Whether a record would be written: there is no need to make one otherwise.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a line about a request that is over, or counts it as dropped.
    pub fn record(&self, record: &Record<'_>) {
        if let Some(sink) = &self.0 {
            sink.append(|out| write_line(out, record));
        }
    }

    /// Writes out what was recorded, and nothing after it.
    ///
    /// It waits on the calling thread.
    ///
    /// # Errors
    /// If that takes longer than `within`, because nobody reads the output.
    pub fn flush_and_close(&self, within: Duration) -> Result<(), Unflushed> {
        self.0.as_ref().map_or(Ok(()), |sink| sink.flush_and_close(within))
    }
}

fn write_line(out: &mut Vec<u8>, record: &Record<'_>) {
    let mut line = Object::begin(out);
    line.timestamp("time", record.started);
    write_request(&mut line, record);
    write_response(&mut line, record);
    write_caller(&mut line, record);
    write_upstream(&mut line, record);
    write_ids(&mut line, record);
    line.end_line();
}

fn write_request(line: &mut Object<'_>, record: &Record<'_>) {
    line.text("method", record.method.as_str().as_bytes());
    line.text("host", record.host);
    line.text("path", record.path);
    line.token("version", version(record.version));
    line.truth("tls", record.tls);
    line.address("client", record.client, None);
    line.address("peer", record.peer.ip(), Some(record.peer.port()));
    if let Some(agent) = record.user_agent {
        line.text("user_agent", agent);
    }
    line.number("request_bytes", record.request_bytes);
}

fn write_response(line: &mut Object<'_>, record: &Record<'_>) {
    line.number("status", record.status.as_u16());
    line.number("response_bytes", record.response_bytes);
    line.milliseconds("duration_ms", record.duration);
    match record.end {
        End::Complete => {}
        End::ClientGone => line.text("end", b"client_gone"),
        End::Truncated => line.text("end", b"truncated"),
    }
    if let Some(reason) = record.reason {
        line.text("reason", reason.as_bytes());
    }
    if let Some(cause) = record.cause {
        line.text("cause", cause.as_bytes());
    }
    if !record.would_refuse.is_empty() {
        line.texts("would_refuse", record.would_refuse.iter().take(MAX_RULES));
    }
}

fn write_caller(line: &mut Object<'_>, record: &Record<'_>) {
    for (key, value) in
        [("route", record.route), ("consumer", record.consumer), ("plan", record.plan)]
    {
        if let Some(value) = value {
            line.text(key, value.as_bytes());
        }
    }
    match record.credential {
        None => {}
        Some(Credential::ApiKey(id)) => line.parts("credential", &["key:", id]),
        Some(Credential::Jwt { issuer, subject }) => {
            line.parts("credential", &["jwt:", issuer, "/", subject]);
        }
        Some(Credential::Certificate { subject, fingerprint }) => {
            line.parts("credential", &["mtls:", fingerprint, "/", subject]);
        }
    }
}

fn write_upstream(line: &mut Object<'_>, record: &Record<'_>) {
    let Some(upstream) = record.upstream else { return };
    line.text("upstream", upstream.as_bytes());
    if let Some(endpoint) = record.endpoint {
        line.address("endpoint", endpoint.ip(), Some(endpoint.port()));
    }
    line.number("tries", record.tries);
    if let Some(duration) = record.upstream_duration {
        line.milliseconds("upstream_ms", duration);
    }
}

fn write_ids(line: &mut Object<'_>, record: &Record<'_>) {
    line.text("request_id", record.request_id);
    line.text("trace_id", record.trace_id.as_bytes());
    line.text("span_id", record.span_id.as_bytes());
    if let Some(id) = record.amzn_trace_id {
        line.text("amzn_trace_id", id);
    }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, StatusCode};
    use serde_json::{Value, json};
    use std::io::{BufRead as _, BufReader, Read};
    use std::net::{IpAddr, Ipv6Addr, SocketAddr};
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    fn record<'a>() -> Record<'a> {
        Record {
            started: Duration::from_millis(1_800_000_000_123),
            duration: Duration::from_micros(12_345),
            upstream_duration: None,
            method: &Method::GET,
            host: b"api.example.com",
            path: b"/orders/1",
            version: Version::HTTP_11,
            status: StatusCode::OK,
            request_bytes: 0,
            response_bytes: 17,
            end: End::Complete,
            route: None,
            consumer: None,
            credential: None,
            plan: None,
            client: IpAddr::from([203, 0, 113, 9]),
            peer: SocketAddr::from(([10, 0, 0, 1], 4711)),
            tls: false,
            request_id: b"0198c6d2-7e3f-7abc-8def-0123456789ab",
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
            span_id: "00f067aa0ba902b7",
            amzn_trace_id: None,
            upstream: None,
            endpoint: None,
            tries: 0,
            reason: None,
            cause: None,
            would_refuse: &[],
            user_agent: None,
        }
    }

    fn line(record: &Record<'_>) -> (usize, Value) {
        let mut out = Vec::new();
        write_line(&mut out, record);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        (out.len(), serde_json::from_slice(&out).expect("a line of JSON"))
    }

    /// A pipe, the log that writes into it, and its metrics.
    fn piped() -> (io::PipeReader, AccessLog, Arc<Metrics>) {
        let (reader, writer) = io::pipe().unwrap();
        let metrics = Metrics::new();
        (reader, AccessLog::start(writer, &metrics).unwrap(), metrics)
    }

    fn dropped(metrics: &Metrics) -> u64 {
        metrics.access_log_dropped().get()
    }

    #[test]
    fn a_plain_request_has_the_fields_that_apply_to_it() {
        let (_, value) = line(&record());
        let expected = json!({
            "time": "2027-01-15T08:00:00.123Z", "method": "GET", "host": "api.example.com",
            "path": "/orders/1", "version": "1.1", "tls": false, "client": "203.0.113.9",
            "peer": "10.0.0.1:4711", "request_bytes": 0, "status": 200, "response_bytes": 17,
            "duration_ms": 12.345, "request_id": "0198c6d2-7e3f-7abc-8def-0123456789ab",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_refused_request_of_a_known_caller_says_who_and_why() {
        let (_, value) = line(&Record {
            status: StatusCode::TOO_MANY_REQUESTS,
            route: Some("orders"),
            consumer: Some("c1"),
            plan: Some("basic"),
            credential: Some(Credential::Jwt { issuer: "default", subject: "alice" }),
            upstream: Some("billing"),
            endpoint: Some(SocketAddr::from((Ipv6Addr::LOCALHOST, 80))),
            tries: 2,
            upstream_duration: Some(Duration::from_millis(7)),
            end: End::ClientGone,
            reason: Some("rate_limited"),
            cause: Some("plan/basic/burst"),
            would_refuse: &["route/orders/a".into(), "route/orders/b".into()],
            amzn_trace_id: Some(b"Root=1-67891233-abcdef012345678912345678"),
            user_agent: Some(b"curl/8"),
            ..record()
        });
        for (key, expected) in [
            ("status", json!(429)),
            ("route", json!("orders")),
            ("consumer", json!("c1")),
            ("plan", json!("basic")),
            ("credential", json!("jwt:default/alice")),
            ("upstream", json!("billing")),
            ("endpoint", json!("[::1]:80")),
            ("tries", json!(2)),
            ("upstream_ms", json!(7.0)),
            ("end", json!("client_gone")),
            ("reason", json!("rate_limited")),
            ("cause", json!("plan/basic/burst")),
            ("would_refuse", json!(["route/orders/a", "route/orders/b"])),
            ("amzn_trace_id", json!("Root=1-67891233-abcdef012345678912345678")),
            ("user_agent", json!("curl/8")),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
    }

    #[test]
    fn whatever_a_client_sends_a_line_is_one_line_and_bounded() {
        let hostile: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        let text = String::from_utf8_lossy(&hostile).into_owned();
        let rules: Vec<Arc<str>> = vec![text.as_str().into(); 100];
        let method = Method::from_bytes("M".repeat(5000).as_bytes()).unwrap();
        let (length, value) = line(&Record {
            method: &method,
            host: &hostile,
            path: &hostile,
            route: Some(&text),
            consumer: Some(&text),
            plan: Some(&text),
            credential: Some(Credential::Jwt { issuer: &text, subject: &text }),
            request_id: &hostile,
            amzn_trace_id: Some(&hostile),
            user_agent: Some(&hostile),
            upstream: Some(&text),
            cause: Some(&text),
            would_refuse: &rules,
            ..record()
        });
        for (key, field) in value.as_object().unwrap() {
            assert!(field.as_str().is_none_or(|text| text.len() <= 1024 + 3), "{key}");
        }
        assert_eq!(value["would_refuse"].as_array().unwrap().len(), MAX_RULES);
        assert!(length < 64 * 1024, "{length} bytes");
    }

    #[test]
    fn every_line_arrives_whole_and_a_close_loses_none() {
        let (reader, log, metrics) = piped();
        let received = std::thread::spawn(move || {
            let lines = BufReader::new(reader).lines();
            let parse = |line: io::Result<String>| {
                let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
                value["tries"].as_u64().unwrap()
            };
            lines.map(parse).collect::<Vec<_>>()
        });
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..500 {
                        let tries = thread * 500 + number;
                        log.record(&Record { upstream: Some("u"), tries, ..record() });
                    }
                });
            }
        });
        log.flush_and_close(LONG).unwrap();
        drop(log);
        let mut received = received.join().unwrap();
        received.sort_unstable();
        assert_eq!(received, (0..2000).collect::<Vec<_>>());
        assert_eq!(dropped(&metrics), 0);
    }

    #[test]
    fn a_line_does_not_wait_for_others_to_come() {
        let (reader, log, _) = piped();
        log.record(&record());
        let mut first = String::new();
        BufReader::new(reader).read_line(&mut first).unwrap();
        assert!(first.ends_with("}\n"));
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_never_time() {
        let (mut reader, log, metrics) = piped();
        let mut recorded = 0_u64;
        // Far more than a pipe and the buffers hold. If `record` waited, this would never end.
        while dropped(&metrics) < 1000 {
            log.record(&record());
            recorded += 1;
        }
        let error = log.flush_and_close(Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("nobody reads it"), "{error}");
        // What was not dropped is still there for a reader that comes back late.
        let (send, arrived) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            send.send(text.lines().count()).unwrap();
        });
        drop(log);
        let arrived = u64::try_from(arrived.recv_timeout(LONG).unwrap()).unwrap();
        assert_eq!(arrived + dropped(&metrics), recorded);
    }

    #[test]
    fn lines_after_the_close_are_counted_as_dropped() {
        let (_reader, log, metrics) = piped();
        log.flush_and_close(LONG).unwrap();
        log.record(&record());
        assert_eq!(dropped(&metrics), 1);
        log.flush_and_close(LONG).unwrap();
    }

    #[test]
    fn an_output_that_fails_costs_exactly_the_lines_that_did_not_fit() {
        let (reader, log, metrics) = piped();
        drop(reader);
        for _ in 0..10 {
            log.record(&record());
        }
        log.flush_and_close(LONG).unwrap();
        assert_eq!(dropped(&metrics), 10);
    }

    #[test]
    fn without_a_log_there_is_nothing_to_do() {
        let log = AccessLog::off();
        assert!(!log.is_on());
        log.record(&record());
        log.flush_and_close(Duration::ZERO).unwrap();
    }
}
