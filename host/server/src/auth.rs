//! Who a client is: turns credentials into identities, by this server's configuration and, for the
//! super user, by the cluster's settings. The identities then travel with the client's commands, so
//! that apply reads no configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proto::Id;
use replica::{Authenticator, Published, Sasl, SaslStep, operator};

use crate::config::{Auth, Provider};
use crate::digest::digest_id;
use crate::operator_token::OperatorToken;
use crate::sasl::{DigestMd5, Step, equal};

/// The schemes that this server knows.
pub(crate) struct Schemes {
    auth: Auth,
    users: Arc<BTreeMap<String, String>>,
    /// Where the cluster's settings are read.
    published: Arc<Published>,
    token: Arc<OperatorToken>,
}

impl Schemes {
    pub(crate) fn new(auth: &Auth, published: Arc<Published>, token: Arc<OperatorToken>) -> Self {
        let users = Arc::new(auth.sasl.users.clone());
        Self { auth: auth.clone(), users, published, token }
    }

    fn digest(&self, auth: &[u8]) -> Option<Vec<Id>> {
        if !self.auth.digest_enabled {
            return None;
        }
        let digest = digest_id(&self.auth.digest_alg, auth).ok()?;
        let mut ids = vec![Id::new("digest", digest.clone())];
        let settings = &self.published.view().settings;
        if settings.super_digest.as_ref().is_some_and(|d| equal(d.as_bytes(), digest.as_bytes())) {
            ids.insert(0, Id::new("super", ""));
        }
        Some(ids)
    }

    fn operator(&self, auth: &[u8]) -> Option<Vec<Id>> {
        self.token.is(auth).then(|| vec![Id::new("super", operator::SCHEME)])
    }
}

impl Authenticator for Schemes {
    fn authenticate(&self, scheme: &str, auth: &[u8], remote: IpAddr) -> Option<Vec<Id>> {
        let offered = |provider| self.auth.providers.contains(&provider);
        match scheme {
            operator::SCHEME => self.operator(auth),
            "digest" if offered(Provider::Digest) => self.digest(auth),
            "ip" if offered(Provider::Ip) => {
                Some(vec![Id::new("ip", remote.to_canonical().to_string())])
            }
            "ensemble" => {
                let name = String::from_utf8_lossy(auth);
                let expected = self.auth.providers.iter().find_map(|provider| match provider {
                    Provider::Ensemble(names) => Some(names),
                    _ => None,
                })?;
                // It gives no identity: it only refuses clients of another ensemble.
                let fits =
                    name.is_empty() || expected.is_empty() || expected.iter().any(|n| *n == name);
                fits.then(Vec::new)
            }
            _ => None,
        }
    }

    fn sasl(&self) -> Option<Box<dyn Sasl>> {
        if self.users.is_empty() {
            return None;
        }
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        let exchange = DigestMd5::new(Arc::clone(&self.users), nonce);
        Some(Box::new(Exchange { exchange, super_users: self.auth.sasl.super_users.clone() }))
    }
}

struct Exchange {
    exchange: DigestMd5,
    super_users: Vec<String>,
}

impl Sasl for Exchange {
    fn step(&mut self, token: &[u8]) -> SaslStep {
        match self.exchange.step(token) {
            Ok(Step::Challenge(token)) => SaslStep::Challenge(token),
            Ok(Step::Done { token, user }) => {
                let mut ids = vec![Id::new("sasl", user.clone())];
                if self.super_users.contains(&user) {
                    ids.push(Id::new("super", user));
                }
                SaslStep::Done(token, ids)
            }
            Err(error) => {
                tracing::warn!(%error, "a SASL exchange failed");
                SaslStep::Failed
            }
        }
    }
}
