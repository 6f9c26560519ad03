//! Digest identities: `user:` and the hash of `user:password`, as ZooKeeper's
//! `DigestAuthenticationProvider` makes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest;
use thiserror::Error;

/// Why there is no identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// The algorithm is not known.
    #[error(
        "unknown digest algorithm {0:?}; known are SHA-1, SHA-224 to SHA-512, SHA3-224 to SHA3-512"
    )]
    Algorithm(String),
    /// The credentials are not text.
    #[error("credentials that are not UTF-8")]
    NotText,
}

/// The identity of somebody with these credentials, `user:password`.
///
/// # Errors
/// [`DigestError::Algorithm`] for an unknown hash, [`DigestError::NotText`].
pub fn digest_id(algorithm: &str, user_password: &[u8]) -> Result<String, DigestError> {
    let text = std::str::from_utf8(user_password).map_err(|_| DigestError::NotText)?;
    let user = text.split(':').next().unwrap_or_default();
    let hash = match algorithm.to_ascii_uppercase().replace("SHA-1", "SHA1").as_str() {
        "SHA1" => sha1::Sha1::digest(text).to_vec(),
        "SHA-224" => sha2::Sha224::digest(text).to_vec(),
        "SHA-256" => sha2::Sha256::digest(text).to_vec(),
        "SHA-384" => sha2::Sha384::digest(text).to_vec(),
        "SHA-512" => sha2::Sha512::digest(text).to_vec(),
        "SHA3-224" => sha3::Sha3_224::digest(text).to_vec(),
        "SHA3-256" => sha3::Sha3_256::digest(text).to_vec(),
        "SHA3-384" => sha3::Sha3_384::digest(text).to_vec(),
        "SHA3-512" => sha3::Sha3_512::digest(text).to_vec(),
        _ => return Err(DigestError::Algorithm(algorithm.to_owned())),
    };
    Ok(format!("{user}:{}", STANDARD.encode(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_super_user() {
        let id = digest_id("SHA-1", b"super:test").expect("a known algorithm");
        assert_eq!(id, "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert_eq!(digest_id("SHA1", b"super:test").as_ref(), Ok(&id));
        assert!(digest_id("MD5", b"super:test").is_err());
    }
}
