//! Who a client is: the credentials that it gives, and what becomes of them.

use std::net::IpAddr;
use std::sync::Arc;

use proto::{ClientInfo, ErrorCode, Id, Reply};
use state::hooks::Credentials;

use super::Connection;
use crate::outbox::Say;

/// Resolves credentials; part of the process, because it needs configuration and randomness.
pub trait Authenticator: Send + Sync {
    /// Who somebody with these credentials is; `None` if they are wrong or the scheme is unknown.
    fn authenticate(&self, scheme: &str, auth: &[u8], remote: IpAddr) -> Option<Vec<Id>>;

    /// Begins a SASL exchange; `None` if SASL is not set up.
    fn sasl(&self) -> Option<Box<dyn Sasl>>;
}

/// The server's side of one SASL exchange.
pub trait Sasl: Send {
    /// Takes the client's token.
    fn step(&mut self, token: &[u8]) -> SaslStep;
}

/// What comes of a client's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslStep {
    /// Send this and go on.
    Challenge(Vec<u8>),
    /// Send this; the client is these.
    Done(Vec<u8>, Vec<Id>),
    /// The credentials are wrong.
    Failed,
}

impl Connection {
    pub(super) fn authenticate(&mut self, xid: i32, scheme: &str, auth: &[u8]) {
        let identities = &self.identities[..];
        let credentials = Credentials { scheme, bytes: auth, identities };
        let by_plugin = self.published.view().authenticate(&credentials, self.session_id());
        let ids = match by_plugin {
            Ok(None) => self.authenticator.authenticate(scheme, auth, self.remote),
            Ok(Some(ids)) => ids.ok(),
            Err(fault) => {
                tracing::error!(%fault, scheme, "a client's credentials could not be looked at");
                return self.hang_up();
            }
        };
        match ids {
            Some(ids) => {
                self.identify(ids);
                self.reply(xid, 0, Ok(Reply::Empty));
            }
            None => {
                tracing::warn!(scheme, remote = %self.remote, "authentication failed");
                self.reply(xid, 0, Err(ErrorCode::AuthFailed));
                self.hang_up();
            }
        }
    }

    pub(super) fn identify(&mut self, ids: Vec<Id>) {
        let mut identities = (*self.identities).clone();
        identities.extend(ids.into_iter().filter(|id| !self.identities.contains(id)));
        self.identities = Arc::new(identities);
    }

    pub(super) fn sasl(&mut self, xid: i32, token: &[u8]) {
        if self.sasl.is_none() {
            self.sasl = self.authenticator.sasl();
        }
        let Some(sasl) = &mut self.sasl else {
            // No users: ZooKeeper answers with a token that is null, and leaves it at that.
            return self.reply(xid, 0, Ok(Reply::Sasl(None)));
        };
        match sasl.step(token) {
            SaslStep::Challenge(token) => {
                self.reply(xid, 0, Ok(Reply::Sasl(Some(token.into()))));
            }
            SaslStep::Done(token, ids) => {
                self.identify(ids);
                self.sasl = None;
                self.reply(xid, 0, Ok(Reply::Sasl(Some(token.into()))));
            }
            SaslStep::Failed => {
                tracing::warn!(remote = %self.remote, "a SASL exchange failed");
                self.sasl = None;
                if self.policy.sasl_failures_allowed {
                    return self.reply(xid, 0, Ok(Reply::Sasl(None)));
                }
                let required = self.policy.required_schemes.iter().any(|scheme| scheme == "sasl");
                let code = match required {
                    true => ErrorCode::SessionClosedRequireSaslAuth,
                    false => ErrorCode::AuthFailed,
                };
                self.outbox.push(Say::SaslFailed { xid, code });
                self.hang_up();
            }
        }
    }
}

/// As clients ask who they are.
pub(super) fn who(identities: &[Id]) -> Vec<ClientInfo> {
    identities
        .iter()
        .map(|id| ClientInfo {
            scheme: id.scheme.clone(),
            user: match (id.scheme.as_str(), id.id.split_once(':')) {
                ("digest", Some((user, _))) => user.to_owned(),
                // No provider has this scheme, so that ZooKeeper finds no name.
                ("super", _) => String::new(),
                _ => id.id.clone(),
            },
        })
        .collect()
}
