//! The gateway as an operator runs it: a folder of conf files and a process.

use super::client::{Answer, Client, Keys, Request};
use super::metrics::Metrics;
use super::process::{Lines, Process};
use super::tls::{self, Authority};
use super::{eventually, eventually_async};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use toml::{Table, Value};

/// Signs and checks the tokens of tests.
pub(crate) const JWT_SECRET: &str = "it-only-secret-it-only-secret-it-only-secret";

/// What every gateway of a test has: free ports, two workers, no announcement before the drain, and
/// an issuer whose secret is [`JWT_SECRET`].
const BASE: &str = r#"
workers = 2
[listeners.public]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
path = "../data/gateway.db"
[drain]
announce = "0s"
deadline = "10s"
[auth.jwt.default]
"#;

/// A gateway that is being described.
pub(crate) struct Builder {
    base: Table,
    files: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    keys: Vec<(String, String)>,
    authority: Option<Authority>,
    folder: tempfile::TempDir,
}

/// A gateway that did not start.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// A running gateway.
pub(crate) struct Gateway {
    process: Process,
    files: Files,
    listeners: BTreeMap<String, SocketAddr>,
    admin: Option<SocketAddr>,
    client: Client,
    keys: Keys,
    consumers: Mutex<BTreeSet<String>>,
    authority: Option<Authority>,
}

/// Its folder and how its program is called.
struct Files {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

/// A folder with a configuration in which no gateway runs, not yet or not any more.
pub(crate) struct Folder {
    files: Files,
    keys: Keys,
    consumers: Mutex<BTreeSet<String>>,
    authority: Option<Authority>,
}

/// What became of a reload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// The `result` label that was counted: `success` or `failure`.
    pub(crate) result: String,
    /// The revision in force after it.
    pub(crate) revision: u64,
}

impl Builder {
    /// Merges TOML into `gateway.toml`: tables are joined, values replaced.
    pub(crate) fn toml(mut self, text: &str) -> Self {
        merge(&mut self.base, parse(text));
        self
    }

    /// `[routes.name]` with this body.
    pub(crate) fn route(self, name: &str, body: &str) -> Self {
        self.entry(&["routes", name], body)
    }

    /// `[upstreams.name]` with these endpoints.
    pub(crate) fn upstream(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        self.upstream_with(name, endpoints, "")
    }

    /// As [`Builder::upstream`], with more in its table.
    pub(crate) fn upstream_with(self, name: &str, endpoints: &[SocketAddr], body: &str) -> Self {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        self.entry(&["upstreams", name], &format!("endpoints = {endpoints:?}"))
            .entry(&["upstreams", name], body)
    }

    /// A plan with one limit, such as `2/min`.
    pub(crate) fn plan(self, name: &str, rate: &str) -> Self {
        self.entry(&["plans", name, "limits", "requests"], &format!("rate = {rate:?}"))
    }

    /// `[plans.name]` with this body.
    pub(crate) fn plan_with(self, name: &str, body: &str) -> Self {
        self.entry(&["plans", name], body)
    }

    /// A listener `name` with TLS, on a free port, with a certificate for [`tls::NAME`].
    pub(crate) fn tls_listener(mut self, name: &str) -> Self {
        let authority = self.authority.get_or_insert_with(Authority::new);
        let (chain, key) = authority.issue(&[tls::NAME]).write(&self.folder.path().join("tls"));
        let body = format!(
            "address = \"127.0.0.1:0\"\n[tls]\ncertificate = {chain:?}\nkey = \"file:{}\"\n",
            key.display()
        );
        self.entry(&["listeners", name], &body)
    }

    /// One more conf file, or one instead of `gateway.toml`, exactly so.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.to_owned(), text.to_owned());
        self
    }

    /// A variable of its environment, which is empty but for `PATH` and `JWT_SECRET`.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes a variable away again.
    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// A key, known by `name`, of a consumer of that name on `plan`.
    pub(crate) fn key(mut self, name: &str, plan: &str) -> Self {
        self.keys.push((name.to_owned(), plan.to_owned()));
        self
    }

    fn entry(mut self, path: &[&str], body: &str) -> Self {
        let mut table = parse(body);
        for name in path.iter().rev() {
            table = Table::from_iter([((*name).to_owned(), Value::Table(table))]);
        }
        merge(&mut self.base, table);
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(self) -> Gateway {
        self.try_start().await.unwrap_or_else(|failed| {
            panic!("the gateway did not start: {}\n{}", failed.status, failed.stderr)
        })
    }

    /// Starts it, and waits until it is ready or has given up.
    pub(crate) async fn try_start(self) -> Result<Gateway, NotStarted> {
        self.folder().try_start().await
    }

    /// Writes everything down and issues the keys, and starts nothing.
    pub(crate) fn folder(self) -> Folder {
        let keys = self.keys.clone();
        let (files, authority) = self.lay_out();
        let folder =
            Folder { files, keys: Keys::default(), consumers: Mutex::default(), authority };
        for (name, plan) in keys {
            let key = folder.issue_key(&name, &plan, &[]);
            folder.keys.lock().unwrap().insert(name, key);
        }
        folder
    }

    /// Runs `gateway check` on the folder, and starts nothing.
    pub(crate) fn check(self) -> Output {
        let (files, _) = self.lay_out();
        files.command().arg("check").output().unwrap()
    }

    fn lay_out(self) -> (Files, Option<Authority>) {
        let files = Files { folder: self.folder, env: self.env };
        std::fs::create_dir_all(files.conf()).unwrap();
        std::fs::create_dir_all(files.folder.path().join("data")).unwrap();
        let base = toml::to_string(&self.base).unwrap();
        std::fs::write(files.conf().join("gateway.toml"), base).unwrap();
        for (name, text) in &self.files {
            std::fs::write(files.conf().join(name), text).unwrap();
        }
        (files, self.authority)
    }
}

impl Files {
    fn conf(&self) -> PathBuf {
        self.folder.path().join("conf")
    }

    /// The program, in its environment, on its folder.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .envs(&self.env)
            .arg("--conf")
            .arg(self.conf());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    fn issue_key(
        &self,
        consumers: &Mutex<BTreeSet<String>>,
        consumer: &str,
        plan: &str,
        args: &[&str],
    ) -> String {
        if consumers.lock().unwrap().insert(consumer.to_owned()) {
            succeed(&self.run(&["consumers", "add", consumer, "--plan", plan]));
        }
        let out =
            succeed(&self.run(&[&["keys", "issue", consumer, "--plan", plan], args].concat()));
        let mut words = out.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let key = words.find(|word| word.starts_with("dh_")).map(str::to_owned);
        key.unwrap_or_else(|| panic!("no key in `{out}`"))
    }
}

impl Folder {
    /// Starts a gateway in it.
    pub(crate) async fn start(self) -> Gateway {
        self.try_start().await.unwrap_or_else(|failed| {
            panic!("the gateway did not start: {}\n{}", failed.status, failed.stderr)
        })
    }

    /// As [`Folder::start`], where the gateway may give up.
    pub(crate) async fn try_start(self) -> Result<Gateway, NotStarted> {
        let mut command = self.files.command();
        command.arg("run").arg("--ready-file").arg(self.ready_file());
        self.try_start_by(&mut command).await
    }

    /// As [`Folder::try_start`], by a program that may be another one; it writes the ready file.
    pub(crate) async fn try_start_by(self, command: &mut Command) -> Result<Gateway, NotStarted> {
        let ready = self.ready_file();
        let Self { files, keys, consumers, authority } = self;
        drop(std::fs::remove_file(&ready));
        let mut process = Process::start(command);
        let said = eventually("the gateway to be ready", || {
            if let Some(status) = process.ended() {
                return Some(Err(NotStarted { status, stderr: process.stderr.text() }));
            }
            std::fs::read_to_string(&ready).ok().map(Ok)
        })
        .await?;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let listeners: BTreeMap<String, SocketAddr> =
            serde_json::from_value(said["listeners"].clone()).unwrap();
        let admin = serde_json::from_value(said["admin"].clone()).unwrap();
        let public = listeners.get("public").or_else(|| listeners.values().next());
        let public = *public.expect("a listener");
        let client = Client::new(public).with_keys(Keys::clone(&keys));
        Ok(Gateway { process, files, listeners, admin, client, keys, consumers, authority })
    }

    /// Where a gateway says that it is ready.
    pub(crate) fn ready_file(&self) -> PathBuf {
        self.path().join("ready.json")
    }

    /// The folder around `conf/`, `data/` and `tls/`.
    pub(crate) fn path(&self) -> &Path {
        self.files.folder.path()
    }

    /// Changes the environment of everything that is started in it from now on.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.files.env.insert(name.to_owned(), value.to_owned());
    }

    /// Runs a command of the program.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.files.run(args)
    }

    /// The program, in its environment, on its folder, for those who add to it.
    pub(crate) fn command(&self) -> Command {
        self.files.command()
    }

    /// As [`Gateway::issue_key`].
    pub(crate) fn issue_key(&self, consumer: &str, plan: &str, args: &[&str]) -> String {
        self.files.issue_key(&self.consumers, consumer, plan, args)
    }
}

impl Gateway {
    /// A gateway whose open route `all` passes every request to upstream `orders`: these endpoints,
    /// and more of its table.
    pub(crate) fn before(endpoints: &[SocketAddr], upstream: &str) -> Builder {
        Self::builder()
            .upstream_with("orders", endpoints, upstream)
            .route("all", "path = '/*'\nauth = 'none'\nupstream = 'orders'")
    }

    pub(crate) fn builder() -> Builder {
        let path = std::env::var("PATH").unwrap_or_default();
        let env = [("PATH", path.as_str()), ("JWT_SECRET", JWT_SECRET)];
        Builder {
            base: parse(BASE),
            files: BTreeMap::new(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            keys: Vec::new(),
            authority: None,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The listener `public`, or the only one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners.get("public").map_or_else(|| self.only_listener(), |address| *address)
    }

    fn only_listener(&self) -> SocketAddr {
        *self.listeners.values().next().expect("a listener")
    }

    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("{:?}", self.listeners))
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.expect("an operator's listener")
    }

    /// Ends the process at once; the folder stays.
    pub(crate) fn into_folder(mut self) -> Folder {
        self.process.kill();
        let Self { files, keys, consumers, authority, .. } = self;
        Folder { files, keys, consumers, authority }
    }

    /// A client's trust in the certificates of [`Builder::tls_listener`].
    pub(crate) fn trust(&self) -> tls::Trust {
        self.authority().trust()
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("a TLS listener")
    }

    /// The folder around `conf/`, `data/` and `tls/`.
    pub(crate) fn folder(&self) -> &Path {
        self.files.folder.path()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A client of its own connection, which knows this gateway's keys by name.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address()).with_keys(Keys::clone(&self.keys))
    }

    /// As [`Gateway::client`], by HTTP/2 on a TLS listener.
    pub(crate) fn http2_client(&self, listener: &str) -> Client {
        Client::http2(self.listener(listener), self.trust()).with_keys(Keys::clone(&self.keys))
    }

    pub(crate) fn get(&self, target: &str) -> Request<'_> {
        self.client.get(target)
    }

    pub(crate) fn post(&self, target: &str, body: impl Into<bytes::Bytes>) -> Request<'_> {
        self.client.post(target, body)
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Request<'_> {
        self.client.request(method, target)
    }

    /// Runs another command of the program on the same folder.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.files.run(args)
    }

    /// The program, in its environment, on its folder, for those who add to it.
    pub(crate) fn command(&self) -> Command {
        self.files.command()
    }

    /// A new key for a consumer, who is added if it is new here; `args` go to `keys issue`.
    pub(crate) fn issue_key(&self, consumer: &str, plan: &str, args: &[&str]) -> String {
        self.files.issue_key(&self.consumers, consumer, plan, args)
    }

    /// The plain key that a test knows by `name`.
    pub(crate) fn key(&self, name: &str) -> String {
        self.keys.lock().unwrap().get(name).cloned().expect("a key of this name")
    }

    /// Writes or replaces a conf file in one step.
    pub(crate) fn write_conf(&self, name: &str, text: &str) {
        tls::replace(&self.files.conf().join(name), text);
    }

    pub(crate) fn read_conf(&self, name: &str) -> String {
        std::fs::read_to_string(self.files.conf().join(name)).unwrap()
    }

    pub(crate) fn remove_conf(&self, name: &str) {
        std::fs::remove_file(self.files.conf().join(name)).unwrap();
    }

    pub(crate) fn sighup(&self) {
        self.process.signal("HUP");
    }

    pub(crate) fn sigterm(&self) {
        self.process.signal("TERM");
    }

    /// Asks for a reload and waits for the one that it got: those of the file watch do not count,
    /// they may have begun before the last change.
    pub(crate) async fn reload_and_wait(&self) -> Reloaded {
        let by_signal = || {
            let lines = self.stderr().all().into_iter();
            lines.filter(|line| line.contains("\"trigger\":\"SIGHUP\""))
        };
        let before = by_signal().count();
        self.sighup();
        let line = eventually("a reload on SIGHUP", || by_signal().nth(before)).await;
        let result = if line.contains("is refused") { "failure" } else { "success" };
        Reloaded { result: result.to_owned(), revision: revision(&self.metrics().await) }
    }

    /// Waits for a reload that `before` does not count yet, as the file watch makes it.
    pub(crate) async fn reloaded_since(&self, before: &Metrics) -> Reloaded {
        eventually_async("a reload to be counted", async || {
            let after = self.metrics().await;
            ["failure", "success"].into_iter().find_map(|result| {
                let count =
                    |metrics: &Metrics| metrics.sum("config_reloads_total", &[("result", result)]);
                (count(&after) > count(before))
                    .then(|| Reloaded { result: result.to_owned(), revision: revision(&after) })
            })
        })
        .await
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = Client::new(self.admin()).get("/metrics").send().await;
        Metrics::parse(&answer.expect_status(200).text())
    }

    /// Waits until the sum of a metric's series with these labels is `value`.
    pub(crate) async fn metric_is(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let what = format!("{name}{labels:?} = {value}");
        eventually_async(&what, async || {
            let sum = self.metrics().await.sum(name, labels);
            ((sum - value).abs() < f64::EPSILON).then_some(())
        })
        .await;
    }

    /// Waits for the line of the access log about the request with this answer.
    pub(crate) async fn line_of(&self, answer: &Answer) -> serde_json::Value {
        let id = format!("\"request_id\":\"{}\"", answer.header("x-request-id").unwrap());
        serde_json::from_str(&self.process.stdout.containing(&id).await).unwrap()
    }

    /// Waits for `count` lines of the access log, and gives all there are. Those of one connection
    /// stand in the order of its requests; between connections there is no order.
    pub(crate) async fn access_log(&self, count: usize) -> Vec<serde_json::Value> {
        let what = format!("{count} lines of access log");
        let lines = eventually(&what, || {
            let lines = self.process.stdout.all();
            (lines.len() >= count).then_some(lines)
        })
        .await;
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        lines.iter().map(parse).collect()
    }

    pub(crate) fn stdout(&self) -> &Lines {
        &self.process.stdout
    }

    pub(crate) fn stderr(&self) -> &Lines {
        &self.process.stderr
    }

    pub(crate) async fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        self.process.wait_exit(within).await
    }

    /// SIGTERM, and how long it took to end.
    pub(crate) async fn stop(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.sigterm();
        let status = self.wait_exit(within).await;
        (status, began.elapsed())
    }

    /// A token of the default issuer with these claims.
    pub(crate) fn sign_jwt(&self, claims: &serde_json::Value) -> String {
        sign_jwt(claims)
    }

    /// A token for `subject` that is good for an hour.
    pub(crate) fn token(&self, subject: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        self.sign_jwt(&serde_json::json!({ "sub": subject, "exp": now.as_secs() + 3600 }))
    }
}

/// HS256 with [`JWT_SECRET`].
pub(crate) fn sign_jwt(claims: &serde_json::Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// The output of a command that must have succeeded.
#[track_caller]
pub(crate) fn succeed(output: &Output) -> String {
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{err}", output.status);
    String::from_utf8_lossy(out).into_owned()
}

#[expect(clippy::cast_possible_truncation, reason = "revisions are small whole numbers")]
#[expect(clippy::cast_sign_loss, reason = "and count up from 1")]
fn revision(metrics: &Metrics) -> u64 {
    metrics.sum("config_revision", &[]) as u64
}

fn parse(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
