//! The workers of a process: each on a thread of its own, with a proxy of its own.

use super::{Process, event_loop};
use crate::proxy::complaint::Complaint;
use crate::proxy::{Connections, Gateway};
use crate::runtime::{Serving, Worker};
use anyhow::Context as _;
use pingora_core::server::configuration::ServerConf;
use std::sync::Arc;
use tokio::task::JoinSet;

impl Process {
    /// Starts the workers: the first on this thread, each further one on a thread of its own.
    pub(super) fn work(
        &self,
        workers: Vec<Worker>,
    ) -> anyhow::Result<JoinSet<std::io::Result<()>>> {
        let mut crew = JoinSet::new();
        for (number, worker) in workers.into_iter().enumerate() {
            let (connections, serving) = (self.connections(), self.serving());
            if number == 0 {
                crew.spawn(worker.serve(connections(), serving));
                continue;
            }
            let (ended, end) = tokio::sync::oneshot::channel();
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let served = event_loop().and_then(|events| {
                        events.block_on(async { worker.serve(connections(), serving).await })
                    });
                    // Nobody listens once the process is ending anyway.
                    drop(ended.send(served));
                })
                .context("a worker's thread cannot be started")?;
            crew.spawn(async move { end.await.unwrap_or(Ok(())) });
        }
        Ok(crew)
    }

    fn serving(&self) -> Serving {
        Serving {
            drain: Arc::clone(&self.drain),
            live: Arc::clone(&self.live),
            metrics: Arc::clone(&self.parts.metrics),
            clock: self.parts.clock.clone(),
        }
    }

    /// Makes a worker's proxy on that worker's own thread, because the pool of upstream
    /// connections belongs to its event loop.
    fn connections(&self) -> impl FnOnce() -> Connections + Send + 'static {
        let gateway = Gateway {
            live: Arc::clone(&self.live),
            filters: self.filters.clone(),
            parts: self.parts.clone(),
            drain: Arc::clone(&self.drain),
            access_log: self.access_log.clone(),
            overloaded: Complaint::default(),
        };
        let (drain, parts) = (Arc::clone(&self.drain), self.parts.clone());
        move || {
            let conf = ServerConf {
                threads: 1,
                work_stealing: false,
                upstream_keepalive_pool_size: 4096,
                // The first try and at most two more; `upstreams::retry` decides.
                max_retries: 3,
                ..ServerConf::default()
            };
            let proxy = pingora_proxy::http_proxy(&Arc::new(conf), gateway);
            Connections::new(proxy, &drain, &parts)
        }
    }
}
