//! The directory of bindings that a server watches, as it is on the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::bundle::{Bundle, module_path, read_binding};
use super::reconcile::Files;

/// After the last sign of a change: whoever copies or edits is to be done.
const SETTLES: Duration = Duration::from_millis(300);
/// How often it is looked at whether or not there was a sign; some file systems give none.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A directory that is watched.
pub(crate) struct Directory {
    path: PathBuf,
    /// Kept for as long as it is to give signs.
    _watcher: Option<RecommendedWatcher>,
    signs: Receiver<()>,
    sign: Option<Instant>,
    looked: Option<Instant>,
    /// What was read, and of which times and sizes of the binding's file and the module's.
    known: BTreeMap<PathBuf, (Stamps, Result<Bundle, String>)>,
}

type Stamps = [Option<(SystemTime, u64)>; 2];

impl Directory {
    /// Begins to watch a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made or read.
    pub(crate) fn watch(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("plugin-dir {} cannot be used", path.display());
        std::fs::create_dir_all(path).with_context(cannot)?;
        std::fs::read_dir(path).with_context(cannot)?;
        let (sender, signs) = channel();
        let watcher = notify::recommended_watcher(move |_| {
            // Nobody listens any more when the server stops.
            let _ = sender.send(());
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "plugin-dir gives no signs of changes; it is looked at every 5 s");
        });
        Ok(Self {
            path: path.to_owned(),
            _watcher: watcher.ok(),
            signs,
            sign: None,
            looked: None,
            known: BTreeMap::new(),
        })
    }

    /// What is there, if it may be something else than it was.
    pub(crate) fn look(&mut self) -> Option<Files> {
        while self.signs.try_recv().is_ok() {
            self.sign = Some(Instant::now());
        }
        let is_settled = self.sign.is_some_and(|at| at.elapsed() >= SETTLES);
        let is_due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) && self.sign.is_none();
        if !is_settled && !is_due {
            return None;
        }
        (self.sign, self.looked) = (None, Some(Instant::now()));
        match self.read() {
            Ok(files) => Some(files),
            Err(error) => {
                tracing::warn!(%error, dir = %self.path.display(), "plugin-dir cannot be read");
                None
            }
        }
    }

    fn read(&mut self) -> std::io::Result<Files> {
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if is_hidden || path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let before = self.known.remove(&path);
            let module = before.as_ref().and_then(|(_, read)| read.as_ref().ok());
            let stamps = [stamp(&path), module.and_then(|bundle| stamp(bundle.module()))];
            let read = match before {
                Some((same, read)) if same == stamps && read.is_ok() => (same, read),
                _ => read(&path),
            };
            known.insert(path, read);
        }
        self.known = known;
        Ok(self.known.iter().map(|(path, (_, read))| (path.clone(), read.clone())).collect())
    }
}

fn read(path: &Path) -> (Stamps, Result<Bundle, String>) {
    // Before they are read: what changes meanwhile is read again.
    let module = read_binding(path).ok().map(|binding| module_path(path, &binding));
    let stamps = [stamp(path), module.and_then(|module| stamp(&module))];
    (stamps, Bundle::read(path).map_err(|error| format!("{error:#}")))
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}
