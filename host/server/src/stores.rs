//! The directories of the state: one in use, one that a snapshot may be filling.
//!
//! Each snapshot that replaces the state makes a new generation, in a directory of its own. Which one
//! is in use, the log says (`replica::node::generation`); another is what a crash left, or what is
//! given up.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use parking_lot::Mutex;
use replica::Quarantine;
use state::apply::Meta;
use state::store::InUse;
use state::{Fault, FjallStore, Store, StoreOptions};

use crate::config::Config;
use crate::quarantine;

/// The generations of a data directory.
pub(crate) struct Stores {
    dir: PathBuf,
    options: StoreOptions,
    /// Those that were opened, and whether anybody still reads them.
    opened: Mutex<BTreeMap<u64, InUse>>,
    /// The one that the log names.
    named: AtomicU64,
    /// The one that is of no use, and is kept when another took its place.
    quarantine: Mutex<Option<Quarantine>>,
}

const NAME: &str = "state";

/// The store's share of the configuration.
pub(crate) fn options(config: &Config) -> StoreOptions {
    StoreOptions { cache_bytes: config.storage.cache_bytes / 8 }
}

/// Where a generation is in a data directory; the one that a server begins with is 0.
pub(crate) fn path(dir: &Path, generation: u64) -> PathBuf {
    match generation {
        0 => dir.join(NAME),
        later => dir.join(format!("{NAME}-{later}")),
    }
}

impl Stores {
    /// Those in a data directory.
    pub(crate) fn new(dir: &Path, options: StoreOptions) -> Self {
        let (dir, opened, named) = (dir.to_owned(), Mutex::default(), AtomicU64::new(0));
        Self { dir, options, opened, named, quarantine: Mutex::default() }
    }

    /// What is wrong with the one in use, if that is known.
    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        let named = self.named.load(Ordering::Relaxed);
        self.quarantine.lock().clone().filter(|quarantine| quarantine.generation == named)
    }

    /// One is of no use: writes that down.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn put_in_quarantine(&self, new: &Quarantine) -> anyhow::Result<()> {
        quarantine::write(&self.dir, new)?;
        self.opened.lock().entry(new.generation).or_default();
        *self.quarantine.lock() = Some(new.clone());
        Ok(())
    }

    /// Removes one that another took the place of; keeps it if something was wrong with it.
    fn retire(&self, generation: u64) -> std::io::Result<()> {
        let path = self.path(generation);
        let mut quarantine = self.quarantine.lock();
        if quarantine.as_ref().is_none_or(|quarantine| quarantine.generation != generation) {
            fs::remove_dir_all(&path)?;
            tracing::info!(path = %path.display(), "removed a state that is not in use");
            return Ok(());
        }
        let kept = quarantine::keep(&self.dir, &path)?;
        *quarantine = None;
        tracing::warn!(kept = %kept.display(), "the damaged state was kept, with what is wrong with it");
        Ok(())
    }

    fn path(&self, generation: u64) -> PathBuf {
        path(&self.dir, generation)
    }

    /// All that there are.
    ///
    /// # Errors
    /// If the data directory cannot be read.
    pub(crate) fn all(&self) -> std::io::Result<BTreeMap<u64, PathBuf>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let generation = match name.strip_prefix("state-") {
                Some(number) => number.parse().ok().filter(|_| is_number(number)),
                None => (name == NAME).then_some(0),
            };
            all.extend(generation.map(|generation| (generation, path)));
        }
        Ok(all)
    }

    /// The log names this one: all others are removed, and one of them in quarantine is kept. The caller
    /// has the data directory for itself.
    ///
    /// # Errors
    /// If others cannot be removed.
    pub(crate) fn begin(&self, generation: u64) -> anyhow::Result<()> {
        self.named(generation);
        *self.quarantine.lock() = quarantine::read(&self.dir, generation)?;
        let quarantined = self.quarantine.lock().as_ref().map(|quarantine| quarantine.generation);
        if let Some(quarantined) = quarantined.filter(|quarantined| *quarantined != generation) {
            self.retire(quarantined).context("cannot keep a damaged state")?;
        }
        if quarantined == Some(generation) {
            // It is not opened, but another one will take its place.
            self.opened.lock().insert(generation, InUse::default());
        }
        let all = self.all().with_context(|| format!("cannot read {}", self.dir.display()))?;
        for (_, other) in all.into_iter().filter(|(other, _)| *other != generation) {
            tracing::info!(path = %other.display(), "removing a state that is not in use");
            let gone = || format!("cannot remove {}", other.display());
            fs::remove_dir_all(&other).with_context(gone)?;
        }
        Ok(())
    }

    /// Opens one, or makes it.
    ///
    /// # Errors
    /// [`Fault`] if it cannot be opened.
    pub(crate) fn open(&self, generation: u64) -> Result<FjallStore, Fault> {
        let store = FjallStore::open(&self.path(generation), &self.options)?;
        self.opened.lock().insert(generation, store.in_use());
        Ok(store)
    }

    /// Opens one that must be there.
    ///
    /// # Errors
    /// [`Fault::Damaged`] if it is gone, any [`Fault`] if it cannot be opened.
    pub(crate) fn open_existing(&self, generation: u64) -> Result<FjallStore, Fault> {
        let path = self.path(generation);
        if !path.is_dir() {
            let why = format!("{} is gone", path.display());
            return Err(Fault::Damaged { keyspace: "the store", why });
        }
        self.open(generation)
    }

    /// What stands beside the tree of the newest state that can be read, and which one that is. Nothing
    /// says which one was in use.
    pub(crate) fn newest(&self) -> Option<(u64, Meta)> {
        let all = self.all().unwrap_or_default();
        all.into_iter().rev().find_map(|(generation, path)| {
            let store = FjallStore::open(&path, &self.options).ok()?;
            Some((generation, Meta::read(&store).ok()??))
        })
    }

    /// The log names this one now, for good.
    pub(crate) fn named(&self, generation: u64) {
        self.named.store(generation, Ordering::Relaxed);
    }

    /// Removes those before the one that the log names, once nobody reads them any more.
    pub(crate) fn tidy(&self) {
        let named = self.named.load(Ordering::Relaxed);
        let mut opened = self.opened.lock();
        let over = opened.iter().find(|(generation, used)| **generation < named && used.is_over());
        let Some((&generation, _)) = over else { return };
        match self.retire(generation) {
            Ok(()) => {
                opened.remove(&generation);
            }
            // Its last thread may be about to end.
            Err(error) => tracing::debug!(%error, generation, "not removed yet"),
        }
    }

    /// Makes an empty one for a snapshot.
    ///
    /// # Errors
    /// [`Fault::Store`] if the directory cannot be made.
    pub(crate) fn make(&self, generation: u64) -> Result<Box<dyn Store>, Fault> {
        let path = self.path(generation);
        let failed = |e: std::io::Error| Fault::Store(format!("{}: {e}", path.display()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        Ok(Box::new(self.open(generation)?))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_the_log_names_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["state-3", "state-x", "log"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let stores = Stores::new(dir.path(), StoreOptions::default());
        stores.begin(0).expect("the others go");
        let first = stores.open(0).expect("it opens");
        assert_eq!(names(dir.path()), ["log", "state", "state-x"]);
        let second = stores.make(1).expect("it is made");
        drop(first);
        stores.tidy();
        assert_eq!(names(dir.path()), ["log", "state", "state-1", "state-x"], "the log names 0");
        stores.named(1);
        let view = second.view();
        stores.tidy();
        assert_eq!(names(dir.path()), ["log", "state-1", "state-x"]);
        drop((second, view));
        stores.tidy();
        assert_eq!(names(dir.path()), ["log", "state-1", "state-x"], "it is the one in use");
    }

    #[test]
    fn what_is_still_read_is_not_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = Stores::new(dir.path(), StoreOptions::default());
        let first = stores.open(0).expect("it opens");
        let view = first.view();
        drop(first);
        let _second = stores.make(1).expect("it is made");
        stores.named(1);
        stores.tidy();
        assert_eq!(names(dir.path()), ["state", "state-1"]);
        drop(view);
        stores.tidy();
        assert_eq!(names(dir.path()), ["state-1"]);
    }
}
