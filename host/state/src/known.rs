//! Which znodes the store may have, so that it is not asked for those that it has not: a look in vain
//! costs it as much as a find, and every create begins with one.
//!
//! A Bloom filter over the hashes of all paths in the store. It is filled by those who write to the
//! store, each going over some of the rows that are there already, so that nobody waits for it at start.
//!
//! Invariants:
//! * What is written to the store is put in before it is written, and never taken out.
//! * It answers only for pictures of the store that are no older than the last one it was filled from:
//!   what an older one has may have been deleted before it was gone over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastbloom::AtomicBloomFilter;
use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::store::ReadView;

/// Bits for each path: about one in fifty that are not there is taken to be.
const BITS: usize = 8;
/// How many rows are gone over for each row that is written.
const ROWS_FOR_EACH: usize = 4;
const PAGE_ROWS: usize = 1000;
/// With more znodes than this there is no filter, which would take 128 MiB.
const ZNODES_MAX: u64 = 32 << 20;

/// The filter, shared by the one that writes to the store and all that read.
#[derive(Default)]
pub(crate) struct Known(RwLock<Filters>);

/// What is written is put into both.
#[derive(Default)]
struct Filters {
    /// One that has all paths that the store has had since a log index. Once it is full, it answers on
    /// until the next one can.
    complete: Option<(Filter, u64)>,
    /// The next one.
    filling: Option<Filling>,
}

struct Filling {
    filter: Filter,
    /// Of what was there before, it has all keys before this one.
    from: Vec<u8>,
    /// As of this log index at the latest.
    latest: u64,
}

struct Filter {
    paths: AtomicBloomFilter,
    /// How many paths were put in, and how many may be.
    count: AtomicUsize,
    most: usize,
}

impl Filter {
    fn for_znodes(znodes: u64) -> Self {
        let most = 4 * znodes as usize + (256 << 10);
        let paths = AtomicBloomFilter::with_num_bits(BITS * most).hashes(5);
        Self { paths, count: AtomicUsize::new(0), most }
    }

    fn put(&self, hash: u64) {
        if !self.paths.insert_hash(hash) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.most
    }
}

impl Known {
    /// Whether the store may have a znode at a path of this hash, as of a log index.
    pub(crate) fn may_have(&self, hash: u64, index: u64) -> bool {
        match &self.0.read().complete {
            Some((filter, since)) => *since > index || filter.paths.contains_hash(hash),
            None => true,
        }
    }

    /// Puts in the paths that are about to be written to a store, which then has so many znodes. Who
    /// reads meanwhile does not wait.
    pub(crate) fn put(&self, hashes: impl Iterator<Item = u64>, znodes: u64) {
        {
            let Filters { complete, filling } = &*self.0.read();
            let filters = || complete.iter().map(|(filter, _)| filter);
            let filters = || filters().chain(filling.iter().map(|filling| &filling.filter));
            hashes.for_each(|hash| filters().for_each(|filter| filter.put(hash)));
            if filters().last().is_some_and(|newest| !newest.is_full()) {
                return;
            }
        }
        let mut filters = self.0.write();
        if znodes < ZNODES_MAX {
            let (filter, from) = (Filter::for_znodes(znodes), vec![0]);
            filters.filling = Some(Filling { filter, from, latest: 0 });
        } else {
            *filters = Filters::default();
        }
    }

    /// Goes over some rows of the store as of a log index, after so many were written to it.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub(crate) fn fill(
        &self,
        store: &Arc<dyn ReadView>,
        index: u64,
        written: usize,
    ) -> Result<(), Fault> {
        for _ in 0..1 + ROWS_FOR_EACH * written / PAGE_ROWS {
            let rows = match &self.0.read().filling {
                Some(Filling { filter, from, .. }) => {
                    let rows = store.range(Keyspace::Nodes, from, &[0xff], PAGE_ROWS)?;
                    let paths = rows.iter().filter_map(|(key, _)| keys::path_of(key));
                    paths.for_each(|path| filter.put(xxh3_64(path.as_bytes())));
                    rows
                }
                None => return Ok(()),
            };
            let mut filters = self.0.write();
            let Some(Filling { from, latest, .. }) = &mut filters.filling else { return Ok(()) };
            *latest = index.max(*latest);
            if let (Some((last, _)), PAGE_ROWS) = (rows.last(), rows.len()) {
                *from = [&last[..], b"\0"].concat();
            } else {
                let filled = filters.filling.take();
                filters.complete = filled.map(|Filling { filter, latest, .. }| (filter, latest));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, MemoryStore, Store};

    fn hash(at: usize) -> u64 {
        xxh3_64(format!("/n{at}").as_bytes())
    }

    fn write(store: &MemoryStore, numbers: impl Iterator<Item = usize>) {
        let keys: Vec<_> = numbers.map(|at| keys::node(&format!("/n{at}"))).collect();
        let fill = &mut |batch: &mut dyn Batch| {
            keys.iter().for_each(|key| batch.put(Keyspace::Nodes, key, Some(b"row")));
        };
        store.commit(fill).expect("memory does not fail");
    }

    #[test]
    fn what_the_store_has_is_known_at_every_step() {
        let (store, known) = (MemoryStore::default(), Known::default());
        write(&store, 0..5000);
        let mut index = 10;
        let steps = [5000..5100, 5100..5101, 5101..6000, 6000..6001, 6001..6002];
        for step in steps {
            let upto = step.end;
            known.put(step.clone().map(hash), upto as u64);
            write(&store, step);
            assert!((0..upto).all(|at| known.may_have(hash(at), index)));
            known.fill(&store.view(), index, 500).expect("memory does not fail");
            assert!((0..upto).all(|at| known.may_have(hash(at), index)));
            index += 1;
        }
        let taken = (10_000..20_000).filter(|at| known.may_have(hash(*at), index)).count();
        assert!(taken < 500, "{taken} of 10,000 are taken to be there");
        assert!((10_000..20_000).all(|at| known.may_have(hash(at), 9)), "older than what it is of");
    }

    #[test]
    fn a_full_filter_is_made_anew() {
        let (store, known) = (MemoryStore::default(), Known::default());
        known.put([].into_iter(), 4);
        write(&store, 0..4);
        known.fill(&store.view(), 1, 4).expect("memory does not fail");
        assert!(!known.may_have(hash(4), 1));
        // Made and deleted again and again, they fill it.
        known.put((100..300_000).map(hash), 4);
        assert!((100..300_000).all(|at| known.may_have(hash(at), 2)), "the full one answers on");
        known.put([300_000].map(hash).into_iter(), 4);
        assert!(known.may_have(hash(300_000), 2), "what comes meanwhile is put into both");
        known.fill(&store.view(), 2, 0).expect("memory does not fail");
        assert!((0..4).all(|at| known.may_have(hash(at), 2)));
        assert!(known.may_have(hash(300_000), 2));
        assert!(!known.may_have(hash(200_000), 2));
    }
}
