//! Who is measured, and against what: the processes, their configuration, and a look at each
//! before anything is measured.

use crate::cpu;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the upstream's body.
const BODY: usize = 1024;
const SECRET: &str = "load-only-secret-load-only-secret-load";
const PATIENCE: Duration = Duration::from_secs(20);

/// Which CPU is whose; `None` where there is only one.
pub(crate) struct Cpus {
    pub(crate) proxy: Option<usize>,
    pub(crate) others: Option<usize>,
}

/// Something that can be asked.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    address: SocketAddr,
    path: &'static str,
    limited: bool,
}

/// All of them, running.
pub(crate) struct Bench {
    pub(crate) cpus: Cpus,
    pub(crate) peers: Vec<Peer>,
    pub(crate) nginx_version: String,
    // Ended, and removed, in this order.
    _running: Vec<Running>,
    _folder: tempfile::TempDir,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing better can be done about a process that has ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A program: the one that a variable names (`LOAD_NGINX`, `LOAD_WRK`), or else looked for where
/// Debian keeps those for root as well.
pub(crate) fn tool(name: &str) -> Command {
    if let Some(path) = std::env::var_os(format!("LOAD_{}", name.to_uppercase())) {
        return Command::new(path);
    }
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.exists() { Command::new(sbin) } else { Command::new(name) }
}

impl Bench {
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cpus = match cpu::available() {
            0 | 1 => Cpus { proxy: None, others: None },
            _ => Cpus { proxy: Some(0), others: Some(1) },
        };
        let (origin, proxy) = (free_address()?, free_address()?);
        let running = vec![
            nginx(folder.path(), "origin", cpus.others, &origin_conf(origin))?,
            nginx(folder.path(), "proxy", cpus.proxy, &proxy_conf(folder.path(), proxy, origin))?,
        ];
        let mut bench = Self {
            cpus,
            peers: Vec::new(),
            nginx_version: nginx_version()?,
            _running: running,
            _folder: folder,
        };
        await_listener(origin)?;
        await_listener(proxy)?;
        let nginx_pid = bench._running.last().context("nginx")?.0.id();
        bench.add("nginx", nginx_pid, proxy, "/", Vec::new(), false);
        bench.add_gateway(origin)?;
        Ok(bench)
    }

    fn add_gateway(&mut self, origin: SocketAddr) -> Result<()> {
        let folder = self._folder.path();
        let conf = folder.join("conf");
        std::fs::create_dir_all(&conf)?;
        std::fs::create_dir_all(folder.join("data"))?;
        std::fs::write(conf.join("gateway.toml"), gateway_conf(origin))?;
        command_line(&conf, &["consumers", "add", "load", "--plan", "load"])?;
        let issued = command_line(&conf, &["keys", "issue", "load"])?;
        let key = issued
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .find(|word| word.starts_with("dh_"))
            .with_context(|| format!("no key in `{issued}`"))?
            .to_owned();
        let ready = folder.join("ready.json");
        let mut command = gateway(&conf);
        command.arg("run").arg("--ready-file").arg(&ready);
        let mut command = crate::pinned(self.cpus.proxy, command);
        command.stdin(Stdio::null());
        command.stdout(File::create(folder.join("access.log"))?);
        command.stderr(File::create(folder.join("gateway.log"))?);
        let child = Running(command.spawn().context("the gateway")?);
        let pid = child.0.id();
        self._running.push(child);
        let address = ready_address(&ready, &folder.join("gateway.log"))?;
        self.add("gateway, open route", pid, address, "/open", Vec::new(), false);
        let token = vec![("Authorization", format!("Bearer {}", token()?))];
        self.add("gateway, JWT + plan", pid, address, "/jwt", token, true);
        self.add("gateway, key + plan", pid, address, "/key", vec![("X-API-Key", key)], true);
        Ok(())
    }

    fn add(
        &mut self,
        name: &'static str,
        pid: u32,
        address: SocketAddr,
        path: &'static str,
        headers: Vec<(&'static str, String)>,
        limited: bool,
    ) {
        let url = format!("http://{address}{path}");
        self.peers.push(Peer { name, pid, url, headers, address, path, limited });
    }

    /// Each peer proxies, and those that ask for a credential refuse without it.
    pub(crate) fn check(&self) -> Result<()> {
        for peer in &self.peers {
            let (head, body) = ask(peer.address, peer.path, &peer.headers)?;
            ensure!(head.starts_with("HTTP/1.1 200 "), "{}: {head}", peer.name);
            ensure!(body.len() == BODY, "{}: a body of {} bytes", peer.name, body.len());
            let limited = head.to_ascii_lowercase().contains("\r\nratelimit");
            ensure!(limited == peer.limited, "{}: the plan's limit is not on\n{head}", peer.name);
            if !peer.headers.is_empty() {
                let (head, _) = ask(peer.address, peer.path, &[])?;
                ensure!(head.starts_with("HTTP/1.1 401 "), "{} is open: {head}", peer.name);
            }
        }
        Ok(())
    }
}

/// One request on a connection of its own.
fn ask(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
    Ok((head.to_owned(), body.to_owned()))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn await_listener(address: SocketAddr) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(began.elapsed() < PATIENCE, "nginx does not listen on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn ready_address(ready: &Path, log: &Path) -> Result<SocketAddr> {
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(ready) {
            let ready: serde_json::Value = serde_json::from_str(&text)?;
            let public = ready.pointer("/listeners/public").and_then(serde_json::Value::as_str);
            let public = public.context("no public listener")?;
            return Ok(public.parse()?);
        }
        if began.elapsed() > PATIENCE {
            bail!("the gateway is not ready:\n{}", std::fs::read_to_string(log)?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn gateway(conf: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.arg("--conf").arg(conf).env("JWT_SECRET", SECRET);
    command
}

fn command_line(conf: &Path, args: &[&str]) -> Result<String> {
    let output = gateway(conf).args(args).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "gateway {args:?}: {}\n{error}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn token() -> Result<String> {
    // 2100-01-01: longer than any run.
    let claims = serde_json::json!({ "sub": "load", "exp": 4_102_444_800_u64 });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)?)
}

fn gateway_conf(origin: SocketAddr) -> String {
    format!(
        r#"
workers = 1
[listeners.public]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
path = "../data/gateway.db"
[auth.jwt.default]
[plans.load.limits.requests]
rate = "1000000/s"
[upstreams.origin]
endpoints = ["{origin}"]
[routes.open]
path = "/open"
auth = "none"
upstream = "origin"
[routes.jwt]
path = "/jwt"
auth = ["jwt"]
upstream = "origin"
[routes.key]
path = "/key"
auth = ["api_key"]
upstream = "origin"
"#
    )
}

fn nginx(folder: &Path, name: &str, cpu: Option<usize>, http: &str) -> Result<Running> {
    let (pid, temp) = (folder.join(format!("{name}.pid")), folder.join(format!("{name}.temp")));
    std::fs::create_dir_all(&temp)?;
    let temp = temp.display();
    let conf = format!(
        "daemon off;\nmaster_process off;\npid {};\nerror_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         client_body_temp_path {temp}/body;\nproxy_temp_path {temp}/proxy;\n\
         fastcgi_temp_path {temp}/fastcgi;\nuwsgi_temp_path {temp}/uwsgi;\n\
         scgi_temp_path {temp}/scgi;\n\
         keepalive_requests 100000000;\ntcp_nodelay on;\n{http}\n}}\n",
        pid.display()
    );
    let path = folder.join(format!("{name}.conf"));
    std::fs::write(&path, conf)?;
    let mut command = tool("nginx");
    command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(path);
    let mut command = crate::pinned(cpu, command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Running(command.spawn().context("nginx")?))
}

fn origin_conf(address: SocketAddr) -> String {
    let body = "x".repeat(BODY);
    format!(
        "access_log off;\nserver {{\nlisten {address};\n\
         location / {{ default_type text/plain; return 200 \"{body}\"; }}\n}}\n"
    )
}

/// The same work as the gateway's open route: one keep-alive pool, a request id towards the
/// upstream and into the log, the forwarding fields, and one JSON line for each request.
fn proxy_conf(folder: &Path, address: SocketAddr, origin: SocketAddr) -> String {
    let log = folder.join("nginx-access.log");
    format!(
        "log_format json escape=json '{{\"time\":\"$time_iso8601\",\"method\":\"$request_method\",\
         \"host\":\"$host\",\"path\":\"$uri\",\"version\":\"$server_protocol\",\
         \"client\":\"$remote_addr\",\"user_agent\":\"$http_user_agent\",\"status\":$status,\
         \"request_bytes\":$request_length,\"response_bytes\":$body_bytes_sent,\
         \"duration\":$request_time,\"upstream\":\"$upstream_addr\",\
         \"upstream_time\":\"$upstream_response_time\",\"request_id\":\"$request_id\"}}';\n\
         access_log {} json buffer=64k flush=1s;\n\
         upstream origin {{ server {origin}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{\nlisten {address};\n\
         location / {{\n\
         proxy_pass http://origin;\nproxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\nproxy_set_header Host $http_host;\n\
         proxy_set_header X-Request-Id $request_id;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $http_host;\n\
         proxy_set_header X-Forwarded-Port $server_port;\n\
         add_header X-Request-Id $request_id;\n}}\n}}\n",
        log.display()
    )
}

fn nginx_version() -> Result<String> {
    let output = tool("nginx").arg("-v").output()?;
    let text = String::from_utf8(output.stderr)?;
    Ok(text.trim().rsplit(": ").next().unwrap_or_default().to_owned())
}
