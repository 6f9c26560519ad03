//! Java's `.properties` syntax, as `zoo.cfg` is read by a real server.
//!
//! `key=value`, `key:value`, `key value`; comments start with `#` or `!`; a backslash escapes the
//! next character, writes one by its number (`\u0041` is `A`), or, at a line's end, joins the next
//! line. Invalid UTF-8 is read as ISO 8859-1, the encoding the format had first.

use crate::config::error::{ConfigError, Origin};
use std::path::Path;
use std::sync::Arc;

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) key: String,
    /// Without blanks around it.
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Reads a file. Where a key stands twice, both are returned, in order; the last holds.
pub(super) fn read(path: &Path) -> Result<Vec<Property>, ConfigError> {
    let name: Arc<str> = Arc::from(path.display().to_string());
    let bytes = std::fs::read(path).map_err(|e| ConfigError::Unreadable {
        origin: Origin::File(name.clone(), 0),
        key: String::new(),
        path: name.to_string(),
        reason: e.to_string(),
    })?;
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|e| e.into_bytes().into_iter().map(char::from).collect());
    parse(&text, &name)
}

fn parse(text: &str, file: &Arc<str>) -> Result<Vec<Property>, ConfigError> {
    let mut properties = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((first, number)) = lines.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_in_odd_backslashes(&logical) {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(BLANK));
        }
        let origin = Origin::File(file.clone(), number);
        let (key, value) = split(&logical);
        let unescape = |raw: &str| {
            unescape(raw).ok_or_else(|| ConfigError::Syntax {
                origin: origin.clone(),
                message: format!("expected four hexadecimal digits after \\u, got `{raw}`"),
            })
        };
        let (key, value) = (unescape(key)?, unescape(value)?.trim().to_owned());
        properties.push(Property { key, value, origin });
    }
    Ok(properties)
}

const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

fn ends_in_odd_backslashes(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// Splits at the first `=`, `:` or blank that is not escaped; one `=` or `:` after blanks belongs to
/// the separator.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let separates = !escaped && (matches!(c, '=' | ':') || BLANK.contains(c));
        escaped = !escaped && *c == '\\';
        separates
    });
    let Some((end, _)) = end else { return (line, "") };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(BLANK);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(BLANK))
}

fn unescape(raw: &str) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut buffer = [0; 2];
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let plain = if c != '\\' {
            c
        } else {
            match chars.next() {
                None => break,
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let hex = digits.len() == 4 && digits.chars().all(|d| d.is_ascii_hexdigit());
                    units.push(u16::from_str_radix(&digits, 16).ok().filter(|_| hex)?);
                    continue;
                }
                Some(other) => other,
            }
        };
        units.extend_from_slice(plain.encode_utf16(&mut buffer));
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let parsed = parse(text, &Arc::from("zoo.cfg")).unwrap();
        parsed.into_iter().map(|p| (p.key, p.value)).collect()
    }

    #[test]
    fn separators_comments_escapes_and_continuations() {
        let text = "# a\n ! b\n\na=1\nb : 2 \nc 3\nd\ne\\=f=g=h\nlong=one,\\\n   two\\\\\nsmile=\\u00e9\\ud83d\\ude00\\t.\r\n\
            path=C\\:\\\\x";
        let expected = [
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", ""),
            ("e=f", "g=h"),
            ("long", "one,two\\"),
            ("smile", "é😀\t."),
            ("path", "C:\\x"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn a_bad_escape_names_its_line() {
        let error = parse("a=1\nb=\\u12", &Arc::from("zoo.cfg")).unwrap_err().to_string();
        assert!(error.starts_with("zoo.cfg:2: expected four hexadecimal digits"), "{error}");
    }
}
