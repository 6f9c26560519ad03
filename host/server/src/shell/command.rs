//! One command: its session, its output, and which function does it.

use std::io::Write;

use proto::{Reply, Request, path};

use super::problem::Problem;
use super::verbs::{self, Verb};
use super::words::Words;
use super::{acl, ensemble, lists, nodes, quota, tree, watching};
use crate::remote::{Pending, Session, Target};

/// What a command works with.
pub(super) struct Command<'a> {
    pub(super) session: &'a Session,
    pub(super) target: &'a Target,
    pub(super) out: &'a mut dyn Write,
    /// Whether the session goes on after the command, so that a watch can fire.
    pub(super) stays: bool,
}

/// What came of a command.
pub(super) type Done = Result<(), Problem>;

impl Command<'_> {
    /// Runs a verb that needs a session.
    pub(super) async fn run(&mut self, verb: &Verb, words: &Words) -> Done {
        match verb.name {
            "addWatch" => watching::add(self, words).await,
            "addauth" => acl::authenticate(self, words).await,
            "config" => ensemble::config(self, words).await,
            "create" => nodes::create(self, words).await,
            "delete" => nodes::delete(self, words).await,
            "deleteall" => tree::delete_all(self, words).await,
            "delquota" => quota::delete(self, words).await,
            "get" => nodes::get(self, words).await,
            "getAcl" => acl::get(self, words).await,
            "getAllChildrenNumber" => lists::count(self, words).await,
            "getEphemerals" => lists::ephemerals(self, words).await,
            "listquota" => quota::list(self, words).await,
            "ls" => lists::children(self, words).await,
            "reconfig" => ensemble::reconfig(self, words).await,
            "removewatches" => watching::remove(self, words).await,
            "set" => nodes::set(self, words).await,
            "setAcl" => acl::set(self, words).await,
            "setquota" => quota::set(self, words).await,
            "stat" => nodes::stat(self, words).await,
            "sync" => ensemble::sync(self, words).await,
            "whoami" => acl::who(self).await,
            other => Err(format!("{other} is a verb of the interactive shell").into()),
        }
    }

    /// The server's path for the user's.
    pub(super) fn inside(&self, given: &str) -> Result<String, Problem> {
        path::validate(given).map_err(|error| match error {
            path::PathError::NotAbsolute => {
                format!("Path must start with / character, got {}", super::text::line(given))
            }
            other => format!("{other}: {}", super::text::line(given)),
        })?;
        Ok(self.target.inside(given))
    }

    /// The user's path for the server's.
    pub(super) fn outside<'p>(&self, path: &'p str) -> &'p str {
        self.target.outside(path)
    }

    /// Asks about a path of the server's.
    pub(super) async fn ask(&self, path: &str, request: Request) -> Result<Reply, Problem> {
        let answer = self.session.ask(request).await;
        answer.map_err(|error| Problem::Server(error, self.outside(path).to_owned()))
    }

    /// Begins to ask; answers come in the same order.
    pub(super) async fn start(&self, request: Request) -> Pending {
        self.session.start(request).await
    }

    /// A word on a watch that nobody will see fire.
    pub(super) fn warn_of_watch(&self) {
        if !self.stays {
            note("the watch ends with this command; `vivarium shell` without a verb shows events");
        }
    }
}

/// Says something beside the output.
pub(super) fn note(text: &str) {
    // Nothing can be said of a closed standard error.
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// A reply of another form than the request's is the server's fault.
pub(super) fn strange(reply: &Reply) -> Problem {
    format!("the server gave a reply of another kind: {reply:?}").into()
}

/// The verb of a command line, and its words.
pub(super) fn parse(words: &[String]) -> Result<(&'static Verb, Words), Problem> {
    let Some((name, rest)) = words.split_first() else {
        return Err("expected a verb; `help` lists them".into());
    };
    let Some(verb) = verbs::find(name) else {
        let meant = match verbs::nearest(name) {
            Some(near) => format!("did you mean {near}? "),
            None => String::new(),
        };
        let name = super::text::line(name);
        return Err(format!("Command not found: {name}; {meant}`help` lists the verbs").into());
    };
    Ok((verb, Words::parse(verb, rest)?))
}
