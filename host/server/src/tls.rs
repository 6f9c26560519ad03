//! The TLS client port: who this server is, whom it trusts, and who a client is by its certificate.
//!
//! Keys and certificates come from PEM files, or from the JKS and PKCS12 stores that a `zoo.cfg`
//! names.

mod ec;
mod jks;
mod reload;
mod subject;
mod v1;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{ClientAuth, KeyStore, PeerTls, StoreKind, Tls};
use crate::peers::Secured;

pub(crate) use reload::current;
pub(crate) use subject::rfc2253;

/// Why the TLS port cannot be opened.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {why}; check the path and its permissions")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A file does not hold what it should.
    #[error("{path}: expected {expected}: {why}")]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Something that TLS needs is not configured.
    #[error("the TLS port needs {0}")]
    Missing(&'static str),
    /// The key and the certificates do not go together.
    #[error("the key and the certificates cannot be used: {0}")]
    Unusable(String),
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What rustls needs to serve clients.
///
/// # Errors
/// [`TlsError`], in one line that names the file and what to do.
pub fn server_config(tls: &Tls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let (chain, key) = identity(tls)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |e: &dyn std::fmt::Display| TlsError::Unusable(e.to_string());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?;
    let builder = match tls.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Want | ClientAuth::Need => {
            let mut roots = RootCertStore::empty();
            let trusted = trusted(tls)?;
            let (added, _) = roots.add_parsable_certificates(trusted.iter().cloned());
            if added == 0 {
                return Err(TlsError::Missing(
                    "a certificate authority for its clients (`tls.ca` or `tls.truststore`)",
                ));
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = match tls.client_auth {
                ClientAuth::Want => verifier.allow_unauthenticated(),
                ClientAuth::None | ClientAuth::Need => verifier,
            };
            let inner = verifier.build().map_err(|e| unusable(&e))?;
            let algorithms = provider.signature_verification_algorithms;
            builder.with_client_cert_verifier(Arc::new(v1::Verifier { inner, trusted, algorithms }))
        }
    };
    let own = chain.first().ok_or(TlsError::Missing("a certificate beside its key"))?;
    // Not rustls's own check, which refuses certificates of version 1; clients judge those.
    let (_, own) = X509Certificate::from_der(own).map_err(|e| unusable(&e))?;
    let key = ec::completed(key, own.public_key().raw);
    let key = provider.key_provider.load_private_key(key).map_err(|e| {
        let kinds = "RSA of 2048 to 8192 bits, EC on P-256 or P-384, and Ed25519 keys are taken";
        TlsError::Unusable(format!("{e}; {kinds}, each with the certificate made for it"))
    })?;
    if key.public_key().is_some_and(|public| public.as_ref() != own.public_key().raw) {
        return Err(TlsError::Unusable(
            "the key belongs to another certificate; give the key that the first one was made for"
                .to_owned(),
        ));
    }
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(resolver))))
}

/// What rustls needs to be a client of servers whose certificates come from `ca`.
///
/// # Errors
/// [`TlsError`], in one line that names the file and what to do.
pub(crate) fn client_config(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
) -> Result<rustls::ClientConfig, TlsError> {
    let identity = identity.map(|(cert, key)| Ok((certificates(cert)?, private_key(key)?)));
    client_of(certificates(ca)?, identity.transpose()?)
}

/// What rustls needs for the links between servers: both sides show certificates of the authorities
/// that are trusted.
///
/// # Errors
/// [`TlsError`], in one line that names the file and what to do.
pub(crate) fn between_servers(tls: &PeerTls) -> Result<Secured, TlsError> {
    let PeerTls { cert, key, ca, keystore, truststore } = tls.clone();
    let (client_auth, reload) = (ClientAuth::Need, false);
    let tls = Tls { cert, key, ca, client_auth, reload, keystore, truststore };
    let client = Arc::new(client_of(trusted(&tls)?, Some(identity(&tls)?))?);
    Ok(Secured { client, server: server_config(&tls)? })
}

fn client_of(
    trusted: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
) -> Result<rustls::ClientConfig, TlsError> {
    let unusable = |e: &dyn std::fmt::Display| TlsError::Unusable(e.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate).map_err(|e| unusable(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .with_root_certificates(roots);
    let Some((chain, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let key = provider.key_provider.load_private_key(key);
    // Not rustls's own check, which refuses certificates of version 1; servers judge those.
    let own = CertifiedKey::new(chain, key.map_err(|e| unusable(&e))?);
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))))
}

fn identity(tls: &Tls) -> Result<Identity, TlsError> {
    match (&tls.keystore, &tls.cert, &tls.key) {
        (Some(store), _, _) => {
            let contents = open(store)?;
            contents.identity.ok_or_else(|| TlsError::Wrong {
                path: store.path.clone(),
                expected: "a private key with its certificates",
                why: "there is none".to_owned(),
            })
        }
        (None, Some(cert), Some(key)) => Ok((certificates(cert)?, private_key(key)?)),
        _ => Err(TlsError::Missing("a key and a certificate (`tls.key` and `tls.cert`)")),
    }
}

fn trusted(tls: &Tls) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match (&tls.truststore, &tls.ca) {
        (Some(store), _) => Ok(open(store)?.trusted),
        (None, Some(ca)) => certificates(ca),
        (None, None) => Ok(Vec::new()),
    }
}

/// What a key store holds.
#[derive(Default)]
struct Contents {
    identity: Option<Identity>,
    trusted: Vec<CertificateDer<'static>>,
}

fn open(store: &KeyStore) -> Result<Contents, TlsError> {
    let path = &store.path;
    let unreadable =
        |e: std::io::Error| TlsError::Unreadable { path: path.clone(), why: e.to_string() };
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let password = store.resolved_password().map_err(unreadable)?;
    let wrong =
        |expected| move |why: String| TlsError::Wrong { path: store.path.clone(), expected, why };
    // A store often has another type than its name says; its first bytes do not lie.
    if jks::is_jks(&bytes) {
        return jks::read(&bytes, &password).map_err(wrong("a JKS store"));
    }
    if store.resolved_kind() == Some(StoreKind::Pem) || bytes.starts_with(b"-----BEGIN") {
        let trusted = certificates(path)?;
        let has_key = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY-----");
        let key = has_key.then(|| private_key(path)).transpose()?;
        let identity = key.map(|key| (trusted.clone(), key));
        return Ok(Contents { identity, trusted });
    }
    pkcs12(&bytes, &password).map_err(wrong("a JKS, PKCS12 or PEM store"))
}

fn pkcs12(bytes: &[u8], password: &str) -> Result<Contents, String> {
    // Relaxed: a trust store's certificates carry Java's mark of trust, or none at all.
    let policy = p12_keystore::Pkcs12ImportPolicy::Relaxed;
    let store = p12_keystore::KeyStore::from_pkcs12(bytes, password, policy);
    let store = store.map_err(|e| match e {
        p12_keystore::error::Error::MacError(_) => "its password is wrong, or it is damaged".into(),
        other => other.to_string(),
    })?;
    let mut contents = Contents::default();
    if let Some((_, entry)) = store.private_key_chain() {
        let chain = entry.certs().iter().map(|c| CertificateDer::from(c.as_der().to_vec()));
        let key = PrivatePkcs8KeyDer::from(entry.key().as_der().to_vec());
        contents.identity = Some((chain.collect(), key.into()));
    }
    for (_, entry) in store.entries() {
        if let p12_keystore::KeyStoreEntry::Certificate(certificate) = entry {
            contents.trusted.push(CertificateDer::from(certificate.as_der().to_vec()));
        }
    }
    Ok(contents)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| TlsError::Wrong {
        path: path.to_owned(),
        expected: "certificates in PEM form",
        why,
    };
    let found = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| wrong(e.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |why: String| TlsError::Wrong {
        path: path.to_owned(),
        expected: "a private key in PEM form, without a password",
        why,
    };
    let unreadable =
        |e: std::io::Error| TlsError::Unreadable { path: path.to_owned(), why: e.to_string() };
    let pem = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&pem);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(wrong(
            "it has a password; take it off with `openssl pkey -in KEY -out NEW-KEY`, or use a \
             PKCS12 store"
                .to_owned(),
        ));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests;
