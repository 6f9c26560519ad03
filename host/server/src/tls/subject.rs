//! A certificate's subject as Java's `X500Principal.getName()` prints it (RFC 2253), which is what
//! ZooKeeper's `x509` ACLs name.

use std::fmt::Write;

use x509_parser::asn1_rs::{Any, Tag};
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

/// The string types that Java prints as text (T61, BMP and General too, all read as UTF-8); a value
/// of any other type is printed as its encoding.
const TEXT: [Tag; 6] = [
    Tag::PrintableString,
    Tag::T61String,
    Tag::Ia5String,
    Tag::GeneralString,
    Tag::BmpString,
    Tag::Utf8String,
];

/// The subject's name; `None` if the certificate cannot be read.
pub(crate) fn rfc2253(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut parts = Vec::new();
    for rdn in certificate.subject().iter() {
        let attributes = rdn.iter().map(|attribute| {
            let oid = attribute.attr_type().to_id_string();
            let keyword = KEYWORDS.iter().find(|(number, _)| *number == oid);
            let value = attribute.attr_value();
            match keyword {
                Some((_, keyword)) if TEXT.contains(&value.header.tag()) => {
                    format!("{keyword}={}", escape(&String::from_utf8_lossy(value.data)))
                }
                Some((_, keyword)) => format!("{keyword}=#{}", encoded(value)),
                None => format!("{oid}=#{}", encoded(value)),
            }
        });
        parts.push(attributes.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

/// A value's DER encoding in hexadecimal.
fn encoded(value: &Any<'_>) -> String {
    let count = value.data.len().to_be_bytes();
    let significant = &count[count.iter().take_while(|byte| **byte == 0).count()..];
    let mut head = vec![value.header.tag().0.to_le_bytes()[0]];
    match significant {
        [] => head.push(0),
        [short] if *short < 0x80 => head.push(*short),
        long => {
            head.push(0x80 | long.len().to_le_bytes()[0]);
            head.extend(long);
        }
    }
    head.iter().chain(value.data).fold(String::new(), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Escapes as Java does, which is more than RFC 2253 asks for: `=` and `#` anywhere, every leading
/// and trailing space, and NUL.
fn escape(value: &str) -> String {
    let leading = value.chars().take_while(|c| *c == ' ').count();
    let trailing = value.chars().count() - value.chars().rev().take_while(|c| *c == ' ').count();
    let mut out = String::new();
    for (at, c) in value.chars().enumerate() {
        if c == '\0' {
            out.push_str("\\00");
            continue;
        }
        let outer = at < leading || at >= trailing;
        if matches!(c, ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\') || outer {
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
        // As Java 17 prints them.
        assert_eq!(escape("a#b=c"), "a\\#b\\=c");
        assert_eq!(escape("  two  "), "\\ \\ two\\ \\ ");
        assert_eq!(escape(" "), "\\ ");
        assert_eq!(escape("a\0b"), "a\\00b");
    }
}
