//! HTTPS, and certificates that prove operators.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::Watched;
use crate::http::{Answer, exchange, request};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes NAME.pem and NAME.key.
    fn issue(&self, dir: &Path, name: &str) {
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).expect("it is written");
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())
            .expect("it is written");
    }
}

fn ask(
    watched: &Watched,
    dir: &Path,
    as_whom: Option<&str>,
    text: &[u8],
) -> std::io::Result<Answer> {
    let mut roots = rustls::RootCertStore::empty();
    let read = |name: &str| CertificateDer::from_pem_file(dir.join(name)).expect("a certificate");
    roots.add(read("ca.pem")).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match as_whom {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).expect("a key");
            builder
                .with_client_auth_cert(vec![read(&format!("{name}.pem"))], key)
                .expect("they fit")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = rustls::ClientConnection::new(Arc::new(config), name);
    let connection = connection.map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(watched.admin)?;
    exchange(rustls::StreamOwned::new(connection, stream), text)
}

#[test]
fn a_certificate_proves_an_operator() {
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    std::fs::write(dir.path().join("ca.pem"), authority.0.pem()).expect("it is written");
    authority.issue(dir.path(), "server");
    authority.issue(dir.path(), "olivia");
    other.issue(dir.path(), "eve");
    let files = [("cert", "server.pem"), ("key", "server.key"), ("ca", "ca.pem")];
    let mut more = vec!["--set".to_owned(), "admin.tls.client-auth=want".to_owned()];
    for (key, file) in files {
        let path = dir.path().join(file);
        more.extend(["--set".to_owned(), format!("admin.tls.{key}={}", path.display())]);
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let watched = Watched::start(&more);
    let change = request("PATCH", "/v1/settings", &[], "{\"skip-acl\": \"false\"}");
    let by = |as_whom, text: &[u8]| ask(&watched, dir.path(), as_whom, text);
    assert_eq!(by(None, &request("GET", "/livez", &[], "")).expect("it answers").status, 200);
    assert_eq!(by(None, &change).expect("it answers").status, 401);
    assert_eq!(by(Some("olivia"), &change).expect("it answers").status, 200);
    assert!(by(Some("eve"), &change).is_err(), "who is not trusted does not get in at all");
    let operator = watched.operator();
    let with_token = request("PATCH", "/v1/settings", &[&operator], "{\"skip-acl\": \"false\"}");
    assert_eq!(by(None, &with_token).expect("it answers").status, 200);
    let plain = crate::http::ask(watched.admin, "GET", "/livez", &[], "");
    assert!(plain.is_err(), "there is no HTTP in the clear beside it: {plain:?}");
}
