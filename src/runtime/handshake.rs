//! TLS towards clients: what a listener says in a handshake, by the snapshot in force.
//!
//! Must stay true: TLS 1.2 is the oldest that is spoken; a session is only taken up again under the
//! trust in clients that it began under.

use crate::auth::ClientTrust;
use crate::snapshot::{Live, Snapshot};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The handshakes of one listener; all its sockets have the same.
pub(super) struct Handshakes {
    listener: Arc<str>,
    http2: bool,
    live: Arc<Live>,
    armed: ArcSwap<Armed>,
}

/// What a handshake needs, and the sessions that came of it.
struct Armed {
    trust: Option<Arc<ClientTrust>>,
    config: Arc<ServerConfig>,
}

/// One connection's handshake.
pub(super) struct Handshake {
    /// The TLS of it.
    pub(super) acceptor: TlsAcceptor,
    /// Whose certificates are believed in it.
    pub(super) trust: Option<Arc<ClientTrust>>,
}

impl Handshakes {
    /// Those of the listener of this name.
    pub(super) fn new(listener: &Arc<str>, http2: bool, live: &Arc<Live>) -> Self {
        let trust = live.load().client_trust(listener).cloned();
        Self {
            armed: ArcSwap::from_pointee(arm(trust, listener, http2, live)),
            listener: Arc::clone(listener),
            http2,
            live: Arc::clone(live),
        }
    }

    /// The handshake of a connection that was accepted under `snapshot`.
    pub(super) fn begin(&self, snapshot: &Snapshot) -> Handshake {
        let trust = snapshot.client_trust(&self.listener);
        let armed = self.armed.load_full();
        let armed = if armed.trust.as_ref() == trust {
            armed
        } else {
            // Sessions belong to the configuration they began under, and are forgotten with it.
            let new = Arc::new(arm(trust.cloned(), &self.listener, self.http2, &self.live));
            self.armed.store(Arc::clone(&new));
            new
        };
        Handshake {
            acceptor: TlsAcceptor::from(Arc::clone(&armed.config)),
            trust: armed.trust.clone(),
        }
    }
}

fn arm(
    trust: Option<Arc<ClientTrust>>,
    listener: &Arc<str>,
    http2: bool,
    live: &Arc<Live>,
) -> Armed {
    let resolver = LiveCertificate { live: Arc::clone(live), listener: Arc::clone(listener) };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = trust.as_ref().map_or_else(|| Arc::new(NoClientAuth) as _, |it| it.verifier());
    #[expect(clippy::expect_used, reason = "the provider has both versions: it is built with them")]
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Armed { trust, config: Arc::new(config) }
}

/// The certificate of a listener as the snapshot in force has it, so that a reload changes it
/// without touching the socket.
struct LiveCertificate {
    live: Arc<Live>,
    listener: Arc<str>,
}

impl std::fmt::Debug for LiveCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveCertificate").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.live.load().certificate(&self.listener)
    }
}

/// The reason of a handshake that ended because the client went away.
pub(super) const GONE: &str = "gone";

/// Why a handshake failed, as metrics name it.
pub(super) fn why(error: &std::io::Error) -> &'static str {
    use rustls::AlertDescription as Alert;
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
    else {
        return GONE;
    };
    match error {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate,
        ) => "certificate",
        _ => "protocol",
    }
}
