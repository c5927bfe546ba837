//! The thread on which the drivers of PostgreSQL and Redis run.
//!
//! A driver's connections belong to the event loop that they were made on. With one of their own they
//! outlive every request and every worker, there is one set of them for a process however many
//! workers it has, and a driver that is busy delays no request but those that ask it.
//!
//! Must stay true: whoever waits here can go away at any time; what was begun then ends by a deadline
//! of its own.

use std::io;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// An event loop for drivers. It ends with its last owner.
#[derive(Debug)]
pub struct Reactor {
    handle: Handle,
    _running: oneshot::Sender<()>,
}

impl Reactor {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no event loop.
    pub fn start() -> io::Result<Arc<Self>> {
        let events = Builder::new_current_thread().enable_all().build()?;
        let handle = events.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("stores".to_owned()).spawn(move || {
            // An error is the news: the last owner is gone.
            drop(events.block_on(ended));
        })?;
        Ok(Arc::new(Self { handle, _running: running }))
    }

    /// Runs `work` there and waits for it; `None` if it came to no end because the process ends.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.handle.spawn(work).await.ok()
    }

    /// Runs `work` there, and waits for nothing.
    pub fn start_work(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_a_thread_of_its_own() {
        let reactor = Reactor::start().unwrap();
        let name = reactor.run(async { std::thread::current().name().map(str::to_owned) }).await;
        assert_eq!(name.flatten().as_deref(), Some("stores"));
    }
}
