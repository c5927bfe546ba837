//! An ordinary client: HTTP/1.1 kept alive, or HTTP/2 over TLS, one connection each.

use super::{soon, tls};
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;

/// Keys by the name that a test gave them.
pub(crate) type Keys = Arc<Mutex<BTreeMap<String, String>>>;

/// Sends requests over one connection, opened again when it is gone.
pub(crate) struct Client {
    address: SocketAddr,
    trust: Option<tls::Trust>,
    http2: bool,
    keys: Keys,
    idle: Mutex<Option<Sender>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Any failure that is not an answer.
pub(crate) type ClientError = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    /// HTTP/1.1 in plain text.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let (keys, idle) = (Keys::default(), Mutex::new(None));
        Self { address, trust: None, http2: false, keys, idle }
    }

    /// HTTP/1.1 over TLS.
    pub(crate) fn tls(address: SocketAddr, trust: tls::Trust) -> Self {
        Self { trust: Some(trust), ..Self::new(address) }
    }

    /// HTTP/2 over TLS, agreed on by ALPN.
    pub(crate) fn http2(address: SocketAddr, trust: tls::Trust) -> Self {
        Self { trust: Some(trust), http2: true, ..Self::new(address) }
    }

    /// Knows these keys by name.
    pub(crate) fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    pub(crate) fn get(&self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    pub(crate) fn post(&self, target: &str, body: impl Into<Bytes>) -> Request<'_> {
        self.request("POST", target).body(body)
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Request<'_> {
        Request {
            client: self,
            method: method.parse().unwrap(),
            target: target.to_owned(),
            host: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    async fn sender(&self) -> Result<Sender, ClientError> {
        let idle = self.idle.lock().unwrap().take();
        if let Some(mut sender) = idle
            && sender.is_ready().await
        {
            return Ok(sender);
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let Some(trust) = &self.trust else {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            // Its failures show at the sender.
            tokio::spawn(async { drop(driver.await) });
            return Ok(Sender::Http1(sender));
        };
        let protocol = if self.http2 { "h2" } else { "http/1.1" };
        let stream = trust.connect(self.address, &[protocol]).await?;
        if self.http2 {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ALPN");
            let io = TokioIo::new(stream);
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(async { drop(driver.await) });
            Ok(Sender::Http2(sender))
        } else {
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async { drop(driver.await) });
            Ok(Sender::Http1(sender))
        }
    }
}

/// A request that is being written down.
#[derive(Clone)]
pub(crate) struct Request<'c> {
    client: &'c Client,
    method: Method,
    target: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Request<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends an API key: by the name that the test gave it, or as it is.
    pub(crate) fn key(self, name: &str) -> Self {
        let known = self.client.keys.lock().unwrap().get(name).cloned();
        self.header("x-api-key", &known.unwrap_or_else(|| name.to_owned()))
    }

    /// Sends a token.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// The whole answer.
    pub(crate) async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// The same request so many times, one after the other.
    pub(crate) async fn times(self, count: usize) -> Answers {
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(self.clone().send().await);
        }
        Answers(answers)
    }

    /// The whole answer, or why there is none.
    pub(crate) async fn try_send(self) -> Result<Answer, ClientError> {
        let client = self.client;
        let what = format!("an answer to {} {}", self.method, self.target);
        let (response, sender) = soon(&what, self.dispatch()).await?;
        let (parts, body) = response.into_parts();
        let collected = soon(&what, body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        *client.idle.lock().unwrap() = Some(sender);
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    /// The head of the answer now, its body piece by piece.
    pub(crate) async fn open(self) -> Opened {
        let what = format!("the head of an answer to {} {}", self.method, self.target);
        let (response, sender) = soon(&what, self.dispatch()).await.unwrap();
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        Opened { status, headers: parts.headers, body, _connection: sender }
    }

    async fn dispatch(self) -> Result<(hyper::Response<Incoming>, Sender), ClientError> {
        let mut sender = self.client.sender().await?;
        let host = self.host.unwrap_or_else(|| match &self.client.trust {
            Some(_) => format!("{}:{}", tls::NAME, self.client.address.port()),
            None => self.client.address.to_string(),
        });
        let mut builder = http::Request::builder().method(self.method);
        builder = match &sender {
            Sender::Http1(_) => builder.uri(self.target.parse::<Uri>()?).header("host", host),
            Sender::Http2(_) => builder.uri(format!("https://{host}{}", self.target)),
        };
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::new(self.body))?;
        let response = match &mut sender {
            Sender::Http1(sender) => sender.send_request(request).await?,
            Sender::Http2(sender) => sender.send_request(request).await?,
        };
        Ok((response, sender))
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    #[track_caller]
    pub(crate) fn expect_header(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.header(name), Some(value), "{name} in {:?}", self.headers);
        self
    }

    #[track_caller]
    pub(crate) fn expect_no_header(&self, name: &str) -> &Self {
        assert_eq!(self.header(name), None, "{name}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_body(&self, body: &str) -> &Self {
        assert_eq!(self.text(), body);
        self
    }

    /// The stable word of a problem document.
    #[track_caller]
    pub(crate) fn expect_code(&self, code: &str) -> &Self {
        self.expect_header("content-type", "application/problem+json");
        assert_eq!(self.json()["code"], code, "{}", self.text());
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Answers to one request sent several times.
pub(crate) struct Answers(pub(crate) Vec<Answer>);

impl Answers {
    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) -> &Self {
        for answer in &self.0 {
            answer.expect_status(status);
        }
        self
    }

    /// How many have this status.
    pub(crate) fn count(&self, status: u16) -> usize {
        self.0.iter().filter(|answer| answer.status == status).count()
    }
}

/// A response whose body is still to come.
pub(crate) struct Opened {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    _connection: Sender,
}

impl Opened {
    /// Whether the head said that there is no body: in HTTP/2, by ending the stream itself.
    pub(crate) fn ended(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.try_next().await.unwrap()
    }

    /// As [`Opened::next`], where the body may break off.
    pub(crate) async fn try_next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match soon("a piece of a body", self.body.frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(frame)) => {
                    // An empty one only carries the end of an HTTP/2 stream.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}
