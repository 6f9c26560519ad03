//! Random command streams on two states at once: one in memory with a large cache, one on disk with
//! hardly any cache, reopened and crashed now and then.
//!
//! What must hold after every entry: both gave the same outcomes and have the same meta row, the
//! incremental digest is the recomputed one, and the counters are what a recount gives. The streams
//! are seeded, so that a failure repeats; its seed and index are in the panic's message.

mod generator;
mod native;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proto::{MultiResult, Reply};
use state::apply::BIRTH;
use state::plugins::Build;
use state::view::Listing;
use state::znode::Owner;
use state::{
    APPLY_VERSION, Answer, Change, Fault, FjallStore, Hooks, MemoryStore, NoHooks, State,
    StoreOptions, View, Znode,
};

use generator::{Generator, Rng};
use native::Native;

const SEEDS: u64 = 6;
const ENTRIES: u64 = 200;
const LARGE_CACHE: usize = 64 << 20;
/// Less than one znode a shard, and a few: much is thrown out as soon as it may be.
const TINY_CACHES: [usize; 2] = [64 * 200, 64 * 700];

type Dump = Vec<(String, Arc<Znode>, Option<Bytes>)>;

/// The whole tree as a view shows it, through the same calls that serve clients.
fn dump(view: &View) -> Dump {
    let mut todo = vec!["/".to_owned()];
    let mut out = Dump::new();
    while let Some(path) = todo.pop() {
        let node = view.node(&path).expect("the store works").expect("children exist");
        let children = view.list(Listing::children(&path)).expect("the store works");
        assert_eq!(children.len(), node.children as usize, "children of {path}");
        let base = if path == "/" { "" } else { &path };
        todo.extend(children.iter().map(|name| format!("{base}/{name}")));
        let data = view.data(&path, &node).expect("the store works");
        out.push((path, node, data));
    }
    out
}

fn check_counts(view: &View, tree: &Dump, at: &str) {
    let ephemerals: Vec<_> = tree
        .iter()
        .filter_map(|(path, node, _)| match node.owner {
            Owner::Session(session) => Some((session, path.clone())),
            _ => None,
        })
        .collect();
    let bytes: usize =
        tree.iter().map(|(path, _, data)| path.len() + data.as_ref().map_or(0, Bytes::len)).sum();
    assert_eq!(view.counts.nodes, tree.len() as u64, "nodes {at}");
    assert_eq!(view.counts.bytes, bytes as u64, "bytes {at}");
    assert_eq!(view.counts.ephemerals, ephemerals.len() as u64, "ephemerals {at}");
    assert_eq!(view.counts.nodes, tree.len() as u64, "{at}");
    // The index of ephemerals holds exactly these, and none of a session that is gone.
    let mut indexed = 0;
    for (session, _) in view.sessions().expect("rows are sound") {
        for path in view.list(Listing::ephemerals(session)).expect("the store works") {
            assert!(ephemerals.contains(&(session, path.clone())), "{path} {at}");
            indexed += 1;
        }
    }
    assert_eq!(indexed, ephemerals.len(), "indexed ephemerals {at}");
}

fn on_disk(dir: &Path, seed: u64, hooks: Box<dyn Hooks>) -> State {
    let store = FjallStore::open(dir, &StoreOptions { cache_bytes: 1 << 20 }).expect("it opens");
    let state = State::open(Box::new(store), hooks, TINY_CACHES[seed as usize % 2]);
    state.expect("it opens").with_gather_bytes(GATHERINGS[seed as usize % 3])
}

/// How much is gathered before it is written: nothing, a few entries, all there is.
const GATHERINGS: [usize; 3] = [0, 2000, 1 << 20];

fn in_memory(store: MemoryStore, hooks: Box<dyn Hooks>) -> State {
    State::open(Box::new(store), hooks, LARGE_CACHE).expect("it opens")
}

/// What a quota that is built has counted is what there is.
fn check_quotas(view: &View, tree: &Dump, at: &str) -> u64 {
    let mut checked = 0;
    for (name, row) in view.plugins.rows() {
        if !name.starts_with("quota") || !row.is_evaluated() || row.build != Build::Done {
            continue;
        }
        let mut counted: BTreeMap<String, i64> = BTreeMap::new();
        for (path, _, data) in tree {
            let Some(rest) = path.strip_prefix("/tenants/") else { continue };
            let tenant = rest.split('/').next().expect("there is a first");
            *counted.entry(format!("n/{tenant}")).or_default() += 1;
            let bytes = data.as_ref().map_or(0, Bytes::len) as i64;
            *counted.entry(format!("b/{tenant}")).or_default() += bytes;
        }
        counted.retain(|_, count| *count != 0);
        let kept = view.kept(name, b"", 100).expect("the store works").into_iter();
        let number = |value: Bytes| i64::from_le_bytes(value[..].try_into().expect("a number"));
        let kept: BTreeMap<String, i64> = kept
            .map(|(key, value)| (String::from_utf8_lossy(&key).into_owned(), number(value)))
            .collect();
        assert_eq!(kept, counted, "{name} {at}");
        let held: usize = kept.keys().map(|key| key.len() + 8).sum();
        assert_eq!(view.counters[&row.id].store_bytes, held as u64, "{name} {at}");
        checked += 1;
    }
    checked
}

fn failed(answer: &Answer) -> bool {
    match answer {
        Answer::Reply(Ok(Reply::Multi(results))) => {
            results.iter().any(|r| matches!(r, MultiResult::Error(_)))
        }
        Answer::Reply(Err(_)) | Answer::Skipped | Answer::NoSession => true,
        _ => false,
    }
}

/// What came about in a run, to see that the streams reach what they are meant to reach.
#[derive(Default)]
struct Seen {
    done: u64,
    rejected: u64,
    multis: (u64, u64),
    closed: u64,
    crashes: u64,
    reopened: u64,
    old_views: u64,
    flushes: u64,
    /// Calls of plugins; quotas that were counted; waits because of this server; faults, quarantines.
    calls: u64,
    quotas: u64,
    waits: u64,
    faults: u64,
    quarantines: u64,
}

#[allow(clippy::disallowed_methods, reason = "what is gathered is written by another thread")]
fn run(seed: u64, mut generator: Generator, seen: &mut Seen) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let mut handle = MemoryStore::default();
    // Each has its own, so that one may fail where the other does not.
    let plugins = generator.plugins;
    let (of_memory, of_disk) = (Native::default(), Native::default());
    let hooks = move |native: &Native| -> Box<dyn Hooks> {
        if plugins { Box::new(native.clone()) } else { Box::new(NoHooks) }
    };
    let mut memory = in_memory(handle.clone(), hooks(&of_memory));
    let mut disk = on_disk(dir.path(), seed, hooks(&of_disk));
    let mut rng = Rng(seed ^ 0x5eed);
    // Every entry, with the digests that followed from it.
    let mut log: Vec<(Vec<u8>, u128, u128)> = Vec::new();
    let mut old: Option<(Arc<View>, Arc<View>, Dump)> = None;
    // What is being written on other threads.
    let mut writers: Vec<std::thread::JoinHandle<()>> = Vec::new();
    for step in 1..=ENTRIES {
        let index = BIRTH.0 + step;
        let term = 1 + step / 50;
        let at = format!("at index {index} of seed {seed}");
        let before = memory.view();
        let (entry, skipped) =
            if rng.one_in(20) { (Vec::new(), Vec::new()) } else { generator.entry(&before) };
        let applied = memory.apply(index, term, &entry).expect("it applies");
        if plugins && rng.one_in(3) {
            // This server fails, and applies nothing; then it goes on.
            of_disk.fails.store(true, Ordering::Relaxed);
            of_disk.is_cold.store(rng.one_in(3), Ordering::Relaxed);
            let meta = disk.meta().clone();
            match disk.apply(index, term, &entry) {
                Err(Fault::Waiting(_)) => {
                    assert_eq!(disk.meta(), &meta, "{at}");
                    of_disk.fails.store(false, Ordering::Relaxed);
                    of_disk.is_cold.store(false, Ordering::Relaxed);
                    seen.waits += 1;
                    assert_eq!(
                        disk.apply(index, term, &entry).expect("it applies"),
                        applied,
                        "{at}"
                    );
                }
                other => assert_eq!(other.expect("it applies"), applied, "{at}"),
            }
            of_disk.fails.store(false, Ordering::Relaxed);
            of_disk.is_cold.store(false, Ordering::Relaxed);
        } else {
            assert_eq!(disk.apply(index, term, &entry).expect("it applies"), applied, "{at}");
        }
        assert_eq!(disk.meta(), memory.meta(), "{at}");
        assert_eq!(memory.recomputed_digest().expect("it reads"), memory.meta().digest, "{at}");

        let mut zxid = before.zxid;
        assert_eq!(applied.outcomes.len(), skipped.len(), "{at}");
        for (outcome, skipped) in applied.outcomes.iter().zip(skipped) {
            assert_eq!(outcome.answer == Answer::Skipped, skipped, "{at}: {outcome:?}");
            // A fault of a plugin is shown, whatever becomes of what it was asked about.
            let is_shown = |change: &Change| matches!(change, Change::DataSet { path, .. } if path.starts_with("/zookeeper/plugins"));
            let kept = outcome.changes.iter().filter(|change| !is_shown(change)).count();
            assert!(!failed(&outcome.answer) || kept == 0, "{at}: {outcome:?}");
            assert!(outcome.zxid >= zxid, "{at}: {outcome:?}");
            zxid = outcome.zxid;
            seen.done += u64::from(!failed(&outcome.answer));
            seen.rejected += u64::from(matches!(outcome.answer, Answer::Reply(Err(_))));
            seen.closed += u64::from(outcome.answer == Answer::Done && !outcome.changes.is_empty());
            if let Answer::Reply(Ok(Reply::Multi(_))) = outcome.answer {
                seen.multis.0 += u64::from(failed(&outcome.answer));
                seen.multis.1 += u64::from(!failed(&outcome.answer));
            }
        }
        if rng.one_in(4) {
            writers.drain(..).for_each(|writer| writer.join().expect("it ends"));
        }
        if let Some(flush) = disk.take_flush(rng.one_in(8)).expect("the store works") {
            seen.flushes += 1;
            writers.push(std::thread::spawn(move || flush.run().expect("the store works")));
        }
        let tree = dump(&memory.view());
        check_counts(&memory.view(), &tree, &at);
        assert_eq!(dump(&disk.view()), tree, "{at}");
        seen.quotas += check_quotas(&memory.view(), &tree, &at);
        let faults = |view: &View| view.counters.values().map(|of| of.faults).sum::<u64>();
        seen.faults += faults(&memory.view()).saturating_sub(faults(&before));
        let quarantined = |view: &View| {
            view.plugins.rows().filter(|(_, row)| row.quarantine.is_some()).count() as u64
        };
        seen.quarantines += quarantined(&memory.view()).saturating_sub(quarantined(&before));
        assert_eq!(disk.view().counters, memory.view().counters, "{at}");
        log.push((entry, memory.meta().digest, memory.meta().history));

        if let Some((of_memory, of_disk, tree)) = &old
            && rng.one_in(2)
        {
            assert_eq!(&dump(of_memory), tree, "an old view {at}");
            assert_eq!(&dump(of_disk), tree, "an old view on disk {at}");
            seen.old_views += 1;
            // What an old view read must not hide what is new.
            assert_eq!(dump(&disk.view()), dump(&memory.view()), "after an old view {at}");
            if rng.one_in(6) {
                old = None;
            }
        } else if old.is_none() && rng.one_in(4) {
            old = Some((memory.view(), disk.view(), tree));
        }
        if rng.one_in(25) {
            // A crash of the one in memory: the entries since its last sync are applied again.
            drop(before);
            old = None;
            handle = handle.crashed();
            memory = in_memory(handle.clone(), hooks(&of_memory));
            let lost = log.len() as u64 - (memory.meta().applied - BIRTH.0);
            for (i, (entry, digest, history)) in
                log.iter().enumerate().skip(log.len() - lost as usize)
            {
                let index = BIRTH.0 + 1 + i as u64;
                let term = 1 + (i as u64 + 1) / 50;
                memory.apply(index, term, entry).expect("it applies");
                let meta = memory.meta();
                assert_eq!((meta.digest, meta.history), (*digest, *history), "replay {at}");
            }
            assert_eq!(memory.meta(), disk.meta(), "after a crash {at}");
            seen.crashes += u64::from(lost > 0);
        } else if rng.one_in(10) {
            memory.sync().expect("it syncs");
        }
        if rng.one_in(30) {
            old = None;
            disk.sync().expect("it syncs");
            writers.drain(..).for_each(|writer| writer.join().expect("it ends"));
            drop(disk);
            disk = on_disk(dir.path(), seed, hooks(&of_disk));
            assert_eq!(disk.meta(), memory.meta(), "reopened {at}");
            assert_eq!(disk.recomputed_digest().expect("it reads"), disk.meta().digest, "{at}");
            seen.reopened += 1;
        }
    }
    assert_eq!(disk.recomputed_digest().expect("it reads"), disk.meta().digest, "seed {seed}");
    seen.calls += of_memory.calls.load(Ordering::Relaxed);
}

#[test]
fn two_states_never_differ() {
    let mut seen = Seen::default();
    (0..SEEDS).for_each(|seed| run(seed, Generator::new(seed), &mut seen));
    // Streams in which everything fails would prove nothing.
    assert!(seen.done > 800, "{} commands had an effect", seen.done);
    assert!(seen.rejected > 300, "{} were rejected", seen.rejected);
    assert!(seen.multis.0 > 30 && seen.multis.1 > 20, "failed, done: {:?}", seen.multis);
    assert!(seen.closed > 20, "{} sessions closed or znodes reaped", seen.closed);
    assert!(seen.flushes > 100, "{} flushes beside what is applied", seen.flushes);
    assert!(seen.crashes > 5 && seen.reopened > 5, "{} {}", seen.crashes, seen.reopened);
    assert!(seen.old_views > 20, "{} old views", seen.old_views);
}

#[test]
fn two_states_with_plugins_never_differ() {
    let mut seen = Seen::default();
    (0..3 * SEEDS).for_each(|seed| run(seed, Generator::with_plugins(seed), &mut seen));
    assert!(seen.done > 800 && seen.rejected > 300, "{} {}", seen.done, seen.rejected);
    println!(
        "calls {} quotas {} waits {} faults {} quarantines {}",
        seen.calls, seen.quotas, seen.waits, seen.faults, seen.quarantines
    );
    assert!(seen.calls > 1000, "{} calls", seen.calls);
    assert!(seen.quotas > 50, "{} quotas that were counted", seen.quotas);
    assert!(seen.waits > 20, "{} waits", seen.waits);
    assert!(seen.faults > 20 && seen.quarantines > 0, "{} {}", seen.faults, seen.quarantines);
    assert!(seen.crashes > 5 && seen.reopened > 5, "{} {}", seen.crashes, seen.reopened);
}

/// Entries, each with the digests that follow it: what a release's program made of them. A release adds
/// its own, by `RECORD_CORPUS=1`, and leaves the earlier ones as they are. What the plugins of
/// `tests/native` do is part of it.
fn corpus() -> PathBuf {
    let name = format!("tests/corpus/apply-{APPLY_VERSION}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn record(path: &Path) {
    let native = Native::default();
    let mut state = in_memory(MemoryStore::default(), Box::new(native.clone()));
    let mut generator = Generator::with_plugins(77);
    let mut out = Vec::new();
    for index in BIRTH.0 + 1..BIRTH.0 + 300 {
        let (entry, _) = generator.entry(&state.view());
        state.apply(index, 1 + index / 50, &entry).expect("it applies");
        out.extend_from_slice(&(entry.len() as u32).to_be_bytes());
        out.extend_from_slice(&entry);
        out.extend_from_slice(&state.meta().digest.to_be_bytes());
        out.extend_from_slice(&state.meta().history.to_be_bytes());
    }
    let calls = native.calls.load(Ordering::Relaxed);
    assert!(calls > 100, "plugins were called {calls} times");
    std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it is made");
    std::fs::write(path, out).expect("it is written");
}

#[test]
fn what_earlier_programs_wrote_is_applied_as_they_did() {
    let path = corpus();
    if std::env::var_os("RECORD_CORPUS").is_some() {
        record(&path);
    }
    let directory = std::fs::read_dir(path.parent().expect("it is in a directory"));
    for file in directory.expect("there is a corpus").map(|file| file.expect("it is listed").path())
    {
        let hooks = Box::new(Native::default());
        let (mut state, mut index) = (in_memory(MemoryStore::default(), hooks), BIRTH.0);
        let bytes = std::fs::read(&file).expect("it reads");
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (entry, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            let (digest, after) = after.split_first_chunk::<16>().expect("a digest follows");
            let (history, after) = after.split_first_chunk::<16>().expect("another follows");
            (rest, index) = (after, index + 1);
            state.apply(index, 1 + index / 50, entry).expect("it applies");
            let expected = (u128::from_be_bytes(*digest), u128::from_be_bytes(*history));
            let meta = state.meta();
            assert!(
                (meta.digest, meta.history) == expected,
                "entry {index} of {}: what it does has changed; a change of behaviour needs a new \
                 APPLY_VERSION",
                file.display()
            );
        }
        assert!(index > BIRTH.0 + 100, "{} entries in {}", index - BIRTH.0, file.display());
    }
}
