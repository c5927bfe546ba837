//! A Redis Cluster for tests: three masters with a replica each, on free ports of loopback, in a folder
//! of its own. Clients meet every node through a proxy that can misbehave.
//!
//! Each server is the child of a shell that waits for a pipe from the test to close, which it does
//! however the test ends, and then ends the server.

#[path = "fault.rs"]
pub(crate) mod fault;

use fault::{Faults, Mode};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How soon a silent node counts as gone.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "lab p@ssword";
const USER: &str = "gateway";
const NODES: usize = 6;

/// Runs `redis-server` with the arguments and says its process id.
const SUPERVISOR: &str = r#"redis-server "$@" </dev/null >/dev/null 2>&1 & pid=$!
echo $pid
read -r _
kill -CONT $pid 2>/dev/null; kill -KILL $pid 2>/dev/null
wait"#;

/// The cluster.
pub(crate) struct RedisCluster {
    folder: tempfile::TempDir,
    secure: bool,
    clustered: bool,
    nodes: Vec<Node>,
    faults: Faults,
}

struct Node {
    port: u16,
    bus: u16,
    running: Option<(Child, u32)>,
}

impl RedisCluster {
    /// Starts a cluster that trusts everybody.
    pub(crate) fn start() -> Self {
        Self::start_with(false, true)
    }

    /// Starts a cluster that speaks TLS only and wants a password.
    pub(crate) fn start_secure() -> Self {
        Self::start_with(true, true)
    }

    /// Starts a single server without cluster support.
    pub(crate) fn start_single() -> Self {
        Self::start_with(false, false)
    }

    fn start_with(secure: bool, clustered: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if secure {
            make_certificates(&folder.path().join("ca.pem"), folder.path());
        }
        let count = if clustered { NODES } else { 1 };
        let mut free = free_ports(count * 2).into_iter();
        let mut node =
            || Node { port: free.next().unwrap(), bus: free.next().unwrap(), running: None };
        let nodes: Vec<_> = (0..count).map(|_| node()).collect();
        let faults = Faults::before(&nodes.iter().map(|node| node.port).collect::<Vec<_>>());
        let mut cluster = Self { folder, secure, clustered, nodes, faults };
        for index in 0..count {
            cluster.restart(index);
        }
        for index in 0..count {
            cluster
                .wait_until("a server answers", || cluster.cli(index, &["ping"]).contains("PONG"));
        }
        if clustered {
            cluster.form();
        }
        cluster
    }

    fn form(&self) {
        let addresses: Vec<_> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut args = vec!["--cluster", "create"];
        args.extend(addresses.iter().map(String::as_str));
        args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let formed = self.cli(0, &args);
        assert!(formed.contains("All 16384 slots covered"), "{formed}");
        self.wait_until_whole();
    }

    /// Waits until every node that runs is well and three replicas have their data.
    pub(crate) fn wait_until_whole(&self) {
        for index in self.running() {
            self.wait_until("a node is well", || {
                self.cli(index, &["cluster", "info"]).contains("cluster_state:ok")
            });
        }
        // Before its first synchronization a replica is never promoted.
        self.wait_until("the replicas have synchronized", || {
            let linked = |index: &usize| {
                self.cli(*index, &["info", "replication"]).contains("master_link_status:up")
            };
            self.running().iter().filter(|index| linked(index)).count() >= NODES / 2
        });
    }

    /// What a gateway needs to know, naming the first two nodes.
    pub(crate) fn url(&self) -> String {
        let ports: Vec<_> = self.faults.ports().iter().take(2).collect();
        let nodes: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        if self.secure {
            let password = PASSWORD.replace(' ', "%20").replace('@', "%40");
            format!("rediss://{USER}:{password}@{}", nodes.join(","))
        } else {
            format!("redis://{}", nodes.join(","))
        }
    }

    /// Who signs for the nodes, as PEM.
    pub(crate) fn ca(&self) -> Option<Vec<u8>> {
        self.secure.then(|| fs::read(self.folder.path().join("ca.pem")).unwrap())
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes that are masters and run, as the others see it.
    pub(crate) fn masters(&self) -> Vec<usize> {
        let is_master = |index: &usize| self.cli(*index, &["role"]).starts_with("master");
        self.running().into_iter().filter(is_master).collect()
    }

    /// Moves so many slots from one master to another, by their ids; what redis-cli said.
    pub(crate) fn reshard(&self, from: &str, to: &str, slots: u32) -> String {
        let node = format!("127.0.0.1:{}", self.nodes[0].port);
        let slots = slots.to_string();
        let mut args = vec!["--cluster", "reshard", &node, "--cluster-from", from];
        args.extend(["--cluster-to", to, "--cluster-slots", &slots, "--cluster-yes"]);
        self.cli(0, &args)
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].running.is_some()).collect()
    }

    /// Stops a node where it stands: it accepts connections and answers nothing.
    pub(crate) fn freeze(&self, index: usize) {
        self.signal(index, "-STOP");
    }

    /// Lets a frozen node go on.
    pub(crate) fn thaw(&self, index: usize) {
        self.signal(index, "-CONT");
    }

    /// Ends a node without warning.
    pub(crate) fn kill(&mut self, index: usize) {
        self.signal(index, "-KILL");
        let (mut supervisor, _) = self.nodes[index].running.take().unwrap();
        drop(supervisor.stdin.take());
        supervisor.wait().unwrap();
    }

    /// Starts a node that does not run. It has forgotten all keys, and remembers the cluster.
    pub(crate) fn restart(&mut self, index: usize) {
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "redis-server"])
            .args(self.arguments(index))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.nodes[index].running = Some((supervisor, line.trim().parse().unwrap()));
    }

    /// Forgets all keys, and all scripts.
    pub(crate) fn flush(&self) {
        for index in self.masters() {
            assert!(self.cli(index, &["flushall"]).contains("OK"));
            assert!(self.cli(index, &["script", "flush"]).contains("OK"));
        }
    }

    /// What the way to a node does.
    pub(crate) fn fault(&self, index: usize, mode: Mode) {
        self.faults.set(index, mode);
    }

    /// What the way to every node does.
    pub(crate) fn fault_all(&self, mode: Mode) {
        self.faults.set_all(mode);
    }

    /// Runs a command at a node, not through its proxy; what it said.
    pub(crate) fn cli(&self, index: usize, args: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.args([
            "30",
            "redis-cli",
            "-h",
            "127.0.0.1",
            "-p",
            &self.nodes[index].port.to_string(),
        ]);
        if self.secure {
            let ca = self.folder.path().join("ca.pem");
            command.arg("--tls").arg("--cacert").arg(ca);
            command.args(["--user", USER, "--pass", PASSWORD, "--no-auth-warning"]);
        }
        let output = command.args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, index: usize, signal: &str) {
        let (_, pid) = self.nodes[index].running.as_ref().unwrap();
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }

    fn arguments(&self, index: usize) -> Vec<String> {
        let node = &self.nodes[index];
        let folder = self.folder.path().join(node.port.to_string());
        fs::create_dir_all(&folder).unwrap();
        let announced = self.faults.ports()[index].to_string();
        let (port, bus) = (node.port.to_string(), node.bus.to_string());
        let folder = folder.to_str().unwrap();
        let timeout = NODE_TIMEOUT.as_millis().to_string();
        let mut args = vec!["--bind", "127.0.0.1", "--dir", folder, "--logfile", "log"];
        args.extend(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        if self.clustered {
            args.extend(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
            args.extend(["--cluster-node-timeout", &timeout, "--cluster-port", &bus]);
            args.extend(["--cluster-require-full-coverage", "no"]);
        }
        let file = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (ca, cert, key) = (file("ca.pem"), file("node.pem"), file("node.key"));
        if self.secure {
            args.extend(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            args.extend([
                "--tls-ca-cert-file",
                &ca,
                "--tls-cert-file",
                &cert,
                "--tls-key-file",
                &key,
            ]);
            args.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
            args.extend(["--cluster-announce-tls-port", &announced, "--masterauth", PASSWORD]);
            args.extend(["--masteruser", USER, "--aclfile", ""]);
        } else {
            args.extend(["--port", &port]);
            if self.clustered {
                args.extend(["--cluster-announce-port", &announced]);
            }
        }
        let mut args: Vec<_> = args.into_iter().map(str::to_owned).collect();
        if self.secure {
            // Nobody may do anything without the password.
            let users = file(&format!("users.{}", node.port));
            fs::write(
                &users,
                format!("user default off\nuser {USER} on #{} ~* &* +@all\n", digest()),
            )
            .unwrap();
            let at = args.iter().position(|arg| arg == "--aclfile").unwrap();
            args[at + 1] = users;
        }
        args
    }
}

/// The SHA-256 of the password, since one with a space cannot stand in a file of users.
fn digest() -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(PASSWORD.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make_certificates(ca_file: &PathBuf, folder: &std::path::Path) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // Under the same name as the nodes', OpenSSL would take theirs for self-signed.
    params.distinguished_name.push(rcgen::DnType::CommonName, "the lab's own authority");
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let node = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let node = node.signed_by(&key, &issuer).unwrap();
    fs::write(ca_file, ca.pem()).unwrap();
    fs::write(folder.join("node.pem"), node.pem()).unwrap();
    fs::write(folder.join("node.key"), key.serialize_pem()).unwrap();
}

/// Ports that were free a moment ago, all at once. They are below those that the system gives to clients,
/// so that no connection of a busy machine takes one before its server does, or while that is away.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        let port: u16 = rand::random_range(10_000..32_000);
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
