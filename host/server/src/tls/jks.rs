//! Java's key store format, JKS: no maintained crate reads its private keys.
//!
//! A store is a list of entries (private keys with their chains, trusted certificates) and a SHA-1
//! over them, salted with the password. Private keys are hidden by Sun's key protector: a stream of
//! SHA-1 hashes over password and salt, and a SHA-1 over password and key to check it.

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha1::{Digest, Sha1};

use super::Contents;

const MAGIC: u32 = 0xfeed_feed;
const HASH_BYTES: usize = 20;
/// Mixed into the store's own hash.
const WHITENER: &[u8] = b"Mighty Aphrodite";

pub(super) fn is_jks(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|magic| u32::from_be_bytes(*magic) == MAGIC)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(count).ok_or("it is cut short")?;
        self.0 = tail;
        Ok(head)
    }

    fn int(&mut self) -> Result<usize, String> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let bytes = self.take(2)?;
        self.take(bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }

    fn block(&mut self) -> Result<&'a [u8], String> {
        let count = self.int()?;
        self.take(count)
    }

    fn certificate(&mut self) -> Result<CertificateDer<'static>, String> {
        let _kind = self.text()?;
        Ok(CertificateDer::from(self.block()?.to_vec()))
    }
}

pub(super) fn read(bytes: &[u8], password: &str) -> Result<Contents, String> {
    let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let (body, hash) =
        bytes.split_last_chunk::<HASH_BYTES>().ok_or_else(|| "it is cut short".to_owned())?;
    let expected = Sha1::digest([&password[..], WHITENER, body].concat());
    if expected[..] != hash[..] {
        return Err("its password is wrong, or it is damaged".to_owned());
    }
    let mut at = Cursor(body);
    let (_magic, version, entries) = (at.int()?, at.int()?, at.int()?);
    if version != 2 {
        return Err(format!("it is of version {version}, expected 2; convert it with keytool"));
    }
    let mut contents = Contents::default();
    for _ in 0..entries {
        let tag = at.int()?;
        let (_alias, _created) = (at.text()?, at.take(8)?);
        match tag {
            1 => {
                let key = unhide(at.block()?, &password)?;
                let count = at.int()?;
                let chain = (0..count).map(|_| at.certificate()).collect::<Result<_, _>>()?;
                contents.identity = Some((chain, PrivatePkcs8KeyDer::from(key).into()));
            }
            2 => contents.trusted.push(at.certificate()?),
            _ => return Err(format!("an entry has the unknown tag {tag}")),
        }
    }
    Ok(contents)
}

/// The content of the DER value at the start of `der`, and what is behind it.
pub(super) fn der(der: &[u8]) -> Result<(u8, &[u8], &[u8]), String> {
    let mut at = Cursor(der);
    let tag = at.take(1)?[0];
    let short = at.take(1)?[0];
    let count = if short < 0x80 {
        usize::from(short)
    } else {
        let bytes = at.take(usize::from(short & 0x7f).min(4))?;
        bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
    };
    Ok((tag, at.take(count)?, at.0))
}

/// The PKCS8 key in an `EncryptedPrivateKeyInfo` of Sun's key protector.
fn unhide(info: &[u8], password: &[u8]) -> Result<Vec<u8>, String> {
    let (_, info, _) = der(info)?;
    let (_, _algorithm, rest) = der(info)?;
    let (_, hidden, _) = der(rest)?;
    let mut at = Cursor(hidden);
    let salt = at.take(HASH_BYTES)?;
    let count = at.0.len().checked_sub(HASH_BYTES).ok_or("its key is cut short")?;
    let (body, check) = (at.take(count)?, at.0);
    let mut stream = salt.to_vec();
    let mut key = Vec::with_capacity(body.len());
    for block in body.chunks(HASH_BYTES) {
        stream = Sha1::digest([password, &stream].concat()).to_vec();
        key.extend(block.iter().zip(&stream).map(|(hidden, mask)| hidden ^ mask));
    }
    if Sha1::digest([password, &key].concat())[..] != *check {
        return Err("the key in it has another password; give both the same".to_owned());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store with one hidden key and one certificate, made as the format says.
    fn store(password: &str, key: &[u8]) -> Vec<u8> {
        let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut stream = vec![9; HASH_BYTES];
        let mut hidden = stream.clone();
        for block in key.chunks(HASH_BYTES) {
            stream = Sha1::digest([&password[..], &stream].concat()).to_vec();
            hidden.extend(block.iter().zip(&stream).map(|(a, b)| a ^ b));
        }
        hidden.extend(Sha1::digest([&password[..], key].concat()));
        let octets = [&[0x04, 0x81, hidden.len() as u8][..], &hidden].concat();
        let info = [&[0x30, 0x81, (octets.len() + 2) as u8, 0x30, 0x00][..], &octets].concat();
        let mut out = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1].to_vec();
        out.extend([0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, info.len() as u8]);
        out.extend(info);
        out.extend([0, 0, 0, 1, 0, 5, b'X', b'.', b'5', b'0', b'9', 0, 0, 0, 2, 7, 7]);
        let hash = Sha1::digest([&password[..], WHITENER, &out].concat());
        out.extend(hash);
        out
    }

    #[test]
    fn a_hidden_key_is_found_again() {
        let key: Vec<u8> = (0..65).collect();
        let contents = read(&store("secret", &key), "secret").expect("a store");
        let (chain, found) = contents.identity.expect("a key");
        assert_eq!(found.secret_der(), key);
        assert_eq!(chain[0].as_ref(), [7, 7]);
    }

    #[test]
    fn a_wrong_password_and_damage_are_errors() {
        let good = store("secret", &[1; 30]);
        assert!(read(&good, "wrong").is_err());
        for at in 0..good.len() {
            assert!(read(&good[..at], "secret").is_err(), "cut at {at}");
        }
    }
}
