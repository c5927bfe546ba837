//! Where PostgreSQL is, how it is trusted, and how much of it is used: read from what an operator
//! wrote, checked before anything connects.
//!
//! A URL is that of libpq. Where TLS is used, the certificate and the name are always verified: that
//! is why `require`, `verify-ca` and `verify-full` mean the same here. A URL that does not speak of
//! TLS requires it, but for a server on the same machine.
//!
//! Must stay true: neither an error nor `Debug` shows a password or a part of one.

use super::pool::FEWEST;
use super::trust;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// More than any server gives to one client.
const MOST: u32 = 1000;

/// How much of PostgreSQL is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections to each of primary and replica, 6 to 1000.
    pub connections: u32,
    /// Look-ups in a second, those of all copies together.
    pub look_ups_per_second: u32,
    /// For a connection, from its first packet to its first question.
    pub connect: Duration,
    /// For a look-up on the replica.
    pub replica_look_up: Duration,
    /// For a look-up on the primary.
    pub primary_look_up: Duration,
    /// For a request's question what was used of a quota: for its turn, and then for the answer.
    pub quotas: Duration,
    /// For a question what has changed.
    pub changes: Duration,
    /// For anything an operator does, for usage, and for loading what has changed.
    pub administration: Duration,
    /// A connection is replaced after this, so that a change of addresses is followed.
    pub oldest: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 10,
            look_ups_per_second: 5000,
            connect: Duration::from_millis(800),
            replica_look_up: Duration::from_millis(40),
            primary_look_up: Duration::from_millis(45),
            quotas: Duration::from_millis(20),
            changes: Duration::from_secs(1),
            administration: Duration::from_secs(5),
            oldest: Duration::from_secs(300),
        }
    }
}

/// Where PostgreSQL is, how it is trusted, and how much of it is used.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) primary: Server,
    pub(super) replica: Option<Server>,
    pub(super) bounds: Bounds,
}

/// What is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}; {help}")]
pub struct InvalidSettings {
    /// Of what.
    pub what: &'static str,
    /// What is wrong with it; no part of a password.
    pub problem: String,
    /// What to do.
    pub help: &'static str,
}

impl Settings {
    /// Reads the URL of the primary, that of a replica if there is one, and the certificates (PEM) of
    /// a private authority. `sslrootcert` in a URL goes before `ca`.
    ///
    /// # Errors
    /// What is wrong, in which of them, and what to do.
    pub fn parse(
        primary: &str,
        replica: Option<&str>,
        ca: Option<&[u8]>,
        bounds: Bounds,
    ) -> Result<Self, InvalidSettings> {
        check(bounds)?;
        Ok(Self {
            primary: Server::parse("the URL of PostgreSQL", primary, ca, bounds)?,
            replica: replica
                .map(|url| Server::parse("the URL of the replica", url, ca, bounds))
                .transpose()?,
            bounds,
        })
    }

    /// Addresses and database of the primary, to be shown.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.primary.at
    }
}

fn check(bounds: Bounds) -> Result<(), InvalidSettings> {
    let refused = |problem: &str, help| {
        Err(InvalidSettings { what: "the use of PostgreSQL", problem: problem.to_owned(), help })
    };
    if !(FEWEST..=MOST).contains(&bounds.connections) {
        return refused("has too few or too many connections", "give 6 to 1000");
    }
    if bounds.look_ups_per_second == 0 {
        return refused("allows no look-ups", "give how many a second may bring at most");
    }
    let spans = [
        bounds.connect,
        bounds.replica_look_up,
        bounds.primary_look_up,
        bounds.quotas,
        bounds.changes,
        bounds.administration,
        bounds.oldest,
    ];
    if spans.iter().any(Duration::is_zero) {
        return refused("has a deadline of zero", "give a deadline that can be met");
    }
    Ok(())
}

/// One server, or several of which one is the primary.
#[derive(Clone)]
pub(super) struct Server {
    /// Addresses and database, to be shown.
    pub(super) at: Arc<str>,
    /// Each with one host.
    pub(super) hosts: Vec<Config>,
    pub(super) tls: MakeRustlsConnect,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.at).finish()
    }
}

/// What a URL says of TLS, which `tokio-postgres` does not know in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
}

impl Server {
    fn parse(
        what: &'static str,
        url: &str,
        ca: Option<&[u8]>,
        bounds: Bounds,
    ) -> Result<Self, InvalidSettings> {
        let refused = |problem: String, help| InvalidSettings { what, problem, help };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            let help = "write `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
            return Err(refused("does not begin with `postgres://`".to_owned(), help));
        }
        if url.matches('@').nth(1).is_some() {
            // What follows the first would be read, and told, as something else than a secret.
            let help = "write the `@` of a password as `%40`";
            return Err(refused("has more than one `@`".to_owned(), help));
        }
        let (rest, mode, root) = take_tls(url)
            .map_err(|problem| refused(problem, "remove the option, or mend its value"))?;
        // What the parser says names options, never their values.
        let parsed: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            refused(
                format!("cannot be read ({cause})"),
                "write `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, and `%` and two hex digits \
                 for signs that have a meaning in a URL",
            )
        })?;
        let names = check_target(&parsed).map_err(|(problem, help)| refused(problem, help))?;
        let private = root.is_some() || ca.is_some();
        let mode = match mode {
            Some(mode) => mode,
            None if !private && is_local(&parsed) => Mode::Disable,
            None => Mode::Require,
        };
        let tls = match (mode, root) {
            (Mode::Disable, _) => trust::nobody(),
            (_, Some(path)) => trust::authorities_in(&path),
            (_, None) => ca.map_or_else(trust::system, trust::authorities),
        };
        let tls = tls.map_err(|(problem, help)| refused(problem, help))?;
        let hosts = (0..names.len()).map(|host| alone(&parsed, host, mode, bounds)).collect();
        let database = parsed.get_dbname().or(parsed.get_user()).unwrap_or_default();
        let at = format!("{}/{database}", names.join(","));
        Ok(Self { at: at.into(), hosts, tls })
    }
}

/// Takes `sslmode` and `sslrootcert` out of a URL.
fn take_tls(url: &str) -> Result<(String, Option<Mode>, Option<PathBuf>), String> {
    let Some((base, query)) = split_query(url)? else {
        return Ok((url.to_owned(), None, None));
    };
    let (mut mode, mut root, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            // It could be any of them, and the parser would see another than is seen here.
            Some((name, _)) if name.contains('%') => {
                return Err("has a `%` in the name of an option".to_owned());
            }
            Some(("sslmode", "disable")) => mode = Some(Mode::Disable),
            Some(("sslmode", "prefer" | "allow")) => mode = Some(Mode::Prefer),
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => {
                mode = Some(Mode::Require);
            }
            Some(("sslmode", _)) => {
                let known = "disable, allow, prefer, require, verify-ca, verify-full";
                return Err(format!("has an `sslmode` that is none of {known}"));
            }
            Some(("sslrootcert", "system")) => root = None,
            Some(("sslrootcert", path)) => root = Some(decoded(path)?.into()),
            _ => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((rest, mode, root))
}

/// A URL up to its options, and the options. The parser takes what stands before the first `@` for user
/// and password wherever that is, so none may stand in an option.
fn split_query(url: &str) -> Result<Option<(&str, &str)>, String> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(start..).unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    // A `?` before the last `@` is a part of the password.
    let user = authority.rfind('@').and_then(|at| authority.get(..at)).unwrap_or_default();
    let behind = start + user.len();
    let query = url.get(behind..).and_then(|rest| rest.find('?')).map(|at| behind + at);
    let split = query.and_then(|at| Some((url.get(..at)?, url.get(at + 1..)?)));
    let has_options = user.split_once('?').is_some_and(|(_, options)| options.contains('='));
    if has_options || split.is_some_and(|(_, query)| query.contains('@')) {
        return Err("has an `@` behind a `?`, which is to be written as `%40`".to_owned());
    }
    Ok(split)
}

/// A value with its `%` and two hex digits resolved.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2).ok_or("has a `%` without two hex digits")?;
        let byte = u8::from_str_radix(code, 16).map_err(|_| "has a `%` without two hex digits")?;
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "has a value that is not UTF-8".to_owned())
}

/// The addresses, to be shown.
fn check_target(parsed: &Config) -> Result<Vec<String>, (String, &'static str)> {
    let (hosts, ports) = (parsed.get_hosts(), parsed.get_ports());
    if hosts.is_empty() {
        return Err(("names no host".to_owned(), "write the server's name or address"));
    }
    if parsed.get_user().is_none_or(str::is_empty) {
        return Err(("names no user".to_owned(), "write `postgres://USER:PASSWORD@HOST/DATABASE`"));
    }
    let mut names = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            // The rest of a password that was not written as it should be. It is not shown.
            Host::Tcp(name) if name.contains('@') => {
                let help = "write the `@` of a password as `%40`";
                return Err(("has more than one `@`".to_owned(), help));
            }
            Host::Tcp(name) if name.is_empty() => {
                return Err(("names no host".to_owned(), "write the server's name or address"));
            }
            Host::Tcp(name) => names.push(format!("{name}:{port}")),
            Host::Unix(path) => names.push(format!("{}:{port}", path.display())),
        }
    }
    Ok(names)
}

/// Whether all of it is on this machine: an address goes before a name.
fn is_local(parsed: &Config) -> bool {
    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    };
    parsed.get_hosts().iter().all(is_here) && parsed.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// The settings for one of the hosts.
fn alone(parsed: &Config, host: usize, mode: Mode, bounds: Bounds) -> Config {
    let mut config = Config::new();
    match parsed.get_hosts().get(host) {
        Some(Host::Tcp(name)) => config.host(name),
        Some(Host::Unix(path)) => config.host_path(path),
        None => &mut config,
    };
    if let Some(address) = parsed.get_hostaddrs().get(host) {
        config.hostaddr(*address);
    }
    let port = parsed.get_ports().get(host).or(parsed.get_ports().first());
    config.port(port.copied().unwrap_or(5432));
    parsed.get_user().map(|user| config.user(user));
    parsed.get_password().map(|password| config.password(password));
    parsed.get_dbname().map(|name| config.dbname(name));
    parsed.get_options().map(|options| config.options(options));
    config.application_name(parsed.get_application_name().unwrap_or("datahub-gateway"));
    config.target_session_attrs(parsed.get_target_session_attrs());
    config.channel_binding(parsed.get_channel_binding());
    config.ssl_negotiation(parsed.get_ssl_negotiation());
    config.ssl_mode(match mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Require => SslMode::Require,
    });
    config.connect_timeout(bounds.connect);
    // A machine that is gone says nothing; these notice it where no question does.
    config.tcp_user_timeout(*parsed.get_tcp_user_timeout().unwrap_or(&Duration::from_secs(5)));
    config.keepalives_idle(Duration::from_secs(5));
    config.keepalives_interval(Duration::from_secs(2));
    config.keepalives_retries(3);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Server, InvalidSettings> {
        Server::parse("the URL", url, None, Bounds::default())
    }

    #[test]
    fn a_url_says_where_and_how_it_is_trusted() {
        let require = SslMode::Require;
        let table = [
            ("postgres://u@127.0.0.1/gw", "127.0.0.1:5432/gw", SslMode::Disable),
            ("postgresql://u:p@localhost:7/gw", "localhost:7/gw", SslMode::Disable),
            ("postgres://u@[::1]/gw?sslmode=prefer", "::1:5432/gw", SslMode::Prefer),
            ("postgres://u@db/gw", "db:5432/gw", require),
            ("postgres://u@localhost,db:6/gw", "localhost:5432,db:6/gw", require),
            ("postgres://u@db/gw?sslmode=disable", "db:5432/gw", SslMode::Disable),
            ("postgres://u@db/gw?sslmode=verify-ca", "db:5432/gw", require),
            ("postgres://u@db/gw?connect_timeout=3&sslmode=verify-full", "db:5432/gw", require),
            ("postgres://u:a?b@db/gw?sslmode=disable", "db:5432/gw", SslMode::Disable),
            ("postgres://u@%2Frun%2Fpg/gw", "/run/pg:5432/gw", SslMode::Disable),
            ("postgres://u@localhost/gw?hostaddr=127.0.0.1", "localhost:5432/gw", SslMode::Disable),
            ("postgres://u:p@localhost/gw?hostaddr=10.0.0.1", "localhost:5432/gw", require),
            ("postgres://u:a/b@db/gw?sslmode=disable", "db:5432/gw", SslMode::Disable),
        ];
        for (url, at, mode) in table {
            let server = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((&*server.at, server.hosts[0].get_ssl_mode()), (at, mode), "{url}");
        }
        let server = parse("postgres://u:a%3Fb@db/gw?sslmode=disable").unwrap();
        assert_eq!(server.hosts[0].get_password(), Some(&b"a?b"[..]));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let table = [
            ("mysql://u:s3cret@db/gw", "does not begin with `postgres://`"),
            ("postgres://u:s3c@ret@db/gw", "write the `@` of a password as `%40`"),
            ("postgres://u:s3c@x?ret@db/gw", "write the `@` of a password as `%40`"),
            ("postgres://u:s3cret@db/gw?sslmode=maybe", "`sslmode` that is none of"),
            ("postgres://u:s3cret@db/gw?sslrootcert=%2", "`%` without two hex digits"),
            ("postgres://u:s3cret@db/gw?sslrootcert=/nowhere/ca.pem", "`/nowhere/ca.pem`"),
            ("postgres://u:s3cret@db/gw?colour=red", "unknown option `colour`"),
            ("postgres://u:s3cret@db:x/gw", "invalid value for option `port`"),
            ("postgres://u:s3cret@/gw", "names no host"),
            ("postgres://db/gw", "names no user"),
            ("postgres://u:s3cret@db/gw?ssl%6Dode=disable", "`%` in the name of an option"),
            ("postgres://db/gw?user=u&password=s3c@ret@&sslmode=disable", "more than one `@`"),
            ("postgres://db?user=u&password=s3c@ret@&sslmode=disable", "more than one `@`"),
            ("postgres://u:s3c/r?ret@db/gw", "`%40`"),
        ];
        for (url, expected) in table {
            let message = parse(url).unwrap_err().to_string();
            assert!(message.contains(expected), "{url}: {message}");
            assert!(!message.contains("s3c") && !message.contains("ret@"), "{message}");
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let url = "postgres://u:s3cret@db/gw?sslmode=disable";
        let settings = Settings::parse(url, Some(url), None, Bounds::default()).unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("db:5432/gw") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_private_authority_must_be_one() {
        let url = "postgres://u@db/gw";
        let settings = |ca: &[u8]| Settings::parse(url, None, Some(ca), Bounds::default());
        let message = settings(b"no certificate").unwrap_err().to_string();
        assert!(message.contains("there is no certificate"), "{message}");
    }

    #[test]
    fn bounds_that_cannot_work_are_refused() {
        let bounds = Bounds::default();
        for bounds in [
            Bounds { connections: 5, ..bounds },
            Bounds { look_ups_per_second: 0, ..bounds },
            Bounds { connect: Duration::ZERO, ..bounds },
        ] {
            let url = "postgres://u@127.0.0.1/gw";
            assert!(Settings::parse(url, None, None, bounds).is_err(), "{bounds:?}");
        }
    }
}
