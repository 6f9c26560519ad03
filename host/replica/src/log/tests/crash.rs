//! Crashes at every kind of moment: what was synced is there, and nothing that was not appended.

use super::model::Checked;
use super::*;

/// Lives of the log on one disk, each ended by a crash or a killed process.
const LIVES: u64 = 8;

/// Runs one seed; an error says what was lost or wrongly found.
fn run(seed: u64, mutant: Option<Mutant>) -> Result<Counts, String> {
    let mut rng = SimRng::new(seed);
    let disk = SimDisk::new();
    let options = Options {
        segment_bytes: if rng.chance(50) { 4096 } else { 16384 },
        recycle_max: rng.below(3) as usize,
        ..options()
    };
    let mut counts = Counts::default();
    let mut log = Log::create(disk.clone(), options.clone(), BIRTH.index, BIRTH.term).unwrap();
    log.plant(mutant);
    let mut checked = Checked::new(log);
    for life in 0..LIVES {
        if rng.chance(70) {
            disk.fail_from(rng.below(120));
        } else if rng.chance(30) {
            disk.fail_sync(rng.below(10));
        }
        for _ in 0..rng.below(80) {
            if checked.step(&mut rng).is_err() || (rng.chance(50) && checked.sync().is_err()) {
                counts.broken += 1;
                break;
            }
        }
        // A life may also end between two syncs; and the process may be killed without power loss.
        if rng.chance(75) {
            disk.crash(rng.next_u64());
        } else {
            disk.restart();
            counts.kills += 1;
        }
        // Opening may be cut short too, again and again.
        let mut opens = 0;
        let (log, recovered) = loop {
            if opens < 3 && rng.chance(30) {
                disk.fail_from(rng.below(8));
            }
            opens += 1;
            match Log::open(disk.clone(), options.clone()) {
                Ok(opened) => break opened,
                Err(LogError::Io { .. } | LogError::Broken(_)) if opens < 5 => {
                    counts.opens_cut += 1;
                    disk.crash(rng.next_u64());
                }
                Err(error) => return Err(format!("seed {seed} life {life}: {error}")),
            }
        };
        counts.torn += u32::from(recovered.torn.is_some());
        disk.restart();
        drop(log);
        let (mut log, again) = Log::open(disk.clone(), options.clone())
            .map_err(|error| format!("seed {seed} life {life}, opened again: {error}"))?;
        assert_eq!(again.torn, None, "seed {seed} life {life}: a cut tail came back");
        log.plant(mutant);
        checked.reopened(log).map_err(|what| format!("seed {seed} life {life}: {what}"))?;
    }
    Ok(counts)
}

#[derive(Debug, Default)]
struct Counts {
    broken: u32,
    kills: u32,
    torn: u32,
    opens_cut: u32,
}

#[test]
fn nothing_synced_is_lost_and_nothing_cut_comes_back() {
    let mut sum = Counts::default();
    for seed in 0..2000 {
        let counts = run(seed, None).unwrap();
        sum.broken += counts.broken;
        sum.kills += counts.kills;
        sum.torn += counts.torn;
        sum.opens_cut += counts.opens_cut;
    }
    let Counts { broken, kills, torn, opens_cut } = sum;
    assert!(broken > 1000 && kills > 1000 && torn > 200 && opens_cut > 500, "{sum:?} is too tame");
}

#[test]
fn every_mutant_is_found() {
    for mutant in [Mutant::SkipSync, Mutant::MarkBeforeSync, Mutant::DropBeforeSync] {
        let found = (0..300).find_map(|seed| run(seed, Some(mutant)).err());
        assert!(found.is_some(), "{mutant:?} was not found");
    }
}

#[test]
fn a_crash_during_creation_leaves_no_log_or_a_whole_one() {
    let (mut missing, mut whole) = (0, 0);
    for seed in 0..300 {
        let mut rng = SimRng::new(seed);
        let disk = SimDisk::new();
        disk.fail_from(seed % 20);
        let created = Log::create(disk.clone(), options(), BIRTH.index, BIRTH.term).is_ok();
        disk.crash(rng.next_u64());
        match Log::open(disk.clone(), options()) {
            Ok((log, _)) => {
                assert_eq!((log.first_index(), log.last_index()), (2, 1));
                whole += 1;
            }
            Err(LogError::Missing) => {
                assert!(!created, "seed {seed}: a created log is gone");
                let id = create(&disk).log_id();
                assert_eq!(open(&disk).0.log_id(), id);
                missing += 1;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(missing > 50 && whole > 50, "{missing} missing, {whole} whole");
}

#[test]
fn a_tail_that_was_cut_stays_cut() {
    // The torn sync's second entry is whole on disk, its first one is not; then the very same first
    // entry is appended again: the second must not come back behind it.
    let disk = SimDisk::new();
    let mut log = create(&disk);
    log.append(&[entry(2, 1, 100)]);
    log.sync().unwrap();
    let durable = disk.fork();
    log.append(&entries(3, 4, 1, 600));
    disk.fail_sync(0);
    log.sync().unwrap_err();
    let name = "0000000001.segment";
    let mut torn = disk.content(name).unwrap();
    let whole = durable.content(name).unwrap();
    torn[512..1024].copy_from_slice(&whole[512..1024]);
    durable.replace(name, torn);

    let (mut log, recovered) = open(&durable);
    assert!(recovered.torn.is_some());
    assert_eq!(all(&log), entries(2, 2, 1, 100));
    log.append(&[entry(3, 1, 600)]);
    log.sync().unwrap();
    drop(log);
    let (log, recovered) = open(&durable);
    assert_eq!(all(&log), vec![entry(2, 1, 100), entry(3, 1, 600)]);
    assert_eq!(recovered.torn, None);
}

#[test]
fn a_segment_that_was_begun_twice_begins_where_the_second_did() {
    let mut second = 0;
    for (first_step, first_seed) in (0..8).flat_map(|step| (0..8).map(move |seed| (step, seed))) {
        let disk = SimDisk::new();
        let mut log = create(&disk);
        // So much that nothing but a small entry has room behind it.
        log.append(&entries(2, 4, 1, 1000));
        log.sync().unwrap();
        let active = log.active().0;
        // Power goes while the next segment is begun.
        disk.fail_from(first_step);
        log.append(&entries(5, 5, 1, 1000));
        log.sync().ok();
        drop(log);
        disk.crash(first_seed);
        let (mut log, _) = open(&disk);
        if log.active().0 != active || log.last_index() != 4 {
            continue;
        }
        // What comes now has room in the old one after all.
        log.append(&entries(5, 5, 1, 100));
        log.sync().unwrap();
        let disk = disk.fork();
        for (step, seed) in (0..8).flat_map(|step| (0..16).map(move |seed| (step, seed))) {
            let disk = disk.fork();
            let (mut log, _) = open(&disk);
            disk.fail_from(step);
            log.append(&entries(6, 6, 1, 1000));
            log.sync().ok();
            drop(log);
            disk.crash(seed);
            let (log, _) = open(&disk);
            assert_eq!(all(&log)[..4], [entries(2, 4, 1, 1000), entries(5, 5, 1, 100)].concat());
            second += 1;
        }
    }
    assert!(second > 500, "{second} second crashes");
}
