//! Publishes metrics to Amazon CloudWatch, an interval at a time.
//!
//! It has a thread of its own. On the event loop of a worker, which on half a CPU is the only one, a TLS
//! handshake and the signing and packing of a call would be felt by requests; on that of the stores'
//! drivers, by look-ups that have milliseconds. A thread is given its turns by the kernel.
//!
//! ```text
//! counts ─▶ Collector ─interval▶ Queue ─▶ Sender ─one call▶ CloudWatch
//!           at whole intervals   bounded  a little later, each task at its own time
//! ```
//!
//! Must stay true: no request waits for anything here; CloudWatch away costs a bounded queue and a few
//! log lines; an interval is the clock's, so that all tasks' counts fall into the same minute.

mod client;
mod failure;
mod guard;
mod queue;
mod sender;

pub use client::Destination;

use crate::telemetry::cloudwatch::{Observed, Tally};
use crate::telemetry::{Clock, Metrics};
use client::Client;
use queue::Queue;
use rand::Rng as _;
use sender::{News, Sender};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a call may take, but no longer than an interval.
const CALL: Duration = Duration::from_secs(10);
/// How often it is looked at what may be lower again by the end of an interval.
const LOOK: Duration = Duration::from_secs(1);

/// What the parts of the gateway know of themselves.
pub type Look = dyn Fn() -> Observed + Send;

/// What is published, and where to.
pub struct Work {
    /// Where to.
    pub to: Destination,
    /// How often.
    pub interval: Duration,
    /// Upstreams with series of their own.
    pub upstreams: Vec<Arc<str>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is known besides.
    pub look: Box<Look>,
    /// The time.
    pub clock: Clock,
}

/// The publisher. It ends with this value, or better by [`Publisher::finish`].
#[derive(Debug)]
pub struct Publisher {
    end: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Publisher {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no event loop.
    pub fn start(work: Work) -> io::Result<Self> {
        let events = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // For the names of hosts.
            .max_blocking_threads(2)
            .build()?;
        let ((end, told), (done, ended)) = (oneshot::channel(), oneshot::channel());
        std::thread::Builder::new().name("cloudwatch".to_owned()).spawn(move || {
            events.block_on(publish(work, told));
            // Nobody waits where the process did not come to its end.
            done.send(()).unwrap_or(());
            // A look-up of a name may still be under way.
            events.shutdown_background();
        })?;
        Ok(Self { end, ended })
    }

    /// Publishes what was counted up to now, for the last time; whether there was an end in time.
    pub async fn finish(self, within: Duration) -> bool {
        drop(self.end);
        tokio::time::timeout(within, self.ended).await.is_ok_and(|ended| ended.is_ok())
    }
}

async fn publish(work: Work, told: oneshot::Receiver<()>) {
    let Work { to, interval, upstreams, metrics, look, clock } = work;
    log::info!(region = &*to.region, namespace = &*to.namespace, service = &*to.service,
        environment = &*to.environment, interval_seconds = interval.as_secs_f64(),
        upstreams = upstreams.join(" "); "metrics go to CloudWatch");
    let queue = Arc::new(Queue::default());
    let sender = Sender {
        client: Client::new(&to, CALL.min(interval)).await,
        queue: Arc::clone(&queue),
        news: News::default(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        interval,
        phase: interval.mul_f64(rand::rng().random_range(0.0..1.0 / 6.0)),
    };
    let collector =
        Collector { tally: Tally::new(upstreams), interval, queue, metrics, look, clock };
    tokio::join!(collector.run(told, &sender.news), sender.run());
}

/// The side that looks at the counts.
struct Collector {
    tally: Tally,
    interval: Duration,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    look: Box<Look>,
    clock: Clock,
}

impl Collector {
    /// Collects at the end of each interval, until it is told to end.
    async fn run(mut self, told: oneshot::Receiver<()>, news: &News) {
        let mut told = pin!(told);
        loop {
            let began = self.whole(self.clock.unix_time());
            let over = tokio::select! {
                () = self.until(began + self.interval) => false,
                _ = &mut told => true,
            };
            self.close(began, news);
            if over {
                return self.queue.end();
            }
        }
    }

    /// Looks around until `end`. A clock that was set back does not make the interval longer.
    async fn until(&mut self, end: Duration) {
        loop {
            let now = self.clock.unix_time();
            let left = end.saturating_sub(now);
            if left.is_zero() || left > self.interval {
                return;
            }
            tokio::time::sleep(left.min(LOOK).min(self.interval / 10)).await;
            self.tally.sample(&self.metrics, &(self.look)());
        }
    }

    fn close(&mut self, began: Duration, news: &News) {
        self.metrics.unpublished(self.queue.mark_late());
        let interval = self.tally.close(&self.metrics, &(self.look)(), began);
        if self.queue.push(interval) {
            self.metrics.publishing_dropped(1);
            news.drops();
        }
    }

    /// The last whole interval of the clock before `time`.
    fn whole(&self, time: Duration) -> Duration {
        let nanos = time.as_nanos() % self.interval.as_nanos().max(1);
        time.saturating_sub(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }
}
