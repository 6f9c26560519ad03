//! JAAS login configuration: the one module of it that names users and passwords.
//!
//! ```text
//! Server {
//!     org.apache.zookeeper.server.auth.DigestLoginModule required
//!     user_super="secret" user_alice="other";
//! };
//! ```
//!
//! Sections may be several, comments are `//` and `/* */`, other modules are skipped and reported.

use super::error::{ConfigError, Origin};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a section of a JAAS file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// The section is there at all.
    pub(super) found: bool,
    /// Names and passwords of its digest login modules.
    pub(super) users: BTreeMap<String, String>,
    /// Modules that are not digest logins, by class.
    pub(super) other_modules: Vec<String>,
}

/// Reads the users of `section`. A file without that section has none.
pub(super) fn digest_users(file: &Path, section: &str) -> Result<Section, ConfigError> {
    let name: Arc<str> = Arc::from(file.display().to_string());
    let text = std::fs::read_to_string(file).map_err(|e| ConfigError::Unreadable {
        origin: Origin::File(name.clone(), 0),
        key: String::new(),
        path: name.to_string(),
        reason: e.to_string(),
    })?;
    parse(&text, &name, section)
}

fn parse(text: &str, file: &Arc<str>, wanted: &str) -> Result<Section, ConfigError> {
    let mut tokens = Tokens { rest: text, line: 1, file };
    let mut section = Section::default();
    while let Some(name) = tokens.next()? {
        let name = tokens.word(name, "a section's name")?;
        tokens.expect('{')?;
        let ours = name == wanted;
        section.found |= ours;
        loop {
            let class = match tokens.next()? {
                Some(Token::Mark('}')) => break,
                Some(token) => tokens.word(token, "a login module's class or `}`")?,
                None => return Err(tokens.syntax("`}`", "the end of the file")),
            };
            let flag =
                tokens.next()?.ok_or_else(|| tokens.syntax("`required`", "the end of the file"))?;
            tokens.word(flag, "`required`, `requisite`, `sufficient` or `optional`")?;
            let digest = class.ends_with("DigestLoginModule");
            if ours && !digest {
                section.other_modules.push(class);
            }
            while let Some((key, value)) = tokens.option()? {
                if let (true, true, Some(user)) = (ours, digest, key.strip_prefix("user_")) {
                    section.users.insert(user.to_owned(), value);
                }
            }
        }
        tokens.expect(';')?;
    }
    Ok(section)
}

enum Token {
    Word(String),
    /// One of `{ } ; =`.
    Mark(char),
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
    file: &'a Arc<str>,
}

impl Tokens<'_> {
    fn syntax(&self, expected: &str, got: &str) -> ConfigError {
        ConfigError::Syntax {
            origin: Origin::File(self.file.clone(), self.line),
            message: format!("expected {expected}, got {got}"),
        }
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }

    fn next(&mut self) -> Result<Option<Token>, ConfigError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if self.rest.starts_with("//") {
                self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let end = self
                    .rest
                    .find("*/")
                    .ok_or_else(|| self.syntax("`*/`", "the end of the file"))?;
                self.advance(end + 2);
            } else {
                break;
            }
        }
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        match first {
            '{' | '}' | ';' | '=' => {
                self.advance(1);
                Ok(Some(Token::Mark(first)))
            }
            '"' | '\'' => self.quoted(first).map(|text| Some(Token::Word(text))),
            _ => {
                let ends = |c: char| c.is_whitespace() || "{};=\"'".contains(c);
                let end = self.rest.find(ends).unwrap_or(self.rest.len());
                let word = self.rest[..end].to_owned();
                self.advance(end);
                Ok(Some(Token::Word(word)))
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, ConfigError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, escaped)| match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                })),
                '\n' => break,
                c if c == quote => {
                    self.advance(at + 1);
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(self.syntax("a closing quote on the same line", "none"))
    }

    fn word(&self, token: Token, expected: &str) -> Result<String, ConfigError> {
        match token {
            Token::Word(word) => Ok(word),
            Token::Mark(mark) => Err(self.syntax(expected, &format!("`{mark}`"))),
        }
    }

    fn expect(&mut self, mark: char) -> Result<(), ConfigError> {
        match self.next()? {
            Some(Token::Mark(found)) if found == mark => Ok(()),
            Some(Token::Mark(found)) => {
                Err(self.syntax(&format!("`{mark}`"), &format!("`{found}`")))
            }
            Some(Token::Word(word)) => Err(self.syntax(&format!("`{mark}`"), &format!("`{word}`"))),
            None => Err(self.syntax(&format!("`{mark}`"), "the end of the file")),
        }
    }

    /// One `key=value` of a module, or `None` at the `;` that ends it.
    fn option(&mut self) -> Result<Option<(String, String)>, ConfigError> {
        let key = match self.next()? {
            Some(Token::Mark(';')) => return Ok(None),
            Some(token) => self.word(token, "`key=value` or `;`")?,
            None => return Err(self.syntax("`;`", "the end of the file")),
        };
        self.expect('=')?;
        let value = self.next()?.ok_or_else(|| self.syntax("a value", "the end of the file"))?;
        Ok(Some((key, self.word(value, "a value")?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Result<Section, ConfigError> {
        parse(text, &Arc::from("jaas.conf"), "Server")
    }

    #[test]
    fn users_of_the_named_section_only() {
        let text = "// head\nClient { a.b.DigestLoginModule required username=\"x\"; };\n/* two\nlines */\n\
            Server {\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n  \
            user_super=\"super_secret\"\n  user_jaasuser=\"a \\\"b\\\" // c\";\n};\n";
        let section = server(text).unwrap();
        assert!(section.found);
        assert_eq!(section.users["super"], "super_secret");
        assert_eq!(section.users["jaasuser"], "a \"b\" // c");
        assert_eq!(section.users.len(), 2);
        assert!(!server("").unwrap().found);
        assert_eq!(parse(text, &Arc::from("f"), "Other").unwrap(), Section::default());
    }

    #[test]
    fn kerberos_is_reported_not_taken() {
        let text =
            "Server { com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true; };";
        let section = server(text).unwrap();
        assert!(section.users.is_empty());
        assert_eq!(section.other_modules, ["com.sun.security.auth.module.Krb5LoginModule"]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            (
                "Server {\n x.DigestLoginModule required\n user_a=\"b\n;\n};",
                "jaas.conf:3: expected a closing quote",
            ),
            ("Server {\n x.DigestLoginModule required", "jaas.conf:2: expected `;`, got the end"),
            ("Server\n;", "jaas.conf:2: expected `{`, got `;`"),
            ("Server { /* ", "expected `*/`"),
        ] {
            let error = server(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
