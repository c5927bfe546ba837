//! One command to whoever has a slot, within a deadline.
//!
//! Must stay true: every failure is counted once, by kind; only a failure of a node counts against it.

use super::node::{Link, Node};
use super::settings::{Address, address};
use super::slots::{SLOTS, slot};
use super::{CacheUnavailable, Redis, Vitals};
use crate::limits::fleet::FleetError;
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request may wait for the cache.
const CACHE_DEADLINE: Duration = Duration::from_millis(10);

/// Failures by kind.
#[derive(Debug, Default)]
pub(super) struct Failures {
    timeouts: AtomicU64,
    broken: AtomicU64,
    refused: AtomicU64,
}

impl Failures {
    pub(super) fn read(&self) -> Vitals {
        Vitals {
            timeouts: self.timeouts.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            ..Vitals::default()
        }
    }

    fn count(&self, error: FleetError) {
        let count = match error {
            FleetError::Timeout => &self.timeouts,
            FleetError::Broken => &self.broken,
            FleetError::Server => &self.refused,
            // Nothing was sent.
            FleetError::Open => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a hash is called in the name of a key.
pub(super) fn tag(hash: u128) -> String {
    format!("{hash:032x}")
}

impl Redis {
    /// Whether whoever has the slot of this hash would be asked.
    pub(super) fn reaches(&self, hash: u128) -> bool {
        self.is_up() || self.link_to(slot(tag(hash).as_bytes())).is_some()
    }

    fn link_to(&self, slot: usize) -> Option<(Arc<Node>, Arc<Link>)> {
        let map = self.map.load();
        let node = map.owner(slot)?;
        Some((Arc::clone(node), node.link()?))
    }

    /// Runs a script at the owner of the keys, which are all of one tag.
    pub(super) async fn run(
        &self,
        script: &Script,
        text: &str,
        tag: &str,
        keys: &[String],
        args: &[String],
        within: Duration,
    ) -> Result<Value, FleetError> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(args);
            command
        };
        let deadline = Instant::now() + within;
        let hashed = command("EVALSHA", script.get_hash());
        match self.ask(tag, &hashed, deadline).await {
            // It was restarted or flushed. This loads it again.
            Ok(Err(NoScript)) => self
                .ask(tag, &command("EVAL", text), deadline)
                .await?
                .map_err(|_| FleetError::Server),
            Ok(Ok(value)) => Ok(value),
            Err(error) => Err(error),
        }
    }

    /// Sends a command to the owner of a tag's slot, and where that sends it on to.
    async fn ask(
        &self,
        tag: &str,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Result<Value, NoScript>, FleetError> {
        let slot = slot(tag.as_bytes());
        let map = self.map.load_full();
        let Some(node) = map.owner(slot).map(Arc::clone) else { return Err(FleetError::Open) };
        if node.is_open() {
            return Err(FleetError::Open);
        }
        let error = match self.ask_node(&node, command, false, deadline).await {
            Ok(value) => return Ok(Ok(value)),
            Err(Failed::Server(error)) => error,
            Err(Failed::Node(error)) => return Err(error),
        };
        let kind = match error.kind() {
            ErrorKind::Server(kind) => kind,
            _ => ServerErrorKind::ResponseError,
        };
        match kind {
            ServerErrorKind::NoScript => return Ok(Err(NoScript)),
            ServerErrorKind::Moved | ServerErrorKind::Ask => {
                let asking = kind == ServerErrorKind::Ask;
                if !asking {
                    self.distrust_map();
                }
                let named = error.redirect_node().and_then(|(text, _)| redirect(text, &node));
                let next = named.and_then(|address| map.at(&address).map(Arc::clone));
                if let Some(next) = next.filter(|next| !next.is_open()) {
                    match self.ask_node(&next, command, asking, deadline).await {
                        Ok(value) => return Ok(Ok(value)),
                        Err(Failed::Server(error)) if is_no_script(&error) => {
                            return Ok(Err(NoScript));
                        }
                        Err(Failed::Node(error)) => return Err(error),
                        Err(Failed::Server(_)) => {}
                    }
                }
            }
            // Some keys of the slot have moved, and some not yet.
            ServerErrorKind::TryAgain => {}
            _ => self.blame(&node, &error),
        }
        self.failures.count(FleetError::Server);
        Err(FleetError::Server)
    }

    async fn ask_node(
        &self,
        node: &Arc<Node>,
        command: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, Failed> {
        let Some(link) = node.link() else {
            self.failures.count(FleetError::Broken);
            self.blame(node, &FleetError::Broken);
            return Err(Failed::Node(FleetError::Broken));
        };
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let answer = async {
            let mut connection = link.connection();
            if asking {
                let mut both = redis::pipe();
                both.cmd("ASKING").ignore().add_command(command.clone());
                let (value,): (Value,) = both.query_async(&mut connection).await?;
                Ok(value)
            } else {
                command.query_async::<Value>(&mut connection).await
            }
        };
        let error = match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(value)) => {
                node.succeeded();
                return Ok(value);
            }
            Ok(Err(error))
                if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) =>
            {
                return Err(Failed::Server(error));
            }
            Ok(Err(error)) => {
                node.lose(&link);
                self.well.store(false, Ordering::Release);
                self.warn(&node.address, &error);
                self.trouble.notify_one();
                FleetError::Broken
            }
            Err(_) => FleetError::Timeout,
        };
        self.failures.count(error);
        self.blame(node, &error);
        Err(Failed::Node(error))
    }

    fn blame(&self, node: &Node, reason: &dyn fmt::Display) {
        if node.failed() {
            self.well.store(false, Ordering::Release);
            self.warn(&node.address, reason);
            self.trouble.notify_one();
        }
    }

    /// Says once, until all is well again, that something is not.
    pub(super) fn warn(&self, node: &dyn fmt::Display, reason: &dyn fmt::Display) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let slots = format!("{} of {SLOTS}", self.map.load().away());
            log::warn!(node:%, reason:%, slots;
                "Redis is not of use for these slots; limits fall back to what their rules say, and it is tried again");
        }
    }

    fn distrust_map(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.trouble.notify_one();
    }

    /// Reads an entry of the shared cache.
    ///
    /// # Errors
    /// No answer within 10 ms.
    pub async fn get(&self, key: &[u8; 16]) -> Result<Option<Vec<u8>>, CacheUnavailable> {
        let (tag, mut command) = (tag(u128::from_be_bytes(*key)), redis::cmd("GET"));
        command.arg(format!("dh:{{{tag}}}:c"));
        match self.ask(&tag, &command, Instant::now() + CACHE_DEADLINE).await {
            Ok(Ok(Value::Nil)) => Ok(None),
            Ok(Ok(Value::BulkString(bytes))) => Ok(Some(bytes)),
            _ => Err(CacheUnavailable),
        }
    }

    /// Writes an entry of the shared cache, to be kept for `ttl`.
    ///
    /// # Errors
    /// No answer within 10 ms; it may have been written all the same.
    pub async fn set(
        &self,
        key: &[u8; 16],
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), CacheUnavailable> {
        let (tag, mut command) = (tag(u128::from_be_bytes(*key)), redis::cmd("SET"));
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2).max(1);
        command.arg(format!("dh:{{{tag}}}:c")).arg(value).arg("PX").arg(ttl);
        match self.ask(&tag, &command, Instant::now() + CACHE_DEADLINE).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(CacheUnavailable),
        }
    }
}

/// The script is not there.
struct NoScript;

enum Failed {
    /// It did not answer, which is counted already.
    Node(FleetError),
    /// It answered with an error.
    Server(RedisError),
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The address that a node sends us on to; without a host, it is that of the one that said so.
fn redirect(text: &str, said: &Node) -> Option<Address> {
    match text.strip_prefix(':') {
        Some(port) => {
            Some(Address { host: Arc::clone(&said.address.host), port: port.parse().ok()? })
        }
        // Here, IPv6 addresses stand without brackets.
        None if text.matches(':').count() > 1 => {
            let (host, port) = text.rsplit_once(':')?;
            Some(Address { host: host.into(), port: port.parse().ok()? })
        }
        None => address(text, 0),
    }
}
