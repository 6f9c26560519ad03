//! Rules: who may do what below a path.

use serde::Deserialize;
use vivarium_plugin_sdk::{Decision, perm};

/// What stands for a subject in a path.
const SUBJECT: &str = "{sub}";

/// The letters of permissions.
const LETTERS: [(char, u32); 5] = [
    ('c', perm::CREATE),
    ('d', perm::DELETE),
    ('r', perm::READ),
    ('w', perm::WRITE),
    ('a', perm::ADMIN),
];

/// A rule. Where one speaks of a path, nobody may do there what no rule lets them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Rule {
    /// `*` is a name, `{sub}` the subject of the token, `**` at the end everything below.
    path: String,
    /// Names, such as `role:admin`, of which one will do; everybody with a token, if there is none.
    #[serde(default)]
    who: Vec<String>,
    /// Letters of `cdrwa`.
    perms: String,
}

impl Rule {
    /// Says what makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { path, who, perms } = self;
        if !path.starts_with('/') || path.contains("//") || (path.len() > 1 && path.ends_with('/'))
        {
            return Err(format!(
                "a rule's path is one such as \"/apps/{SUBJECT}/**\", not {path:?}"
            ));
        }
        if path.split('/').rev().skip(1).any(|name| name == "**") {
            return Err(format!("** stands at the end of a rule's path, not in {path:?}"));
        }
        if let Some(name) =
            who.iter().find(|who| !who.starts_with("sub:") && !who.starts_with("role:"))
        {
            return Err(format!(
                "who is one such as \"role:admin\" or \"sub:alice\", not {name:?}"
            ));
        }
        if let Some(letter) = perms.chars().find(|c| LETTERS.iter().all(|(known, _)| known != c)) {
            return Err(format!("perms are letters of cdrwa, not {letter:?}"));
        }
        Ok(())
    }

    /// Whether it speaks of a path, and the subject that the path names, if it names one.
    fn speaks_of<'a>(&self, path: &'a str) -> Option<Option<&'a str>> {
        let mut names = path.split('/');
        let mut subject = None;
        for part in self.path.split('/') {
            if part == "**" {
                return names.next().is_some().then_some(subject);
            }
            let name = names.next()?;
            if part == SUBJECT {
                subject = Some(name);
            } else if part != "*" && part != name {
                return None;
            }
        }
        names.next().is_none().then_some(subject)
    }

    /// Whether it lets somebody with these names do this, at a path that names that subject.
    fn lets(&self, perm: u32, names: &[&str], subject: Option<&str>) -> bool {
        let has = |who: &str| names.contains(&who);
        let is_who =
            self.who.iter().any(|who| has(who)) || (self.who.is_empty() && !names.is_empty());
        let is_subject = |subject: &str| {
            names.iter().any(|name| name.strip_prefix("sub:").is_some_and(|name| name == subject))
        };
        let given: u32 = LETTERS
            .iter()
            .filter(|(letter, _)| self.perms.contains(*letter))
            .map(|(_, bit)| bit)
            .sum();
        is_who && subject.is_none_or(is_subject) && given & perm != 0
    }
}

/// What the rules say.
pub(crate) fn decide(rules: &[Rule], path: &str, perm: u32, names: &[&str]) -> Decision {
    let mut decision = Decision::Abstain;
    for rule in rules {
        if let Some(subject) = rule.speaks_of(path) {
            if rule.lets(perm, names, subject) {
                return Decision::Allow;
            }
            decision = Decision::Deny;
        }
    }
    decision
}
