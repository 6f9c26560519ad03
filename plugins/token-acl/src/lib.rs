//! Clients prove who they are by signed tokens (JWT, ed25519), and ACLs and rules speak of their subjects
//! and roles.
//!
//! A token becomes ids such as `role:admin exp:1700000000`: the ACL entry `token:role:admin:rw` matches it as long
//! as the transaction's time is before that. So a token that has expired is worth nothing on every
//! server from the same transaction on, whatever the session does.
//!
//! Invariants:
//! * Only ids of the binding's own scheme count: those of other schemes are not signed.
//! * Nothing is kept; the answer to a question follows from its ids and the time.

mod config;
mod name;
mod rule;
mod token;

use serde::Deserialize;
use vivarium_plugin_sdk::{
    Authorizer, Credentials, Decision, Identity, Plugin, Question, context, export,
};

use self::config::Settings;

/// The plugin.
#[derive(Debug, Deserialize)]
pub struct TokenAcl(Settings);

impl Plugin for TokenAcl {
    fn check(&self) -> Result<(), String> {
        self.0.check()
    }
}

impl Authorizer for TokenAcl {
    fn authenticate(&self, credentials: &Credentials) -> Result<Vec<String>, String> {
        let claims = token::verify(&self.0, &credentials.data)?;
        name::ids(&claims)
    }

    fn check(&self, question: &Question) -> Decision {
        match &question.entry {
            Some(entry) => {
                let mut names = names(&question.identities, &entry.scheme);
                if names.any(|name| name == entry.id) { Decision::Allow } else { Decision::Abstain }
            }
            None => {
                let names: Vec<_> = names(&question.identities, &self.0.scheme).collect();
                rule::decide(&self.0.rules, &question.path, question.perm, &names)
            }
        }
    }
}

/// The names, of those that somebody has under a scheme, that have not expired.
fn names<'a>(identities: &'a [Identity], scheme: &'a str) -> impl Iterator<Item = &'a str> {
    let now_ms = context::time_ms();
    let own = identities.iter().filter(move |identity| identity.scheme == scheme);
    own.filter_map(move |identity| name::at(&identity.id, now_ms))
}

export!(TokenAcl: Authorizer);

#[cfg(test)]
mod tests;
