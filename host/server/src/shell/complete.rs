//! Completion of verbs, flags and paths; the names of children are asked of the server.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::{Reply, Request};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Handle;

use super::text;
use super::verbs::{self, VERBS};
use crate::remote::{Session, Target};

/// How long somebody who pressed a key waits for the server.
const PATIENCE: Duration = Duration::from_secs(2);
/// More names than this help nobody.
const NAMES_MAX: usize = 1000;

/// The session that the shell has at the moment, if any, and its target.
pub(super) type Current = Arc<Mutex<Option<(Session, Target)>>>;

/// Completes lines.
pub(super) struct Completions {
    current: Current,
    runtime: Handle,
}

impl Completions {
    pub(super) fn new(current: Current, runtime: Handle) -> Self {
        Self { current, runtime }
    }

    fn names(&self, parent: &str) -> Vec<String> {
        let Some((session, target)) = self.current.lock().clone() else { return Vec::new() };
        let request = Request::GetChildren { path: target.inside(parent), watch: false };
        let asked = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, session.ask(request)).await });
        match asked {
            Ok(Ok(Reply::Children(mut names))) => {
                names.sort_unstable();
                names
            }
            // Completion has nothing to offer; the command itself will say why.
            _ => Vec::new(),
        }
    }

    fn paths(&self, word: &str, quoted: bool) -> Vec<Pair> {
        let Some((parent, begun)) = word.rsplit_once('/') else { return Vec::new() };
        let parent = if parent.is_empty() { "/" } else { parent };
        let fits = self.names(parent).into_iter().filter(|name| name.starts_with(begun));
        fits.take(NAMES_MAX)
            .map(|name| {
                let path = proto::path::join(parent, &name);
                let needs_quotes = !quoted && path.contains(char::is_whitespace);
                let replacement = if needs_quotes { format!("\"{path}\"") } else { path };
                Pair { display: text::line(&name), replacement }
            })
            // A name that would do a terminal harm is not put into the line.
            .filter(|pair| text::line(&pair.replacement) == pair.replacement)
            .collect()
    }
}

/// Where the word begins that ends at `line`'s end, and whether it is in quotes that are open.
fn last_word(line: &str) -> (usize, bool) {
    let mut start = 0;
    let mut open: Option<char> = None;
    let mut in_word = false;
    for (at, c) in line.char_indices() {
        match open {
            Some(quote) if c == quote => (open, in_word) = (None, false),
            Some(_) => {}
            None if c.is_whitespace() => in_word = false,
            None if !in_word => {
                in_word = true;
                start = at;
                if c == '"' || c == '\'' {
                    open = Some(c);
                    start = at + 1;
                }
            }
            None => {}
        }
    }
    if in_word { (start, open.is_some()) } else { (line.len(), false) }
}

impl Completer for Completions {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = line.get(..pos).unwrap_or(line);
        let (start, quoted) = last_word(line);
        let (before, word) = line.split_at(start);
        let mut earlier = before.split_whitespace();
        let verb = earlier.next();
        let names_verb = verb.is_none() || (verb == Some("help") && earlier.next().is_none());
        let plain = |text: &str| Pair { display: text.to_owned(), replacement: text.to_owned() };
        let found = if names_verb {
            let fits = VERBS.iter().filter(|verb| verb.name.starts_with(word));
            let behind = if verb.is_none() { " " } else { "" };
            fits.map(|verb| Pair {
                display: verb.name.to_owned(),
                replacement: format!("{}{behind}", verb.name),
            })
            .collect()
        } else if word.starts_with('-') {
            let verb = verb.and_then(verbs::find);
            let flags = verb.map_or(&[][..], |verb| verb.flags);
            flags.iter().map(|flag| flag.name).filter(|f| f.starts_with(word)).map(plain).collect()
        } else {
            self.paths(word, quoted)
        };
        Ok((start, found))
    }
}

impl Helper for Completions {}
impl Highlighter for Completions {}
impl Validator for Completions {}
impl Hinter for Completions {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_is_being_written() {
        assert_eq!(last_word("ls /a"), (3, false));
        assert_eq!(last_word("ls "), (3, false));
        assert_eq!(last_word(""), (0, false));
        assert_eq!(last_word("get \"/a b"), (5, true));
        assert_eq!(last_word("set \"/a b\" x"), (11, false));
        assert_eq!(last_word("set {\"k\":1} x"), (12, false));
    }
}
