//! What a server holds, as text that does a terminal no harm.
//!
//! Znodes hold what anybody put there. Control characters, marks that turn the direction of text,
//! and bytes that are not UTF-8 are shown by their numbers; all else as it is.

use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::Stat;

/// A path or a name: one line, whatever it holds.
pub(super) fn line(text: &str) -> String {
    escaped(text.as_bytes(), false)
}

/// Data: line ends and tabs stay.
pub(super) fn data(bytes: &[u8]) -> String {
    escaped(bytes, true)
}

/// Names in brackets, as Java prints a list.
pub(super) fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().map(|name| line(name)).collect();
    format!("[{}]", shown.join(", "))
}

fn escaped(bytes: &[u8], many_lines: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let harmless = match c {
                '\n' | '\t' => many_lines,
                '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    false
                }
                _ => !c.is_control(),
            };
            if harmless {
                out.push(c);
            } else {
                out.extend(c.escape_default());
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A znode's stat, line by line, as zkCli prints it; times in UTC.
pub(super) fn stat(out: &mut dyn Write, stat: &Stat) -> io::Result<()> {
    writeln!(out, "cZxid = {:#x}", stat.czxid)?;
    writeln!(out, "ctime = {}", date(stat.ctime))?;
    writeln!(out, "mZxid = {:#x}", stat.mzxid)?;
    writeln!(out, "mtime = {}", date(stat.mtime))?;
    writeln!(out, "pZxid = {:#x}", stat.pzxid)?;
    writeln!(out, "cversion = {}", stat.cversion)?;
    writeln!(out, "dataVersion = {}", stat.version)?;
    writeln!(out, "aclVersion = {}", stat.aversion)?;
    writeln!(out, "ephemeralOwner = {:#x}", stat.ephemeral_owner)?;
    writeln!(out, "dataLength = {}", stat.data_length)?;
    writeln!(out, "numChildren = {}", stat.num_children)
}

/// A time as Java's `Date` prints it, in UTC.
fn date(ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Counted from 1 March of the year 0, so that a leap day is a year's last.
    let (z, era) = (days + 719_468, (days + 719_468).div_euclid(146_097));
    let day_of_era = z - era * 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2).rem_euclid(12);
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let name = |names: &[&'static str], at: i64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or("?")
    };
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Bytes as hexadecimal numbers and as characters, 16 a line.
pub(super) fn hex_dump(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    writeln!(out, "         +-------------------------------------------------+")?;
    writeln!(out, "         |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |")?;
    let rule = "+--------+-------------------------------------------------+----------------+";
    writeln!(out, "{rule}")?;
    for (at, row) in bytes.chunks(16).enumerate() {
        let numbers: String = row.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, " {byte:02x}");
            text
        });
        let shown: String = row
            .iter()
            .map(|byte| if matches!(byte, 0x20..0x7f) { char::from(*byte) } else { '.' })
            .collect();
        writeln!(out, "|{:08x}|{numbers:<48} |{shown:<16}|", at * 16)?;
    }
    writeln!(out, "{rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_harm_a_terminal_is_shown_by_number() {
        assert_eq!(line("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(data(b"two\nlines\t\x07\r"), "two\nlines\t\\u{7}\\r");
        assert_eq!(data(b"\xff ok \xc3\xa9"), "\\xff ok \u{e9}");
        assert_eq!(line("\u{202e}abc\u{85}"), "\\u{202e}abc\\u{85}");
        assert_eq!(list(&["a".to_owned(), "b c".to_owned()]), "[a, b c]");
    }

    #[test]
    fn dates_as_java_prints_them() {
        assert_eq!(date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(date(951_827_696_789), "Tue Feb 29 12:34:56 UTC 2000");
        assert_eq!(date(1_764_080_876_000), "Tue Nov 25 14:27:56 UTC 2025");
        assert_eq!(date(4_107_542_399_000), "Sun Feb 28 23:59:59 UTC 2100");
        assert_eq!(date(-1), "Wed Dec 31 23:59:59 UTC 1969");
    }
}
