//! Names, `sub:alice` and `role:admin`, and the ids that carry them: `role:admin exp:1700000000`.

use crate::token::Claims;

/// A client has so many ids of an authorizer at most.
const IDS_MAX: usize = 16;

/// What is between a name and its end. The last one counts, so a name may have it in it.
const EXPIRES: &str = " exp:";

/// The ids of a client whose token says this.
///
/// # Errors
/// If they are more than a client may have: leaving some out would be a guess at which.
pub(crate) fn ids(claims: &Claims) -> Result<Vec<String>, String> {
    let roles = claims.roles.len();
    if roles >= IDS_MAX {
        return Err(format!("it has {roles} roles, at most {}", IDS_MAX - 1));
    }
    let subject = std::iter::once(("sub", &claims.subject));
    let names = subject.chain(claims.roles.iter().map(|role| ("role", role)));
    Ok(names.map(|(kind, name)| format!("{kind}:{name}{EXPIRES}{}", claims.expires)).collect())
}

/// The name that an id carries, if it has not expired.
pub(crate) fn at(id: &str, now_ms: i64) -> Option<&str> {
    let (name, expires) = id.rsplit_once(EXPIRES)?;
    let expires: i64 = expires.parse().ok()?;
    (expires.saturating_mul(1000) > now_ms).then_some(name)
}
