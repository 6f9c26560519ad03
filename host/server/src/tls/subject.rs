//! A certificate's subject as Java's `X500Principal.getName()` prints it (RFC 2253), which is what
//! ZooKeeper's `x509` ACLs name.

use std::fmt::Write;

use x509_parser::prelude::{FromDer, X509Certificate};

/// The keywords that RFC 2253 knows; other attributes are printed by number.
const KEYWORDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// The subject's name; `None` if the certificate cannot be read.
pub(crate) fn rfc2253(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut parts = Vec::new();
    for rdn in certificate.subject().iter() {
        let attributes = rdn.iter().map(|attribute| {
            let oid = attribute.attr_type().to_id_string();
            let keyword = KEYWORDS.iter().find(|(number, _)| *number == oid);
            match (keyword, attribute.as_str()) {
                (Some((_, keyword)), Ok(value)) => format!("{keyword}={}", escape(value)),
                _ => {
                    let mut out = format!("{oid}=#");
                    let value = attribute.attr_value();
                    let head = [value.header.tag().0.to_le_bytes()[0], value.data.len() as u8];
                    for byte in head.iter().chain(value.data) {
                        // Writing to a string does not fail.
                        let _ = write!(out, "{byte:02x}");
                    }
                    out
                }
            }
        });
        parts.push(attributes.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn escape(value: &str) -> String {
    let mut out = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (at == 0 && matches!(c, '#' | ' '))
            || (at == last && c == ' ');
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape("Duke"), "Duke");
        assert_eq!(escape(" a, b "), "\\ a\\, b\\ ");
        assert_eq!(escape("#1"), "\\#1");
    }
}
