//! The processes of a fleet.

use crate::{BURST, RATE};
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NUMBER: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// All of them, running.
pub(crate) struct Gateways {
    // Ended, and removed, in this order.
    all: Vec<Gateway>,
    _folder: tempfile::TempDir,
}

struct Gateway {
    process: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing better can be done about a process that has ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Gateways {
    /// Starts them and waits until they answer.
    pub(crate) fn start(redis: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let all = (0..NUMBER).map(|number| {
            let folder = folder.path().join(number.to_string());
            start(&folder, redis).with_context(|| format!("gateway {number}"))
        });
        Ok(Self { all: all.collect::<Result<_>>()?, _folder: folder })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where clients connect.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|gateway| gateway.public)
    }

    /// Waits until each has reached all of Redis.
    pub(crate) async fn wait_for_redis(&self) -> Result<()> {
        let began = Instant::now();
        for gateway in &self.all {
            while number(&metrics(gateway.admin).await?, "gateway_redis_up")? < 1.0 {
                ensure!(began.elapsed() < PATIENCE, "a gateway does not reach Redis");
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// What they have asked Redis so far.
    pub(crate) async fn questions(&self) -> Result<Questions> {
        let mut questions = Questions::default();
        for gateway in &self.all {
            let text = metrics(gateway.admin).await?;
            for (name, count) in &mut questions.0 {
                *count += number(&text, name)?;
            }
        }
        Ok(questions)
    }
}

/// Counts, by their names in the metrics.
pub(crate) struct Questions([(&'static str, f64); 6]);

impl Default for Questions {
    fn default() -> Self {
        Self([
            ("gateway_limit_questions_total{kind=\"exact\"}", 0.0),
            ("gateway_limit_questions_total{kind=\"lease\"}", 0.0),
            ("gateway_limit_questions_total{kind=\"memory\"}", 0.0),
            ("gateway_limit_permits_total{result=\"leased\"}", 0.0),
            ("gateway_limit_permits_total{result=\"unused\"}", 0.0),
            ("gateway_limit_fallbacks_total{kind=\"share\"}", 0.0),
        ])
    }
}

impl Questions {
    /// Requests that were decided without Redis, because it did not answer in time.
    pub(crate) fn alone(&self) -> f64 {
        let [.., (_, share)] = self.0;
        share
    }

    /// What came after `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for ((_, count), (_, earlier)) in self.0.iter_mut().zip(&before.0) {
            *count -= earlier;
        }
        self
    }
}

impl fmt::Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [exact, lease, memory, leased, unused, share] = self.0.map(|(_, count)| count);
        write!(
            f,
            "asked Redis {exact:.0} times for a request and {lease:.0} times ahead; refused {memory:.0} \
             from memory; {leased:.0} permits leased, {unused:.0} of them unused; {share:.0} fell back"
        )
    }
}

fn start(folder: &Path, redis: &str) -> Result<Gateway> {
    let conf = folder.join("conf");
    std::fs::create_dir_all(&conf)?;
    std::fs::create_dir_all(folder.join("data"))?;
    std::fs::write(conf.join("gateway.toml"), text())?;
    let (ready, log) = (folder.join("ready.json"), folder.join("log"));
    let process = Command::new(env!("CARGO_BIN_EXE_gateway"))
        .arg("--conf")
        .arg(&conf)
        .arg("run")
        .arg("--ready-file")
        .arg(&ready)
        .env("REDIS_URL", redis)
        .env("API_KEY_PEPPER", "a pepper that all tasks of a bench share")
        .stdin(Stdio::null())
        .stdout(File::create(folder.join("access.log"))?)
        .stderr(File::create(&log)?)
        .spawn()?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut gateway = Gateway { process, public: nowhere, admin: nowhere };
    let began = Instant::now();
    let text = loop {
        if let Ok(text) = std::fs::read_to_string(&ready) {
            break text;
        }
        if began.elapsed() > PATIENCE || gateway.process.try_wait()?.is_some() {
            bail!("it does not start:\n{}", std::fs::read_to_string(log)?);
        }
        std::thread::sleep(LOOK);
    };
    let ready: serde_json::Value = serde_json::from_str(&text)?;
    let address = |at: &str| -> Result<SocketAddr> {
        let text = ready.pointer(at).and_then(serde_json::Value::as_str);
        Ok(text.with_context(|| format!("`{at}` is not in {ready}"))?.parse()?)
    };
    (gateway.public, gateway.admin) = (address("/listeners/public")?, address("/admin")?);
    Ok(gateway)
}

fn text() -> String {
    let route = |name: &str, more: &str| {
        format!(
            "[routes.{name}]\npath = \"/{name}\"\nauth = \"none\"\n\
             reply = {{ status = 200, body = \"ok\" }}\n\
             [routes.{name}.limits.total]\nper = \"route\"\n{more}\n"
        )
    };
    let shared = format!("rate = \"{RATE}/s\"\nburst = {BURST}\n");
    format!(
        "workers = 1\n[listeners.public]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [store]\npath = \"../data/gateway.db\"\n[redis]\nurl = \"env:REDIS_URL\"\n\
         [fleet]\nexpected = {NUMBER}\n[access_log]\noutput = \"off\"\n\
         [auth.api_key]\npepper = \"env:API_KEY_PEPPER\"\n{}{}{}",
        route("unshared", "rate = \"1000000/s\"\nscope = \"task\""),
        route("exact", &format!("{shared}precision = \"exact\"")),
        route("leased", &format!("{shared}precision = \"leased\"")),
    )
}

async fn metrics(admin: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await??;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok(text)
}

/// The value of a series.
fn number(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no {name}:\n{metrics}"))?.trim().parse()?)
}
