//! Whose certificates are believed.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::Path;
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Bytes of a file with certificates.
const LARGEST: u64 = 1024 * 1024;

/// What is wrong, and what to do.
type Refusal = (String, &'static str);

/// For connections without TLS.
pub(super) fn nobody() -> Result<MakeRustlsConnect, Refusal> {
    believing(RootCertStore::empty())
}

/// The authorities that the system trusts.
pub(super) fn system() -> Result<MakeRustlsConnect, Refusal> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err((
            "needs TLS, and the system trusts no authority".to_owned(),
            "install the package `ca-certificates`, or name the certificate of the server's \
             authority (`sslrootcert=PATH`)",
        ));
    }
    believing(roots)
}

/// The authorities in a file.
pub(super) fn authorities_in(path: &Path) -> Result<MakeRustlsConnect, Refusal> {
    let shown = path.display();
    const HELP: &str = "let `sslrootcert` name a file with certificates as PEM";
    let about = std::fs::metadata(path)
        .map_err(|error| (format!("names `{shown}`, which cannot be read: {error}"), HELP))?;
    if !about.is_file() || about.len() > LARGEST {
        return Err((format!("names `{shown}`, which is not a file of at most 1 MiB"), HELP));
    }
    let pem = std::fs::read(path)
        .map_err(|error| (format!("names `{shown}`, which cannot be read: {error}"), HELP))?;
    authorities(&pem)
}

/// The authorities in this PEM.
pub(super) fn authorities(pem: &[u8]) -> Result<MakeRustlsConnect, Refusal> {
    const HELP: &str = "the file must be PEM, with `BEGIN CERTIFICATE`, and hold the certificates of \
                        the server's authority";
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut roots = RootCertStore::empty();
    match certificates {
        Ok(list) if !list.is_empty() => {
            for certificate in list {
                roots.add(certificate).map_err(|error| {
                    (format!("is given a certificate that cannot be trusted: {error}"), HELP)
                })?;
            }
        }
        _ => return Err(("is given an authority, but there is no certificate".to_owned(), HELP)),
    }
    believing(roots)
}

fn believing(roots: RootCertStore) -> Result<MakeRustlsConnect, Refusal> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| (format!("needs TLS, which cannot be set up: {error}"), "report it"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
