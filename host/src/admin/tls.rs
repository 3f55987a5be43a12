//! The host's certificate and key, read from PEM files. TLS 1.2 and 1.3 with ring's cryptography; nothing is
//! reloaded while the host runs.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::error::Error;

/// Reads both files. Blocks on them.
///
/// # Errors
/// A file cannot be read, holds something else, or the key is not the certificate's.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, Error> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        Error::config("read tls of [http]", error)
            .about(path.display())
            .hint("name PEM files that the host's user may read: the certificate with its chain, and its key")
    };
    let path = files.certificate.as_path();
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(path, &error))?;
    if chain.is_empty() {
        return Err(wrong(path, &"there is no certificate in it"));
    }
    let path = files.key.as_path();
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(path, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(path, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
