//! A file that holds a snapshot, as it is written.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use replica::saving::{RECORD_HEAD_BYTES, SnapshotHeader, head};
use state::apply::Meta;
use state::snapshot::{Checker, Chunk};

use super::{FORMAT, MAGIC};

/// A file that has not its name yet; without [`NewFile::finish`] it goes away.
pub(crate) struct NewFile {
    out: BufWriter<File>,
    /// Where it is meanwhile.
    new: PathBuf,
    path: PathBuf,
    header: SnapshotHeader,
    checker: Checker,
    /// The meta row, once all has come.
    meta: Option<Meta>,
    bytes: u64,
    finished: bool,
}

impl NewFile {
    /// Makes the file; who may not read the server's data may not read it either, so that only its
    /// owner may.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn create(path: &Path, header: SnapshotHeader) -> anyhow::Result<Self> {
        let name = path.file_name().with_context(|| format!("{} is no file", path.display()))?;
        let mut name = name.to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let new = path.with_file_name(name);
        let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let out = out.with_context(|| format!("cannot make {}", new.display()))?;
        let (out, path) = (BufWriter::with_capacity(1 << 20, out), path.to_owned());
        let record = header.record();
        let (checker, meta, bytes, finished) = (Checker::new(), None, 0, false);
        let mut file = Self { out, new, path, header, checker, meta, bytes, finished };
        file.write(&[&MAGIC[..], &FORMAT.to_be_bytes()].concat())?;
        file.write(&record)?;
        Ok(file)
    }

    /// Takes the next record. What comes is checked, so that no damaged file is kept.
    ///
    /// # Errors
    /// If it is damaged, or the file cannot be written.
    pub(crate) fn put(&mut self, record: &[u8]) -> anyhow::Result<()> {
        let wrong = |why: String| anyhow!("what the server sends is damaged: {why}");
        let Some((first, payload)) = record.split_first_chunk::<RECORD_HEAD_BYTES>() else {
            return Err(wrong("a record is cut off".to_owned()));
        };
        if head(*first) != (payload.len(), crc32c::crc32c(payload)) {
            return Err(wrong("a checksum is wrong".to_owned()));
        }
        let chunk: Chunk = rmp_serde::from_slice(payload).map_err(|e| wrong(e.to_string()))?;
        self.meta = self.checker.take(&chunk).map_err(|fault| wrong(fault.to_string()))?;
        self.write(record)
    }

    /// What came so far: rows and bytes.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.checker.rows(), self.bytes)
    }

    /// Gives the file its name, when all has come.
    ///
    /// # Errors
    /// If it has not, or the file cannot be made durable.
    pub(crate) fn finish(mut self) -> anyhow::Result<Checker> {
        let Some(meta) = &self.meta else { bail!("the server ended before the snapshot did") };
        if SnapshotHeader::of(meta) != self.header {
            bail!("what the server sent is not the snapshot that it announced");
        }
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let done = self
            .out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.new, &self.path))
            .and_then(|()| File::open(directory)?.sync_all());
        done.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.finished = true;
        Ok(std::mem::take(&mut self.checker))
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.bytes += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.with_context(|| format!("cannot write {}", self.new.display()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // Where this fails, a file is left that has not the name that was asked for.
            let _ = fs::remove_file(&self.new);
        }
    }
}
