//! Real PostgreSQL servers for tests: a primary, and what happens to it.
//!
//! Each has a free port, a folder of its own under the system's temporary one, and a supervisor, a small
//! shell that starts it and waits on a pipe from this process: when the pipe closes, because the server
//! is dropped or because this process ended in whatever way, it stops the server and removes the folder.
//!
//! PostgreSQL refuses to run as root, so its programs run as the user `postgres` then.
//!
//! Must stay true: a server that cannot be started fails the test; nothing outlives the process.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]
#![allow(dead_code, reason = "each crate of tests uses a part of it")]

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The role that gateways use; it owns the databases.
pub(crate) const USER: &str = "gw";

/// Reads commands until its standard input closes: `$1` the folder, the rest the command that changes
/// to the server's user.
const SUPERVISOR: &str = r#"
folder=$1; shift
trap '' PIPE INT TERM
pid=
ended() { ! [ -d "/proc/$pid" ] || grep -q '^State:.Z' "/proc/$pid/status"; }
start() {
  # Fetches the exit of one that was killed, so that it does not count as running.
  [ -z "$pid" ] || wait "$pid"
  "$@" postgres -D "$folder/data" </dev/null >>"$folder/log" 2>&1 &
  pid=$!
  until pg_isready -q -h "$folder" -p "$(cat "$folder/port")"; do
    if ended; then return 1; fi
    sleep 0.02
  done
}
while read -r command; do
  case $command in
    start) start "$@" ;;
    promote) "$@" pg_ctl -D "$folder/data" -w -t 60 promote >/dev/null 2>&1 ;;
  esac
  echo "$? $pid"
done
if [ -n "$pid" ] && ! ended; then
  kill -CONT "$pid" $(cat "/proc/$pid/task/$pid/children") 2>/dev/null
  kill -QUIT "$pid"
  wait "$pid"
fi
rm -rf "$folder"
"#;

/// A server.
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
    supervisor: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    main: u32,
    password: Option<String>,
    host: &'static str,
}

/// How a server is to be.
#[derive(Default)]
pub(crate) struct Setup {
    /// Clients must use TLS, under this authority.
    pub(crate) tls: Option<Authority>,
    /// Clients must know this password.
    pub(crate) password: Option<String>,
}

/// A server that all tests of this process share; each makes a database of its own.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&Setup::default()))
}

impl Server {
    /// Starts a primary.
    pub(crate) fn start(setup: &Setup) -> Self {
        let mut server = Self::prepare();
        let data = server.data();
        server.run(&[
            "initdb",
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]);
        let encrypted = setup.tls.as_ref().map(|authority| {
            let issued = authority.issue("localhost");
            server.write_private("server.pem", &issued.chain);
            server.write_private("server.key", &issued.key);
        });
        server.configure(encrypted.is_some());
        let kind = if encrypted.is_some() { "hostssl" } else { "host" };
        let method = if setup.password.is_some() { "scram-sha-256" } else { "trust" };
        let rules = format!(
            "local all all trust\nlocal replication all trust\n{kind} all all 127.0.0.1/32 {method}\n\
             "
        );
        fs::write(server.folder.join("data/pg_hba.conf"), rules).unwrap();
        server.host = if encrypted.is_some() { "localhost" } else { "127.0.0.1" };
        server.start_again();
        server.sql("postgres", &format!("CREATE ROLE {USER} LOGIN"));
        if let Some(password) = &setup.password {
            server.sql("postgres", &format!("ALTER ROLE {USER} PASSWORD '{password}'"));
            server.password = Some(password.clone());
        }
        server
    }

    /// Starts a replica that follows this primary.
    pub(crate) fn replica(&self) -> Self {
        let mut replica = Self::prepare();
        let (data, from) = (replica.data(), self.folder.to_str().unwrap().to_owned());
        let port = self.port.to_string();
        replica.run(&[
            "pg_basebackup",
            "-h",
            &from,
            "-p",
            &port,
            "-U",
            "postgres",
            "-D",
            &data,
            "-R",
            "-X",
            "stream",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        replica.configure(false);
        replica.start_again();
        replica
    }

    fn prepare() -> Self {
        let folder = tempfile::Builder::new().prefix("gateway-pg-").tempdir().unwrap().keep();
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(&folder).status().unwrap();
            assert!(owned.success(), "{folder:?} cannot be given to the user `postgres`");
        }
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(&folder)
            .args(as_server())
            .env("PATH", path())
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = supervisor.stdin.take();
        let answers = BufReader::new(supervisor.stdout.take().unwrap());
        Self {
            folder,
            port: 0,
            supervisor,
            commands,
            answers,
            main: 0,
            password: None,
            host: "127.0.0.1",
        }
    }

    fn data(&self) -> String {
        self.folder.join("data").to_str().unwrap().to_owned()
    }

    fn configure(&mut self, tls: bool) {
        self.port = free_port();
        fs::write(self.folder.join("port"), self.port.to_string()).unwrap();
        let (folder, port) = (self.folder.display(), self.port);
        let mut text = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {port}\n\
             unix_socket_directories = '{folder}'\nfsync = off\nshared_buffers = 32MB\n\
             max_connections = 400\nwal_level = replica\nmax_wal_senders = 5\n\
             wal_keep_size = 64MB\nhot_standby = on\nautovacuum = off\nlog_min_messages = warning\n"
        );
        if tls {
            text.push_str(&format!(
                "ssl = on\nssl_cert_file = '{folder}/server.pem'\n\
                 ssl_key_file = '{folder}/server.key'\n"
            ));
        }
        let mut options = OpenOptions::new();
        let mut file = options.append(true).open(self.folder.join("data/postgresql.conf")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn write_private(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(&path).status().unwrap();
            assert!(owned.success());
        }
    }

    /// Starts it again after [`Server::kill`].
    pub(crate) fn start_again(&mut self) {
        let answer = self.command("start");
        let Some(main) = answer.strip_prefix("0 ").and_then(|pid| pid.parse().ok()) else {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            panic!("PostgreSQL does not start ({answer}):\n{log}");
        };
        self.main = main;
    }

    /// Makes a replica the primary.
    pub(crate) fn promote(&mut self) {
        let answer = self.command("promote");
        assert!(answer.starts_with("0 "), "{answer}");
    }

    fn command(&mut self, command: &str) -> String {
        writeln!(self.commands.as_ref().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as it stands in a URL.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let password = self.password.as_ref().map_or(String::new(), |word| format!(":{word}"));
        format!("postgres://{USER}{password}@{}/{database}", self.address())
    }

    /// Makes an empty database; returns its name.
    pub(crate) fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("d{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        name
    }

    /// What `sql` answers, a row in a line, with `|` between columns.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let output = Command::new("psql")
            .env("PATH", path())
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &port, "-d", database])
            .arg("-h")
            .arg(&self.folder)
            .args(["-c", sql])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Loads a file into a table by `copy`, a `COPY ... FROM STDIN`.
    pub(crate) fn load(&self, database: &str, copy: &str, lines: &str) {
        let port = self.port.to_string();
        let mut psql = Command::new("psql")
            .env("PATH", path())
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &port, "-d", database])
            .arg("-h")
            .arg(&self.folder)
            .args(["-c", copy])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        psql.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(psql.wait().unwrap().success(), "{copy}");
    }

    /// Nothing answers any more, though connections are still taken.
    pub(crate) fn freeze(&self) {
        signal("-STOP", &[self.main]);
        signal("-STOP", &self.children());
    }

    /// All goes on.
    pub(crate) fn thaw(&self) {
        let mut all = self.children();
        all.push(self.main);
        signal("-CONT", &all);
    }

    /// As if its machine had been switched off.
    pub(crate) fn kill(&self) {
        signal("-STOP", &[self.main]);
        let mut all = self.children();
        all.push(self.main);
        signal("-KILL", &all);
        let is_alive = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
        };
        while all.iter().any(is_alive) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn children(&self) -> Vec<u32> {
        let main = self.main;
        let list = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// A replica keeps what it has, and goes no further.
    pub(crate) fn pause_replay(&self) {
        self.sql("postgres", "SELECT pg_wal_replay_pause()");
    }

    /// A replica goes on.
    pub(crate) fn resume_replay(&self) {
        self.sql("postgres", "SELECT pg_wal_replay_resume()");
    }

    /// Runs one of PostgreSQL's programs as the server's user.
    fn run(&self, command: &[&str]) {
        let mut line = as_server();
        line.extend(command.iter().map(|part| (*part).to_owned()));
        let (program, arguments) = line.split_first().unwrap();
        let output = Command::new(program)
            .args(arguments)
            .env("PATH", path())
            .env("LC_ALL", "C")
            .current_dir("/")
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}; is postgresql-15 installed?"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {error}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The supervisor stops the server then.
        self.commands = None;
        drop(self.supervisor.wait());
    }
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    // One of them may have ended by itself.
    Command::new("kill").arg(name).args(pids).stderr(Stdio::null()).status().unwrap();
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// What stands before a command that is to run as the server's user.
fn as_server() -> Vec<String> {
    let line: &[&str] = if is_root() {
        &["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    } else {
        &["env"]
    };
    line.iter().map(|part| (*part).to_owned()).collect()
}

/// Where PostgreSQL's programs are: Debian keeps them apart.
fn path() -> String {
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let apart = ["18", "17", "16", "15"]
        .map(|version| format!("/usr/lib/postgresql/{version}/bin"))
        .into_iter()
        .rfind(|folder| Path::new(folder).join("initdb").exists());
    apart.map_or(usual.to_owned(), |folder| format!("{folder}:{usual}"))
}

/// Below those that the system gives to clients, so that no connection takes it while the server is away.
fn free_port() -> u16 {
    loop {
        let port: u16 = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// Chain and key, PEM.
struct Issued {
    chain: String,
    key: String,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self, name: &str) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "issued for a test");
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// Its certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }
}
