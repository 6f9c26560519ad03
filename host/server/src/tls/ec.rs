//! EC keys without their public half, which is how Java writes them into its stores, while ring
//! wants both.
//!
//! Only the encoding is completed, with the public half that the certificate shows; ring then checks
//! that the two belong together.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::jks::der;

/// id-ecPublicKey, encoded.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `[1]` of an `ECPrivateKey`: the public half.
const PUBLIC: u8 = 0xa1;

/// The key with its public half, if it is an EC key that lacks it; else the key as it is.
/// `public_info` is the `SubjectPublicKeyInfo` of its certificate.
pub(super) fn completed(key: PrivateKeyDer<'static>, public_info: &[u8]) -> PrivateKeyDer<'static> {
    match complete(&key, public_info) {
        Ok(Some(pkcs8)) => PrivatePkcs8KeyDer::from(pkcs8).into(),
        // What cannot be read here is refused with a reason where the key is loaded.
        Ok(None) | Err(_) => key,
    }
}

fn complete(key: &PrivateKeyDer<'_>, public_info: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (_, info, _) = der(public_info)?;
    let (_, algorithm, public) = der(info)?;
    if !algorithm.starts_with(EC_PUBLIC_KEY) {
        return Ok(None);
    }
    let (_, public, _) = der(public)?;
    let ec_key = match key {
        PrivateKeyDer::Sec1(key) => key.secret_sec1_der(),
        PrivateKeyDer::Pkcs8(key) => {
            let (_, info, _) = der(key.secret_pkcs8_der())?;
            let (_, _version, rest) = der(info)?;
            let (_, own_algorithm, rest) = der(rest)?;
            if own_algorithm != algorithm {
                return Ok(None);
            }
            der(rest)?.1
        }
        _ => return Ok(None),
    };
    let (_, fields, _) = der(ec_key)?;
    let (_, _version, rest) = der(fields)?;
    let (_, private, mut rest) = der(rest)?;
    while !rest.is_empty() {
        let (tag, _, behind) = der(rest)?;
        if tag == PUBLIC {
            return Ok(None);
        }
        rest = behind;
    }
    let full = [
        value(INTEGER, &[1]),
        value(OCTET_STRING, private),
        value(PUBLIC, &value(BIT_STRING, public)),
    ];
    let full = value(SEQUENCE, &full.concat());
    let pkcs8 = [value(INTEGER, &[0]), value(SEQUENCE, algorithm), value(OCTET_STRING, &full)];
    Ok(Some(value(SEQUENCE, &pkcs8.concat())))
}

/// The DER encoding of one value; no key comes near 64 KiB.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}
