//! How long things took, in buckets. To note one down costs two additions, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The upper bounds of the buckets but the last, in microseconds, included.
pub(crate) const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// How many of what is counted took how long.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one has no bound.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram as it was at one moment, as far as that can be told while it is added to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counted {
    /// Upper bound in seconds, and how many are in the bucket that ends there.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum_us: u64,
}

impl Histogram {
    /// Notes down `n` that took `us` each.
    pub(crate) fn add(&self, n: u64, us: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[at].fetch_add(n, Ordering::Relaxed);
        self.sum_us.fetch_add(n.saturating_mul(us), Ordering::Relaxed);
    }

    pub(crate) fn counted(&self) -> Counted {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Counted { buckets, count, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

impl Counted {
    pub(crate) fn sum_seconds(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001, u64::MAX / 2] {
            histogram.add(1, us);
        }
        histogram.add(7, 1_000);
        let counted = histogram.counted();
        let filled: Vec<_> = counted.buckets.iter().filter(|(_, count)| *count > 0).collect();
        let expected = [&(0.000_05, 2), &(0.0001, 1), &(0.001, 7), &(10.0, 1), &(f64::INFINITY, 2)];
        assert_eq!(filled, expected);
        assert_eq!(counted.count, 13);
    }
}
