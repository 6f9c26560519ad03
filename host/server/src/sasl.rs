//! The server's side of SASL DIGEST-MD5 (RFC 2831), as a ZooKeeper server speaks it: realm
//! `zk-sasl-md5`, service `zookeeper`, quality of protection `auth`.
//!
//! Invariants:
//! * A nonce is good for one exchange.
//! * An unknown user and a wrong password are the same error, found in the same time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use md5::{Digest, Md5};
use thiserror::Error;

/// The name that ZooKeeper servers go by.
const REALM: &str = "zk-sasl-md5";
/// The service that clients must name.
const SERVICE: &str = "zookeeper";
/// A response longer than this is not one (RFC 2831, 2.1.2).
const RESPONSE_BYTES_MAX: usize = 4096;

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SaslError {
    /// The response is not in the form that the mechanism has.
    #[error("malformed DIGEST-MD5 response: {0}")]
    Malformed(&'static str),
    /// A directive has another value than it must have.
    #[error("DIGEST-MD5 {directive}: expected {expected:?}, got {got:?}")]
    Unexpected {
        /// Which directive.
        directive: &'static str,
        /// Its value.
        expected: String,
        /// What came.
        got: String,
    },
    /// The user is unknown or the password is wrong.
    #[error("unknown user or wrong password")]
    Refused,
}

/// What the client is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The challenge; the client answers it.
    Challenge(Vec<u8>),
    /// The proof that the server knows the password too; the exchange is over.
    Done {
        /// The last token.
        token: Vec<u8>,
        /// Who the client is.
        user: String,
    },
}

/// One exchange.
#[derive(Debug)]
pub struct DigestMd5 {
    users: Arc<BTreeMap<String, String>>,
    nonce: String,
    challenged: bool,
}

impl DigestMd5 {
    /// An exchange with these users (name to password); the nonce must be random.
    pub fn new(users: Arc<BTreeMap<String, String>>, nonce: [u8; 16]) -> Self {
        Self { users, nonce: hex(&nonce), challenged: false }
    }

    /// Takes the client's next token; the first may be empty.
    ///
    /// # Errors
    /// [`SaslError`]: the exchange is over.
    pub fn step(&mut self, token: &[u8]) -> Result<Step, SaslError> {
        if !self.challenged {
            self.challenged = true;
            let nonce = &self.nonce;
            let challenge =
                format!("realm=\"{REALM}\",nonce=\"{nonce}\",charset=utf-8,algorithm=md5-sess");
            return Ok(Step::Challenge(challenge.into_bytes()));
        }
        let response = parse(token)?;
        let get = |name: &'static str| response.get(name).map(String::as_str);
        let need = |name: &'static str| get(name).ok_or(SaslError::Malformed(name));
        let must = |directive: &'static str, expected: &str, got: &str| {
            if expected == got {
                return Ok(());
            }
            let (expected, got) = (expected.to_owned(), got.to_owned());
            Err(SaslError::Unexpected { directive, expected, got })
        };
        must("realm", REALM, get("realm").unwrap_or_default())?;
        must("nonce", &self.nonce, need("nonce")?)?;
        must("nc", "00000001", need("nc")?)?;
        must("qop", "auth", get("qop").unwrap_or("auth"))?;
        let uri = need("digest-uri")?;
        // In any case of letters, as Java compares it.
        must("digest-uri", &format!("{SERVICE}/{REALM}"), &uri.to_ascii_lowercase())?;
        let (user, cnonce) = (need("username")?, need("cnonce")?);
        let password = self.users.get(user);
        let proof = |method: &str| {
            let secret = password.map_or("", String::as_str);
            let who = [&text(user)[..], b":", &text(REALM), b":", &text(secret)].concat();
            let mut a1 = Md5::digest(who).to_vec();
            a1.extend_from_slice(format!(":{}:{cnonce}", self.nonce).as_bytes());
            if let Some(authzid) = get("authzid").filter(|authzid| !authzid.is_empty()) {
                a1.extend_from_slice(format!(":{authzid}").as_bytes());
            }
            let a1 = hex(&Md5::digest(a1));
            let a2 = hex(&Md5::digest(format!("{method}:{uri}")));
            let whole = format!("{a1}:{}:00000001:{cnonce}:auth:{a2}", self.nonce);
            hex(&Md5::digest(whole))
        };
        let same = equal(proof("AUTHENTICATE").as_bytes(), need("response")?.as_bytes());
        if !same || password.is_none() {
            return Err(SaslError::Refused);
        }
        let token = format!("rspauth={}", proof("")).into_bytes();
        Ok(Step::Done { token, user: user.to_owned() })
    }
}

/// Text as it is hashed: ISO 8859-1 where that can hold it, else UTF-8 (RFC 2831, 2.1.2.1).
fn text(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Whether two strings are equal, in a time that does not tell where they differ.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// `name=value` pairs, comma-separated; values may be quoted, with backslash escapes.
fn parse(token: &[u8]) -> Result<BTreeMap<String, String>, SaslError> {
    if token.len() > RESPONSE_BYTES_MAX {
        return Err(SaslError::Malformed("longer than 4,096 bytes"));
    }
    let text = std::str::from_utf8(token).map_err(|_| SaslError::Malformed("not UTF-8"))?;
    let mut pairs = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) =
            rest.split_once('=').ok_or(SaslError::Malformed("a directive without a value"))?;
        let mut value = String::new();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut chars = quoted.chars();
            loop {
                match chars.next().ok_or(SaslError::Malformed("an open quotation mark"))? {
                    '"' => break,
                    '\\' => value.push(chars.next().ok_or(SaslError::Malformed("a lone \\"))?),
                    c => value.push(c),
                }
            }
            rest = chars.as_str().trim_start();
        } else {
            let end = after.find(',').unwrap_or(after.len());
            let (bare, behind) = after.split_at(end);
            value.push_str(bare.trim());
            rest = behind;
        }
        if pairs.insert(name.trim().to_ascii_lowercase(), value).is_some() {
            return Err(SaslError::Malformed("a directive given twice"));
        }
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(SaslError::Malformed("text behind a quoted value")),
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> DigestMd5 {
        let users = [("bob".to_owned(), "secret".to_owned())].into_iter().collect();
        let mut exchange = DigestMd5::new(Arc::new(users), [7; 16]);
        assert!(matches!(exchange.step(b""), Ok(Step::Challenge(_))));
        exchange
    }

    /// The client's side, written from RFC 2831 with nothing of the server's.
    fn response(nonce: &str, user: &str, password: &str) -> String {
        let md5 = |bytes: &[u8]| Md5::digest(bytes).to_vec();
        let mut a1 = md5(format!("{user}:zk-sasl-md5:{password}").as_bytes());
        a1.extend_from_slice(format!(":{nonce}:CN").as_bytes());
        let a2 = hex(&md5(b"AUTHENTICATE:zookeeper/zk-sasl-md5"));
        let kd = format!("{}:{nonce}:00000001:CN:auth:{a2}", hex(&md5(&a1)));
        format!(
            "username=\"{user}\",realm=\"zk-sasl-md5\",nonce=\"{nonce}\",cnonce=\"CN\",nc=00000001,\
             qop=auth,digest-uri=\"zookeeper/zk-sasl-md5\",response={},charset=utf-8",
            hex(&md5(kd.as_bytes()))
        )
    }

    #[test]
    fn the_right_password_passes() {
        let token = response(&hex(&[7; 16]), "bob", "secret");
        let done = exchange().step(token.as_bytes());
        assert!(matches!(done, Ok(Step::Done { user, .. }) if user == "bob"));
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_are_the_same_error() {
        for (user, password) in [("bob", "wrong"), ("eve", "secret"), ("eve", "")] {
            let token = response(&hex(&[7; 16]), user, password);
            assert_eq!(exchange().step(token.as_bytes()), Err(SaslError::Refused));
        }
    }

    #[test]
    fn malformed_responses_are_refused() {
        let good = response(&hex(&[7; 16]), "bob", "secret");
        let cases = [
            "nonsense".to_owned(),
            format!("{good},qop=auth"),
            good.replace("nc=00000001", "nc=00000002"),
            good.replace("zookeeper/", "http/"),
            good.replace("zookeeper/zk-sasl-md5", "zookeeper/other"),
            good.replace("zk-sasl-md5\",nonce", "other\",nonce"),
            format!("{good},x=\"open"),
            response(&hex(&[8; 16]), "bob", "secret"),
        ];
        for case in cases {
            let got = exchange().step(case.as_bytes());
            assert!(got.is_err(), "{case}: {got:?}");
        }
    }
}
