//! What the operator sets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use crate::rule::Rule;

/// `[settings]` of the binding.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The scheme that the binding has; by default `token`.
    #[serde(default = "token")]
    pub(crate) scheme: String,
    /// Public keys, by the `kid` of the tokens that they sign: 32 bytes in base64url, as `x` of a JWK.
    keys: BTreeMap<String, String>,
    /// What `iss` must be, if it matters.
    pub(crate) issuer: Option<String>,
    /// What `aud` must be or have, if it matters.
    pub(crate) audience: Option<String>,
    /// The claim that lists roles.
    #[serde(default = "roles")]
    pub(crate) roles_claim: String,
    /// Who may do what where, for paths that the binding matches.
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
}

fn token() -> String {
    "token".into()
}

fn roles() -> String {
    "roles".into()
}

impl Settings {
    /// Says what makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.keys.is_empty() {
            return Err("keys has no public key: no token could be checked".into());
        }
        for kid in self.keys.keys() {
            self.key(Some(kid))?;
        }
        self.rules.iter().try_for_each(Rule::check)
    }

    /// The key that signed a token.
    ///
    /// # Errors
    /// If there is none, or it is no key.
    pub(crate) fn key(&self, kid: Option<&str>) -> Result<VerifyingKey, String> {
        let mut keys = self.keys.iter();
        let (kid, text) = match (kid, keys.next(), keys.next()) {
            (Some(kid), ..) => {
                self.keys.get_key_value(kid).ok_or_else(|| format!("there is no key {kid:?}"))?
            }
            (None, Some(only), None) => only,
            (None, ..) => return Err("the token does not name its key (kid)".into()),
        };
        let wrong = || format!("key {kid:?} is not 32 bytes of an ed25519 public key in base64url");
        let bytes = BASE64URL.decode(text.trim_end_matches('=')).map_err(|_| wrong())?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| wrong())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong())?;
        if key.is_weak() {
            return Err(format!("key {kid:?} is weak: it fits signatures of anybody"));
        }
        Ok(key)
    }
}
