//! The store's journals: whether they are whole, how much of the newest one is, and cutting off the
//! rest.
//!
//! The journal is not synced with every batch, so that after a power loss any page of its last part
//! may be missing. The store itself drops a tail that ends in the middle of a batch; a batch whose
//! middle is missing while its end is there makes it refuse to open. The log holds every batch that
//! was not synced, so the journal can be cut back to the last whole one, and the log replays the
//! rest; whether it reaches back far enough is checked where the two meet (`Log::reconcile`).
//!
//! Invariants:
//! * Nothing is written here but by [`cut`], which keeps a copy of what it takes away.
//! * Only the newest journal may be torn: the store syncs one before it begins the next. fjall itself
//!   reads any journal up to where it makes no sense, and takes what is behind for not written.
//! * Batches are numbered upwards. fjall's checksums leave the numbers out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// What ends a batch, behind its checksum.
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Behind the tag of an item: type, compression, keyspace, and the lengths of key, value, and value
/// as stored.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;
const BUFFER_BYTES: usize = 256 << 10;

/// What stands behind the last whole batch of the newest journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The journal.
    pub journal: PathBuf,
    /// Where its last whole batch ends, in bytes.
    pub whole_bytes: u64,
    /// How much is behind it, up to the last byte that is not zero.
    pub torn_bytes: u64,
    /// Where a copy of that is, if the store did not open with it.
    pub kept: Option<PathBuf>,
}

/// What the journals hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is behind the last whole batch of the newest one.
    pub(super) torn_tail: Option<TornTail>,
    /// The number of the last whole batch.
    pub(super) seqno: Option<u64>,
    /// What cannot have come from a crash.
    pub(super) damage: Option<String>,
}

/// How far apart the numbers of two batches can be: a few are taken between them.
const SEQNO_STEP_MAX: u64 = 1 << 32;

/// Reads all journals, changing nothing. They are allocated in advance: zeros are no tail.
pub(super) fn look(store: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for journal in journals(store)? {
        if let Some(TornTail { journal, whole_bytes, .. }) = found.torn_tail.take() {
            let journal = journal.display();
            let why = format!(
                "{journal} does not verify from byte {whole_bytes} on, and is not the last"
            );
            found.damage.get_or_insert(why);
        }
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(&journal)?);
        let whole = whole_batches(&mut reader)?;
        for seqno in whole.seqnos {
            let before = found.seqno.replace(seqno);
            if before.is_some_and(|b| seqno <= b || seqno - b > SEQNO_STEP_MAX) {
                let before = before.unwrap_or_default();
                let why = format!("{}: batch {seqno} follows batch {before}", journal.display());
                found.damage.get_or_insert(why);
            }
        }
        found.torn_tail = tail(journal, whole.bytes, reader.into_inner())?;
    }
    Ok(found)
}

/// What is behind the last whole batch of a journal, but zeros.
fn tail(journal: PathBuf, whole_bytes: u64, mut file: File) -> io::Result<Option<TornTail>> {
    file.seek(SeekFrom::Start(whole_bytes))?;
    let (mut at, mut end) = (whole_bytes, whole_bytes);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if let Some(last) = buffer[..read].iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += read as u64;
    }
    let torn_bytes = end - whole_bytes;
    let tail = TornTail { journal, whole_bytes, torn_bytes, kept: None };
    Ok((torn_bytes > 0).then_some(tail))
}

/// Cuts a torn tail off, keeping a copy of it in `damaged`. The caller knows that no server runs on
/// this store; `lock` is the store's own lock file, which is held meanwhile.
pub(super) fn cut(tail: &mut TornTail, lock: &Path, damaged: &Path) -> io::Result<()> {
    let lock = OpenOptions::new().read(true).write(true).open(lock)?;
    lock.try_lock().map_err(|e| match e {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
    })?;
    fs::create_dir_all(damaged)?;
    let name = tail.journal.file_name().unwrap_or_default().to_string_lossy();
    let kept = damaged.join(format!("{name}-{}", tail.whole_bytes));
    let mut journal = OpenOptions::new().read(true).write(true).open(&tail.journal)?;
    journal.seek(SeekFrom::Start(tail.whole_bytes))?;
    let mut copy = File::create(&kept)?;
    io::copy(&mut (&mut journal).take(tail.torn_bytes), &mut copy)?;
    copy.flush()?;
    copy.sync_all()?;
    File::open(damaged)?.sync_all()?;
    journal.set_len(tail.whole_bytes)?;
    journal.sync_all()?;
    tail.kept = Some(kept);
    Ok(())
}

/// The journals, oldest first.
fn journals(store: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(store) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The batches of a journal that are whole, as is every one before them.
#[derive(Default)]
struct Whole {
    /// Where they end.
    bytes: u64,
    seqnos: Vec<u64>,
}

fn whole_batches(reader: &mut impl Read) -> io::Result<Whole> {
    let mut whole = Whole::default();
    loop {
        match batch(reader) {
            Ok(Some((bytes, seqno))) => {
                whole.bytes += bytes;
                whole.seqnos.push(seqno);
            }
            Ok(None) => return Ok(whole),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(whole),
            Err(error) => return Err(error),
        }
    }
}

/// Reads one batch and gives its length and its number; `None` if it is none, or not whole.
fn batch(reader: &mut impl Read) -> io::Result<Option<(u64, u64)>> {
    let (tag, start) = (array::<1>(reader)?, array::<{ 4 + 8 }>(reader)?);
    if tag != [START] {
        return Ok(None);
    }
    let [a, b, c, d, seqno @ ..] = start;
    let mut length = 1 + start.len() as u64;
    let mut hash = Xxh3::new();
    for _ in 0..u32::from_le_bytes([a, b, c, d]) {
        let tag = array::<1>(reader)?;
        hash.update(&tag);
        length += 1;
        match tag {
            [ITEM] => {
                let head = array::<ITEM_HEAD_BYTES>(reader)?;
                hash.update(&head);
                let [.., k0, k1, _, _, _, _, s0, s1, s2, s3] = head;
                let key_bytes = u64::from(u16::from_le_bytes([k0, k1]));
                let bytes = key_bytes + u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
                hash_bytes(reader, bytes, &mut hash)?;
                length += head.len() as u64 + bytes;
            }
            [CLEAR] => {
                let keyspace = array::<8>(reader)?;
                hash.update(&keyspace);
                length += keyspace.len() as u64;
            }
            _ => return Ok(None),
        }
    }
    let (tag, checksum, trailer) = (array::<1>(reader)?, array::<8>(reader)?, array::<4>(reader)?);
    let is_whole = tag == [END] && checksum == hash.digest().to_le_bytes() && trailer == TRAILER;
    length += 1 + 8 + TRAILER.len() as u64;
    Ok(is_whole.then_some((length, u64::from_le_bytes(seqno))))
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Hashes that many bytes, in small pieces: a torn length says anything.
fn hash_bytes(reader: &mut impl Read, mut bytes: u64, hash: &mut Xxh3) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while bytes > 0 {
        let now = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        reader.read_exact(&mut buffer[..now])?;
        hash.update(&buffer[..now]);
        bytes -= now as u64;
    }
    Ok(())
}
