//! A simulated disk, for tests and the simulator: it loses what a real one may lose.
//!
//! Invariants:
//! * Readers see every write at once, as through a page cache. [`SimDisk::crash`] keeps what was
//!   synced, and of the rest what the caller's seed decides, in sectors of 512 bytes.
//! * Names survive a crash in the order they were changed: some first part of the changes since the
//!   last `sync_dir`, as with a journaled directory.
//! * After a failed sync the data are lost to durability though still read, and a later sync does not
//!   bring them back: what Linux does, and why a failed sync is never retried.
//! * No clock and no randomness of its own: the same calls give the same disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// A small seeded generator of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, bound)`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimDisk`]. It fails after a crash.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    /// Counts crashes: files opened before one are stale.
    life: u64,
    space_bytes: Option<u64>,
    writes_left: Option<u64>,
    syncs_left: Option<u64>,
    steps_left: Option<u64>,
    steps: u64,
    syncs: u64,
    writes: u64,
    randoms: u64,
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Grow(usize),
}

#[derive(Debug)]
enum NameChange {
    Link(String, u64),
    Rename(String, String),
    Remove(String),
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Power is lost and comes back: unsynced writes, sector by sector, and unsynced names survive or
    /// not as `seed` decides. Open files are stale; planted faults are gone, but for the disk's size.
    pub fn crash(&self, seed: u64) {
        let rng = &mut SimRng::new(seed);
        let mut state = self.lock();
        let state = &mut *state;
        let survivors = rng.below(state.name_changes.len() as u64 + 1) as usize;
        for change in state.name_changes.drain(..).take(survivors) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        for inode in state.inodes.values_mut() {
            let percent = match rng.below(4) {
                0 => 0,
                1 => 100,
                _ => rng.below(101),
            };
            for change in std::mem::take(&mut inode.unsynced) {
                change.apply_torn(&mut inode.durable, rng, percent);
            }
            inode.seen = inode.durable.clone();
        }
        let linked: Vec<u64> = state.names.values().copied().collect();
        state.inodes.retain(|inode, _| linked.contains(inode));
        state.restart();
    }

    /// The process ends and starts again, power stays: everything written is seen. Open files are
    /// stale; planted faults are gone, but for the disk's size.
    pub fn restart(&self) {
        self.lock().restart();
    }

    /// The `n`-th write from now fails, 0 being the next; some of its bytes may have been written.
    pub fn fail_write(&self, n: u64) {
        self.lock().writes_left = Some(n);
    }

    /// The `n`-th sync of a file from now fails, 0 being the next.
    pub fn fail_sync(&self, n: u64) {
        self.lock().syncs_left = Some(n);
    }

    /// Power goes with the `n`-th changing call from now (write, sync, name): that one may have taken
    /// place or not, and every later one fails until [`SimDisk::crash`].
    pub fn fail_from(&self, n: u64) {
        self.lock().steps_left = Some(n + 1);
    }

    /// The disk has room for `bytes` in all files; `None` for no limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.lock().space_bytes = bytes;
    }

    /// How many changing calls there were.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// How many syncs of files succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many writes to files succeeded.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// The content of a file, as readers see it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.inodes.get(state.names.get(name)?).map(|inode| inode.seen.clone())
    }

    /// Replaces a file's content, durably: for tests that damage files.
    pub fn replace(&self, name: &str, content: Vec<u8>) {
        let mut state = self.lock();
        let inode = match state.names.get(name) {
            Some(inode) => *inode,
            None => state.create(name),
        };
        let content = Inode { seen: content.clone(), durable: content, unsynced: Vec::new() };
        state.inodes.insert(inode, content);
        state.sync_names();
    }

    /// Flips one bit of a file, on the medium itself. Nothing happens past its end.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let mut state = self.lock();
        let Some(inode) = state.names.get(name).copied() else { return };
        let Some(inode) = state.inodes.get_mut(&inode) else { return };
        for content in [&mut inode.seen, &mut inode.durable] {
            if let Some(byte) = content.get_mut(offset as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// A disk with the same files, all durable and no faults.
    pub fn fork(&self) -> Self {
        let fork = Self::new();
        let names: Vec<String> = self.lock().names.keys().cloned().collect();
        for name in names {
            if let Some(content) = self.content(&name) {
                fork.replace(&name, content);
            }
        }
        fork
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves the state whole: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn restart(&mut self) {
        self.life += 1;
        self.writes_left = None;
        self.syncs_left = None;
        self.steps_left = None;
    }

    /// Counts a changing call. An error means that power has gone; `Ok(false)` that it goes now.
    fn step(&mut self) -> io::Result<bool> {
        self.steps += 1;
        match &mut self.steps_left {
            None => Ok(true),
            Some(0) => Err(io::Error::other("the simulated machine has no power")),
            Some(left) => {
                *left -= 1;
                Ok(*left > 0)
            }
        }
    }

    fn create(&mut self, name: &str) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change_name(NameChange::Link(name.to_owned(), inode));
        inode
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.name_changes.clear();
        let linked: Vec<u64> = self.names.values().copied().collect();
        // A file may still be open without a name; nothing here reads such a file again.
        self.inodes.retain(|inode, _| linked.contains(inode));
    }

    fn inode(&mut self, file: &SimFile) -> io::Result<&mut Inode> {
        if file.life != self.life {
            return Err(io::Error::other("the file was opened before the simulated crash"));
        }
        self.inodes.get_mut(&file.inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn reserve(&mut self, file: &SimFile, end: usize) -> io::Result<()> {
        let used = self.inodes.values().map(|inode| inode.seen.len() as u64).sum::<u64>();
        let space = self.space_bytes;
        let grows = end.saturating_sub(self.inode(file)?.seen.len()) as u64;
        match space {
            Some(space) if grows > 0 && used + grows > space => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write(content, *offset, data),
            Self::Grow(bytes) => content.resize(content.len().max(*bytes), 0),
        }
    }

    fn apply_torn(&self, content: &mut Vec<u8>, rng: &mut SimRng, percent: u64) {
        match self {
            Self::Grow(_) if rng.chance(percent) => self.apply(content),
            Self::Grow(_) => {}
            Self::Write { offset, data } => {
                let mut at = 0;
                while at < data.len() {
                    let sector_end = (offset + at + 1).next_multiple_of(SECTOR) - offset;
                    let end = sector_end.min(data.len());
                    if rng.chance(percent) {
                        write(content, offset + at, &data[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the simulated machine lost power")
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.lock();
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { disk: self.clone(), inode, life: state.life })
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.lock();
        let powered = state.step()?;
        // Emptying a file is taken as giving it a new, empty body under the old name.
        let inode = state.create(name);
        let life = state.life;
        powered.then(|| SimFile { disk: self.clone(), inode, life }).ok_or_else(no_power)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let powered = state.step()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        powered.then_some(()).ok_or_else(no_power)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let powered = state.step()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Remove(name.to_owned()));
        powered.then_some(()).ok_or_else(no_power)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        if !state.step()? {
            return Err(no_power());
        }
        state.sync_names();
        Ok(())
    }

    /// Known beforehand, so that the same calls give the same bytes.
    fn random(&self) -> io::Result<u64> {
        let mut state = self.lock();
        state.randoms += 1;
        Ok(SimRng::new(state.randoms).next_u64())
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inode(self)?.seen.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let seen = &state.inode(self)?.seen;
        let start = offset as usize;
        let bytes = seen.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let powered = state.step()?;
        state.reserve(self, offset as usize + data.len())?;
        let fails = match &mut state.writes_left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let inode = state.inode(self)?;
        // A failing write gets half of its way.
        let data = if fails { &data[..data.len() / 2] } else { data };
        let change = Change::Write { offset: offset as usize, data: data.to_vec() };
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        if fails {
            return Err(io::Error::other("simulated write error"));
        }
        state.writes += 1;
        powered.then_some(()).ok_or_else(no_power)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let powered = state.step()?;
        state.reserve(self, bytes as usize)?;
        let inode = state.inode(self)?;
        let change = Change::Grow(bytes as usize);
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        powered.then_some(()).ok_or_else(no_power)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        if !state.step()? {
            return Err(no_power());
        }
        let fails = match &mut state.syncs_left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let inode = state.inode(self)?;
        let unsynced = std::mem::take(&mut inode.unsynced);
        if fails {
            return Err(io::Error::other("simulated sync error"));
        }
        for change in unsynced {
            change.apply(&mut inode.durable);
        }
        state.syncs += 1;
        Ok(())
    }
}
