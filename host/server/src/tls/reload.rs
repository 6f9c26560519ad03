//! Takes up changed keys, certificates and authorities without a restart (`tls.reload`).
//!
//! Invariants:
//! * What cannot be used is never taken up: the server goes on with what it has, and says so once.
//! * Connections keep what their handshake used; only new ones see the change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::{TlsError, server_config};
use crate::config::Tls;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// When each file was written and how long it is; `None` if it is not there.
type Fingerprint = Vec<Option<(SystemTime, u64)>>;

/// What new connections use; it changes when `tls.reload` is set and the files do. Ends with the
/// runtime that it was called on.
///
/// # Errors
/// As [`server_config`].
pub(crate) fn current(tls: &Tls) -> Result<watch::Receiver<Arc<rustls::ServerConfig>>, TlsError> {
    let taken = fingerprint(tls);
    let (sender, receiver) = watch::channel(server_config(tls)?);
    if tls.reload {
        tokio::spawn(look(tls.clone(), taken, sender));
    }
    Ok(receiver)
}

async fn look(tls: Tls, mut seen: Fingerprint, sender: watch::Sender<Arc<rustls::ServerConfig>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (tls, before) = (tls.clone(), seen.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let now = fingerprint(&tls);
            (now != before).then(|| (now, server_config(&tls)))
        });
        // It fails only when the runtime ends.
        let Ok(looked) = looked.await else { return };
        match looked {
            None => continue,
            Some((now, Ok(config))) => {
                seen = now;
                sender.send_replace(config);
                tracing::info!("changed TLS files were taken up");
            }
            // Half of a change, most likely: the files are read again when they change again.
            Some((now, Err(error))) => {
                seen = now;
                tracing::warn!(%error, "changed TLS files cannot be used; those before still hold");
            }
        }
    }
}

fn fingerprint(tls: &Tls) -> Fingerprint {
    let stores = [&tls.keystore, &tls.truststore].into_iter().flatten();
    let of_stores = stores.flat_map(|store| [Some(&store.path), store.password_file.as_ref()]);
    let files = [tls.cert.as_ref(), tls.key.as_ref(), tls.ca.as_ref()];
    let files: Vec<&PathBuf> = files.into_iter().chain(of_stores).flatten().collect();
    let written = |file: &&PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(written).collect()
}
