//! Who looks after the connections, beside requests.
//!
//! Every [`PAUSE`], or when there is trouble: asks all known nodes at once who has which slot, believes
//! the one that has seen the most elections (a master that was replaced while it was frozen still claims
//! its slots), opens what connections are missing, and writes a key at each node whose breaker is open.
//! A node that can write is well: one that loads, was demoted, or has lost the cluster cannot.
//!
//! Must stay true: no node is waited for longer than [`PATIENCE`]; the keeper ends with its Redis.

use super::Redis;
use super::node::{Link, Node};
use super::settings::{Address, Settings};
use super::slots::{Map, Range, SLOTS, read};
use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, Script, ServerErrorKind, Value};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two looks, and between two probes.
const PAUSE: Duration = Duration::from_millis(250);
/// The least between two looks, whatever the trouble.
const BREATH: Duration = Duration::from_millis(50);
/// How long a node is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// How soon a node has to answer that is to be asked again.
const PROMPT: Duration = Duration::from_millis(20);
/// How much longer the others are waited for after one has answered.
const COURTESY: Duration = Duration::from_millis(60);
/// A look at the slots without any trouble.
const ROUTINE: Duration = Duration::from_secs(30);
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// How long a sign of life may take.
const BEAT_DEADLINE: Duration = Duration::from_millis(100);
/// Nodes that are remembered.
const MOST_NODES: usize = 128;
const ALIVE: &str = include_str!("alive.lua");
/// The tag of the one key with the signs of life.
const TASKS: &str = "tasks";

/// Signs of life.
pub(super) struct Roster {
    script: Script,
    me: String,
    beats: AtomicU64,
    /// The last few counts. The largest is believed: after a flush the others take a second to return.
    seen: [AtomicU32; 5],
    known: Mutex<Vec<Address>>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            script: Script::new(ALIVE),
            me: uuid::Uuid::now_v7().to_string(),
            beats: AtomicU64::new(0),
            seen: Default::default(),
            known: Mutex::default(),
        }
    }
}

impl Roster {
    /// How many tasks were seen of late.
    pub(super) fn tasks(&self) -> u32 {
        self.seen.iter().map(|seen| seen.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    fn saw(&self, tasks: u32) {
        let beat = self.beats.fetch_add(1, Ordering::Relaxed) as usize;
        let seen = self.seen.get(beat % self.seen.len());
        seen.into_iter().for_each(|seen| seen.store(tasks, Ordering::Relaxed));
    }

    fn learn(&self, addresses: impl Iterator<Item = Address>) {
        let mut known = self.known.lock();
        for address in addresses {
            if !known.contains(&address) {
                known.push(address);
            }
        }
        let excess = known.len().saturating_sub(MOST_NODES);
        known.drain(..excess);
    }
}

/// Looks after Redis for as long as somebody has it.
pub(super) async fn keep(redis: Weak<Redis>, trouble: Arc<Notify>) {
    let mut looked: Option<Instant> = None;
    let mut beat: Option<Instant> = None;
    loop {
        let Some(redis) = redis.upgrade() else { return };
        let now = Instant::now();
        let routine = looked.is_none_or(|looked| now.duration_since(looked) >= ROUTINE);
        if routine || redis.needs_care() {
            looked = Some(now);
            redis.care().await;
        }
        if redis.is_up() && beat.is_none_or(|beat| now.duration_since(beat) >= BEAT) {
            beat = Some(now);
            redis.beat().await;
        }
        drop(redis);
        tokio::time::sleep(BREATH).await;
        // Over means only that there is no trouble.
        drop(tokio::time::timeout(PAUSE - BREATH, trouble.notified()).await);
    }
}

/// What one node says of the cluster.
struct View {
    elections: u64,
    ranges: Vec<Range>,
    replicas: Vec<Address>,
}

/// Why no node could be asked: the last one that said so.
struct Silent {
    node: Option<String>,
    error: String,
}

impl Default for Silent {
    fn default() -> Self {
        Self { node: None, error: "no answer in time".to_owned() }
    }
}

impl Redis {
    fn needs_care(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
            || !self.is_up()
            || self.map.load().nodes.iter().any(|node| node.is_lost())
    }

    /// Finds out who has the slots, and reaches those that are not reached.
    async fn care(&self) {
        self.stale.store(false, Ordering::Relaxed);
        let silent = match self.look().await {
            Ok(view) => {
                let masters = view.ranges.iter().map(|(_, _, address)| address.clone());
                self.roster.learn(masters.chain(view.replicas));
                self.map.store(Arc::new(Map::of(&view.ranges, &self.map.load())));
                None
            }
            Err(silent) => Some(silent),
        };
        let map = self.map.load_full();
        let mut probes = JoinSet::new();
        for node in map.nodes.iter().filter(|node| node.is_lost()) {
            probes.spawn(reach(self.settings.clone(), Arc::clone(node)));
        }
        while probes.join_next().await.is_some() {}
        let is_well = || map.whole && map.nodes.iter().all(|node| !node.is_lost());
        let before = self.well.swap(is_well(), Ordering::AcqRel);
        // A breaker may have opened in between.
        if !is_well() {
            self.well.store(false, Ordering::Release);
            self.tell(&map, silent);
        } else if !before {
            self.told.store(false, Ordering::Relaxed);
            log::info!(masters = map.nodes.len(); "Redis answers for every key");
            self.recovered.notify_waiters();
        }
    }

    /// Says what is not well, the node whose probe failed before anything else.
    fn tell(&self, map: &Map, silent: Option<Silent>) {
        let lost = map.nodes.iter().find(|node| node.is_lost());
        match (lost, silent) {
            (Some(node), _) => self.warn(&node.address, &node.reason()),
            // A wrong password or authority is known by nothing else.
            (None, Some(silent)) => {
                let seeds = &self.settings.seeds;
                let seeds: Vec<_> = seeds.iter().map(|seed| seed.to_string()).collect();
                let node = silent.node.unwrap_or_else(|| seeds.join(", "));
                self.warn(&node, &format!("{}{}", silent.error, self.hint()));
            }
            (None, None) => self.warn(&"none", &"slots have no owner"),
        }
    }

    /// What else may be wrong.
    const fn hint(&self) -> &'static str {
        if self.settings.tls.is_some() { "; or the port does not speak TLS" } else { "" }
    }

    /// Asks every known node, and believes the one that has seen the most elections.
    async fn look(&self) -> Result<View, Silent> {
        let mut addresses = self.settings.seeds.clone();
        let known = self.roster.known.lock().clone();
        addresses.extend(known.into_iter().filter(|known| !self.settings.seeds.contains(known)));
        let mut views = JoinSet::new();
        for address in addresses {
            let settings = self.settings.clone();
            views.spawn(async move { (view(settings, address.clone()).await, address) });
        }
        let mut silent = Silent::default();
        let mut best: Option<View> = None;
        let mut until = Instant::now() + PATIENCE;
        while let Ok(Some(seen)) = tokio::time::timeout_at(until, views.join_next()).await {
            let seen = match seen {
                Ok((Ok(seen), _)) => seen,
                Ok((Err(error), address)) => {
                    silent = Silent { node: Some(address.to_string()), error: error.to_string() };
                    continue;
                }
                Err(_) => continue,
            };
            until = until.min(Instant::now() + COURTESY);
            let slots = |view: &View| view.ranges.iter().map(|(a, b, _)| b - a).max();
            let better = best
                .as_ref()
                .is_none_or(|best| (seen.elections, slots(&seen)) > (best.elections, slots(best)));
            if better && !seen.ranges.is_empty() {
                best = Some(seen);
            }
        }
        best.ok_or(silent)
    }

    async fn beat(&self) {
        let keys = [format!("dh:{{{TASKS}}}:alive")];
        let me = [self.roster.me.clone()];
        let script = &self.roster.script;
        match self.run(script, ALIVE, TASKS, &keys, &me, BEAT_DEADLINE).await {
            Ok(Value::Int(tasks)) => self.roster.saw(u32::try_from(tasks).unwrap_or(0)),
            Ok(_) => log::warn!("Redis gave no number of tasks"),
            Err(error) => log::debug!(error:% = error; "no sign of life was left in Redis"),
        }
    }
}

/// Opens a connection, sees that the node can write, and closes its breaker; or opens it.
async fn reach(settings: Settings, node: Arc<Node>) {
    let reached = async {
        let link = Link::open(&settings, &node.address).await?;
        let mut write = redis::cmd("SET");
        write.arg(&node.probe).arg(1).arg("PX").arg(1_000);
        let mut connection = link.connection();
        // One that answers later than a request waits is of no use to any.
        match tokio::time::timeout(PROMPT, write.exec_async(&mut connection)).await {
            Ok(written) => written.map(|()| link),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    };
    match tokio::time::timeout(PATIENCE, reached).await {
        Ok(Ok(link)) => node.recover(link),
        Ok(Err(error)) => {
            log::debug!(node:% = node.address, error:% = error; "Redis cannot be reached");
            node.give_up(error.to_string());
        }
        Err(_) => node.give_up("no answer in time".to_owned()),
    }
}

/// Asks one node about the cluster.
async fn view(settings: Settings, address: Address) -> Result<View, RedisError> {
    let link = Link::open(&settings, &address).await?;
    let mut connection = link.connection();
    let slots = redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(&mut connection).await;
    let slots = match slots {
        Ok(slots) => slots,
        Err(error) if is_alone(&error) => {
            let all = u16::try_from(SLOTS - 1).unwrap_or(u16::MAX);
            let ranges = vec![(0, all, address)];
            return Ok(View { elections: 0, ranges, replicas: Vec::new() });
        }
        Err(error) => return Err(error),
    };
    let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
    let info: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let elections = info.get("cluster_current_epoch").and_then(|epoch| epoch.parse().ok());
    let (ranges, replicas) = read(&slots, &address, settings.tls.is_some());
    Ok(View { elections: elections.unwrap_or(0), ranges, replicas })
}

/// Whether this is a server that belongs to no cluster.
fn is_alone(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
        && error.detail().is_some_and(|detail| detail.contains("cluster support disabled"))
}
