//! A disk that refuses: the log is broken for good, and opening it again finds what is sure.

use super::*;

#[test]
fn a_failed_sync_breaks_the_log_and_is_not_retried() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 3, 1, 100));
    log.sync().unwrap();
    log.append(&entries(4, 4, 1, 100));
    disk.fail_sync(0);
    let broken = log.sync().unwrap_err();
    let LogError::Broken(Broken { what, .. }) = &broken else { panic!("{broken}") };
    assert_eq!(what, "syncing 0000000001.segment");
    let steps = disk.steps();
    disk.restart();
    assert_eq!(log.sync().unwrap_err(), broken);
    log.append(&entries(5, 5, 1, 100));
    assert_eq!(log.sync().unwrap_err(), broken);
    assert_eq!(log.entries(2, 3, 0), Err(broken.clone()));
    assert_eq!(log.trim(2).unwrap_err(), broken);
    assert_eq!(log.install(9, 1, b"").unwrap_err(), broken);
    assert_eq!(disk.steps(), steps, "a broken log leaves the disk alone");
    drop(log);

    // The entry is still in the page cache. Once opening has reported it, it must survive, although
    // the system believes that it is clean.
    let (log, _) = open(&disk);
    assert_eq!(all(&log), entries(2, 4, 1, 100));
    drop(log);
    disk.crash(1);
    assert_eq!(all(&open(&disk).0), entries(2, 4, 1, 100));
}

#[test]
fn a_failed_write_breaks_the_log() {
    for nth in 0..2 {
        let disk = SimDisk::new();
        let mut log = create(&disk);
        log.append(&entries(2, 3, 1, 100));
        log.sync().unwrap();
        log.append(&entries(4, 5, 1, 400));
        disk.fail_write(nth);
        let broken = log.sync().unwrap_err();
        assert!(broken.to_string().contains("simulated write error"), "{broken}");
        assert_eq!(log.sync().unwrap_err(), broken);
        drop(log);
        disk.restart();
        let (log, recovered) = open(&disk);
        let last = if nth == 0 { 4 } else { 5 };
        // The first write is the batch, of which half arrived; the second is the mark.
        assert_eq!(all(&log)[..2], entries(2, 3, 1, 100));
        assert!(log.last_index() <= last, "write {nth}: {recovered:?}");
    }
}

#[test]
fn a_mark_that_was_half_written_twice_does_not_spoil_both_slots() {
    for seed in 0..1000 {
        let disk = SimDisk::new();
        drop(create(&disk));
        // Each slot is half written once, in different lives.
        for _ in 0..2 {
            let (mut log, _) = open(&disk);
            log.append(&[entry(log.last_index() + 1, 1, 100)]);
            disk.fail_write(1);
            log.sync().unwrap_err();
            drop(log);
            disk.restart();
        }
        disk.crash(seed);
        open(&disk);
    }
}

#[test]
fn a_full_disk_breaks_the_log_and_room_heals_it() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    disk.limit_space(Some(10_000));
    let broken = (2..100).find_map(|index| {
        log.append(&[entry(index, 1, 400)]);
        log.sync().err()
    });
    assert!(broken.is_some_and(|broken| broken.to_string().contains("segment")));
    let written = log.last_index();
    drop(log);
    disk.restart();
    disk.limit_space(None);
    let (mut log, _) = open(&disk);
    assert!(log.last_index() + 1 >= written, "only the refused sync may be missing");
    let next = log.last_index() + 1;
    log.append(&[entry(next, 1, 400)]);
    log.sync().unwrap();
    assert_eq!(all(&log), entries(2, next, 1, 400));
}

#[test]
fn an_entry_that_rotted_is_not_handed_out() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&entries(2, 4, 1, 900));
    log.sync().unwrap();
    log.append(&entries(5, 9, 1, 900));
    log.sync().unwrap();
    assert_eq!(log.entries(2, 3, 0).unwrap(), entries(2, 2, 1, 900));
    disk.flip_bit("0000000001.segment", 700, 3);
    let error = log.entries(2, 3, 0).unwrap_err();
    let LogError::Damaged(damage) = &error else { panic!("{error}") };
    assert_eq!((damage.segment, damage.offset), (1, 512));
    assert_eq!(log.entries(3, 4, 0).unwrap(), entries(3, 3, 1, 900));
}
