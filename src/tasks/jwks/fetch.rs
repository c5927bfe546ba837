//! One question to one URL, by a client that can do nothing else.
//!
//! Must stay true: the connection is made to an address that was looked at, never to what the name
//! resolves to a moment later; a redirect is a failure; time and size are bounded whatever the server
//! does.

use crate::auth::{Fetched, Jwks, JwksSource, JwksUrl, NotASet, is_public};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, ETAG, HOST, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// From the name to the last byte.
const DEADLINE: Duration = Duration::from_secs(3);
/// Bytes of a set.
const LARGEST: usize = 256 * 1024;
/// Bytes of a response head.
const LARGEST_HEAD: usize = 32 * 1024;
/// Bytes of an `ETag` that is kept.
const LONGEST_ETAG: usize = 256;
/// Addresses that are tried, and for how long each.
const MAX_TRIED: usize = 4;
const CONNECT: Duration = Duration::from_secs(1);
/// Names that are resolved at the same time. A resolver that hangs holds a thread longer than anyone
/// waits for it, and others need those threads.
const NAMES_AT_ONCE: usize = 2;

/// Authorities that are kept, also of configurations that are gone.
const MAX_KEPT: usize = 32;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error("the name cannot be resolved: {0}")]
    Name(std::io::Error),
    #[error(
        "the name leads to {0}, which is no public address, and `allow_private` does not say so"
    )]
    Private(SocketAddr),
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("not HTTP: {0}")]
    Http(hyper::Error),
    #[error("it answers with a redirect ({0}), which is not followed")]
    Redirect(StatusCode),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {} KiB", LARGEST / 1024)]
    TooLarge,
    #[error("the answer breaks off")]
    Body,
    #[error("no set of keys: {0}")]
    NotASet(#[from] NotASet),
    #[error("no key of the set can be used")]
    NoKeys,
    #[error("{0}")]
    Unable(String),
}

/// Certificates of an authority, PEM; `None`: the system's.
type Authority = Option<Arc<[u8]>>;

/// The client, and whom it trusts.
pub(super) struct Client {
    /// By the authority that a table names; reading the system's takes a while.
    trust: Mutex<HashMap<Authority, Arc<ClientConfig>>>,
    names: Arc<Semaphore>,
}

impl Client {
    pub(super) fn new() -> Self {
        Self { trust: Mutex::default(), names: Arc::new(Semaphore::new(NAMES_AT_ONCE)) }
    }

    /// Asks once; `etag` is the version that is here already.
    pub(super) async fn fetch(
        &self,
        source: &JwksSource,
        etag: Option<&str>,
    ) -> Result<Fetched, Fault> {
        let trust = match source.url.tls {
            // Not a part of the answer's time: it is done once.
            true => Some(self.trust(source.ca.clone()).await?),
            false => None,
        };
        let asked = timeout(DEADLINE, self.ask(source, etag, trust)).await;
        let (etag, max_age, body) = match asked.map_err(|_| Fault::Deadline)?? {
            Reply::Unchanged { max_age } => return Ok(Fetched::Unchanged { max_age }),
            Reply::Body { etag, max_age, body } => (etag, max_age, body),
        };
        // A hundred keys take a while to check: not on a thread that serves requests.
        let of_rsa = source.of_rsa;
        let jwks = spawn_blocking(move || Jwks::parse(&body, of_rsa)).await;
        let jwks = jwks.map_err(|error| Fault::Unable(error.to_string()))??;
        match jwks.keys.is_empty() {
            true => Err(Fault::NoKeys),
            false => Ok(Fetched::Set { jwks, etag, max_age }),
        }
    }

    async fn trust(&self, ca: Authority) -> Result<Arc<ClientConfig>, Fault> {
        if let Some(known) = self.trust.lock().get(&ca) {
            return Ok(Arc::clone(known));
        }
        let authority = ca.clone();
        let made = spawn_blocking(move || trust(authority.as_deref())).await;
        let made = made.map_err(|error| Fault::Unable(error.to_string()))?.map_err(Fault::Tls)?;
        let mut trust = self.trust.lock();
        if trust.len() >= MAX_KEPT {
            trust.clear();
        }
        trust.insert(ca, Arc::clone(&made));
        Ok(made)
    }

    async fn ask(
        &self,
        source: &JwksSource,
        etag: Option<&str>,
        trust: Option<Arc<ClientConfig>>,
    ) -> Result<Reply, Fault> {
        let stream = self.connect(source).await?;
        let request = request(source, etag)?;
        let Some(trust) = trust else { return converse(stream, request).await };
        let unnamed = |error: rustls_pki_types::InvalidDnsNameError| Fault::Tls(error.to_string());
        let name = ServerName::try_from(source.url.host.to_string()).map_err(unnamed)?;
        let stream = TlsConnector::from(trust).connect(name, stream).await;
        converse(stream.map_err(|error| Fault::Tls(error.to_string()))?, request).await
    }

    /// A connection to an address that may be asked.
    async fn connect(&self, source: &JwksSource) -> Result<TcpStream, Fault> {
        let found = match source.url.address() {
            Some(address) => vec![SocketAddr::new(address, source.url.port)],
            None => self.resolve(&source.url).await?,
        };
        let may_be_asked =
            |address: &&SocketAddr| source.allow_private || is_public(address.ip().to_canonical());
        let mut failed = match found.first() {
            Some(address) => Fault::Private(*address),
            None => Fault::Name(std::io::Error::other("it has no address")),
        };
        for address in found.iter().filter(may_be_asked).take(MAX_TRIED) {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = Fault::Connect(error),
                Err(_) => failed = Fault::Connect(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failed)
    }

    async fn resolve(&self, url: &JwksUrl) -> Result<Vec<SocketAddr>, Fault> {
        let place = Arc::clone(&self.names).acquire_owned().await;
        let place = place.map_err(|error| Fault::Unable(error.to_string()))?;
        let name = (url.host.to_string(), url.port);
        let found = spawn_blocking(move || {
            let found = name.to_socket_addrs().map(Iterator::collect);
            // Given back by the thread, not by whoever has given up waiting for it.
            drop(place);
            found
        });
        found.await.map_err(|error| Fault::Unable(error.to_string()))?.map_err(Fault::Name)
    }
}

fn trust(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no authority is known to the system; name one with `ca`".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What a server said.
enum Reply {
    Unchanged { max_age: Option<Duration> },
    Body { etag: Option<String>, max_age: Option<Duration>, body: Bytes },
}

fn request(source: &JwksSource, etag: Option<&str>) -> Result<Request<Empty<Bytes>>, Fault> {
    let mut request = Request::get(&*source.url.target)
        .header(HOST, source.url.authority())
        .header(USER_AGENT, concat!("datahub-gateway/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/jwk-set+json, application/json");
    if let Some(etag) = etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    request.body(Empty::new()).map_err(|error| Fault::Unable(error.to_string()))
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Reply, Fault> {
    let connecting =
        http1::Builder::new().max_buf_size(LARGEST_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connecting.map_err(Fault::Http)?;
    // Ends with this function, whatever becomes of it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let is_conditional = request.headers().contains_key(IF_NONE_MATCH);
    let response = sender.send_request(request).await.map_err(Fault::Http)?;
    read(response, is_conditional).await
}

async fn read(response: Response<Incoming>, is_conditional: bool) -> Result<Reply, Fault> {
    let status = response.status();
    let max_age = max_age(response.headers());
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if is_conditional => return Ok(Reply::Unchanged { max_age }),
        _ if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
            return Err(Fault::Redirect(status));
        }
        _ => return Err(Fault::Status(status)),
    }
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > LARGEST) {
        return Err(Fault::TooLarge);
    }
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    let etag = etag.filter(|etag| etag.len() <= LONGEST_ETAG).map(str::to_owned);
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Fault::TooLarge,
        false => Fault::Body,
    })?;
    Ok(Reply::Body { etag, max_age, body: body.to_bytes() })
}

/// How long a server says that its answer holds.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(','));
    let seconds = directives.find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| seconds.trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Algorithm;
    use http::HeaderValue;

    #[test]
    fn the_age_of_an_answer_is_read_leniently() {
        for (text, seconds) in [
            ("max-age=60", Some(60)),
            ("public, Max-Age=\"120\", must-revalidate", Some(120)),
            ("s-maxage=5", None),
            ("no-store", None),
            ("max-age=-1", None),
            ("max-age", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{text}");
        }
    }

    fn source(host: &str, port: u16, allow_private: bool) -> JwksSource {
        let url = JwksUrl { tls: false, host: host.into(), port, target: "/keys".into() };
        JwksSource { url, ca: None, allow_private, of_rsa: Algorithm::Rs256 }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_followed_unless_that_is_said() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, port) = (Client::new(), listener.local_addr().unwrap().port());
        for host in ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"] {
            let refused = client.connect(&source(host, port, false)).await;
            assert!(matches!(refused, Err(Fault::Private(_))), "{host}: {refused:?}");
        }
        let stream = client.connect(&source("localhost", port, true)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), peer, "nobody else has connected before");
    }
}
