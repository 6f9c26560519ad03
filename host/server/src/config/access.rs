//! `[auth]` and `[tls]`: who a client is, and how it proves it.
//!
//! Invariant: secrets are kept as given, and [`Auth::hide_secrets`] and [`Tls::hide_secrets`] know
//! every one of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// `[auth]`: schemes, super users, SASL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Auth {
    /// Whoever proves this digest id passes every ACL: `user:base64(hash(user:password))`. Default
    /// none. Seeds the cluster's settings.
    pub super_digest: Option<String>,
    /// Hash of the digest scheme: `SHA-1`, `SHA-224`, `SHA-256`, `SHA-384`, `SHA-512`, `SHA3-224`,
    /// `SHA3-256`, `SHA3-384`, `SHA3-512`. The same on every server. Default `SHA-1`.
    pub digest_alg: String,
    /// The digest scheme is there at all. Default true.
    pub digest_enabled: bool,
    /// No ACL is checked. Default false. Seeds the cluster's settings.
    pub skip_acl: bool,
    /// The schemes clients may use besides `world` and `auth`. Default: digest, ip, x509, sasl.
    pub providers: Vec<Provider>,
    /// Clients must authenticate before anything else.
    pub enforce: Enforce,
    /// SASL DIGEST-MD5.
    pub sasl: Sasl,
    /// Client certificates.
    pub x509: X509,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            super_digest: None,
            digest_alg: "SHA-1".into(),
            digest_enabled: true,
            skip_acl: false,
            providers: vec![Provider::Digest, Provider::Ip, Provider::X509, Provider::Sasl],
            enforce: Enforce::default(),
            sasl: Sasl::default(),
            x509: X509::default(),
        }
    }
}

impl Auth {
    pub(super) fn hide_secrets(&mut self) {
        hide(&mut self.super_digest);
        self.sasl.users.values_mut().for_each(|password| *password = HIDDEN.into());
    }
}

/// The names that `auth.digest-alg` takes.
pub(super) const DIGEST_ALGS: &[&str] = &[
    "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512", "SHA3-224", "SHA3-256", "SHA3-384",
    "SHA3-512",
];

/// `[auth.enforce]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Enforce {
    /// A request of a client that has not authenticated is refused. Default false.
    pub enabled: bool,
    /// The schemes that count; at least one when enabled. Default none.
    pub schemes: Vec<String>,
}

/// `[auth.sasl]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sasl {
    /// A JAAS file with the users; its `user_NAME="password"` join `users`. Default none.
    pub jaas_file: Option<PathBuf>,
    /// The section of that file. Default `Server`.
    pub jaas_section: String,
    /// A client whose SASL failed may go on, unauthenticated. Default false.
    pub allow_failed_clients: bool,
    /// A client must authenticate by SASL before anything else. Default false.
    pub require: bool,
    /// SASL names that pass every ACL. Default none.
    pub super_users: Vec<String>,
    /// Name to password. Default none: SASL is off.
    pub users: BTreeMap<String, String>,
}

impl Default for Sasl {
    fn default() -> Self {
        Self {
            jaas_file: None,
            jaas_section: "Server".into(),
            allow_failed_clients: false,
            require: false,
            super_users: Vec::new(),
            users: BTreeMap::new(),
        }
    }
}

/// `[auth.x509]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct X509 {
    /// The certificate subject (RFC 2253) that passes every ACL. Default none.
    pub super_user: Option<String>,
}

/// A way to authenticate, in ZooKeeper the class of an `authProvider.N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `digest`
    Digest,
    /// `ip`
    Ip,
    /// `x509`
    X509,
    /// `sasl`
    Sasl,
    /// `ensemble`: the client names the ensemble it believes to talk to. `ensemble:NAME,NAME`.
    Ensemble(Vec<String>),
    /// `key`, ZooKeeper's sample of a provider that reads a node.
    Key,
    /// `class:NAME`, a Java class that Vivarium does not know. Authentication by its scheme fails,
    /// as it does on a ZooKeeper that cannot load the class.
    Unknown(String),
}

impl Provider {
    /// The provider that a Java class name stands for. `ensembles` are the names of
    /// `ensembleAuthName`.
    pub(super) fn from_class(class: &str, ensembles: &[String]) -> Self {
        match class.strip_prefix("org.apache.zookeeper.server.auth.").unwrap_or(class) {
            "DigestAuthenticationProvider" => Self::Digest,
            "IPAuthenticationProvider" => Self::Ip,
            "X509AuthenticationProvider" => Self::X509,
            "SASLAuthenticationProvider" => Self::Sasl,
            "EnsembleAuthenticationProvider" => Self::Ensemble(ensembles.to_vec()),
            "KeyAuthenticationProvider" => Self::Key,
            _ => Self::Unknown(class.to_owned()),
        }
    }

    /// The scheme that it stands for; of an unknown class, none.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Ip => "ip",
            Self::X509 => "x509",
            Self::Sasl => "sasl",
            Self::Ensemble(_) => "ensemble",
            Self::Key => "key",
            Self::Unknown(_) => "",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "digest" => Self::Digest,
            "ip" => Self::Ip,
            "x509" => Self::X509,
            "sasl" => Self::Sasl,
            "key" => Self::Key,
            "ensemble" => Self::Ensemble(Vec::new()),
            _ => match text.split_once(':')? {
                ("ensemble", names) => {
                    Self::Ensemble(names.split(',').map(str::to_owned).collect())
                }
                ("class", name) => Self::Unknown(name.to_owned()),
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest => f.write_str("digest"),
            Self::Ip => f.write_str("ip"),
            Self::X509 => f.write_str("x509"),
            Self::Sasl => f.write_str("sasl"),
            Self::Key => f.write_str("key"),
            Self::Ensemble(names) if names.is_empty() => f.write_str("ensemble"),
            Self::Ensemble(names) => write!(f, "ensemble:{}", names.join(",")),
            Self::Unknown(class) => write!(f, "class:{class}"),
        }
    }
}

impl Serialize for Provider {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| {
            let expected = "\"digest\", \"ip\", \"x509\", \"sasl\", \"key\", \"ensemble:NAME\" or \
                            \"class:NAME\"";
            de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
        })
    }
}

/// `[tls]`: for `listen.client-tls`. Either PEM paths (`cert`, `key`, `ca`) or stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the server's certificate chain, its own first. Default none.
    pub cert: Option<PathBuf>,
    /// PEM file of its private key. Default none.
    pub key: Option<PathBuf>,
    /// PEM file of the authorities whose client certificates are trusted. Default none.
    pub ca: Option<PathBuf>,
    /// `"none"`, `"want"` or `"need"`: whether a client shows a certificate. Default `"none"`.
    pub client_auth: ClientAuth,
    /// Take up changed files without a restart. Default false.
    pub reload: bool,
    /// Certificate and key in one Java-style store, instead of `cert` and `key`. Default none.
    pub keystore: Option<KeyStore>,
    /// Trusted authorities in a store, instead of `ca`. Default none.
    pub truststore: Option<KeyStore>,
}

impl Tls {
    pub(super) fn hide_secrets(&mut self) {
        for store in [&mut self.keystore, &mut self.truststore].into_iter().flatten() {
            hide(&mut store.password);
        }
    }
}

/// `[ensemble.tls]`: links between servers, by TLS on both sides. Each server shows a certificate for the
/// names under which the others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PeerTls {
    /// PEM file of this server's certificate chain, its own first. Default none.
    pub cert: Option<PathBuf>,
    /// PEM file of its private key. Default none.
    pub key: Option<PathBuf>,
    /// PEM file of the authorities that the servers' certificates come from. Default none.
    pub ca: Option<PathBuf>,
    /// Certificate and key in one Java-style store, instead of `cert` and `key`. Default none.
    pub keystore: Option<KeyStore>,
    /// Trusted authorities in a store, instead of `ca`. Default none.
    pub truststore: Option<KeyStore>,
}

impl PeerTls {
    pub(super) fn hide_secrets(&mut self) {
        for store in [&mut self.keystore, &mut self.truststore].into_iter().flatten() {
            hide(&mut store.password);
        }
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    None,
    /// One is asked for and checked if it comes.
    Want,
    /// Without a trusted one the connection is refused.
    Need,
}

/// `[tls.keystore]` and `[tls.truststore]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyStore {
    /// The file.
    pub path: PathBuf,
    /// `"auto"` (by the file's ending), `"pem"`, `"jks"` or `"pkcs12"`. Default `"auto"`.
    #[serde(default, rename = "type")]
    pub kind: StoreKind,
    /// Its password. Default none.
    pub password: Option<String>,
    /// A file whose first line is the password; it wins over `password`. Default none.
    pub password_file: Option<PathBuf>,
}

impl KeyStore {
    /// The kind of the store, `auto` resolved by the file's ending (`.jks`, `.pem`, `.p12`,
    /// `.pfx`, `.pkcs12`); `None` if that says nothing.
    pub fn resolved_kind(&self) -> Option<StoreKind> {
        match (self.kind, self.path.extension().and_then(|e| e.to_str())) {
            (StoreKind::Auto, Some("jks")) => Some(StoreKind::Jks),
            (StoreKind::Auto, Some("pem")) => Some(StoreKind::Pem),
            (StoreKind::Auto, Some("p12" | "pfx" | "pkcs12")) => Some(StoreKind::Pkcs12),
            (StoreKind::Auto, _) => None,
            (kind, _) => Some(kind),
        }
    }

    /// The password, read from its file if there is one; empty if none is given. Blocks on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn resolved_password(&self) -> std::io::Result<String> {
        match &self.password_file {
            Some(file) => first_line(file),
            None => Ok(self.password.clone().unwrap_or_default()),
        }
    }
}

fn first_line(file: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(file)?.lines().next().unwrap_or_default().to_owned())
}

/// The format of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// By the file's ending.
    #[default]
    Auto,
    /// PEM text: certificates, and for a key store the key too.
    Pem,
    /// Java's own format.
    Jks,
    /// PKCS #12.
    Pkcs12,
}

fn hide(secret: &mut Option<String>) {
    if secret.is_some() {
        *secret = Some(HIDDEN.into());
    }
}

/// What is printed in place of a secret.
const HIDDEN: &str = "(hidden)";
