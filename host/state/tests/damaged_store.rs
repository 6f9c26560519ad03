//! Damage on purpose to every kind of file of the store on disk, cut short and with a flipped bit: what
//! is read then is what was written up to some batch, or it is found to be damaged.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use state::keys::Keyspace;
use state::store::Batch;
use state::{Fault, FjallStore, Store, StoreOptions};

const BATCHES: u64 = 900;
const BATCHES_PER_TRIAL: u64 = 40;
const APPLIED: &[u8] = b"applied";
const TRIALS: usize = 60;

fn random(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % bound
}

type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

/// The rows that a batch changes; the last one says which batch it is.
fn batch(number: u64) -> Vec<(Keyspace, Vec<u8>, Option<Vec<u8>>)> {
    let mut seed = number;
    let mut rows = Vec::new();
    for _ in 0..30 {
        let key = format!("/k{}", random(&mut seed, 4000)).into_bytes();
        let bytes = [30, 900][random(&mut seed, 2)];
        let value: Vec<u8> = (0..bytes).map(|_| random(&mut seed, 256) as u8).collect();
        rows.push((Keyspace::Nodes, key, (random(&mut seed, 5) != 0).then_some(value)));
    }
    let value: Vec<u8> = (0..15_000).map(|_| random(&mut seed, 256) as u8).collect();
    rows.push((Keyspace::Data, format!("/d{}", random(&mut seed, 500)).into_bytes(), Some(value)));
    rows.push((Keyspace::Meta, APPLIED.to_vec(), Some(number.to_be_bytes().to_vec())));
    rows
}

fn model(upto: u64) -> Rows {
    let mut rows = Rows::new();
    for (keyspace, key, value) in (1..=upto).flat_map(batch) {
        match value {
            Some(value) => rows.insert((keyspace as usize, key), value),
            None => rows.remove(&(keyspace as usize, key)),
        };
    }
    rows
}

fn write(store: &FjallStore, numbers: std::ops::RangeInclusive<u64>) -> Result<(), Fault> {
    for number in numbers {
        let put = &mut |out: &mut dyn Batch| {
            for (keyspace, key, value) in batch(number) {
                out.put(keyspace, &key, value.as_deref());
            }
        };
        store.commit(put)?;
    }
    store.sync()
}

fn open(dir: &Path) -> Result<FjallStore, Fault> {
    FjallStore::open(dir, &StoreOptions { cache_bytes: 1 << 20 })
}

/// All rows, and which batch they say they are of.
fn read(store: &FjallStore) -> Result<(Rows, u64), Fault> {
    let view = store.view();
    let mut rows = Rows::new();
    for keyspace in Keyspace::ALL {
        for (key, value) in view.range(keyspace, &[], &[0xff; 8], usize::MAX)? {
            rows.insert((keyspace as usize, key.to_vec()), value.to_vec());
        }
    }
    let applied = view.get(Keyspace::Meta, APPLIED)?;
    let applied = applied.and_then(|row| row.first_chunk().map(|row| u64::from_be_bytes(*row)));
    Ok((rows, applied.unwrap_or(0)))
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &there);
        } else {
            fs::copy(&path, &there).expect("a copy");
        }
    }
}

/// The kind of a file, for the count.
fn kind(path: &Path, root: &Path) -> String {
    let name = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Where what was written in a file ends: a journal is as long as the store made it in advance.
fn written(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("a file");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// What becomes of a damaged store: it is opened, read, written to, and read again.
fn outcome(dir: &Path) -> Result<&'static str, Fault> {
    let store = open(dir)?;
    let (rows, applied) = read(&store)?;
    assert!(rows == model(applied), "the rows are not those of batch {applied}");
    let upto = applied + BATCHES_PER_TRIAL;
    write(&store, applied + 1..=upto)?;
    let (rows, now) = read(&store)?;
    assert!(now == upto && rows == model(upto), "the rows are not those of batch {upto}");
    Ok(if applied == BATCHES { "whole" } else { "a first part" })
}

#[test]
fn damage_is_found_whichever_file_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = dir.path().join("whole");
    let store = open(&whole).expect("it opens");
    write(&store, 1..=BATCHES).expect("it is written");
    drop(store);
    let mut all = Vec::new();
    files(&whole, &mut all);
    all.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
    all.sort();
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in all {
        kinds.entry(kind(&path, &whole)).or_default().push(path);
    }
    let mut seed = 1;
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for trial in 0..TRIALS {
        let of_kind = kinds.iter().nth(trial % kinds.len()).expect("there is one");
        let file = &of_kind.1[random(&mut seed, of_kind.1.len())];
        let there = dir.path().join("damaged-one");
        copy(&whole, &there);
        let damaged = there.join(file.strip_prefix(&whole).expect("below it"));
        let bytes = written(&damaged);
        let what = match random(&mut seed, 4) {
            0 => {
                fs::remove_file(&damaged).expect("it goes");
                "removed".to_owned()
            }
            1 => {
                let left = random(&mut seed, bytes.max(1) as usize) as u64;
                let out = fs::OpenOptions::new().write(true).open(&damaged).expect("it opens");
                out.set_len(left).expect("it is cut");
                format!("cut to {left} of {bytes}")
            }
            _ => {
                let (at, bit) =
                    (random(&mut seed, bytes.max(1) as usize) as u64, random(&mut seed, 8));
                let out = fs::OpenOptions::new().read(true).write(true).open(&damaged);
                let (out, mut byte) = (out.expect("it opens"), [0]);
                if out.read_exact_at(&mut byte, at).is_ok() {
                    out.write_all_at(&[byte[0] ^ 1 << bit], at).expect("it is flipped");
                }
                format!("bit {bit} of byte {at} of {bytes} flipped")
            }
        };
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| outcome(&there)));
        let result = match result {
            Ok(Ok(fine)) => fine.to_owned(),
            Ok(Err(Fault::Damaged { .. })) => "found".to_owned(),
            Ok(Err(other)) => format!("WRONG {other}"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                format!("PANIC {}", text.unwrap_or_default())
            }
        };
        if result.starts_with("WRONG") || result.starts_with("PANIC") {
            wrong.push(format!("{} {what}: {result}", of_kind.0));
        }
        *counts.entry((of_kind.0.clone(), result)).or_default() += 1;
        fs::remove_dir_all(&there).expect("it goes");
    }
    println!("{counts:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_keyspace_that_consists_of_other_tables_than_it_says_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let there = dir.path().join("state");
    write(&open(&there).expect("it opens"), 1..=4).expect("it is written");
    let keyspace = fs::read_dir(there.join("keyspaces")).expect("it has keyspaces").next();
    let current = keyspace.expect("there is one").expect("an entry").path().join("current");
    let id = fs::read(&current).expect("it is there");
    let version = current.with_file_name(format!("v{}", id[0]));
    let whole = fs::read(&version).expect("it is there");
    for at in (0..whole.len()).step_by(5) {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        fs::write(&version, &changed).expect("it is written");
        let opened = open(&there).map(drop);
        assert!(matches!(opened, Err(Fault::Damaged { .. })), "byte {at}: {opened:?}");
    }
    fs::write(&version, &whole).expect("it is written");
    fs::write(&current, &id[..20]).expect("it is cut");
    assert!(matches!(open(&there).map(drop), Err(Fault::Damaged { .. })));
    fs::write(&current, &id).expect("it is written");
    assert_eq!(open(&there).map(drop), Ok(()));
}
