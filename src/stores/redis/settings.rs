//! Where Redis is and who we are there.
//!
//! Must stay true: neither the password nor the rest of the URL shows up in an error or in `Debug`.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

const PORT: u16 = 6379;

/// A node's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where Redis is, from a URL: `redis://` or, with TLS, `rediss://`, then `user:password@` or
/// `:password@` if it asks for one, then one node or several with commas between, each with a port
/// unless it is 6379. The others of a cluster are found by asking these.
#[derive(Clone)]
pub struct Settings {
    pub(super) seeds: Vec<Address>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) tls: Option<TlsConnector>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("seeds", &self.seeds)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// What is wrong with a URL, without any of it, or with the certificates.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    /// Another scheme, or none.
    #[error("the URL of Redis begins with neither `redis://` nor `rediss://`")]
    Scheme,
    /// No node, or one that is not `host` or `host:port`.
    #[error("the URL of Redis names no node, or one that is not `host` or `host:port`")]
    Node,
    /// A percent sign that begins no two hex digits.
    #[error("the user or the password in the URL of Redis is not percent-encoded")]
    Encoding,
    /// A path other than database 0, or a query.
    #[error("the URL of Redis has a path or a query; a cluster has database 0 only")]
    Rest,
    /// A CA without TLS.
    #[error(
        "a certificate authority is given for Redis, but its URL begins with `redis://`: use `rediss://`"
    )]
    CaWithoutTls,
    /// Not PEM, or no certificate in it.
    #[error("the certificate authority for Redis is not a PEM certificate")]
    Ca,
    /// The system trusts nobody.
    #[error("the system has no certificate authorities; give the one that signs for Redis")]
    NoRoots,
    /// Rustls refuses to be configured.
    #[error("TLS for Redis cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Settings {
    /// Reads a URL, and the certificate authority that signs for Redis if it is a private one, as PEM.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn parse(url: &str, ca: Option<&[u8]>) -> Result<Self, InvalidSettings> {
        let (tls, rest) = match url.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return Err(InvalidSettings::Scheme),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (nodes, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(path, "" | "0") || nodes.contains(['?', '#']) {
            return Err(InvalidSettings::Rest);
        }
        let seeds = nodes
            .split(',')
            .map(|node| address(node, PORT).ok_or(InvalidSettings::Node))
            .collect::<Result<Vec<_>, _>>()?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        if ca.is_some() && !tls {
            return Err(InvalidSettings::CaWithoutTls);
        }
        let some = |text: &String| !text.is_empty();
        Ok(Self {
            seeds,
            user: user.filter(some),
            password: password.filter(some),
            tls: tls.then(|| connector(ca)).transpose()?,
        })
    }
}

/// `host`, `host:port` or `[address]:port`.
pub(super) fn address(node: &str, port: u16) -> Option<Address> {
    let (host, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, if after.is_empty() { port } else { after.strip_prefix(':')?.parse().ok()? })
        }
        None => match node.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (node, port),
        },
    };
    let valid = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    (valid && port > 0).then(|| Address { host: host.into(), port })
}

fn decode(text: &str) -> Result<String, InvalidSettings> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%')),
            _ => return Err(InvalidSettings::Encoding),
        }
    }
    String::from_utf8(bytes).map_err(|_| InvalidSettings::Encoding)
}

fn connector(ca: Option<&[u8]>) -> Result<TlsConnector, InvalidSettings> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| InvalidSettings::Ca)?;
                roots.add(certificate).map_err(|_| InvalidSettings::Ca)?;
            }
            if roots.is_empty() {
                return Err(InvalidSettings::Ca);
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(InvalidSettings::NoRoots);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_who() {
        type Row<'a> = (&'a str, &'a [&'a str], Option<&'a str>, Option<&'a str>);
        let table: [Row<'_>; 6] = [
            ("redis://localhost", &["localhost:6379"], None, None),
            ("redis://a:1,b,[::1]:7/0", &["a:1", "b:6379", "[::1]:7"], None, None),
            ("redis://:p%40ss@a/", &["a:6379"], None, Some("p@ss")),
            ("redis://user:p:q@a", &["a:6379"], Some("user"), Some("p:q")),
            ("redis://user@a", &["a:6379"], Some("user"), None),
            ("redis://u:p@q@[::1]", &["[::1]:6379"], Some("u"), Some("p@q")),
        ];
        for (url, seeds, user, password) in table {
            let settings = Settings::parse(url, None).unwrap();
            let found: Vec<_> = settings.seeds.iter().map(ToString::to_string).collect();
            assert_eq!(found, seeds, "{url}");
            assert_eq!((settings.user.as_deref(), settings.password.as_deref()), (user, password));
            assert!(settings.tls.is_none());
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        use InvalidSettings::{Ca, CaWithoutTls, Encoding, Node, Rest, Scheme};
        type Says = fn(&InvalidSettings) -> bool;
        let table: [(&str, Option<&[u8]>, Says); 9] = [
            ("s3cret@a", None, |e| matches!(e, Scheme)),
            ("http://:s3cret@a", None, |e| matches!(e, Scheme)),
            ("redis://:s3cret@", None, |e| matches!(e, Node)),
            ("redis://:s3cret@a,,b", None, |e| matches!(e, Node)),
            ("redis://:s3cret@a:x", None, |e| matches!(e, Node)),
            ("redis://:s3cret%4@a", None, |e| matches!(e, Encoding)),
            ("redis://:s3cret@a/3", None, |e| matches!(e, Rest)),
            ("redis://:s3cret@a", Some(b""), |e| matches!(e, CaWithoutTls)),
            ("rediss://:s3cret@a", Some(b"no pem"), |e| matches!(e, Ca)),
        ];
        for (url, ca, says) in table {
            let error = Settings::parse(url, ca).unwrap_err();
            assert!(says(&error), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        let settings = Settings::parse("redis://u:s3cret@a", None).unwrap();
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
