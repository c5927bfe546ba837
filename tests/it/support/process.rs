//! A child process whose output is always drained, and which never outlives its value.

use super::eventually;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The lines that a process has written so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn text(&self) -> String {
        self.all().join("\n")
    }

    /// Waits for a line with `part` in it, and gives it.
    pub(crate) async fn containing(&self, part: &str) -> String {
        let what = format!("a line with `{part}`");
        eventually(&what, || self.all().into_iter().find(|line| line.contains(part))).await
    }

    fn drain(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            // A read error means that the process is gone, as the end does.
            while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                lines.0.lock().unwrap().push(text);
                line.clear();
            }
        })
    }
}

/// A running child.
pub(crate) struct Process {
    child: Child,
    drains: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Process {
    /// Starts `command`; its standard input is a pipe that closes with this value.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let drains = vec![
            stdout.drain(child.stdout.take().unwrap()),
            stderr.drain(child.stderr.take().unwrap()),
        ];
        Self { child, drains, ended: None, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `STOP`, `CONT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        assert!(self.ended.is_none(), "the process has ended");
        let script = format!("kill -s {name} {}", self.pid());
        let status = Command::new("sh").arg("-c").arg(&script).status().unwrap();
        assert!(status.success(), "{script}: {status}");
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
            if self.ended.is_some() {
                // So that what it wrote last can be read.
                for drain in self.drains.drain(..) {
                    drain.join().unwrap();
                }
            }
        }
        self.ended
    }

    /// Waits for the end, at most `within`.
    pub(crate) async fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                began.elapsed() < within,
                "still running after {within:?}; stderr:\n{}",
                self.stderr.text()
            );
            tokio::time::sleep(super::LOOK).await;
        }
    }

    /// Ends it at once, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().unwrap();
            self.ended = Some(self.child.wait().unwrap());
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() && !matches!(self.child.try_wait(), Ok(Some(_))) {
            // Nothing better can be done here with a failure; the test's own verdict stands.
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let mut out = std::io::stderr().lock();
            let tail = |lines: &Lines| {
                let lines = lines.all();
                lines[lines.len().saturating_sub(40)..].join("\n")
            };
            let (stdout, stderr) = (tail(&self.stdout), tail(&self.stderr));
            drop(writeln!(out, "-- stdout:\n{stdout}\n-- stderr:\n{stderr}\n--"));
        }
    }
}
