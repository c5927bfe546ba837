//! What a probe of one endpoint needs, checked when the configuration is built.
//!
//! Must stay true: a probe never uses a connection twice, since a kept one hides an endpoint that
//! accepts no new ones.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use http::header::{CONNECTION, HOST, USER_AGENT};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;

use super::definition::{HealthCheck, Probe, Timeouts};
use super::peer;
use super::registry::BuildError;

/// How one endpoint is probed.
#[derive(Debug)]
pub struct Check {
    rules: HealthCheck,
    question: Question,
}

/// What is asked.
#[derive(Debug)]
pub enum Question {
    /// Whether a connection opens.
    Connect(SocketAddr),
    /// Whether a `GET` is answered well.
    Get(Box<Get>),
}

/// An HTTP probe.
#[derive(Debug)]
pub struct Get {
    peer: HttpPeer,
    origin_form: RequestHeader,
    absolute_form: RequestHeader,
}

impl Check {
    /// The probe of `address` as `rules` say, over a connection like `peer`'s.
    pub(super) fn build(
        upstream: &Arc<str>,
        rules: &HealthCheck,
        address: SocketAddr,
        peer: &HttpPeer,
    ) -> Result<Self, BuildError> {
        let question = match &rules.probe {
            Probe::Tcp => Question::Connect(address),
            Probe::Http { path, host } => {
                let host = host.clone().unwrap_or_else(|| address.to_string());
                let get =
                    Get::build(peer, path, &host, rules).map_err(|reason| BuildError::Probe {
                        upstream: Arc::clone(upstream),
                        path: path.clone(),
                        host,
                        reason,
                    })?;
                Question::Get(Box::new(get))
            }
        };
        Ok(Self { rules: rules.clone(), question })
    }

    /// How often, how long, how many.
    #[must_use]
    pub fn rules(&self) -> &HealthCheck {
        &self.rules
    }

    /// What is asked.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }
}

impl Get {
    fn build(peer: &HttpPeer, path: &str, host: &str, rules: &HealthCheck) -> Result<Self, String> {
        let mut peer = peer.clone();
        let whole =
            Timeouts { connect: rules.timeout, per_try: rules.timeout, total: rules.timeout };
        peer::set_timeouts(&mut peer, &whole);
        // A connection that has no room for a second stream is not kept.
        peer.options.max_h2_streams = 1;
        let uri = Uri::builder()
            .scheme(if peer.is_tls() { "https" } else { "http" })
            .authority(host)
            .path_and_query(path)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            peer,
            origin_form: origin_form(path, host).map_err(|e| e.to_string())?,
            absolute_form: absolute_form(path, uri).map_err(|e| e.to_string())?,
        })
    }

    /// Where to, and within which time.
    #[must_use]
    pub fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    /// The request for HTTP/1.
    #[must_use]
    pub fn origin_form(&self) -> &RequestHeader {
        &self.origin_form
    }

    /// The request for HTTP/2, whose authority comes from the target.
    #[must_use]
    pub fn absolute_form(&self) -> &RequestHeader {
        &self.absolute_form
    }
}

const AGENT: &str = "datahub-gateway-probe";

fn origin_form(path: &str, host: &str) -> pingora_core::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3))?;
    request.insert_header(HOST, host)?;
    request.insert_header(USER_AGENT, AGENT)?;
    request.insert_header(CONNECTION, "close")?;
    Ok(request)
}

fn absolute_form(path: &str, uri: Uri) -> pingora_core::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(1))?;
    request.set_uri(uri);
    request.set_version(http::Version::HTTP_2);
    request.insert_header(USER_AGENT, AGENT)?;
    Ok(request)
}
