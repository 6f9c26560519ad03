//! Files that were changed behind the log's back: found, kept aside, never served, never a panic.

use super::model::Model;
use super::*;

const MARK: &str = "log.mark";

/// A small log with several segments, cuts, trims and a marker, all of it durable.
fn built() -> (SimDisk, Vec<Model>) {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    let mut states = vec![Model::of(&log)];
    let mut sync = |log: &mut Log<SimDisk>| {
        log.sync().unwrap();
        states.push(Model::of(log));
    };
    log.install(10, 2, b"marker").unwrap();
    log.set_hard_state(HardState { term: 2, vote: 1, commit: 10 });
    sync(&mut log);
    for index in 11..24 {
        log.append(&[entry(index, 2, 500)]);
        sync(&mut log);
    }
    log.append(&entries(20, 22, 3, 60));
    log.set_hard_state(HardState { term: 3, vote: 2, commit: 18 });
    sync(&mut log);
    log.trim(12).unwrap();
    sync(&mut log);
    log.append(&entries(23, 24, 3, 40));
    sync(&mut log);
    assert!(log.stats().segments >= 3, "{:?}", log.stats());
    (disk, states)
}

/// Opens a changed log: either its content is exactly `expected`, or it is refused as damaged.
fn whole_or_damaged(disk: &SimDisk, expected: &Model, what: &str) -> bool {
    match Log::open(disk.clone(), options()) {
        Ok((log, _)) => {
            assert_eq!(&Model::of(&log), expected, "{what}");
            false
        }
        Err(LogError::Damaged(_)) => true,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn files(disk: &SimDisk) -> Vec<(String, usize)> {
    let names = disk.list().unwrap().into_iter().filter(|name| !name.ends_with(".spare"));
    names.map(|name| (name.clone(), disk.content(&name).unwrap().len())).collect()
}

#[test]
fn every_flipped_byte_is_found_or_harmless() {
    let (disk, states) = built();
    let expected = states.last().unwrap();
    let mut found = 0;
    for (name, bytes) in files(&disk) {
        for offset in 0..bytes as u64 {
            let copy = disk.fork();
            copy.flip_bit(&name, offset, (offset % 8) as u8);
            found += u32::from(whole_or_damaged(&copy, expected, &format!("{name} at {offset}")));
        }
    }
    assert!(found > 7000, "only {found} flips were found");
}

#[test]
fn without_a_recent_mark_only_the_last_sync_can_pass_for_a_torn_tail() {
    let (disk, states) = built();
    let (whole, before) = (&states[states.len() - 1], &states[states.len() - 2]);
    let old = {
        let disk = SimDisk::new();
        drop(create(&disk));
        disk.content(MARK).unwrap()
    };
    let (mut damaged, mut torn) = (0, 0);
    for (name, bytes) in files(&disk).into_iter().filter(|(name, _)| name != MARK) {
        for offset in 0..bytes as u64 {
            let copy = disk.fork();
            copy.replace(MARK, old.clone());
            copy.flip_bit(&name, offset, (offset % 8) as u8);
            match Log::open(copy, options()) {
                Ok((log, recovered)) => {
                    let found = Model::of(&log);
                    // The last sync has two records; a cut may fall between them.
                    let between = Model { entries: whole.entries[..11].to_vec(), ..whole.clone() };
                    let fits = [before, &between].contains(&&found) || &found == whole;
                    assert!(fits, "{name} at {offset}: {recovered:?}");
                    torn += u32::from(&found != whole);
                }
                Err(LogError::Damaged(_)) => damaged += 1,
                Err(error) => panic!("{name} at {offset}: {error}"),
            }
        }
    }
    assert!(damaged > 7000 && torn > 100, "{damaged} damaged, {torn} torn");
}

#[test]
fn every_truncation_is_found_or_harmless() {
    let (disk, states) = built();
    let expected = states.last().unwrap();
    let mut found = 0;
    for (name, bytes) in files(&disk) {
        let content = disk.content(&name).unwrap();
        for length in 0..bytes {
            let copy = disk.fork();
            copy.replace(&name, content[..length].to_vec());
            found += u32::from(whole_or_damaged(&copy, expected, &format!("{name} to {length}")));
        }
    }
    assert!(found > 7000, "only {found} truncations were found");
}

#[test]
fn a_missing_file_is_found() {
    let (disk, states) = built();
    for (name, _) in files(&disk) {
        let copy = disk.fork();
        copy.remove(&name).unwrap();
        assert!(whole_or_damaged(&copy, states.last().unwrap(), &name), "{name} is not missed");
    }
}

#[test]
fn random_garbage_is_found_or_harmless() {
    let (disk, states) = built();
    let expected = states.last().unwrap();
    let files = files(&disk);
    let mut rng = SimRng::new(11);
    for round in 0..2000 {
        let copy = disk.fork();
        let mut both_slots = 0;
        for _ in 0..1 + rng.below(3) {
            let (name, bytes) = &files[rng.below(files.len() as u64) as usize];
            both_slots += u32::from(name == MARK);
            let mut content = copy.content(name).unwrap();
            let start = rng.below(*bytes as u64) as usize;
            let end = (start + 1 + rng.below(600) as usize).min(*bytes);
            match rng.below(3) {
                0 => content[start..end].fill(0),
                1 => content[start..end].fill_with(|| rng.next_u64() as u8),
                _ => content
                    .copy_within(start..end, rng.below((*bytes - end + start) as u64) as usize),
            }
            copy.replace(name, content);
        }
        // With one slot of the mark gone, the very last sync may pass for a torn tail.
        if both_slots == 0 {
            whole_or_damaged(&copy, expected, &format!("round {round}"));
        } else if let Ok((log, _)) = Log::open(copy, options()) {
            assert!(Model::of(&log).last() + 2 >= expected.last(), "round {round}");
        }
    }
}

#[test]
fn a_damaged_log_is_left_as_it_was() {
    let (disk, _) = built();
    let name = disk.list().unwrap().into_iter().find(|name| name.ends_with("segment")).unwrap();
    disk.flip_bit(&name, 600, 0);
    let steps = disk.steps();
    let error = Log::open(disk.clone(), options()).unwrap_err();
    let LogError::Damaged(damage) = &error else { panic!("{error}") };
    assert!(damage.offset < 600 && damage.reason.contains("does not verify"), "{damage}");
    assert_eq!(Log::open(disk.clone(), options()).unwrap_err(), error);
    assert_eq!(disk.steps(), steps);
}

#[test]
fn a_log_of_a_newer_version_is_refused_untouched() {
    let (disk, _) = built();
    let (name, _) = files(&disk).into_iter().nth(1).unwrap();
    let mut content = disk.content(&name).unwrap();
    content[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&content[..12]), &content[16..512]);
    content[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.replace(&name, content);
    let steps = disk.steps();
    let newer = LogError::NewerVersion { file: name, found: 2, known: 1 };
    assert_eq!(Log::open(disk.clone(), options()).unwrap_err(), newer);
    assert_eq!(Log::create(disk.clone(), options(), BIRTH.index, BIRTH.term).unwrap_err(), newer);
    assert_eq!(disk.steps(), steps);
}

#[test]
fn segments_of_another_log_do_not_pass() {
    let (disk, _) = built();
    let other = SimDisk::new();
    other.random().unwrap();
    let mut log = create(&other);
    log.append(&entries(2, 3, 1, 100));
    log.sync().unwrap();
    let name = files(&disk).last().map(|_| "0000000001.segment").unwrap();
    disk.replace(name, other.content(name).unwrap());
    let opened = Log::open(disk, options());
    assert!(matches!(opened, Err(LogError::Damaged(_))), "{opened:?}");
}

#[test]
fn whole_records_in_another_order_do_not_pass() {
    let disk = SimDisk::new();
    let mut log = create(&disk);
    for vote in 1..=3 {
        log.set_hard_state(HardState { term: 2, vote, commit: 1 });
    }
    log.sync().unwrap();
    drop(log);
    // Each of these records has 24 bytes of header and 24 of payload; the chain tells their order.
    let name = "0000000001.segment";
    let mut content = disk.content(name).unwrap();
    let (first, second) = content[512..608].split_at_mut(48);
    first.swap_with_slice(second);
    disk.replace(name, content);
    let opened = Log::open(disk, options());
    assert!(matches!(opened, Err(LogError::Damaged(_))), "{opened:?}");
}
