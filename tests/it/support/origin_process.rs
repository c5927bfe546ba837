//! An origin in a process of its own, to be killed, frozen and thawed as a machine would be.
//!
//! The process is this test binary once more, asked for the one test below, which serves until its
//! standard input closes: so it ends with the test that started it, however that ends.

use super::eventually;
use super::origin::{Behaviour, Origin};
use super::process::Process;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

const ADDRESS: &str = "IT_ORIGIN_ADDRESS";
const NAME: &str = "IT_ORIGIN_NAME";
const FOLDER: &str = "IT_ORIGIN_FOLDER";

/// A child that answers 200 with the request's body, `x-origin: name`, and notes each request.
pub(crate) struct OriginProcess {
    name: String,
    address: SocketAddr,
    folder: tempfile::TempDir,
    process: Process,
}

/// A line of its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) method: String,
    pub(crate) target: String,
    /// `x-request-tag`, as the load generator sends it.
    pub(crate) tag: String,
}

impl OriginProcess {
    pub(crate) async fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(name, "127.0.0.1:0".parse().unwrap(), folder.path().to_owned());
        let address = ready(&folder).await;
        Self { name: name.to_owned(), address, folder, process }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// `kill -9`: the kernel resets its connections.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: the kernel still accepts connections, nobody answers.
    pub(crate) fn freeze(&self) {
        self.process.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// A new process at the same address, after [`OriginProcess::kill`]; the journal goes on.
    pub(crate) async fn revive(&mut self) {
        std::fs::remove_file(self.folder.path().join("ready")).unwrap();
        self.process = spawn(&self.name, self.address, self.folder.path().to_owned());
        assert_eq!(ready(&self.folder).await, self.address);
    }

    /// Every request that reached any of its lives.
    pub(crate) fn journal(&self) -> Vec<Noted> {
        let text = std::fs::read_to_string(self.folder.path().join("journal")).unwrap();
        // A line that a kill cut short has no end.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                let mut words = line.splitn(3, ' ').map(str::to_owned);
                let mut word = || words.next().unwrap_or_default();
                Noted { method: word(), target: word(), tag: word() }
            })
            .collect()
    }
}

async fn ready(folder: &tempfile::TempDir) -> SocketAddr {
    let path = folder.path().join("ready");
    eventually("the origin process", || std::fs::read_to_string(&path).ok()?.parse().ok()).await
}

fn spawn(name: &str, at: SocketAddr, folder: PathBuf) -> Process {
    // Without the name of the crate, as the test runner wants it.
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&format!("{module}::serve_as_a_child"), "--exact", "--nocapture"])
        .env(ADDRESS, at.to_string())
        .env(NAME, name)
        .env(FOLDER, folder);
    Process::start(&mut command)
}

/// Not a test, unless [`spawn`] asks for it.
#[tokio::test]
async fn serve_as_a_child() {
    let (Ok(address), Ok(name), Some(folder)) =
        (std::env::var(ADDRESS), std::env::var(NAME), std::env::var_os(FOLDER))
    else {
        return;
    };
    let folder = PathBuf::from(folder);
    let origin = Origin::listen(&name, address.parse().unwrap(), None).await;
    let journal =
        std::fs::OpenOptions::new().append(true).create(true).open(folder.join("journal"));
    origin.journal(journal.unwrap()).answer(Behaviour::Echo);
    super::tls::replace(&folder.join("ready"), &origin.authority());
    let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    closed.await.unwrap().unwrap();
}
