//! The task: one process of the binary, put into its cgroup before it is started.

use crate::cgroup::Cgroup;
use crate::client::{CONSUMERS, SECRET};
use crate::postgres_lab::Server;
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Ticks of `/proc` in a second.
const TICKS: f64 = 100.0;
/// Becomes a member of the cgroup whose doors come first, and then the gateway.
const ENTER: &str = r#"
while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done
shift
exec "$@""#;

/// A gateway that runs.
pub(crate) struct Gateway {
    process: Child,
    public: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

/// What it has used by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// KiB that are resident.
    pub(crate) memory: f64,
    pub(crate) cpu: Duration,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing better can be done about a process that has ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Gateway {
    /// Makes the tables and the consumers, starts it, and waits until it answers.
    pub(crate) fn start(
        group: Option<&Cgroup>,
        postgres: &Server,
        redis: &str,
        origin: SocketAddr,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let conf = folder.path().join("conf");
        std::fs::create_dir(&conf)?;
        std::fs::write(conf.join("gateway.toml"), text(origin))?;
        let database = postgres.database();
        let url = format!("{}?sslmode=disable", postgres.url(&database));
        stock(&conf, postgres, &database, &url)?;
        let (ready, log) = (folder.path().join("ready.json"), folder.path().join("log"));
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "enter"]).args(group.iter().flat_map(|group| group.doors()));
        command.arg("--").arg(env!("CARGO_BIN_EXE_gateway")).arg("--conf").arg(&conf);
        let process = command
            .arg("run")
            .arg("--ready-file")
            .arg(&ready)
            .env("DATABASE_URL", &url)
            .env("REDIS_URL", redis)
            .env("JWT_SECRET", SECRET)
            .env("API_KEY_PEPPER", "a pepper that only a bench has seen")
            .stdin(Stdio::null())
            // Every line is written, as in a container; nobody keeps it.
            .stdout(File::options().write(true).open("/dev/null")?)
            .stderr(File::create(&log)?)
            .spawn()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self { process, public: nowhere, admin: nowhere, _folder: folder };
        (gateway.public, gateway.admin) = gateway.addresses(&ready, &log)?;
        Ok(gateway)
    }

    fn addresses(&mut self, ready: &Path, log: &Path) -> Result<(SocketAddr, SocketAddr)> {
        let began = Instant::now();
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(ready) {
                break text;
            }
            if began.elapsed() > PATIENCE || self.process.try_wait()?.is_some() {
                bail!("it does not start:\n{}", std::fs::read_to_string(log)?);
            }
            std::thread::sleep(LOOK);
        };
        let ready: serde_json::Value = serde_json::from_str(&text)?;
        let address = |at: &str| -> Result<SocketAddr> {
            let text = ready.pointer(at).and_then(serde_json::Value::as_str);
            Ok(text.with_context(|| format!("`{at}` is not in {ready}"))?.parse()?)
        };
        Ok((address("/listeners/public")?, address("/admin")?))
    }

    /// Where clients connect.
    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    /// Waits until it has reached all of Redis.
    pub(crate) async fn wait_for_redis(&self) -> Result<()> {
        let began = Instant::now();
        while number(&self.metrics().await?, "gateway_redis_up")? < 1.0 {
            ensure!(began.elapsed() < PATIENCE, "the gateway does not reach Redis");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What it has asked Redis so far.
    pub(crate) async fn asked(&self) -> Result<String> {
        let text = self.metrics().await?;
        let of = |name: &str| number(&text, name);
        Ok(format!(
            "asked Redis {} times ahead and {} times for a request; {} decided by share",
            of("gateway_limit_questions_total{kind=\"lease\"}")?,
            of("gateway_limit_questions_total{kind=\"exact\"}")?,
            of("gateway_limit_fallbacks_total{kind=\"share\"}")?,
        ))
    }

    /// What it uses.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let folder = format!("/proc/{}", self.process.id());
        let status = std::fs::read_to_string(format!("{folder}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let memory = line.split_whitespace().next().context("VmRSS")?.parse()?;
        let stat = std::fs::read_to_string(format!("{folder}/stat"))?;
        // After the name, which may hold anything: the state is the first field.
        let fields = stat.rsplit(") ").next().context("stat")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
        let ticks: f64 = ticks.sum::<Result<_, _>>()?;
        Ok(Usage { memory, cpu: Duration::from_secs_f64(ticks / TICKS) })
    }

    async fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let host = self.admin;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await??;
        ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
        Ok(text)
    }
}

/// Makes the tables, and in them the consumers that will call.
fn stock(conf: &Path, postgres: &Server, database: &str, url: &str) -> Result<()> {
    let migrated = Command::new(env!("CARGO_BIN_EXE_gateway"))
        .arg("--conf")
        .arg(conf)
        .arg("migrate")
        .env("DATABASE_URL", url)
        .output()?;
    ensure!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let mut lines = String::new();
    for number in 0..CONSUMERS {
        writeln!(lines, "id-{number:02}\tconsumer-{number:02}\tstandard")?;
    }
    postgres.load(database, "COPY consumers (id, username, plan) FROM STDIN", &lines);
    Ok(())
}

/// Half a CPU is one worker; in a container the gateway sees that for itself. The rest is as
/// conf/examples/fleet has it, but that the limit is one that nobody reaches.
fn text(origin: SocketAddr) -> String {
    format!(
        "workers = 1\n[listeners.public]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [store.postgres]\nurl = \"env:DATABASE_URL\"\n[redis]\nurl = \"env:REDIS_URL\"\n\
         [fleet]\nexpected = 3\n[auth.jwt.accounts]\nsecret = \"env:JWT_SECRET\"\n\
         [plans.standard.limits.second]\nrate = \"2000/s\"\nburst = 4000\n\
         [upstreams.origin]\nendpoints = [\"{origin}\"]\n\
         [routes.orders]\npath = \"/orders\"\nauth = \"jwt\"\nupstream = \"origin\"\n"
    )
}

/// The value of a series.
fn number(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no {name}:\n{metrics}"))?.trim().parse()?)
}
