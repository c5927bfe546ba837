//! What the process says of itself: lines of JSON on the standard error output.
//!
//! Operators read it, so a message is a constant and what varies stands in fields. Libraries that
//! comment on every request are held to warnings.
//!
//! Must stay true: whoever logs never waits for the reader of the log.

use super::clock::Clock;
use super::json::{self, Object};
use super::sink::{Sink, StartError, Unflushed};
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, SetLoggerError};
use prometheus::IntCounter;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NAME: &str = "process-log";

/// Bytes of a message.
const MAX_MESSAGE: usize = 8 * 1024;

/// Libraries that log more than operators want to know.
const NOISY: [&str; 7] = ["pingora", "h2", "hyper", "rustls", "notify", "mio", "tower"];

/// The process log; clones write to the same one.
#[derive(Clone, Debug)]
pub struct ProcessLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    level: LevelFilter,
    clock: Clock,
    sink: Sink,
    /// How many dropped lines a line has told of.
    told: AtomicU64,
}

impl ProcessLog {
    /// Writes lines of `level` and above to `out`, from a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<W: Write + Send + 'static>(
        level: LevelFilter,
        clock: Clock,
        out: W,
    ) -> Result<Self, StartError> {
        // Not to be logged: it would be the log that tells of its own loss.
        let failed = |_: &io::Error| {};
        let sink = Sink::start(NAME, out, dropped(), failed)?;
        Ok(Self(Arc::new(Inner { level, clock, sink, told: AtomicU64::new(0) })))
    }

    /// Writes to the standard error output.
    ///
    /// # Errors
    /// If the thread cannot be started, or the standard error output is closed.
    pub fn stderr(level: LevelFilter, clock: Clock) -> Result<Self, StartError> {
        let out = io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| StartError::new(NAME, source))?;
        Self::start(level, clock, File::from(out))
    }

    /// Makes it the log of this process, for all that use the crate `log`.
    ///
    /// # Errors
    /// If the process has one already.
    pub fn install(&self) -> Result<(), SetLoggerError> {
        log::set_boxed_logger(Box::new(self.clone()))?;
        log::set_max_level(self.0.level);
        Ok(())
    }

    /// Writes out what was logged, and nothing after it. It waits on the calling thread.
    ///
    /// # Errors
    /// If that takes longer than `within`, because nobody reads the output.
    pub fn flush_and_close(&self, within: Duration) -> Result<(), Unflushed> {
        self.0.sink.flush_and_close(within)
    }

    fn line(&self, level: Level, target: &str, write: impl FnOnce(&mut Object<'_>)) {
        let time = self.0.clock.unix_time();
        self.0.sink.append(|out| {
            self.tell_dropped(time, out);
            write_line(out, time, level, target, write);
        });
    }

    /// Says how many lines are missing, at the place where they are missing.
    fn tell_dropped(&self, time: Duration, out: &mut Vec<u8>) {
        let dropped = self.0.sink.dropped();
        let told = self.0.told.swap(dropped, Ordering::Relaxed);
        if dropped > told {
            write_line(out, time, Level::Warn, module_path!(), |line| {
                line.text("message", b"lines of this log were dropped because nobody took them");
                line.number("lines", dropped - told);
            });
        }
    }
}

fn write_line(
    out: &mut Vec<u8>,
    time: Duration,
    level: Level,
    target: &str,
    write: impl FnOnce(&mut Object<'_>),
) {
    let mut line = Object::begin(out);
    line.timestamp("time", time);
    line.text("level", name(level).as_bytes());
    line.text("target", target.as_bytes());
    write(&mut line);
    line.end_line();
}

impl Log for ProcessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let noisy = NOISY.iter().any(|name| metadata.target().starts_with(name));
        let most = if noisy { self.0.level.min(LevelFilter::Warn) } else { self.0.level };
        metadata.level() <= most
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        self.line(record.level(), record.target(), |line| {
            line.display("message", MAX_MESSAGE, record.args());
            if record.key_values().visit(&mut Fields(line)).is_err() {
                line.truth("fields_missing", true);
            }
        });
    }

    /// Lines leave by themselves within a tenth of a second; only a close waits for that.
    fn flush(&self) {}
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[expect(clippy::expect_used, reason = "the name is a constant")]
fn dropped() -> IntCounter {
    IntCounter::new("log_dropped", "Lines that were dropped.").expect("a valid name")
}

/// Fields of a log call, as members of the line.
struct Fields<'a, 'b>(&'a mut Object<'b>);

impl<'kvs> VisitSource<'kvs> for Fields<'_, '_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.0.foreign_key(key.as_str());
        value.visit(Field(self.0.out()))
    }
}

/// The value of one field.
struct Field<'a>(&'a mut Vec<u8>);

impl Field<'_> {
    fn text(&mut self, value: impl Display) -> Result<(), kv::Error> {
        json::display(self.0, json::MAX_TEXT, value);
        Ok(())
    }
}

impl<'v> VisitValue<'v> for Field<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.text(value)
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        json::number(self.0, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        json::number(self.0, value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Read as _;

    type Json = serde_json::Value;

    /// Everything that is logged by `write` at `info`, line by line.
    fn logged(write: impl FnOnce(&ProcessLog)) -> Vec<Json> {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = ProcessLog::start(LevelFilter::Info, Clock::manual(), writer).unwrap();
        write(&log);
        log.flush_and_close(Duration::from_secs(60)).unwrap();
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn record<'a>(level: Level, target: &'a str) -> log::RecordBuilder<'a> {
        let mut builder = log::Record::builder();
        builder.level(level).target(target);
        builder
    }

    #[test]
    fn a_line_has_a_constant_message_and_its_values_as_fields() {
        let fields: &[(&str, Value<'_>)] = &[
            ("path", "conf/\"a\".toml".into()),
            ("revision", 17_u64.into()),
            ("delta", (-1_i64).into()),
            ("ok", true.into()),
            ("ratio", 0.5_f64.into()),
        ];
        let lines = logged(|log| {
            let mut builder = record(Level::Info, "datahub_gateway::tasks");
            let args = format_args!("configuration is in force");
            log.log(&builder.args(args).key_values(&fields).build());
        });
        assert_eq!(
            lines,
            [json!({
                "time": "2027-01-15T08:00:00.000Z", "level": "info",
                "target": "datahub_gateway::tasks", "message": "configuration is in force",
                "path": "conf/\"a\".toml", "revision": 17, "delta": -1, "ok": true, "ratio": "0.5",
            })]
        );
    }

    #[test]
    fn libraries_are_held_to_warnings_and_everyone_to_the_level() {
        for (level, target, shown) in [
            (Level::Info, "datahub_gateway", true),
            (Level::Debug, "datahub_gateway", false),
            (Level::Info, "pingora_core::server", false),
            (Level::Warn, "pingora_proxy", true),
            (Level::Error, "h2::codec", true),
            (Level::Info, "hyper::client", false),
        ] {
            let lines = logged(|log| {
                log.log(&record(level, target).args(format_args!("x")).build());
            });
            assert_eq!(lines.len(), usize::from(shown), "{level} {target}");
        }
    }

    #[test]
    fn a_reader_that_was_away_is_told_how_many_lines_it_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = ProcessLog::start(LevelFilter::Info, Clock::manual(), writer).unwrap();
        let write = || log.log(&record(Level::Info, "t").args(format_args!("x")).build());
        while log.0.sink.dropped() < 10 {
            write();
        }
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        // There is room again some time after the reader came back.
        let mut dropped = 0;
        while log.0.sink.dropped() > dropped {
            dropped = log.0.sink.dropped();
            std::thread::yield_now();
            write();
        }
        log.flush_and_close(Duration::from_secs(60)).unwrap();
        drop(log);
        let text = reading.join().unwrap();
        let told: u64 = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Json>(line).unwrap()["lines"].as_u64())
            .sum();
        assert!(told >= 10);
        assert_eq!(told, dropped);
    }
}
