//! `host:port` as configurations write it: a name, IPv4, or IPv6 in brackets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A host and a TCP port. The host is resolved where it is used, not here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name or an IP address, without brackets. Never empty.
    pub host: String,
    /// 0 lets the system choose a free port.
    pub port: u16,
}

impl Address {
    /// Puts `host` and `port` together. Brackets around an IPv6 host are taken off.
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Self { host: bare.to_owned(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// Parses `host:port`.
    ///
    /// # Errors
    /// Says what is missing or out of range.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("there is no `:port`")?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !bracketed {
            return Err("an IPv6 address stands in brackets, `[::1]:2181`".into());
        }
        let address = Self::new(host, parse_port(port)?);
        if address.host.is_empty() {
            return Err("there is no host before the `:`".into());
        }
        Ok(address)
    }
}

/// Parses a TCP port.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_port(text: &str) -> Result<u16, String> {
    let port: u64 = text.parse().map_err(|_| format!("the port `{text}` is not a number"))?;
    u16::try_from(port).map_err(|_| format!("the port {port} is not within 0 to 65535"))
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|why: String| {
            let expected =
                format!("an address such as \"127.0.0.1:2181\" or \"[::1]:2181\" ({why})");
            de::Error::invalid_value(de::Unexpected::Str(&text), &expected.as_str())
        })
    }
}
