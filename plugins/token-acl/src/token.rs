//! Tokens: three parts in base64url with dots between them, the last a signature of the others (RFC 7515,
//! 7519, 8037).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::{Signature, Verifier};
use serde::Deserialize;
use vivarium_plugin_sdk::{context, json};

use crate::config::Settings;

/// Longer ones are not looked at.
const TOKEN_BYTES_MAX: usize = 8 << 10;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What a reader has to understand. We know no such thing.
    crit: Option<json::Value>,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) subject: String,
    pub(crate) roles: Vec<String>,
    /// In seconds since the epoch.
    pub(crate) expires: i64,
}

/// Checks a token, and gives what it says.
///
/// # Errors
/// Why it is worth nothing.
pub(crate) fn verify(settings: &Settings, token: &[u8]) -> Result<Claims, String> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(format!("the token has {} bytes, at most {TOKEN_BYTES_MAX}", token.len()));
    }
    let form = "a token is three parts in base64url with dots between them";
    let token = std::str::from_utf8(token).map_err(|_| form)?.trim();
    let (signed, signature) = token.rsplit_once('.').ok_or(form)?;
    let (header, claims) = signed.split_once('.').ok_or(form)?;

    let header: Header = json::from_slice(&decode(header)?).map_err(|e| format!("header: {e}"))?;
    if header.alg != "EdDSA" {
        return Err(format!("alg is {:?}, expected \"EdDSA\"", header.alg));
    }
    if header.crit.is_some() {
        return Err("the token has demands (crit) that nobody here knows".into());
    }
    let key = settings.key(header.kid.as_deref())?;
    let signature =
        Signature::from_slice(&decode(signature)?).map_err(|_| "the signature has not 64 bytes")?;
    key.verify(signed.as_bytes(), &signature).map_err(|_| "the signature is wrong")?;

    let claims = json::from_slice(&decode(claims)?).map_err(|e| format!("claims: {e}"))?;
    read(settings, &claims)
}

fn decode(part: &str) -> Result<Vec<u8>, String> {
    BASE64URL.decode(part).map_err(|error| format!("a part is not base64url: {error}"))
}

/// Reads claims whose signature is right.
fn read(settings: &Settings, claims: &json::Map<String, json::Value>) -> Result<Claims, String> {
    let text = |name| claims.get(name).and_then(json::Value::as_str);
    let now = context::time_ms().div_euclid(1000);
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(time) => time.as_i64().map(Some).ok_or(format!("{name} is no number of seconds")),
    };
    let expires = time("exp")?.ok_or("a token that does not expire (exp) is not taken")?;
    if expires <= now {
        return Err(format!("it has expired at {expires}, and it is {now}"));
    }
    if let Some(begins) = time("nbf")?.filter(|begins| *begins > now) {
        return Err(format!("it is not valid before {begins}, and it is {now}"));
    }
    if let Some(issuer) = &settings.issuer
        && text("iss") != Some(issuer)
    {
        return Err(format!("its issuer is {:?}, expected {issuer:?}", text("iss")));
    }
    if let Some(audience) = &settings.audience {
        let is_for = match claims.get("aud") {
            Some(json::Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => text("aud") == Some(audience),
        };
        if !is_for {
            return Err(format!("it is not for {audience:?} (aud)"));
        }
    }
    let subject =
        text("sub").filter(|subject| !subject.is_empty()).ok_or("it has no subject (sub)")?;
    let roles = match claims.get(&settings.roles_claim) {
        None => Vec::new(),
        Some(roles) => {
            let wrong = || format!("{} is no list of names", settings.roles_claim);
            let names = roles.as_array().ok_or_else(wrong)?.iter();
            let names = names.map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong));
            names.collect::<Result<_, _>>()?
        }
    };
    Ok(Claims { subject: subject.to_owned(), roles, expires })
}
