//! Power losses that tear the store's journal, on the real store: whatever of the part that was not
//! synced is missing, the store opens with a prefix of what was applied, at least what was synced,
//! and applying the rest of the log again gives the same state.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use state::apply::BIRTH;
use state::command::CreateKind;
use state::{
    Batch, Command, FjallStore, Group, NoHooks, Op, Settings, State, StoreOptions, TornTail,
};

const ENTRIES: u64 = 160;
/// After how many of them the store is synced for the last time.
const SYNCED: u64 = 70;
const PAGE: usize = 4096;
/// As long as the store makes a journal in advance.
const JOURNAL_BYTES: u64 = 64 << 20;

fn random(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % bound
}

/// The data does not compress, so that some of it fills whole pages of the journal.
fn write(seed: &mut u64, path: String, bytes: usize, exists: bool) -> Op {
    let data: Vec<u8> = (0..bytes).map(|_| random(seed, 256) as u8).collect();
    let data = Some(Bytes::from(data));
    if exists {
        return Op::SetData { path, data, version: -1 };
    }
    let acl = vec![(31, "world".to_owned(), "anyone".to_owned())];
    Op::Create { kind: CreateKind::Create, path, data, acl, flags: 0, ttl_ms: -1 }
}

/// Entries of one to eight writes, from a few bytes to several pages each.
fn entries() -> Vec<Vec<u8>> {
    let settings = Settings::default();
    let first = vec![
        Command::Origin { replaces: 0 },
        Command::Bootstrap { cluster_id: 7, settings },
        Command::OpenSession { session: 1, password: [1; 16], timeout_ms: 9000 },
    ];
    let (mut seed, mut sequence) = (5, 0);
    (0..ENTRIES)
        .map(|i| {
            let commands = match i {
                0 => first.clone(),
                _ => (0..1 + random(&mut seed, 8))
                    .map(|_| {
                        let key = random(&mut seed, 60);
                        let bytes = [3, 80, 900, 3000, 15_000][random(&mut seed, 5)];
                        let exists = random(&mut seed, 2) == 0;
                        let op = write(&mut seed, format!("/k{key}"), bytes, exists);
                        Command::Write {
                            session: 1,
                            generation: 1,
                            is_local: false,
                            identities: 0,
                            op,
                        }
                    })
                    .collect(),
            };
            let group = Group {
                origin: (1, 1),
                first: sequence + 1,
                identities: vec![vec![("ip".to_owned(), "127.0.0.1".to_owned())]],
                commands,
            };
            sequence += group.commands.len() as u64;
            let batch = Batch {
                time_ms: 1_700_000_000_000 + i as i64,
                groups: vec![group],
                ..Batch::default()
            };
            batch.encode()
        })
        .collect()
}

fn open(dir: &Path) -> (State, Option<TornTail>) {
    let options = StoreOptions { cache_bytes: 1 << 20 };
    let store = FjallStore::open(&dir.join("state"), &options).expect("it opens");
    let torn = store.torn_tail().cloned();
    let state = State::open(Box::new(store), Box::new(NoHooks), 1 << 20).expect("it opens");
    // One batch in the journal for each entry.
    (state.with_gather_bytes(0), torn)
}

fn apply(state: &mut State, entries: &[Vec<u8>], upto: u64) {
    let done = state.meta().applied - BIRTH.0;
    for (i, entry) in (1..).zip(entries).skip(done as usize).take((upto - done) as usize) {
        state.apply(BIRTH.0 + i, 1, entry).expect("it applies");
    }
}

type Files = Vec<(PathBuf, Vec<u8>)>;

/// Every file below `dir`, by its relative path; zeros at the end of a journal are left out.
fn files(dir: &Path) -> Files {
    let mut todo = vec![dir.to_owned()];
    let mut out = Files::new();
    while let Some(here) = todo.pop() {
        for entry in fs::read_dir(&here).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).expect("a file");
            if is_journal(&path) {
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
            }
            out.push((path.strip_prefix(dir).expect("below it").to_owned(), bytes));
        }
    }
    out
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

fn journal(files: &mut Files) -> &mut Vec<u8> {
    let mut journals = files.iter_mut().filter(|(path, _)| is_journal(path));
    let (Some((_, bytes)), None) = (journals.next(), journals.next()) else {
        panic!("expected one journal");
    };
    bytes
}

fn restore(dir: &Path, files: &Files, allocated: bool) {
    for (path, bytes) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        if allocated && is_journal(&path) {
            let file = fs::OpenOptions::new().write(true).open(&path).expect("a file");
            file.set_len(JOURNAL_BYTES).expect("it grows");
        }
    }
}

/// A store that was crashed: its files, where the synced part of its journal ends, and the entries
/// with the state after the last.
struct Crashed {
    files: Files,
    synced: usize,
    entries: Vec<Vec<u8>>,
    meta: state::apply::Meta,
}

impl Crashed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let entries = entries();
        let (mut state, torn) = open(dir.path());
        assert_eq!(torn, None);
        apply(&mut state, &entries, SYNCED);
        state.sync().expect("it syncs");
        let synced = journal(&mut files(dir.path())).len();
        apply(&mut state, &entries, ENTRIES);
        // So that all of it is in the file; which of its pages are on the disk is up to the tests.
        state.sync().expect("it syncs");
        Self { files: files(dir.path()), synced, entries, meta: state.meta().clone() }
    }

    /// Opens the store with its journal changed by `tear`, and applies the rest.
    fn reopen(&self, allocated: bool, tear: impl FnOnce(&mut Vec<u8>)) -> (u64, Option<TornTail>) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = self.files.clone();
        tear(journal(&mut files));
        restore(dir.path(), &files, allocated);
        let (mut state, torn) = open(dir.path());
        let applied = state.meta().applied - BIRTH.0;
        assert!((SYNCED..=ENTRIES).contains(&applied), "what was synced is there: {applied}");
        assert_eq!(state.recomputed_digest(), Ok(state.meta().digest));
        if let Some(kept) = torn.as_ref().and_then(|torn| torn.kept.as_ref()) {
            let torn = torn.as_ref().expect("it is there");
            let (from, count) = (torn.whole_bytes as usize, torn.torn_bytes as usize);
            let copy = fs::read(kept).expect("a copy was kept");
            assert_eq!(copy, journal(&mut files)[from..from + count]);
        }
        apply(&mut state, &self.entries, ENTRIES);
        assert_eq!(state.meta(), &self.meta);
        assert_eq!(state.recomputed_digest(), Ok(self.meta.digest));
        state.sync().expect("it syncs");
        drop(state);
        let (state, again) = open(dir.path());
        assert_eq!((state.meta(), again), (&self.meta, None), "opened once more");
        (applied, torn)
    }
}

#[test]
fn a_whole_journal_is_left_alone() {
    let crashed = Crashed::new();
    for allocated in [true, false] {
        let (applied, torn) = crashed.reopen(allocated, |_| {});
        assert_eq!((applied, torn), (ENTRIES, None));
    }
}

#[test]
fn a_journal_cut_anywhere_opens_and_the_log_gives_the_rest() {
    let crashed = Crashed::new();
    let whole = journal(&mut crashed.files.clone()).len();
    let mut seed = 11;
    let mut lengths: Vec<_> = (0..40).map(|_| random(&mut seed, whole - crashed.synced)).collect();
    lengths.extend((0..20).chain([whole - crashed.synced - 1]));
    let mut torn_count = 0;
    for (case, length) in lengths.into_iter().enumerate() {
        let length = crashed.synced + length;
        let (applied, torn) = crashed.reopen(case % 2 == 0, |journal| journal.truncate(length));
        assert!(applied < ENTRIES, "cut at {length}");
        torn_count += usize::from(torn.is_some());
    }
    assert!(torn_count > 40, "{torn_count} cuts in the middle of a batch");
}

#[test]
fn any_pages_of_the_tail_may_be_missing() {
    let crashed = Crashed::new();
    let (mut kept, mut dropped) = (0, 0);
    for seed in 0..80 {
        let mut random_state = seed;
        let fill = if seed % 4 == 0 { 0xaa } else { 0 };
        let few = 1 + random(&mut random_state, 12);
        let (_, torn) = crashed.reopen(seed % 2 == 0, |journal| {
            let pages = crashed.synced / PAGE..journal.len().div_ceil(PAGE);
            for page in pages {
                if random(&mut random_state, few) > 0 {
                    continue;
                }
                let from = (page * PAGE).max(crashed.synced);
                let to = ((page + 1) * PAGE).min(journal.len());
                journal[from..to].fill(fill);
            }
        });
        match torn {
            Some(TornTail { kept: Some(_), .. }) => kept += 1,
            Some(_) => dropped += 1,
            None => {}
        }
    }
    assert!(kept > 10 && dropped > 10, "{kept} refused by the store and cut, {dropped} dropped");
}

#[test]
fn a_store_in_use_is_not_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut state, _) = open(dir.path());
    state.sync().expect("it syncs");
    let before = files(dir.path());
    let again = FjallStore::open(&dir.path().join("state"), &StoreOptions::default());
    assert_eq!(again.err(), Some(state::Fault::InUse));
    assert_eq!(files(dir.path()), before);
}
