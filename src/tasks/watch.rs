//! Tells when files have changed, however they were changed.
//!
//! Editors rename a new file over the old one, Kubernetes swaps a symbolic link to a folder, tools
//! delete and create. So folders are watched and not files: those of the files, those of the links
//! on the way to them, and for what does not exist yet the nearest folder that does. An event only
//! says that it is time to look; then contents are compared, so an editor's temporary files, a
//! `touch`, or a database beside the files go unnoticed.
//!
//! Must stay true: memory does not grow with the number of events, and a change that happens while
//! another one is being looked at or reported is reported too.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Files are looked at once nothing has happened for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or this long after the first event.
const PATIENCE: Duration = Duration::from_secs(1);
/// Links that are followed from one path; the kernel stops at 40.
const MAX_LINKS: usize = 40;
/// Bytes of a file that are compared.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel gives no more.
    #[error(
        "cannot watch `{}`: the limit of inotify watches is reached; \
         raise fs.inotify.max_user_watches, or reload by SIGHUP",
        folder.display()
    )]
    Exhausted {
        /// What was to be watched.
        folder: PathBuf,
    },
    /// The folder cannot be watched.
    #[error(
        "cannot watch `{}`: {source}; changes below it are seen by a reload (SIGHUP) only",
        folder.display()
    )]
    Folder {
        /// What was to be watched.
        folder: PathBuf,
        /// Why not.
        source: notify::Error,
    },
    /// A relative path, and no current folder to put before it.
    #[error("cannot watch `{}`: {source}; use an absolute path", path.display())]
    Path {
        /// What was to be watched.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing to watch with.
    #[error("cannot watch files: {0}; raise fs.inotify.max_user_instances, or reload by SIGHUP")]
    Start(#[source] notify::Error),
}

/// Watches files, and folders for the `*.toml` files in them.
#[derive(Debug)]
pub struct FileWatch {
    watcher: RecommendedWatcher,
    /// Holds at most one event, whatever happens.
    events: Arc<Notify>,
    folders: Folders,
    seen: Seen,
}

/// Folders by path, with what tells a folder from another one that took its name.
type Folders = BTreeMap<PathBuf, (u64, u64)>;

/// What stood at each path when it was last looked at.
type Seen = BTreeMap<PathBuf, [u8; 32]>;

impl FileWatch {
    /// Watches `paths`: each a file, or a folder for its `*.toml` files. They need not exist yet.
    ///
    /// Changes are those after this call, so files are to be read after it.
    ///
    /// # Errors
    /// If one of them cannot be watched.
    pub fn start(paths: &[PathBuf]) -> Result<Self, WatchError> {
        let events = Arc::new(Notify::new());
        let happened = Arc::clone(&events);
        let watcher = notify::recommended_watcher(move |event| {
            if matters(&event) {
                happened.notify_one();
            }
        })
        .map_err(WatchError::Start)?;
        let mut watch = Self { watcher, events, folders: Folders::new(), seen: Seen::new() };
        watch.update(paths)?;
        Ok(watch)
    }

    /// Watches `paths` from now on, instead of those before.
    ///
    /// Of paths that were watched before, no change is lost by this.
    ///
    /// # Errors
    /// If one of them cannot be watched; the others are.
    pub fn update(&mut self, paths: &[PathBuf]) -> Result<(), WatchError> {
        let mut absolute = Vec::with_capacity(paths.len());
        for path in paths {
            absolute.push(
                std::path::absolute(path)
                    .map_err(|source| WatchError::Path { path: path.clone(), source })?,
            );
        }
        let watched = self.rewatch(&absolute);
        let before = std::mem::take(&mut self.seen);
        for path in absolute {
            let seen = before.get(&path).copied().unwrap_or_else(|| look(&path));
            self.seen.insert(path, seen);
        }
        watched
    }

    /// Waits until any of the files has changed and is at rest again. It may be dropped and called
    /// again at any time.
    pub async fn changed(&mut self) {
        loop {
            self.events.notified().await;
            // From here on the event is ours, and goes back if this future is dropped.
            let mut event = Taken { events: Arc::clone(&self.events), done: false };
            self.settle().await;
            let paths: Vec<PathBuf> = self.seen.keys().cloned().collect();
            // First the folders, then the files: what changes in between makes an event.
            if let Err(error) = self.rewatch(&paths) {
                log::warn!(error:% = error; "changes of files may go unnoticed");
            }
            let looked = tokio::task::spawn_blocking(|| {
                paths.into_iter().map(|path| (look(&path), path)).map(|(s, p)| (p, s)).collect()
            });
            // The look can only fail as part of the end of the process.
            let Ok(now) = looked.await else { return std::future::pending().await };
            event.done = true;
            if std::mem::replace(&mut self.seen, now) != self.seen {
                return;
            }
        }
    }

    /// Waits for quiet, but not for ever.
    async fn settle(&self) {
        let patience = Instant::now() + PATIENCE;
        loop {
            let quiet = patience.min(Instant::now() + QUIET);
            if timeout_at(quiet, self.events.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Watches the folders that matter for `paths` now.
    fn rewatch(&mut self, paths: &[PathBuf]) -> Result<(), WatchError> {
        let mut needed = Folders::new();
        for path in paths {
            collect_folders(path, &mut needed, MAX_LINKS);
        }
        let watcher = &mut self.watcher;
        self.folders.retain(|folder, identity| {
            let keep = needed.get(folder) == Some(identity);
            if !keep && let Err(error) = watcher.unwatch(folder) {
                // A folder that is gone took its watch with it.
                log::debug!(error:% = error; "a folder is not watched any more");
            }
            keep
        });
        let mut result = Ok(());
        for (folder, identity) in needed {
            if self.folders.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder, identity)),
                // Gone since it was found. Whether that matters, the next look will tell.
                Err(error) if is_missing(&error) => self.events.notify_one(),
                Err(error) => result = Err(cannot_watch(folder, error)),
            }
        }
        result
    }
}

/// An event that somebody is looking after.
struct Taken {
    events: Arc<Notify>,
    done: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.done {
            self.events.notify_one();
        }
    }
}

/// Reading a file makes events as well, and they must not make us read it again.
fn matters(event: &notify::Result<Event>) -> bool {
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        Err(error) => {
            log::warn!(error:% = error; "the watch on files reports an error");
            true
        }
    }
}

/// The folders in which something can happen that changes what `path` leads to.
fn collect_folders(path: &Path, folders: &mut Folders, links_left: usize) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        insert_folder(path, folders);
    }
    // Of a path that is not there, each step but the last is a folder to be watched for the next.
    let parent = path.ancestors().skip(1).find(|folder| folder.is_dir());
    if let Some(parent) = parent
        && (!path.is_dir() || path.is_symlink())
    {
        insert_folder(parent, folders);
    }
    for step in path.ancestors() {
        let Ok(target) = fs::read_link(step) else { continue };
        let Some(parent) = step.parent() else { continue };
        insert_folder(parent, folders);
        if links_left > 0 {
            let rest = path.strip_prefix(step).unwrap_or(Path::new(""));
            collect_folders(&parent.join(target).join(rest), folders, links_left - 1);
        }
        // The steps above it are those of the new path as well.
    }
}

fn insert_folder(folder: &Path, folders: &mut Folders) {
    if let Ok(metadata) = fs::metadata(folder)
        && metadata.is_dir()
    {
        folders.insert(folder.to_owned(), (metadata.dev(), metadata.ino()));
    }
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound | ErrorKind::WatchNotFound => true,
        ErrorKind::Io(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn cannot_watch(folder: PathBuf, source: notify::Error) -> WatchError {
    if matches!(source.kind, ErrorKind::MaxFilesWatch) {
        return WatchError::Exhausted { folder };
    }
    WatchError::Folder { folder, source }
}

/// What stands at `path`, in a few bytes.
fn look(path: &Path) -> [u8; 32] {
    let mut digest = Sha256::new();
    match look_into(path, &mut digest) {
        Ok(()) => digest.finalize().into(),
        // Another reason is another state: a file may have become readable, or have gone.
        Err(error) => Sha256::digest(format!("error {:?}", error.kind())).into(),
    }
}

fn look_into(path: &Path, digest: &mut Sha256) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        digest.update(b"file");
        let mut content = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut content)?;
        digest.update(content);
        return Ok(());
    }
    digest.update(b"folder");
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    for file in files {
        digest.update(Sha256::digest(file.as_os_str().as_bytes()));
        digest.update(if file.is_dir() { [0; 32] } else { look(&file) });
    }
    Ok(())
}
