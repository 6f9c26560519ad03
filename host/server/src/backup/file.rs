//! A file that holds a snapshot, as it is read: one record in memory at a time.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use replica::saving::{RECORD_HEAD_BYTES, SnapshotHeader, head};
use state::apply::STORE_FORMAT;
use state::snapshot::{Checker, Chunk};

use super::{FORMAT, MAGIC, Progress};

/// An open file whose header is known.
pub(crate) struct SnapshotFile {
    records: Records,
    header: SnapshotHeader,
}

struct Records {
    input: BufReader<File>,
    path: PathBuf,
    /// How many bytes were read.
    at: u64,
}

impl SnapshotFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// If it is no snapshot, one of a newer version, or damaged so far.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let mut input = BufReader::with_capacity(1 << 20, File::open(path).with_context(cannot)?);
        let mut first = [0; MAGIC.len() + 4];
        match input.read_exact(&mut first) {
            // What is as short is no snapshot.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(error).with_context(cannot);
            }
            _ => {}
        }
        let [magic @ .., a, b, c, d] = first;
        ensure!(magic == MAGIC, "{} is not a snapshot of a Vivarium", path.display());
        newer(path, "it has format", u32::from_be_bytes([a, b, c, d]), FORMAT)?;
        let mut records = Records { input, path: path.to_owned(), at: first.len() as u64 };
        let json = records.next()?.ok_or_else(|| records.damaged("its header is missing"))?;
        let header: SnapshotHeader =
            serde_json::from_slice(&json).map_err(|e| records.damaged(&e.to_string()))?;
        newer(path, "its rows have format", header.store_format, STORE_FORMAT)?;
        Ok(Self { records, header })
    }

    /// What stands at its beginning.
    pub(crate) fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// Gives each chunk to `put`.
    ///
    /// # Errors
    /// If the file is damaged, or `put` fails.
    pub(crate) fn each(
        &mut self,
        progress: &mut Progress,
        mut put: impl FnMut(&Chunk) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut rows = 0;
        loop {
            let record = self.records.next()?;
            let record = record.ok_or_else(|| self.records.damaged("its end is missing"))?;
            let chunk: Chunk =
                rmp_serde::from_slice(&record).map_err(|e| self.records.damaged(&e.to_string()))?;
            put(&chunk)?;
            rows += chunk.rows() as u64;
            progress.show(rows, self.header.znodes, self.records.at);
            if chunk.next().is_none() {
                break;
            }
        }
        match self.records.next()? {
            None => Ok(()),
            Some(_) => Err(self.records.damaged("something stands after its end")),
        }
    }

    /// Reads all of it, and finds out whether it is what its header says.
    ///
    /// # Errors
    /// If it is damaged.
    pub(crate) fn check(&mut self, progress: &mut Progress) -> anyhow::Result<Checker> {
        let (mut checker, mut meta) = (Checker::new(), None);
        let path = self.records.path.clone();
        self.each(progress, |chunk| {
            meta = checker.take(chunk).map_err(|fault| damaged(&path, &fault.to_string()))?;
            Ok(())
        })?;
        match meta.map(|meta| SnapshotHeader::of(&meta)) {
            Some(found) if found == self.header => Ok(checker),
            _ => Err(self.records.damaged("its header is of another snapshot")),
        }
    }

    /// How many bytes were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.records.at
    }
}

impl Records {
    /// What the next record holds; nothing at the end of the file.
    fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut first = Vec::new();
        self.read(RECORD_HEAD_BYTES, &mut first)?;
        let Some(first) = first.first_chunk().copied() else {
            return if first.is_empty() {
                Ok(None)
            } else {
                Err(self.damaged("it ends in the middle"))
            };
        };
        let (bytes, crc) = head(first);
        let mut payload = Vec::new();
        // What a damaged length asks for is not set aside at once.
        self.read(bytes, &mut payload)?;
        if payload.len() < bytes {
            return Err(self.damaged("it ends in the middle"));
        }
        let got = crc32c::crc32c(&payload);
        if got != crc {
            return Err(self.damaged(&format!("a checksum is {got:#x}, not {crc:#x}")));
        }
        self.at += (RECORD_HEAD_BYTES + bytes) as u64;
        Ok(Some(payload))
    }

    /// Reads so many bytes, or what is left.
    fn read(&mut self, bytes: usize, into: &mut Vec<u8>) -> anyhow::Result<()> {
        let read = (&mut self.input).take(bytes as u64).read_to_end(into);
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(())
    }

    fn damaged(&self, why: &str) -> anyhow::Error {
        damaged(&self.path, &format!("{why} (the record at byte {})", self.at))
    }
}

fn newer(path: &Path, what: &str, found: u32, known: u32) -> anyhow::Result<()> {
    ensure!(
        found <= known,
        "{}: {what} {found}, this program knows up to {known}; use a newer program",
        path.display()
    );
    Ok(())
}

/// What is said of a damaged file.
pub(super) fn damaged(path: &Path, why: &str) -> anyhow::Error {
    anyhow!("{} is damaged: {why}; use another snapshot, nothing was changed", path.display())
}
