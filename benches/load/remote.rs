//! A gateway that runs somewhere else, asked evenly and a little: whether it serves, not how fast.
//!
//! Requests are due at fixed times, whatever became of those before, and a request's time counts from when
//! it was due: a gateway that stalls cannot hide it by being asked less. Connections are opened before, one
//! for each route and turn, and opened again when the gateway has closed one.
//!
//! Must stay true: what is asked is bounded by the settings; the certificate is always checked; the
//! credential goes nowhere but into the request.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(10);
/// For each route. A request that is late holds up its own connection only.
const CONNECTIONS: u32 = 4;

/// What to ask for, how often, and what is still well.
#[derive(Debug)]
pub(crate) struct Wanted {
    url: Uri,
    /// Asked without a credential.
    open: String,
    /// Asked with the credential, if there is one.
    guarded: String,
    credential: Option<(HeaderName, HeaderValue)>,
    /// Of each route.
    requests: u32,
    /// Requests a second, of each route.
    rate: u32,
    p99: Duration,
}

impl Wanted {
    /// From `LOAD_URL` and its companions; nothing where that is not set.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let Some(url) = text("LOAD_URL") else { return Ok(None) };
        let number = |name: &str, default: u32| -> Result<u32> {
            let number = text(name).map_or(Ok(default), |text| text.parse());
            let number = number.with_context(|| format!("{name} is not a number"))?;
            ensure!((1..=10_000).contains(&number), "{name} must be from 1 to 10000");
            Ok(number)
        };
        let credential = match (text("LOAD_KEY"), text("LOAD_TOKEN")) {
            (Some(_), Some(_)) => {
                bail!("LOAD_KEY and LOAD_TOKEN are both set; one credential does")
            }
            (Some(key), None) => Some((HeaderName::from_static("x-api-key"), key)),
            (None, Some(token)) => Some((AUTHORIZATION, format!("Bearer {token}"))),
            (None, None) => None,
        };
        let credential =
            credential.map(|(name, value)| sensitive(&value).map(|value| (name, value)));
        let wanted = Self {
            url: url.parse().context("LOAD_URL is not a URL")?,
            open: text("LOAD_OPEN").unwrap_or_else(|| "/health".to_owned()),
            guarded: text("LOAD_ROUTE").unwrap_or_else(|| "/demo/orders".to_owned()),
            credential: credential.transpose()?,
            requests: number("LOAD_REQUESTS", 200)?,
            rate: number("LOAD_RATE", 20)?,
            p99: Duration::from_millis(number("LOAD_P99_MS", 500)?.into()),
        };
        wanted.place()?;
        Ok(Some(wanted))
    }

    /// Host, port, and whether TLS is spoken. Without TLS only this machine is asked.
    fn place(&self) -> Result<(&str, u16, bool)> {
        let host = self.url.host().context("LOAD_URL has no host")?;
        let tls = match self.url.scheme_str() {
            Some("https") => true,
            Some("http") if ["127.0.0.1", "localhost", "[::1]"].contains(&host) => false,
            _ => bail!("LOAD_URL is neither https nor on this machine"),
        };
        let path = self.url.path();
        ensure!(
            path.is_empty() || path == "/",
            "LOAD_URL has a path; LOAD_OPEN and LOAD_ROUTE name it"
        );
        Ok((host, self.url.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls))
    }
}

/// A value that no `Debug` shows.
fn sensitive(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).context("the credential is no header value")?;
    value.set_sensitive(true);
    Ok(value)
}

/// What became of the requests to one route.
struct Answers {
    path: String,
    /// Asked with a credential.
    guarded: bool,
    asked: u32,
    /// Of those that were answered 200, sorted.
    took: Vec<Duration>,
    /// What happened to the others.
    troubles: Vec<String>,
}

impl Answers {
    /// The time that this share of the good answers took at most.
    fn within(&self, percent: usize) -> Option<Duration> {
        self.took.get((self.took.len() * percent).div_ceil(100).checked_sub(1)?).copied()
    }

    /// Why the gateway does not serve this route well; nothing if it does.
    fn fault(&self, bar: Duration) -> Option<String> {
        let first = self.troubles.first().map(String::as_str).unwrap_or_default();
        if !self.troubles.is_empty() {
            let (name, count) = (&self.path, self.troubles.len());
            return Some(format!("`{name}`: {count} of {} requests failed: {first}", self.asked));
        }
        let p99 = self.within(99)?;
        (p99 > bar).then(|| format!("`{}`: p99 is {p99:.1?}, above {bar:.1?}", self.path))
    }

    fn to_json(&self) -> serde_json::Value {
        let millis = |percent| self.within(percent).map(|took| took.as_secs_f64() * 1e3);
        serde_json::json!({
            "route": self.path,
            "credential": self.guarded,
            "requests": self.asked,
            "failures": self.troubles.len(),
            "p50_ms": millis(50),
            "p99_ms": millis(99),
            "max_ms": millis(100),
        })
    }
}

/// What is to be said of a run: a table for people, JSON for the rest.
fn report(wanted: &Wanted, all: &[Answers]) -> (String, serde_json::Value) {
    let host = wanted.url.authority().map(http::uri::Authority::as_str);
    let mut table =
        format!("{:<28} {:>9} {:>9} {:>9} {:>9}\n", "", "requests", "failures", "p50", "p99");
    for one in all {
        let time =
            |percent| one.within(percent).map_or("-".to_owned(), |took| format!("{took:.1?}"));
        let name = format!("{}{}", one.path, if one.guarded { ", credential" } else { "" });
        let (failures, p50, p99) = (one.troubles.len(), time(50), time(99));
        table.push_str(&format!("{name:<28} {:>9} {failures:>9} {p50:>9} {p99:>9}\n", one.asked));
    }
    let routes: Vec<_> = all.iter().map(Answers::to_json).collect();
    let faults: Vec<_> = all.iter().filter_map(|one| one.fault(wanted.p99)).collect();
    let json = serde_json::json!({
        "gateway": host,
        "requests_per_second": wanted.rate,
        "p99_bar_ms": wanted.p99.as_millis(),
        "routes": routes,
        "faults": faults,
    });
    (table, json)
}

/// Asks for all of it, and fails with what is not well.
pub(crate) fn check(wanted: &Wanted) -> Result<()> {
    let all = run(wanted)?;
    let (table, json) = report(wanted, &all);
    eprint!("{table}");
    println!("{json:#}");
    if wanted.credential.is_none() {
        eprintln!(
            "load: NOT ASKED: a route with a credential, since neither LOAD_KEY nor LOAD_TOKEN is set"
        );
    }
    let faults: Vec<_> = all.iter().filter_map(|one| one.fault(wanted.p99)).collect();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Asks for all of it.
fn run(wanted: &Wanted) -> Result<Vec<Answers>> {
    let events = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    events.block_on(async {
        let mut all = vec![route(wanted, &wanted.open, None).await?];
        if wanted.credential.is_some() {
            let credential = wanted.credential.as_ref();
            all.push(route(wanted, &wanted.guarded, credential).await?);
        }
        Ok(all)
    })
}

async fn route(
    wanted: &Wanted,
    path: &str,
    credential: Option<&(HeaderName, HeaderValue)>,
) -> Result<Answers> {
    let (host, _, _) = wanted.place()?;
    let authority = wanted.url.authority().map_or(host, http::uri::Authority::as_str);
    let mut request = Request::get(path).header(HOST, authority);
    if let Some((name, value)) = credential {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new()).with_context(|| format!("`{path}` is no path"))?;
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        // One that cannot be opened now is a failure of the whole run, and not of a request.
        lines.push(Line { open: Some(connect(wanted).await?), request: request.clone(), wanted });
    }
    let began = Instant::now();
    let turns = lines.into_iter().zip(0_u32..).map(|(line, first)| line.ask_all(began, first));
    let mut answers = Answers {
        path: path.to_owned(),
        guarded: credential.is_some(),
        asked: wanted.requests,
        took: Vec::new(),
        troubles: Vec::new(),
    };
    for seen in join_all(turns).await.into_iter().flatten() {
        match seen {
            Ok(took) => answers.took.push(took),
            Err(trouble) => answers.troubles.push(format!("{trouble:#}")),
        }
    }
    answers.took.sort_unstable();
    Ok(answers)
}

type Sender = SendRequest<Empty<Bytes>>;

/// A connection, or what is to open the next one.
struct Line<'a> {
    open: Option<Sender>,
    request: Request<Empty<Bytes>>,
    wanted: &'a Wanted,
}

impl Line<'_> {
    /// Every request of this connection, each when it is due: number `first`, and each fourth from there.
    async fn ask_all(mut self, began: Instant, first: u32) -> Vec<Result<Duration>> {
        let mut seen = Vec::new();
        for turn in (first..self.wanted.requests).step_by(CONNECTIONS as usize) {
            let due = began + Duration::from_secs(turn.into()) / self.wanted.rate;
            tokio::time::sleep_until(due.into()).await;
            let answer = match tokio::time::timeout(PATIENCE, self.ask()).await {
                Ok(answer) => answer,
                Err(_) => Err(anyhow!("no answer within {} s", PATIENCE.as_secs())),
            };
            if answer.is_err() {
                self.open = None;
            }
            seen.push(answer.map(|()| due.elapsed()));
        }
        seen
    }

    /// One request, with its whole answer.
    async fn ask(&mut self) -> Result<()> {
        let mut sender = match self.open.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(self.wanted).await?,
        };
        sender.ready().await?;
        let answer = sender.send_request(self.request.clone()).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        self.open = Some(sender);
        ensure!(status == StatusCode::OK, "answered {status}");
        Ok(())
    }
}

async fn connect(wanted: &Wanted) -> Result<Sender> {
    let (host, port, tls) = wanted.place()?;
    let host = host.trim_matches(['[', ']']);
    let stream =
        TcpStream::connect((host, port)).await.with_context(|| format!("{host}:{port}"))?;
    stream.set_nodelay(true)?;
    if !tls {
        return speak(stream).await;
    }
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(trust()?).connect(name, stream).await;
    speak(stream.with_context(|| format!("TLS with {host}:{port}"))?).await
}

/// HTTP/1.1 on `stream`, which is driven beside us until it ends.
async fn speak(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender> {
    let (sender, driven) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Why it ended is told to whoever asks next.
    tokio::spawn(async move { drop(driven.await) });
    Ok(sender)
}

/// The authorities of this machine.
fn trust() -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(added > 0, "this machine knows no certificate authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
