//! Handshakes in memory, with the stores that Java and OpenSSL make.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name)
}

fn store(name: &str, password: &str) -> KeyStore {
    let (kind, password) = (StoreKind::Auto, Some(password.to_owned()));
    KeyStore { path: fixture(name), kind, password, password_file: None }
}

fn with_store(name: &str) -> Tls {
    Tls { keystore: Some(store(name, "changeit")), ..Tls::default() }
}

fn with_pem(cert: &str, key: &str) -> Tls {
    Tls { cert: Some(fixture(cert)), key: Some(fixture(key)), ..Tls::default() }
}

/// Takes any certificate whose key the server proves to have.
#[derive(Debug)]
struct Anyone(CryptoProvider);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that shows `identity`.
fn client(
    identity: Option<Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("versions that ring knows")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(ring::default_provider())));
    let Some((chain, key)) = identity else { return builder.with_no_client_auth() };
    let key = ring::default_provider().key_provider.load_private_key(key).expect("a key");
    // Not rustls's own check, which refuses certificates of version 1.
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    builder.with_client_cert_resolver(Arc::new(resolver))
}

/// Runs a handshake; gives the client's name, or why the server refused it.
fn handshake(server: &Arc<ServerConfig>, client: ClientConfig) -> Result<Option<String>, String> {
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("memory takes it");
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory gives it");
            server.process_new_packets().map_err(|e| e.to_string())?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("memory takes it");
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory gives it");
            client.process_new_packets().map_err(|e| format!("the client: {e}"))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake does not end");
    Ok(server.peer_certificates().and_then(|chain| rfc2253(&chain[0])))
}

fn served(tls: &Tls) -> Result<Option<String>, String> {
    let config = server_config(tls).map_err(|e| e.to_string())?;
    handshake(&config, client(None, &rustls::version::TLS12))?;
    handshake(&config, client(None, &rustls::version::TLS13))
}

#[test]
fn every_kind_of_key_and_store_serves() {
    for name in ["ec.p12", "ec.jks", "rsa.p12", "rsa.jks", "legacy.p12"] {
        assert_eq!(served(&with_store(name)), Ok(None), "{name}");
    }
    let pairs = [
        ("ec-sec1.crt", "ec-sec1.key"),
        ("ec-sec1.crt", "ec-sec1-half.key"),
        ("ec-sec1.crt", "ec-pkcs8.key"),
        ("rsa.crt", "rsa-pkcs1.key"),
        ("rsa.crt", "rsa-pkcs8.key"),
    ];
    for (cert, key) in pairs {
        assert_eq!(served(&with_pem(cert, key)), Ok(None), "{key}");
    }
}

#[test]
fn pem_files_and_pem_stores_of_any_algorithm_serve() {
    let dir = tempfile::tempdir().expect("a directory");
    for algorithm in
        [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384]
    {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let cert = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let cert = cert.self_signed(&key).expect("a certificate");
        let path = dir.path().join("both.pem");
        std::fs::write(&path, key.serialize_pem() + &cert.pem()).expect("a file");
        let apart = Tls { cert: Some(path.clone()), key: Some(path.clone()), ..Tls::default() };
        assert_eq!(served(&apart), Ok(None), "{algorithm:?}");
        let (kind, password) = (StoreKind::Auto, None);
        let store = KeyStore { path, kind, password, password_file: None };
        let as_store = Tls { keystore: Some(store), ..Tls::default() };
        assert_eq!(served(&as_store), Ok(None), "{algorithm:?}");
    }
}

#[test]
fn what_cannot_be_used_is_said_plainly() {
    let wrong = |name, password| {
        let keystore = Some(store(name, password));
        Tls { keystore, ..Tls::default() }
    };
    let trusting = |name: &str| Tls {
        client_auth: ClientAuth::Need,
        truststore: Some(store(name, "wrong")),
        ..with_store("ec.p12")
    };
    let cases = [
        (wrong("ec.p12", "wrong"), "ec.p12", "password"),
        (wrong("legacy.p12", "wrong"), "legacy.p12", "password"),
        (wrong("ec.jks", "wrong"), "ec.jks", "password is wrong"),
        (wrong("two-passwords.jks", "changeit"), "two-passwords.jks", "another password"),
        (wrong("ec.crt", ""), "ec.crt", "there is none"),
        (trusting("trust.p12"), "trust.p12", "password"),
        (trusting("trust.jks"), "trust.jks", "password is wrong"),
        (with_store("trust.p12"), "trust.p12", "there is none"),
        (with_store("trust.jks"), "trust.jks", "there is none"),
        (with_store("nowhere.p12"), "nowhere.p12", "cannot be read"),
        (with_store("README.md"), "README.md", "JKS, PKCS12 or PEM"),
        (with_store("p521.p12"), "P-256 or P-384", "cannot be used"),
        (with_pem("ec-sec1.crt", "encrypted-pkcs8.key"), "encrypted-pkcs8.key", "has a password"),
        (with_pem("ec-sec1.crt", "encrypted-sec1.key"), "encrypted-sec1.key", "has a password"),
        (with_pem("ec-sec1.crt", "rsa.crt"), "rsa.crt", "private key in PEM form"),
        (with_pem("ec-sec1.crt", "nowhere.key"), "nowhere.key", "cannot be read"),
        (with_pem("ec-sec1.key", "ec-sec1.key"), "ec-sec1.key", "certificates in PEM form"),
        (with_pem("rsa.crt", "ec-sec1.key"), "another certificate", ""),
        (with_pem("ec.crt", "ec-sec1.key"), "another certificate", ""),
        (with_pem("ec.crt", "ec-sec1-half.key"), "the certificate made for it", ""),
        (Tls { client_auth: ClientAuth::Want, ..with_store("ec.p12") }, "tls.truststore", ""),
        (Tls::default(), "tls.key", ""),
    ];
    for (tls, one, other) in cases {
        let error = server_config(&tls).expect_err("it cannot be used").to_string();
        assert!(error.contains(one) && error.contains(other), "{one}, {other}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

/// An authority, and clients that it vouches for until a year.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn client(&self, name: &str, until: i32) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Vivarium");
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![cert.der().clone()], key.into())
    }
}

#[test]
fn a_client_certificate_is_wanted_needed_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("a file");
    let config = |client_auth| {
        let tls = Tls { client_auth, ca: Some(ca.clone()), ..with_store("ec.p12") };
        server_config(&tls).expect("it can be used")
    };
    let (none, want, need) =
        (config(ClientAuth::None), config(ClientAuth::Want), config(ClientAuth::Need));
    let stranger = Authority::new();
    let name = || Ok(Some("CN=ann,O=Vivarium".to_owned()));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ann = || Some(authority.client("ann", 2100));
        let of = |identity| client(identity, version);
        assert_eq!(handshake(&none, of(ann())), Ok(None), "it was not asked for");
        assert_eq!(handshake(&want, of(None)), Ok(None));
        assert_eq!(handshake(&want, of(ann())), name());
        assert_eq!(handshake(&need, of(ann())), name());
        let refused = |server, identity, why: &str| {
            let error = handshake(server, of(identity)).expect_err("it is refused");
            assert!(error.contains(why), "{why}: {error}");
        };
        refused(&need, None, "sent no certificates");
        for server in [&want, &need] {
            refused(server, Some(authority.client("old", 2020)), "xpired");
            refused(server, Some(stranger.client("ann", 2100)), "invalid peer certificate");
        }
    }
}

#[test]
fn java_trust_stores_are_trusted() {
    for trust in ["trust.p12", "trust.jks"] {
        let truststore = Some(store(trust, "changeit"));
        let tls = Tls { client_auth: ClientAuth::Need, truststore, ..with_store("rsa.p12") };
        let server = server_config(&tls).expect("it can be used");
        let (chain, key) = identity(&with_store("ec.p12")).expect("an identity");
        let (_, own) = X509Certificate::from_der(&chain[0]).expect("a certificate");
        let key = ec::completed(key, own.public_key().raw);
        let shown = handshake(&server, client(Some((chain.clone(), key)), &rustls::version::TLS13));
        assert_eq!(shown, Ok(Some("CN=localhost,O=Vivarium".to_owned())), "{trust}");
    }
}

#[test]
fn version_1_certificates_pass_when_their_authority_signed_them() {
    let ca = Some(fixture("v1-ca.crt"));
    let tls = Tls { client_auth: ClientAuth::Need, ca, ..with_store("ec.p12") };
    let server = server_config(&tls).expect("it can be used");
    let show = |cert: &str, version| {
        let chain = certificates(&fixture(cert)).expect("a certificate");
        let key = private_key(&fixture("v1.key")).expect("a key");
        handshake(&server, client(Some((chain, key)), version))
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert_eq!(show("v1.crt", version), Ok(Some("CN=old,O=Vivarium".to_owned())));
        let expired = show("v1-expired.crt", version).expect_err("it is refused");
        assert!(expired.contains("xpired"), "{expired}");
        let forged = show("v1-forged.crt", version).expect_err("it is refused");
        assert!(forged.contains("UnknownIssuer"), "{forged}");
        // The key of another certificate: whoever shows one must have its key.
        let stolen = certificates(&fixture("v1.crt")).expect("a certificate");
        let key = private_key(&fixture("ec-sec1.key")).expect("a key");
        handshake(&server, client(Some((stolen, key)), version)).expect_err("it is refused");
    }
}

#[test]
fn names_are_those_that_java_prints() {
    let text = std::fs::read_to_string(fixture("names.txt")).expect("a fixture");
    let mut count = 0;
    for pair in text.trim_end().split("\n\n") {
        let (name, der) = pair.split_once('\n').expect("a name, then a certificate");
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        assert_eq!(rfc2253(&der).as_deref(), Some(name));
        count += 1;
    }
    assert_eq!(count, 9);
}

#[tokio::test]
async fn changed_files_are_taken_up_once_they_can_be_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let copy = |from: &str, to: &Path| std::fs::copy(fixture(from), to).expect("a file");
    copy("ec-sec1.crt", &cert);
    copy("ec-sec1.key", &key);
    let files = Tls { cert: Some(cert.clone()), key: Some(key.clone()), ..Tls::default() };
    let fixed = current(&files).expect("it can be used");
    let mut reloading = current(&Tls { reload: true, ..files.clone() }).expect("it can be used");
    let before = Arc::as_ptr(&reloading.borrow());
    copy("rsa.crt", &cert);
    let wait = std::time::Duration::from_secs(3);
    let changed = tokio::time::timeout(wait, reloading.changed()).await;
    assert!(changed.is_err(), "a certificate without its key was taken up");
    assert_eq!(Arc::as_ptr(&reloading.borrow()), before);
    copy("rsa-pkcs8.key", &key);
    let wait = std::time::Duration::from_secs(20);
    tokio::time::timeout(wait, reloading.changed()).await.expect("in time").expect("it is alive");
    let now = Arc::clone(&reloading.borrow());
    assert_eq!(handshake(&now, client(None, &rustls::version::TLS13)), Ok(None));
    assert!(fixed.has_changed().is_err(), "nobody changes what is not to be reloaded");
}
