//! Secrets: read from the environment or from private files, never from the configuration itself.
//!
//! The only code that reads the environment. What is made here if nothing is given is kept in a
//! private file as 64 hex digits (32 random bytes), so that it can be copied to where tokens are
//! signed.
//!
//! Must stay true: no message carries a secret or a part of one, and a file that others can read
//! is refused before its content is used.

use super::value::{Invalid, Written};
use rand::TryRngCore;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes that a secret must have.
const SHORTEST: usize = 32;
/// Bytes of a file that is read as a secret.
const LONGEST: u64 = 64 * 1024;

/// What happens when the secrets that a gateway needs are nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFiles {
    /// They are made and kept in private files beside the store; no pepper for keys that there are.
    Create,
    /// Nothing is written, and what is missing is a mistake: a reload must not turn a lost file into
    /// a new secret, under which no key and no token is valid.
    Keep,
    /// Nothing is written; a value for this once stands in (`check`).
    Leave,
}

/// Where environment variables are looked up.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The environment of the process.
pub(crate) fn process_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Where a secret is, as `env:NAME` or `file:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pointer {
    /// A variable of the environment.
    Env(String),
    /// A file; relative to the folder of the configuration.
    File(PathBuf),
}

impl Written for Pointer {
    const WHAT: &'static str = "a pointer to a secret";
    const PATTERN: Option<&'static str> = Some("^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$");

    fn parse(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "put it into a private file or the environment, and write `file:PATH` \
                            or `env:NAME` here";
        if let Some(path) = text.strip_prefix("file:") {
            return match path {
                "" => Err(Invalid::new("the path is missing", HELP)),
                path if path.contains('\0') => Err(Invalid::new("not a path", HELP)),
                path => Ok(Self::File(path.into())),
            };
        }
        let Some(name) = text.strip_prefix("env:") else {
            return Err(Invalid::new("a secret never stands in the configuration itself", HELP));
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Invalid::new("not the name of a variable", HELP));
        }
        Ok(Self::Env(name.to_owned()))
    }
}

/// A secret. It cannot be shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Reads secrets, and remembers which files they came from.
pub(crate) struct Vault<'a> {
    dir: &'a Path,
    environment: &'a Environment<'a>,
    /// Files whose change matters.
    pub(crate) watched: Vec<PathBuf>,
    /// Files that were made.
    pub(crate) created: Vec<PathBuf>,
}

impl<'a> Vault<'a> {
    /// A vault for the configuration in `dir`.
    pub(crate) fn new(dir: &'a Path, environment: &'a Environment<'a>) -> Self {
        Self { dir, environment, watched: Vec::new(), created: Vec::new() }
    }

    /// Reads what a pointer points to, whatever its length.
    pub(crate) fn read(&mut self, pointer: &Pointer) -> Result<Secret, Invalid> {
        match pointer {
            Pointer::Env(name) => self.variable(name)?.ok_or_else(|| {
                Invalid::new(
                    format!("the environment has no variable `{name}`"),
                    format!("set `{name}` where the gateway is started, or use `file:PATH`"),
                )
            }),
            Pointer::File(path) => {
                let path = self.dir.join(path);
                let secret = read_private(&path);
                self.watched.push(path);
                secret
            }
        }
    }

    /// Whether there is a variable of this name.
    pub(crate) fn has(&self, variable: &str) -> bool {
        (self.environment)(variable).is_some()
    }

    /// What a variable says that holds no secret; an empty one says nothing.
    pub(crate) fn text(&self, variable: &str) -> Option<String> {
        let value = (self.environment)(variable)?;
        Some(value.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
    }

    /// Reads a key for signatures: long enough not to be guessed.
    pub(crate) fn read_key(&mut self, pointer: &Pointer) -> Result<Secret, Invalid> {
        self.read(pointer).and_then(long_enough)
    }

    /// Whether [`Self::read_or_make`] would have to make the key. Its file may come (back) then.
    pub(crate) fn lacks(&mut self, variable: &str, path: &Path) -> bool {
        let lacks = (self.environment)(variable).is_none() && !path.exists();
        if lacks {
            self.watched.push(path.to_owned());
        }
        lacks
    }

    /// The key where the file names none: a variable, or a private file that is made if it has to.
    pub(crate) fn read_or_make(
        &mut self,
        variable: &str,
        path: &Path,
        files: SecretFiles,
    ) -> Result<Secret, Invalid> {
        if let Some(secret) = self.variable(variable)? {
            return long_enough(secret).map_err(|invalid| {
                Invalid::new(format!("`{variable}`: {}", invalid.label), invalid.help)
            });
        }
        let known = path.exists();
        if !known && files == SecretFiles::Leave {
            return random().map(Secret);
        }
        if !known && files == SecretFiles::Create {
            let made = make(path).map_err(|error| {
                let way = match error.kind() {
                    ErrorKind::StorageFull => "free some space on its disk",
                    _ => "let there be a folder for it that the gateway's user may write",
                };
                Invalid::new(
                    format!("`{}` cannot be written: {error}", path.display()),
                    format!("set `{variable}`, or {way}"),
                )
            })?;
            self.created.extend(made.then(|| path.to_owned()));
        }
        self.watched.push(path.to_owned());
        read_private(path).and_then(long_enough)
    }

    fn variable(&self, name: &str) -> Result<Option<Secret>, Invalid> {
        let Some(value) = (self.environment)(name) else { return Ok(None) };
        if value.is_empty() {
            return Err(Invalid::new(
                format!("the variable `{name}` is empty"),
                format!("give `{name}` a value, or unset it"),
            ));
        }
        Ok(Some(Secret(value.into_encoded_bytes())))
    }
}

fn long_enough(secret: Secret) -> Result<Secret, Invalid> {
    match secret.0.len() {
        length if length >= SHORTEST => Ok(secret),
        length => Err(Invalid::new(
            format!("the secret has {length} bytes, at least {SHORTEST} are needed"),
            "make one with `openssl rand -hex 32`",
        )),
    }
}

/// Reads a file that only its owner can read. One line break at its end is not a part of it.
fn read_private(path: &Path) -> Result<Secret, Invalid> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        Invalid::new(
            format!("`{shown}` cannot be read: {error}"),
            "paths start at the folder of the configuration",
        )
    };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Invalid::new(format!("`{shown}` is not a file"), "name a plain file"));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Invalid::new(
            format!("others than its owner have access to `{shown}` (mode {mode:o})"),
            format!("chmod 600 {shown}"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(Invalid::new(
            format!("`{shown}` is larger than 64 KiB"),
            "is it the right file?",
        ));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        bytes.pop_if(|byte| *byte == b'\r');
    }
    Ok(Secret(bytes))
}

/// 32 random bytes as hex digits.
fn random() -> Result<Vec<u8>, Invalid> {
    let mut bytes = [0_u8; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|error| {
        Invalid::new(format!("no random bytes: {error}"), "the system must provide /dev/urandom")
    })?;
    let mut hex = String::with_capacity(64);
    for byte in bytes {
        write!(hex, "{byte:02x}").map_err(|error| Invalid::new(error.to_string(), "try again"))?;
    }
    Ok(hex.into_bytes())
}

/// Makes a secret, complete or not at all; where another process is faster, its secret stays, and
/// this is `false`.
fn make(path: &Path) -> std::io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let made = draft_and_link(&draft, path);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound && made.is_ok() => Err(error),
        _ => made,
    }
}

fn draft_and_link(draft: &Path, path: &Path) -> std::io::Result<bool> {
    let secret = random().map_err(|invalid| std::io::Error::other(invalid.label))?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(&secret)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    match std::fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        linked => linked.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn a_missing_secret_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/jwt.secret");
        let mut vault = Vault::new(folder.path(), &nothing);

        let first = vault.read_or_make("JWT_SECRET", &path, SecretFiles::Create).unwrap();
        let again = vault.read_or_make("JWT_SECRET", &path, SecretFiles::Create).unwrap();

        assert!(first == again && first.0.len() == 64);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let parent = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(parent.permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(vault.created, [path], "it is told once");
    }

    #[test]
    fn a_secret_that_is_to_be_kept_is_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/jwt.secret");
        let mut vault = Vault::new(folder.path(), &nothing);
        assert!(vault.lacks("JWT_SECRET", &path));
        assert!(vault.watched.contains(&path), "it may come back");
        let invalid = vault.read_or_make("JWT_SECRET", &path, SecretFiles::Keep).unwrap_err();
        assert!(invalid.label.contains("cannot be read"), "{invalid:?}");
        assert!(!path.parent().unwrap().exists() && vault.created.is_empty());
    }

    #[test]
    fn a_check_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/jwt.secret");
        let mut vault = Vault::new(folder.path(), &nothing);
        let secret = vault.read_or_make("JWT_SECRET", &path, SecretFiles::Leave).unwrap();
        assert_eq!(secret.0.len(), 64);
        assert!(!path.parent().unwrap().exists() && vault.watched.is_empty());
    }

    #[test]
    fn a_variable_goes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwt.secret");
        let variable = |name: &str| (name == "JWT_SECRET").then(|| "x".repeat(32).into());
        let mut vault = Vault::new(folder.path(), &variable);
        let secret = vault.read_or_make("JWT_SECRET", &path, SecretFiles::Create).unwrap();
        assert_eq!(secret.0, [b'x'; 32]);
        assert!(!path.exists());
        let invalid = vault.read(&Pointer::Env("OTHER".to_owned())).unwrap_err();
        assert_eq!(invalid.label, "the environment has no variable `OTHER`");
    }

    #[test]
    fn a_secret_that_others_can_read_or_that_is_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut vault = Vault::new(folder.path(), &nothing);
        for (content, mode, label) in [
            ("0123456789abcdef0123456789abcdef\r\n", 0o640, "(mode 640)"),
            ("0123456789abcdef0123456789abcdef\r\n", 0o604, "(mode 604)"),
            ("0123456789abcdef0123456789abcde\n", 0o600, "has 31 bytes"),
        ] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let invalid = vault.read_key(&Pointer::File("a".into())).unwrap_err();
            assert!(invalid.label.contains(label), "{invalid:?}");
            assert!(!format!("{invalid:?}").contains("0123"));
        }
    }

    #[test]
    fn a_literal_is_no_pointer() {
        assert!(Pointer::parse("hunter2").unwrap_err().label.contains("never stands"));
        assert!(Pointer::parse("env:").is_err() && Pointer::parse("file:").is_err());
        assert_eq!(format!("{:?}", Secret(vec![1, 2, 3])), "Secret(..)");
    }
}
