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
                let pair = |path: PathBuf| {
                    let seen = look(&path);
                    (path, seen)
                };
                paths.into_iter().map(pair).collect()
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
            collect_folders(path, &mut needed);
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
fn collect_folders(path: &Path, folders: &mut Folders) {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some((parent, target)) = first_link(&path) else { break };
        insert_folder(&parent, folders);
        path = target;
    }
    // Of what is not there yet, the nearest folder, in which the next step will appear.
    if let Some(folder) = path.ancestors().find(|step| step.is_dir()) {
        insert_folder(folder, folders);
    }
}

/// The folder of the topmost symbolic link in `path`, and the path with that link resolved.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut walked = PathBuf::new();
    let mut steps = path.components();
    while let Some(step) = steps.next() {
        walked.push(step);
        if let (Ok(target), Some(parent)) = (fs::read_link(&walked), walked.parent()) {
            return Some((parent.to_owned(), parent.join(target).join(steps.as_path())));
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;
    use tokio::time::timeout;

    async fn reported(watch: &mut FileWatch, change: &str) {
        let limit = Duration::from_secs(60);
        assert!(timeout(limit, watch.changed()).await.is_ok(), "not reported: {change}");
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    fn replace(path: &Path, text: &str) {
        let temporary = path.with_extension("new");
        write(&temporary, text);
        fs::rename(temporary, path).unwrap();
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_reported() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("gateway.toml");
        write(&file, "a = 1");
        for path in [folder.path(), &file] {
            let mut watch = FileWatch::start(&[path.to_owned()]).unwrap();
            let changes: [(&str, &dyn Fn()); 6] = [
                ("written in place, same size", &|| write(&file, "a = 2")),
                ("renamed over", &|| replace(&file, "a = 3")),
                ("renamed over once more", &|| replace(&file, "a = 4")),
                ("deleted and created", &|| {
                    fs::remove_file(&file).unwrap();
                    write(&file, "a = 5");
                }),
                ("deleted", &|| fs::remove_file(&file).unwrap()),
                ("created", &|| write(&file, "a = 1")),
            ];
            for (name, change) in changes {
                change();
                reported(&mut watch, name).await;
            }
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_swapped_behind_a_link_is_reported() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["v1", "v2", "v3"] {
            fs::create_dir(at(version)).unwrap();
            write(&at(version).join("gateway.toml"), version);
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/gateway.toml", at("gateway.toml")).unwrap();
        let mut files = FileWatch::start(&[at("gateway.toml")]).unwrap();
        let mut folders = FileWatch::start(&[folder.path().to_owned()]).unwrap();
        for version in ["v2", "v3"] {
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
            reported(&mut files, version).await;
            reported(&mut folders, version).await;
        }
        write(&at("v3").join("gateway.toml"), "in place, at the end of the links");
        reported(&mut files, "the target of a link").await;
    }

    #[tokio::test]
    async fn what_does_not_exist_yet_is_reported_when_it_appears() {
        let folder = TempDir::new().unwrap();
        let deep = folder.path().join("tls").join("live").join("chain.pem");
        let mut watch = FileWatch::start(std::slice::from_ref(&deep)).unwrap();
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        write(&deep, "one");
        reported(&mut watch, "appeared").await;
        write(&deep, "two");
        reported(&mut watch, "changed after it appeared").await;
        fs::remove_dir_all(folder.path().join("tls")).unwrap();
        reported(&mut watch, "gone with its folders").await;
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        write(&deep, "three");
        reported(&mut watch, "back again").await;
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_as_a_whole_is_reported() {
        let parent = TempDir::new().unwrap();
        let at = |name: &str| parent.path().join(name);
        for name in ["conf", "next"] {
            fs::create_dir(at(name)).unwrap();
            write(&at(name).join("gateway.toml"), name);
        }
        let mut watch = FileWatch::start(&[at("conf")]).unwrap();
        fs::rename(at("conf"), at("old")).unwrap();
        fs::rename(at("next"), at("conf")).unwrap();
        reported(&mut watch, "swapped").await;
        write(&at("conf").join("more.toml"), "x");
        reported(&mut watch, "changed after the swap").await;
    }

    #[tokio::test]
    async fn an_update_watches_other_files_and_loses_no_change_of_the_old_ones() {
        let folder = TempDir::new().unwrap();
        let (kept, added) = (folder.path().join("a.toml"), folder.path().join("b.pem"));
        write(&kept, "1");
        let mut watch = FileWatch::start(std::slice::from_ref(&kept)).unwrap();
        write(&kept, "2");
        watch.update(&[kept.clone(), added.clone()]).unwrap();
        reported(&mut watch, "changed before the update").await;
        write(&added, "1");
        reported(&mut watch, "added by the update").await;
    }

    #[tokio::test]
    async fn a_change_is_not_lost_when_the_wait_for_it_is_given_up() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("a.toml");
        let mut watch = FileWatch::start(std::slice::from_ref(&file)).unwrap();
        write(&file, "1");
        // Long enough to take the event, too short to look.
        while timeout(QUIET / 10, watch.changed()).await.is_ok() {}
        reported(&mut watch, "given up once").await;
    }

    #[test]
    fn what_is_not_configuration_is_not_seen() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("gateway.toml"), "a = 1");
        let before = look(folder.path());
        for name in [".gateway.toml.swp", "gateway.toml~", "4913", "#gateway.toml#", "gateway.db"] {
            write(&at(name), "x");
        }
        fs::create_dir(at("tls")).unwrap();
        write(&at("gateway.toml"), "a = 1");
        assert_eq!(look(folder.path()), before);
        write(&at("other.toml"), "");
        assert_ne!(look(folder.path()), before);
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = TempDir::new().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let mut folders = Folders::new();
        collect_folders(&folder.path().join("a/b/a/b/x.toml"), &mut folders);
        assert!(folders.contains_key(folder.path()));
    }
}
