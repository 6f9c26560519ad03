//! A command line: words, and of those the flags and arguments of a verb.

use super::verbs::Verb;

/// Splits a line at white space. A word in quotes, single or double, may hold white space; inside
/// of a word a quote is a character like any other, so that `{"a":1}` needs no care (as in zkCli).
///
/// # Errors
/// A quote that is not closed.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let (word, behind) = match first {
            '"' | '\'' => rest[1..]
                .split_once(first)
                .ok_or_else(|| format!("expected a closing {first}, got the end of the line"))?,
            _ => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    Ok(words)
}

/// A verb's flags and arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    flags: Vec<(&'static str, String)>,
    args: Vec<String>,
}

impl Words {
    /// Sorts the words behind a verb. Flags may stand anywhere before `--`.
    ///
    /// # Errors
    /// What is wrong, and how the verb is used.
    pub(super) fn parse(verb: &Verb, words: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let usage = |wrong: String| format!("{wrong}\nusage: {}", verb.usage());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                parsed.args.extend(words.by_ref().cloned());
                break;
            }
            let negative = word.strip_prefix('-').is_some_and(|n| n.parse::<f64>().is_ok());
            if !word.starts_with('-') || word == "-" || negative {
                parsed.args.push(word.clone());
                continue;
            }
            let Some(flag) = verb.flags.iter().find(|flag| flag.name == word) else {
                let advice = "write -- before an argument that begins with -";
                return Err(usage(format!("unknown option {word}; {advice}")));
            };
            let value = match flag.value {
                None => String::new(),
                Some(what) => match words.next() {
                    Some(value) => value.clone(),
                    None => return Err(usage(format!("expected {what} after {word}"))),
                },
            };
            parsed.flags.push((flag.name, value));
        }
        if !verb.count.contains(&parsed.args.len()) {
            let (least, most) = (verb.count.start(), verb.count.end());
            let expected = match (least, most) {
                (0, 0) => "no argument".to_owned(),
                (1, 1) => "1 argument".to_owned(),
                (least, most) if least == most => format!("{least} arguments"),
                (least, most) => format!("{least} to {most} arguments"),
            };
            return Err(usage(format!("expected {expected}, got {}", parsed.args.len())));
        }
        Ok(parsed)
    }

    /// Whether a flag was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == flag)
    }

    /// The value of a flag, as it was given.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    /// The values of a flag that may be given several times.
    pub(super) fn values(&self, flag: &str) -> Vec<&str> {
        let given = self.flags.iter().filter(|(name, _)| *name == flag);
        given.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a flag, as a number.
    ///
    /// # Errors
    /// What was expected and what was got.
    pub(super) fn number<N: std::str::FromStr>(&self, flag: &str) -> Result<Option<N>, String> {
        let Some(value) = self.value(flag) else { return Ok(None) };
        let number = value.parse().map_err(|_| format!("{flag}: expected a number, got {value:?}"));
        number.map(Some)
    }

    /// An argument; empty where it was left out.
    pub(super) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// An argument that may be left out.
    pub(super) fn optional(&self, at: usize) -> Option<&str> {
        self.args.get(at).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::verbs::find;

    fn words(line: &str) -> Vec<String> {
        split(line).expect("it is well-formed")
    }

    #[test]
    fn lines_are_split_as_zkcli_splits_them() {
        assert_eq!(words("  set /a  \"x y\" "), ["set", "/a", "x y"]);
        assert_eq!(
            words("set /a {\"k\":1} 'it is \"so\"'"),
            ["set", "/a", "{\"k\":1}", "it is \"so\""]
        );
        assert_eq!(words("create /a \"\""), ["create", "/a", ""]);
        assert!(words("  ").is_empty());
        assert!(split("get \"/a b").is_err());
    }

    #[test]
    fn flags_stand_anywhere() {
        let set = find("set").expect("a verb");
        let parsed = Words::parse(set, &words("/a -v 3 data -s")).expect("it is right");
        assert_eq!((parsed.arg(0), parsed.arg(1), parsed.value("-v")), ("/a", "data", Some("3")));
        assert!(parsed.has("-s") && !parsed.has("-b"));
        assert_eq!(parsed.number::<i32>("-v"), Ok(Some(3)));
        let parsed = Words::parse(set, &words("/a -1")).expect("a number is data");
        assert_eq!(parsed.arg(1), "-1");
        let parsed = Words::parse(set, &words("/a -- -data")).expect("it is right");
        assert_eq!(parsed.arg(1), "-data");
        for (line, expected) in [
            ("/a x -z", "unknown option -z"),
            ("/a", "expected 2 arguments, got 1"),
            ("/a x -v", "expected VERSION after -v"),
        ] {
            let error = Words::parse(set, &words(line)).expect_err("it is wrong");
            assert!(error.contains(expected) && error.contains("usage: set"), "{error}");
        }
    }
}
