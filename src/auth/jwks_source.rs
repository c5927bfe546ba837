//! Where an issuer publishes its keys, and under which conditions it may be asked.

use super::algorithm::Algorithm;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Where keys are published. Two tables that say the same share what is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwksSource {
    /// The URL.
    pub url: JwksUrl,
    /// Certificates to trust, PEM; `None`: the system's.
    pub ca: Option<Arc<[u8]>>,
    /// Whether addresses that only exist in here may be asked.
    pub allow_private: bool,
    /// The algorithm of RSA keys that do not name theirs.
    pub of_rsa: Algorithm,
}

/// An `http` or `https` URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwksUrl {
    /// Whether over TLS.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: Box<str>,
}

impl JwksUrl {
    /// The address, where the host is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port as in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for JwksUrl {
    /// Without the query, which could hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}
