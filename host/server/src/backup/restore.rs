//! A snapshot becomes the data of a server that begins a new ensemble.

use std::path::Path;

use anyhow::Context;
use replica::saving::SnapshotHeader;
use state::snapshot::{Progress as Staged, Staging};
use state::{Fault, FjallStore, StoreOptions};

use super::file::damaged;
use super::{Progress, SnapshotFile};
use crate::data_dir::Unfinished;
use crate::stores;

/// Fills an empty data directory from a file. What is left of a restore that was interrupted is
/// replaced.
///
/// # Errors
/// If the file is damaged, or the directory is not empty; it is then as it was. If the disk fails.
pub(crate) fn restore(file: &Path, data_dir: &Path) -> anyhow::Result<SnapshotHeader> {
    let mut snapshot = SnapshotFile::open(file)?;
    let unfinished = Unfinished::begin(data_dir)?;
    match fill(&mut snapshot, file, data_dir) {
        Ok(()) => unfinished.finish()?,
        Err(error) => {
            unfinished.abandon()?;
            return Err(error);
        }
    }
    Ok(snapshot.header().clone())
}

fn fill(snapshot: &mut SnapshotFile, file: &Path, data_dir: &Path) -> anyhow::Result<()> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let path = stores::path(data_dir, 0);
    let store = FjallStore::open(&path, &StoreOptions::default())
        .with_context(|| format!("cannot make {}", path.display()))?;
    let staging = Staging::of_new_ensemble(Box::new(store), u64::from_be_bytes(id) | 1);
    let mut staging = Some(staging);
    let mut progress = Progress::new("restoring");
    snapshot.each(&mut progress, |chunk| {
        let Some(before) = staging.take() else { return Ok(()) };
        match before.put(chunk) {
            Ok(Staged::Unfinished(more)) => {
                staging = Some(more);
                Ok(())
            }
            Ok(Staged::Whole(_)) => Ok(()),
            Err(Fault::Damaged { why, .. }) => Err(damaged(file, &why)),
            Err(fault) => Err(fault.into()),
        }
    })
}
