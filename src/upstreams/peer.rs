//! What Pingora is told about an endpoint, prebuilt.
//!
//! Pingora's pool lends a connection to whoever has the same address, scheme, name and flags, but it
//! does not look at the trusted certificates. So everything that TLS trust depends on is digested
//! into the peer's group key: a connection that one upstream would not trust is never lent to it.
//!
//! Must stay true: no name is resolved here, a TLS peer always has a server name (Pingora checks
//! nothing without one), and every wait has a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::WrappedX509;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::definition::{Protocol, Timeouts, UpstreamDef, UpstreamTls};
use super::registry::BuildError;

/// Requests that share one HTTP/2 connection.
const STREAMS: usize = 100;
/// What an endpoint may send ahead on one HTTP/2 stream. The connection's window is as large as all
/// of its streams' together, so that clients who read slowly cannot hold up the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS as u32 * STREAM_WINDOW;

/// TLS towards the endpoints of one upstream, checked and digested.
#[derive(Debug)]
pub(super) struct Trust {
    server_name: String,
    verify: bool,
    ca: Option<Arc<CaType>>,
    group_key: u64,
}

impl Trust {
    /// Checks what can be checked before a connection is made.
    pub(super) fn build(upstream: &Arc<str>, tls: &UpstreamTls) -> Result<Self, BuildError> {
        if ServerName::try_from(tls.server_name.as_str()).is_err() {
            return Err(BuildError::ServerName {
                upstream: Arc::clone(upstream),
                name: tls.server_name.clone(),
            });
        }
        let ca = tls.ca.as_deref().map(|ca| authorities(upstream, ca)).transpose()?;
        Ok(Self {
            server_name: tls.server_name.clone(),
            verify: tls.verify,
            ca,
            group_key: group_key(tls),
        })
    }
}

/// The peer for `address`, with the upstream's own timeouts.
pub(super) fn build(def: &UpstreamDef, address: SocketAddr, trust: Option<&Trust>) -> HttpPeer {
    let server_name = trust.map(|trust| trust.server_name.clone()).unwrap_or_default();
    let mut peer = HttpPeer::new(address, trust.is_some(), server_name);
    peer.options.idle_timeout = Some(def.idle_timeout);
    // Finds hosts that vanished while a connection was idle or a response is awaited for long.
    // HTTP/2 pings are not used for it: gRPC servers take frequent ones for an attack.
    peer.options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 3,
        user_timeout: Duration::ZERO,
    });
    match def.protocol {
        Protocol::Http1 => peer.options.set_http_version(1, 1),
        Protocol::Http2 => {
            // A lowest version of 2 also means prior knowledge on connections without TLS.
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = STREAMS;
            peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
            peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        }
    }
    if let Some(trust) = trust {
        peer.options.verify_cert = trust.verify;
        peer.options.verify_hostname = trust.verify;
        peer.options.ca = trust.ca.clone();
        peer.group_key = trust.group_key;
    }
    set_timeouts(&mut peer, &def.timeouts);
    peer
}

/// Limits every wait of `peer`.
pub(super) fn set_timeouts(peer: &mut HttpPeer, timeouts: &Timeouts) {
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.per_try);
    peer.options.write_timeout = Some(timeouts.per_try);
}

/// Lets `peer` stand for a connection of its own: none that is kept is taken for it, and it is not
/// kept.
pub(super) fn set_apart(peer: &mut HttpPeer) {
    peer.group_key = !peer.group_key;
    peer.options.idle_timeout = Some(Duration::ZERO);
}

/// Pingora's own form of the trusted certificates; it would panic or fail at each connection on
/// what is refused here.
fn authorities(
    upstream: &Arc<str>,
    ca: &[CertificateDer<'static>],
) -> Result<Arc<CaType>, BuildError> {
    if ca.is_empty() {
        return Err(BuildError::NoAuthority { upstream: Arc::clone(upstream) });
    }
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::with_capacity(ca.len());
    for (index, der) in ca.iter().enumerate() {
        let refused = |reason: String| BuildError::Authority {
            upstream: Arc::clone(upstream),
            number: index + 1,
            reason,
        };
        roots.add(der.clone()).map_err(|e| refused(e.to_string()))?;
        let parsed = WrappedX509::try_new(der.to_vec(), |raw| {
            X509Certificate::from_der(raw).map(|(_, certificate)| certificate)
        });
        certificates.push(parsed.map_err(|e| refused(e.to_string()))?);
    }
    Ok(certificates.into())
}

/// Equal only for equal trust.
fn group_key(tls: &UpstreamTls) -> u64 {
    let mut digest = Sha256::new();
    digest.update([u8::from(tls.verify), u8::from(tls.ca.is_some())]);
    for der in tls.ca.iter().flat_map(|ca| ca.iter()) {
        digest.update((der.len() as u64).to_be_bytes());
        digest.update(der);
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest.first_chunk().map_or(1, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::{ALPN, Peer};

    use super::*;
    use crate::telemetry::Clock;
    use crate::upstreams::fixture::{address, orders};
    use crate::upstreams::pick::{Connection, Tried};

    fn authority() -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    fn with_tls(
        server_name: &str,
        ca: Option<&[CertificateDer<'static>]>,
        verify: bool,
    ) -> HttpPeer {
        let tls =
            UpstreamTls { server_name: server_name.to_owned(), ca: ca.map(Arc::from), verify };
        peer_of(&UpstreamDef { tls: Some(tls), ..orders(&[address(1)]) })
    }

    fn peer_of(def: &UpstreamDef) -> HttpPeer {
        let upstream = crate::upstreams::fixture::build(def, &Clock::manual());
        let pick = upstream.pick(&Tried::default()).expect("an endpoint");
        *pick.peer(&def.timeouts, Connection::Any)
    }

    #[test]
    fn every_wait_has_the_limit_of_the_route() {
        let def = orders(&[address(1)]);
        let upstream = crate::upstreams::fixture::build(&def, &Clock::manual());
        let route = Timeouts {
            connect: Duration::from_millis(100),
            per_try: Duration::from_millis(200),
            total: Duration::from_millis(300),
        };
        let peer =
            upstream.pick(&Tried::default()).expect("an endpoint").peer(&route, Connection::Any);
        assert_eq!(peer.options.connection_timeout, Some(route.connect));
        assert_eq!(peer.options.total_connection_timeout, Some(route.connect));
        assert_eq!(peer.options.read_timeout, Some(route.per_try));
        assert_eq!(peer.options.write_timeout, Some(route.per_try));
        assert_eq!(peer.options.idle_timeout, Some(def.idle_timeout));
        assert!(peer.options.tcp_keepalive.is_some());
    }

    #[test]
    fn the_file_says_which_version_is_spoken() {
        for (protocol, alpn, streams) in
            [(Protocol::Http1, ALPN::H1, 1), (Protocol::Http2, ALPN::H2, STREAMS)]
        {
            let peer = peer_of(&UpstreamDef { protocol, ..orders(&[address(1)]) });
            assert_eq!(peer.options.alpn, alpn);
            assert_eq!(peer.options.max_h2_streams, streams);
            assert!(!peer.is_tls());
        }
    }

    #[test]
    fn verification_is_on_unless_the_file_turns_it_off() {
        for verify in [true, false] {
            let peer = with_tls("orders.test", None, verify);
            assert!(peer.is_tls());
            assert_eq!(peer.sni, "orders.test");
            assert_eq!((peer.verify_cert(), peer.verify_hostname()), (verify, verify));
        }
    }

    #[test]
    fn a_new_connection_is_shared_with_nobody_and_not_kept() {
        let upstream = crate::upstreams::fixture::build(&orders(&[address(1)]), &Clock::manual());
        let pick = upstream.pick(&Tried::default()).expect("an endpoint");
        let timeouts = &upstream.definition().timeouts;
        let kept = pick.peer(timeouts, Connection::Any);
        let new = pick.peer(timeouts, Connection::New);
        assert_ne!(kept.reuse_hash(), new.reuse_hash());
        assert_eq!(new.options.idle_timeout, Some(Duration::ZERO));
    }

    #[test]
    fn connections_are_shared_only_with_equal_trust() {
        let (one, other) = (authority(), authority());
        let (both, one, other) = ([one.clone(), other.clone()], [one], [other]);
        let hash = |ca: Option<&[_]>, verify| with_tls("orders.test", ca, verify).reuse_hash();
        let all = [
            hash(None, true),
            hash(None, false),
            hash(Some(&one), true),
            hash(Some(&one), false),
            hash(Some(&other), true),
            hash(Some(&both), true),
            with_tls("bills.test", Some(&one), true).reuse_hash(),
        ];
        for (index, hash) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(hash), "{index}");
        }
        assert_eq!(all[2], hash(Some(&one), true));
    }
}
