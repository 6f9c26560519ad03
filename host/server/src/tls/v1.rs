//! Client certificates of X.509 version 1, which Java accepts and webpki refuses outright; test
//! harnesses and old in-house authorities still make them.
//!
//! Invariants:
//! * Every other certificate goes to webpki, unchanged.
//! * A version 1 certificate passes only if a trusted authority signed it itself: without
//!   extensions nothing says what a longer chain would allow.
//! * Whoever shows one proves in the handshake that it has the key.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::jks::der;

/// Checks client certificates: version 1 here, every other by `inner`.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// The certificate, if it is one of version 1.
fn version_1<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    (rest.is_empty() && parsed.version() == X509Version::V1).then_some(parsed)
}

fn bad(why: CertificateError) -> Error {
    Error::InvalidCertificate(why)
}

/// Whether `key` made `signature` over `message`, by one of the algorithms that fit the key.
fn signed<'a>(
    algorithms: impl IntoIterator<Item = &'a &'static dyn SignatureVerificationAlgorithm>,
    key: &X509Certificate<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = key.public_key();
    let kind = der(key.raw).and_then(|(_, info, _)| Ok(der(info)?.1));
    let Ok(kind) = kind else { return false };
    algorithms.into_iter().any(|algorithm| {
        algorithm.public_key_alg_id().as_ref() == kind
            && algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok()
    })
}

impl Verifier {
    fn issued(&self, leaf: &X509Certificate<'_>, der_bytes: &[u8]) -> bool {
        // Behind the signed part stands the algorithm, once more inside of it.
        let named = der(der_bytes).and_then(|(_, body, _)| Ok(der(der(body)?.2)?.1));
        let Ok(named) = named else { return false };
        let fitting: Vec<_> =
            self.algorithms.all.iter().filter(|a| a.signature_alg_id().as_ref() == named).collect();
        leaf.signature_algorithm == leaf.tbs_certificate.signature
            && self.trusted.iter().any(|authority| {
                let Ok((_, authority)) = X509Certificate::from_der(authority) else { return false };
                authority.subject().as_raw() == leaf.issuer().as_raw()
                    // Limits on names are webpki's to judge, and it does not read this certificate.
                    && matches!(authority.name_constraints(), Ok(None))
                    && signed(
                        fitting.iter().copied(),
                        &authority,
                        leaf.tbs_certificate.as_ref(),
                        &leaf.signature_value.data,
                    )
            })
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(leaf) = version_1(end_entity) else {
            return self.inner.verify_client_cert(end_entity, intermediates, now);
        };
        if !leaf.extensions().is_empty() {
            return Err(bad(CertificateError::BadEncoding));
        }
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds < leaf.validity().not_before.timestamp() {
            return Err(bad(CertificateError::NotValidYet));
        }
        if seconds > leaf.validity().not_after.timestamp() {
            return Err(bad(CertificateError::Expired));
        }
        if !self.issued(&leaf, end_entity) {
            return Err(bad(CertificateError::UnknownIssuer));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(leaf) = version_1(cert) else {
            return self.inner.verify_tls12_signature(message, cert, dss);
        };
        let (_, fitting) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == dss.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        if !signed(fitting.iter(), &leaf, message, dss.signature()) {
            return Err(bad(CertificateError::BadSignature));
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(leaf) = version_1(cert) else {
            return self.inner.verify_tls13_signature(message, cert, dss);
        };
        let key = SubjectPublicKeyInfoDer::from(leaf.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
