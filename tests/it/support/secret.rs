//! Secrets in files of their own.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes or replaces a file that only its owner can read, in one step.
pub(crate) fn write(path: &Path, secret: &[u8]) {
    let draft = path.with_extension("draft");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .unwrap();
    file.write_all(secret).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Lets others in.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
