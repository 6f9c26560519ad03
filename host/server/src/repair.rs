//! Entries that no server can apply as they are: `vivarium repair --skip-binding NAME --at INDEX` has one applied
//! with a binding in quarantine.
//!
//! What was ordered is a line of the file `repairs` in the data directory, which stays there: a server that
//! has to replay that entry needs it again, and it tells who comes later what was done.
//!
//! Invariants:
//! * Nothing but this file is changed. The entry is applied by the server, at its next start, or whenever it
//!   comes to it.
//! * An entry that is applied already is not repaired.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use replica::Marked;
use state::{Members, NoHooks, State};

use crate::config::Config;
use crate::data_dir::{self, Claim};
use crate::found::{self, NoLog};
use crate::recover::utc;
use crate::stores::{self, Stores};
use crate::threads::clock_ms;

const FILE: &str = "repairs";
const HEAD: &str = "\
# Entries of the log that are applied with a binding in quarantine (vivarium repair). This has to be the same on
# all servers of the ensemble.
";

/// A binding that is skipped at an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) binding: String,
    pub(crate) index: u64,
    /// When that was ordered, for people.
    pub(crate) when: String,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip-binding {} at {}, ordered {}", self.binding, self.index, self.when)
    }
}

impl Repair {
    fn parse(line: &str) -> Option<Self> {
        let (what, when) = line.split_once(", ordered ")?;
        let (binding, index) = what.strip_prefix("skip-binding ")?.split_once(" at ")?;
        let index = index.parse().ok()?;
        Some(Self { binding: binding.to_owned(), index, when: when.to_owned() })
    }
}

/// What was ordered for the server of a data directory.
///
/// # Errors
/// If the file cannot be read, or has something else in it.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Vec<Repair>> {
    let file = dir.join(FILE);
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        Repair::parse(line).with_context(|| {
            format!(
                "{}: expected `skip-binding NAME at INDEX, ordered TIME`, got {line:?}",
                file.display()
            )
        })
    };
    lines.map(read).collect()
}

/// A stopped server, of which an entry is to be applied without a binding.
pub(crate) struct Skip {
    _claim: Claim,
    dir: PathBuf,
    known: Vec<Repair>,
    new: Repair,
    /// The last entry in the state.
    applied: u64,
    /// The last entry of the log.
    last: u64,
    /// Whether the state has a binding of this name; and those that it has.
    bindings: Vec<String>,
}

impl Skip {
    /// Looks at the data, and changes nothing.
    ///
    /// # Errors
    /// If the server runs, there is no data, or the entry is applied already.
    pub(crate) fn look(config: &Config, binding: &str, index: u64) -> anyhow::Result<Self> {
        let dir = &config.data_dir;
        ensure!(
            dir.join("format").is_file(),
            "{} is not the data directory of a server; name it with --data-dir",
            dir.display()
        );
        let claim = data_dir::claim(dir)?;
        let known = read(dir)?;
        let is_known = |repair: &Repair| repair.binding == binding && repair.index == index;
        if let Some(repair) = known.iter().find(|repair| is_known(repair)) {
            bail!("{}: that is ordered already, on {}", dir.display(), repair.when);
        }
        let log = match found::open_log(config, &dir.join("log"))? {
            Ok(log) => log,
            Err(NoLog::Missing) => bail!("{}", found::gone(&dir.join("log"))),
            Err(NoLog::Damaged(why)) => bail!("{why}: start the server, and another one heals it"),
        };
        let stores = Stores::new(dir, stores::options(config));
        let generation = Marked::of(&log).generation;
        stores.begin(generation)?;
        let cannot = || {
            format!(
                "the state in {} cannot be read: start the server, and another one heals it",
                dir.display()
            )
        };
        let store = Box::new(stores.open_existing(generation).with_context(cannot)?);
        // Only looked at: nothing is applied.
        let state = State::open_or_found(store, Box::new(NoHooks), 0, &Members::founders(&[]));
        let state = state.with_context(cannot)?;
        let applied = state.meta().applied;
        ensure!(
            index > applied,
            "entry {index} is applied already in {}, up to {applied} all are: there is nothing to repair. If \
             other servers cannot apply it, see what is wrong with them; with emptied data directories they \
             get this one's state",
            dir.display()
        );
        let view = state.view();
        let there = view.plugins.rows().filter(|(_, row)| row.is_there());
        let bindings = there.map(|(name, _)| name.to_owned()).collect();
        let new = Repair { binding: binding.to_owned(), index, when: utc(clock_ms()) };
        let last = log.last_index();
        Ok(Self { _claim: claim, dir: dir.clone(), known, new, applied, last, bindings })
    }

    /// Writes it down.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn order(self) -> anyhow::Result<()> {
        let all: Vec<String> =
            self.known.iter().chain([&self.new]).map(Repair::to_string).collect();
        let text = format!("{HEAD}{}", all.join("\n"));
        data_dir::write_whole(&self.dir, FILE, &text)
            .with_context(|| format!("cannot write {}", self.dir.join(FILE).display()))
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repair { binding, index, .. } = &self.new;
        writeln!(
            f,
            "The state in {} has all entries up to {}; its log goes up to {}.",
            self.dir.display(),
            self.applied,
            self.last
        )?;
        if !self.bindings.contains(binding) {
            let known = match &self.bindings[..] {
                [] => "none".to_owned(),
                names => names.join(", "),
            };
            writeln!(
                f,
                "NOTE: it has no binding \"{binding}\" (it has {known}); one may come with the entries in between."
            )?;
        }
        if *index > self.last {
            writeln!(f, "NOTE: its log has no entry {index} yet; another server's must have it.")?;
        }
        write!(
            f,
            "\n\
             From the next start on, entry {index} is applied here with the binding \"{binding}\" in quarantine:\n\
             nobody asks its plugin about anything in that entry, nor later, until an operator\n\
             switches it on again (`vivarium plugin mode`), rolls it back, installs another, or removes it.\n\
             What it would have refused in between is not refused.\n\
             - Do the same on EVERY server of the ensemble, with the same NAME and INDEX, while all of\n  \
               them are stopped; then start them. The state after the entry is another one than without this.\n\
             - A server on which it was forgotten waits at that entry, or, if it can apply it after all,\n  \
               has other digests than the others from there on: the majority's state replaces its own.\n\
             - If one server can apply the entry as it is, do not do this anywhere: empty the data\n  \
               directories of those that cannot, or see what is wrong with them.\n\
             - It is written down in {}, and stays there.",
            self.dir.join(FILE).display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("there is none"), []);
        let repair = |binding: &str, index| Repair {
            binding: binding.to_owned(),
            index,
            when: utc(951_827_696_789),
        };
        let all = [repair("a-b.c", 7), repair("quota", u64::MAX)];
        let text = format!("{HEAD}{}\n{}\n", all[0], all[1]);
        std::fs::write(dir.path().join(FILE), text).expect("it can be written");
        assert_eq!(read(dir.path()).expect("it is what was written"), all);
        for wrong in
            ["skip-binding a at x, ordered y", "skip-binding a at 1", "skip a at 1, ordered y"]
        {
            std::fs::write(dir.path().join(FILE), wrong).expect("it can be written");
            let why = read(dir.path()).expect_err("it is wrong").to_string();
            assert!(why.contains("expected `skip-binding NAME at INDEX"), "{why}");
        }
    }
}
