//! Opens connections: TCP, and TLS over it where that is asked for.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::link::{Link, Stream};
use crate::tls::TlsError;

/// The files of a TLS client, all PEM.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
    /// The authorities that the server's certificate must come from.
    pub(crate) ca: PathBuf,
    /// The client's own certificates and key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// What speaks TLS to servers whose certificates come from these authorities.
pub(crate) fn tls_connector(files: &TlsFiles) -> Result<TlsConnector, TlsError> {
    let identity = files.identity.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    Ok(TlsConnector::from(Arc::new(crate::tls::client_config(&files.ca, identity)?)))
}

/// Connects to one server.
///
/// # Errors
/// Why not, in a few words.
pub(super) async fn dial(server: &str, tls: Option<&TlsConnector>) -> Result<Link, String> {
    let stream = TcpStream::connect(server).await.map_err(|e| e.to_string())?;
    // It only costs speed where it is refused.
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
            let stream = tls.connect(name, stream).await;
            Box::new(stream.map_err(|e| format!("the TLS handshake failed: {e}"))?)
        }
    };
    Ok(Link::new(stream, server))
}
