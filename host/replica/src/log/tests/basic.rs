//! The log on a disk that does not fail.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn a_new_log_is_empty_and_begins_after_its_birth() {
    let disk = SimDisk::new();
    assert_eq!(Log::open(disk.clone(), options()).unwrap_err(), LogError::Missing);
    drop(create(&disk));
    let (log, recovered) = open(&disk);
    assert_eq!((log.first_index(), log.last_index()), (2, 1));
    assert_eq!(log.hard_state(), HardState { term: 1, vote: 0, commit: 1 });
    assert_eq!((log.term(1), log.term(0), log.term(2)), (Some(1), None, None));
    assert_eq!(log.entries(2, 2, 0), Ok(vec![]));
    assert_eq!(recovered.torn, None);
    let found = LogError::Exists { found: "0000000001.segment".into() };
    assert_eq!(Log::create(disk, options(), 7, 1).unwrap_err(), found);
}

#[test]
fn what_was_synced_is_there_again() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    let hard_state = HardState { term: 3, vote: 2, commit: 1 };
    log.set_hard_state(hard_state);
    log.append(&entries(2, 40, 3, 300));
    assert_eq!(all(&log), entries(2, 40, 3, 300), "readable before the sync");
    log.sync().unwrap();
    assert_eq!(disk.list().unwrap()[0], "0000000002.segment", "the first was too short for it");
    for index in 41..60 {
        log.append(&[entry(index, 3, 200)]);
        log.sync().unwrap();
        assert_eq!(log.last_index(), index);
    }
    assert!(log.stats().segments > 2, "{:?}", log.stats());
    assert!(log.stats().memory_bytes <= 2048, "{:?}", log.stats());
    let expected = all(&log);
    drop(log);
    for round in 0..3 {
        let (log, recovered) = open(&disk);
        assert_eq!(all(&log), expected, "round {round}");
        assert_eq!(log.hard_state(), hard_state);
        assert_eq!((recovered.torn, recovered.leftovers), (None, 0));
        assert_eq!(recovered.records, 1 + 58);
        assert_eq!(log.term(59), Some(3));
    }
}

#[test]
fn a_sync_is_one_write_and_one_sync_and_the_mark() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    let (steps, syncs) = (disk.steps(), disk.syncs());
    log.append(&entries(2, 6, 1, 100));
    log.set_hard_state(HardState { term: 2, vote: 1, commit: 1 });
    assert_eq!(disk.steps(), steps, "buffering touches nothing");
    log.sync().unwrap();
    assert_eq!((disk.steps() - steps, disk.syncs() - syncs), (3, 1));
    log.sync().unwrap();
    assert_eq!(disk.steps() - steps, 3, "nothing to do, nothing done");
}

#[test]
fn reads_end_at_their_limit_but_give_one_entry() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 30, 1, 500));
    log.sync().unwrap();
    assert_eq!(log.entries(2, 31, 0).unwrap(), entries(2, 2, 1, 500));
    assert_eq!(log.entries(28, 31, 0).unwrap(), entries(28, 28, 1, 500));
    assert_eq!(log.entries(5, 31, 2000).unwrap(), entries(5, 7, 1, 500));
    assert_eq!(log.entries(20, 25, u64::MAX).unwrap(), entries(20, 24, 1, 500));
    let error = LogError::Unavailable { index: 31, last: 30 };
    assert_eq!(log.entries(2, 32, 0), Err(error));
}

#[test]
fn a_conflicting_tail_is_cut() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 20, 1, 100));
    log.sync().unwrap();
    log.append(&entries(10, 12, 2, 100));
    log.append(&entries(12, 14, 3, 100));
    let mut expected = entries(2, 9, 1, 100);
    expected.extend(entries(10, 11, 2, 100));
    expected.extend(entries(12, 14, 3, 100));
    assert_eq!(all(&log), expected);
    log.sync().unwrap();
    assert_eq!(all(&log), expected);
    drop(log);
    let (log, _) = open(&disk);
    assert_eq!(all(&log), expected);
    assert_eq!((log.term(9), log.term(10), log.term(14)), (Some(1), Some(2), Some(3)));
}

#[test]
#[should_panic(expected = "would cut the log, committed up to 5")]
fn what_is_committed_is_never_cut() {
    let mut log = create(&SimDisk::new());
    log.append(&entries(2, 9, 1, 10));
    log.set_hard_state(HardState { term: 1, vote: 0, commit: 5 });
    log.append(&entries(5, 5, 2, 10));
}

#[test]
#[should_panic(expected = "leaves a gap")]
fn a_gap_is_refused() {
    create(&SimDisk::new()).append(&entries(3, 3, 1, 10));
}

#[test]
fn trimming_frees_whole_segments_and_uses_them_again() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    let mut sizes = Vec::new();
    for index in 2..600 {
        log.append(&[entry(index, 1, 300)]);
        log.set_hard_state(HardState { term: 1, vote: 0, commit: index });
        log.sync().unwrap();
        if index > 20 {
            log.trim(index - 15).unwrap();
        }
        sizes.push(log.stats().disk_bytes);
        assert_eq!(log.last_index(), index);
    }
    assert!(sizes.iter().all(|bytes| *bytes <= 6 * 4096), "the log stays small: {sizes:?}");
    let created = disk.list().unwrap().len();
    assert!(created <= 7, "{:?}", disk.list());
    let error = LogError::Compacted { index: 500, first: 585 };
    assert_eq!(log.entries(500, 590, 0), Err(error));
    assert_eq!(all(&log), entries(585, 599, 1, 300));
    log.sync().unwrap();
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!((log.first_index(), log.term(584)), (585, Some(1)));
    assert_eq!(all(&log), entries(585, 599, 1, 300));
    assert_eq!(recovered.torn, None, "an earlier life of a file is not a torn tail");
}

#[test]
fn everything_can_be_trimmed() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 60, 4, 300));
    log.set_hard_state(HardState { term: 4, vote: 3, commit: 60 });
    log.sync().unwrap();
    log.append(&entries(61, 62, 4, 300));
    log.trim(62).unwrap();
    drop(log);
    let (log, _) = open(&disk);
    assert_eq!((log.first_index(), log.last_index(), log.term(62)), (63, 62, Some(4)));
    assert_eq!(log.hard_state().vote, 3);
    // The caller had not raised the commit index; what is trimmed had been committed.
    assert_eq!(log.hard_state().commit, 62);
}

#[test]
fn an_entry_longer_than_a_segment_gets_a_longer_segment() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&[entry(2, 1, 100), entry(3, 1, 50_000)]);
    log.sync().unwrap();
    log.append(&entries(4, 6, 1, 100));
    log.sync().unwrap();
    let mut expected = vec![entry(2, 1, 100), entry(3, 1, 50_000)];
    expected.extend(entries(4, 6, 1, 100));
    assert_eq!(all(&log), expected);
    drop(log);
    let (mut log, _) = open(&disk);
    assert_eq!(all(&log), expected);
    log.set_hard_state(HardState { term: 1, vote: 0, commit: 6 });
    log.trim(3).unwrap();
    assert!(log.bytes() < 4096, "{} bytes", log.bytes());
    assert!(log.stats().disk_bytes < 50_000, "the long one is removed: {:?}", log.stats());
}

#[test]
fn a_snapshot_restarts_the_log_and_its_marker_stays() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 30, 1, 300));
    log.sync().unwrap();
    let at = Position { index: 1000, term: 5 };
    log.install(at.index, at.term, b"generation-7").unwrap();
    assert_eq!(log.hard_state().commit, 1000, "a snapshot holds what is committed");
    log.set_hard_state(HardState { term: 5, vote: 0, commit: 1000 });
    log.append(&entries(1001, 1003, 5, 300));
    log.sync().unwrap();
    assert_eq!(log.stats().segments, 1, "nothing of the old log is left");
    for index in 1004..1100 {
        log.append(&[entry(index, 5, 300)]);
        log.set_hard_state(HardState { term: 5, vote: 0, commit: index });
        log.sync().unwrap();
        log.trim(index - 3).unwrap();
    }
    log.sync().unwrap();
    assert!(log.stats().segments <= 2, "the marker moves on: {:?}", log.stats());
    drop(log);
    let (log, _) = open(&disk);
    let marker = log.marker().unwrap();
    assert_eq!((marker.at, &marker.bytes[..]), (at, &b"generation-7"[..]));
    assert_eq!(all(&log), entries(1097, 1099, 5, 300));
}

#[test]
fn a_marker_is_replaced_and_the_entries_stay() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 30, 1, 300));
    let at = Position { index: 20, term: 1 };
    log.set_marker(at, b"generation-1");
    log.append(&entries(31, 60, 1, 300));
    log.sync().unwrap();
    log.set_marker(Position { index: 40, term: 1 }, b"generation-2");
    log.sync().unwrap();
    drop(log);
    let (log, _) = open(&disk);
    let marker = log.marker().unwrap();
    assert_eq!((marker.at.index, &marker.bytes[..]), (40, &b"generation-2"[..]));
    assert_eq!(all(&log), entries(2, 60, 1, 300));
}

#[test]
fn a_state_must_fit_its_log() {
    let mut log = create(&SimDisk::new());
    log.append(&entries(2, 9, 2, 10));
    assert_eq!(log.reconcile(Position { index: 6, term: 2 }), Ok(()));
    assert_eq!(log.hard_state().commit, 6, "what is applied had been committed");
    for (index, term) in [(10, 2), (5, 3), (0, 1)] {
        let error = log.reconcile(Position { index, term }).unwrap_err();
        let LogError::Mismatch(mismatch) = error else { panic!("{error}") };
        assert_eq!((mismatch.applied_index, mismatch.last_index), (index, 9));
    }
}

#[test]
fn a_real_directory_works_like_the_simulated_one() {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("vivarium-log-{}-{count}", std::process::id()));
    let real = || RealDisk::new(&path).unwrap();
    assert_eq!(Log::open(real(), options()).unwrap_err(), LogError::Missing);
    let mut log = Log::create(real(), options(), BIRTH.index, BIRTH.term).unwrap();
    for index in 2..200 {
        log.append(&[entry(index, 1, 200)]);
        log.set_hard_state(HardState { term: 1, vote: 1, commit: index });
        log.sync().unwrap();
        if index % 20 == 0 {
            log.trim(index - 10).unwrap();
        }
    }
    drop(log);
    let (log, recovered) = Log::open(real(), options()).unwrap();
    assert_eq!(all(&log), entries(171, 199, 1, 200));
    assert_eq!(recovered.torn, None);
    assert!(log.stats().spares > 0);
    drop(log);
    let name = "0000000001.segment";
    real().create(name).unwrap().write_at(0, b"not a segment").unwrap();
    let (_, recovered) = Log::open(real(), options()).unwrap();
    assert_eq!(recovered.leftovers, 1, "a stray old file is no part of the log");
    std::fs::remove_dir_all(&path).unwrap();
}
