//! Tests of the log, by kind of trouble, and what they share.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod basic;
mod crash;
mod damage;
mod faults;
mod model;

use super::*;

const BIRTH: Position = Position { index: 1, term: 1 };

/// Small segments, so that a few entries fill several.
fn options() -> Options {
    Options { segment_bytes: 4096, recycle_max: 2, memory_bytes_max: 2048 }
}

/// An entry of `bytes` bytes that no other index and term has.
fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let seed = index.wrapping_mul(31).wrapping_add(term.wrapping_mul(7));
    let data = (0..bytes).map(|at| (seed + at as u64) as u8).collect::<Vec<u8>>();
    let context = Bytes::from(format!("{term}/{index}"));
    Entry { index, term, kind: (index % 3) as u8, data: data.into(), context }
}

fn entries(from: u64, to: u64, term: u64, bytes: usize) -> Vec<Entry> {
    (from..=to).map(|index| entry(index, term, bytes)).collect()
}

fn create(disk: &SimDisk) -> Log<SimDisk> {
    Log::create(disk.clone(), options(), BIRTH.index, BIRTH.term).unwrap()
}

fn open(disk: &SimDisk) -> (Log<SimDisk>, Recovered) {
    Log::open(disk.clone(), options()).unwrap()
}

/// All entries of a log.
fn all<D: Disk>(log: &Log<D>) -> Vec<Entry> {
    log.entries(log.first_index(), log.last_index() + 1, u64::MAX).unwrap()
}
