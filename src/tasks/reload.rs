//! Hot reload: on SIGHUP, and when a file of the configuration changes.
//!
//! Must stay true: all or nothing. Whatever is wrong with the files, the snapshot in force stays,
//! and the log and a metric say so. No secret is made: one that is lost would be lost for good.

use super::publish::{Published, Publisher};
use super::watch::FileWatch;
use crate::config::{self, Fixed, Report, SecretFiles};
use crate::snapshot::BuildError;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::Signal;

/// Why a reload did not take effect.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Files(Report),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("the reload was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// Reloads one process's configuration.
pub struct Reload {
    dir: PathBuf,
    fixed: Fixed,
    publisher: Arc<Publisher>,
    watch: Option<FileWatch>,
    /// What the configuration in force has watched.
    watched: Vec<PathBuf>,
    hangup: Signal,
}

/// What a reload came to.
enum Outcome {
    InForce { revision: u64, watched: Vec<PathBuf>, warnings: Report },
    Unchanged { revision: u64 },
}

impl Reload {
    /// Reloads from `dir` through `publisher` whenever `watch`, which looks at `watched`, or `hangup`
    /// says so; `fixed` is what the process runs with.
    #[must_use]
    pub const fn new(
        dir: PathBuf,
        fixed: Fixed,
        publisher: Arc<Publisher>,
        watch: Option<FileWatch>,
        watched: Vec<PathBuf>,
        hangup: Signal,
    ) -> Self {
        Self { dir, fixed, publisher, watch, watched, hangup }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        loop {
            let trigger = tokio::select! {
                () = changed(&mut self.watch) => "file",
                _ = self.hangup.recv() => "SIGHUP",
            };
            self.reload(trigger).await;
        }
    }

    async fn reload(&mut self, trigger: &'static str) {
        match self.attempt().await {
            Ok(Outcome::InForce { revision, watched, warnings }) => {
                self.rewatch(&watched);
                self.watched = watched;
                self.publisher.parts().metrics.reload_succeeded(revision);
                if !warnings.is_empty() {
                    log::warn!(warnings:% = warnings; "the configuration has warnings");
                }
                log::info!(trigger = trigger, revision = revision, warnings = warnings.len();
                    "configuration is in force");
            }
            Ok(Outcome::Unchanged { revision }) => {
                self.publisher.parts().metrics.reload_succeeded(revision);
                log::info!(trigger = trigger, revision = revision; "configuration is unchanged");
            }
            Err(refused) => {
                if let Refused::Files(report) = &refused {
                    // A file that the refused configuration names may be on its way.
                    self.rewatch(&[&self.watched, report.watched()].concat());
                }
                self.publisher.parts().metrics.reload_failed();
                let revision = self.publisher.live().load().revision;
                log::error!(trigger = trigger, revision = revision, reason:% = refused;
                    "configuration is refused, the old one stays in force");
            }
        }
    }

    fn rewatch(&mut self, watched: &[PathBuf]) {
        if let Some(Err(error)) = self.watch.as_mut().map(|watch| watch.update(watched)) {
            log::error!(error:% = error; "a file of the configuration is not watched");
        }
    }

    async fn attempt(&self) -> Result<Outcome, Refused> {
        let (dir, fixed) = (self.dir.clone(), self.fixed.clone());
        let publisher = Arc::clone(&self.publisher);
        // Compiling thousands of routes takes longer than a request should wait.
        tokio::task::spawn_blocking(move || {
            let loaded = config::load(&dir, SecretFiles::Keep).map_err(Refused::Files)?;
            loaded.check_fixed(&fixed).map_err(Refused::Files)?;
            let (watched, warnings) = (loaded.watched, loaded.warnings);
            Ok(match publisher.files(loaded.config)? {
                Published::InForce(revision) => Outcome::InForce { revision, watched, warnings },
                Published::Unchanged(revision) => Outcome::Unchanged { revision },
            })
        })
        .await?
    }
}

/// Waits for a change of a watched file; for ever when nothing is watched.
async fn changed(watch: &mut Option<FileWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
