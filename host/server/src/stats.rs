//! Counters of the whole server, for operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use proto::OpCode;

use crate::histogram::{Counted, Histogram};

/// What is told of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) remote: String,
    /// Whether it is by TLS.
    pub(crate) is_secure: bool,
    pub(crate) queued: usize,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) session: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) last_op: Option<OpCode>,
    pub(crate) last_xid: i32,
    pub(crate) last_zxid: i64,
    pub(crate) since_ms: i64,
}

/// Counters, all since the start or the last reset.
pub(crate) struct Stats {
    started: Instant,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) outstanding: AtomicI64,
    /// Of each operation, by [`op_slot`]. They are never reset.
    requests: [Histogram; OP_SLOTS],
    /// How many requests had been answered at the last reset, and their latencies, in microseconds.
    before_reset: Mutex<(u64, u64)>,
    latency_us_min: AtomicU64,
    latency_us_max: AtomicU64,
    pub(crate) rejected: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Mutex<Told>>>>,
}

/// One for each operation, and the last for what asks for a session.
pub(crate) const OP_SLOTS: usize = OpCode::ALL.len() + 1;

/// Where an operation is counted. What has no number that is known counts as what asks for a session:
/// both end the connection, or begin it.
pub(crate) fn op_slot(op: Option<OpCode>) -> usize {
    op.map_or(OpCode::ALL.len(), |op| usize::from(SLOT_OF[slot_at(op)]))
}

/// The slot of each operation, by its number.
const SLOT_OF: [u8; 256] = {
    let mut slots = [0; 256];
    let mut at = 0;
    while at < OpCode::ALL.len() {
        slots[slot_at(OpCode::ALL[at])] = at as u8;
        at += 1;
    }
    slots
};

const fn slot_at(op: OpCode) -> usize {
    // The least is -11.
    (op as i32 + 16) as usize
}

/// Latencies in milliseconds.
pub(crate) struct Latency {
    pub(crate) min: u64,
    pub(crate) avg: f64,
    pub(crate) max: u64,
}

impl Stats {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            outstanding: AtomicI64::new(0),
            requests: std::array::from_fn(|_| Histogram::default()),
            before_reset: Mutex::default(),
            latency_us_min: AtomicU64::new(u64::MAX),
            latency_us_max: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            connections: Mutex::default(),
        })
    }

    pub(crate) fn uptime_ms(&self) -> u128 {
        self.started.elapsed().as_millis()
    }

    /// Counts `n` answered requests of the operation of a slot that each took so long.
    pub(crate) fn answered(&self, slot: usize, n: u64, us: u64) {
        self.requests[slot].add(n, us);
        // They hardly ever change: a look costs less than what is shared between processors.
        if us < self.latency_us_min.load(Ordering::Relaxed) {
            self.latency_us_min.fetch_min(us, Ordering::Relaxed);
        }
        if us > self.latency_us_max.load(Ordering::Relaxed) {
            self.latency_us_max.fetch_max(us, Ordering::Relaxed);
        }
    }

    /// The requests that were answered since the start, by operation; `connect` is what asks for a
    /// session.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&'static str, Counted)> {
        let names = OpCode::ALL.iter().map(|op| op.name()).chain(["connect"]);
        names.zip(self.requests.iter().map(Histogram::counted))
    }

    /// How many requests were answered since the start, and their latencies, in microseconds.
    fn totals(&self) -> (u64, u64) {
        let counted = self.requests.iter().map(Histogram::counted);
        counted.fold((0, 0), |(n, us), counted| (n + counted.count, us + counted.sum_us))
    }

    pub(crate) fn latency(&self) -> Latency {
        let ((requests, us), before) = (self.totals(), *self.before_reset.lock());
        let requests = requests.saturating_sub(before.0);
        if requests == 0 {
            return Latency { min: 0, avg: 0.0, max: 0 };
        }
        let avg = us.saturating_sub(before.1) as f64 / requests as f64 / 1000.0;
        Latency {
            min: self.latency_us_min.load(Ordering::Relaxed) / 1000,
            avg,
            max: self.latency_us_max.load(Ordering::Relaxed) / 1000,
        }
    }

    pub(crate) fn reset(&self) {
        for counter in [&self.received, &self.sent] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.before_reset.lock() = self.totals();
        self.latency_us_min.store(u64::MAX, Ordering::Relaxed);
        self.latency_us_max.store(0, Ordering::Relaxed);
    }

    pub(crate) fn reset_connections(&self) {
        for told in self.connections.lock().values() {
            let mut told = told.lock();
            (told.received, told.sent) = (0, 0);
        }
    }

    pub(crate) fn connected(&self, id: u64, told: Told) -> Arc<Mutex<Told>> {
        let told = Arc::new(Mutex::new(told));
        self.connections.lock().insert(id, Arc::clone(&told));
        told
    }

    pub(crate) fn disconnected(&self, id: u64) {
        self.connections.lock().remove(&id);
    }

    pub(crate) fn connections(&self) -> Vec<Told> {
        let mut all: Vec<_> =
            self.connections.lock().iter().map(|(id, told)| (*id, told.lock().clone())).collect();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, told)| told).collect()
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_slot_and_a_reset_leaves_them_as_they_are() {
        let stats = Stats::new();
        for (at, op) in OpCode::ALL.iter().enumerate() {
            assert_eq!(op_slot(Some(*op)), at, "{op:?}");
            stats.answered(at, 1, 2000);
        }
        stats.answered(op_slot(None), 3, 2000);
        let told: Vec<_> = stats.requests().map(|(name, counted)| (name, counted.count)).collect();
        assert_eq!(told.last(), Some(&("connect", 3)));
        assert!(told[..OpCode::ALL.len()].iter().all(|(_, count)| *count == 1), "{told:?}");
        stats.reset();
        assert_eq!(stats.latency().max, 0);
        stats.answered(0, 2, 4000);
        let Latency { min, avg, max } = stats.latency();
        assert_eq!((min, avg.round() as u64, max), (4, 4, 4));
        assert_eq!(
            stats.requests().map(|(_, counted)| counted.count).sum::<u64>(),
            told.len() as u64 + 4
        );
    }
}
