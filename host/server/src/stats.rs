//! Counters of the whole server, for operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use proto::OpCode;

/// What is told of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) remote: String,
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
    requests: AtomicU64,
    latency_us: AtomicU64,
    latency_us_min: AtomicU64,
    latency_us_max: AtomicU64,
    pub(crate) rejected: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Mutex<Told>>>>,
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
            requests: AtomicU64::new(0),
            latency_us: AtomicU64::new(0),
            latency_us_min: AtomicU64::new(u64::MAX),
            latency_us_max: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            connections: Mutex::default(),
        })
    }

    pub(crate) fn uptime_ms(&self) -> u128 {
        self.started.elapsed().as_millis()
    }

    /// Counts `n` answered requests that each took so long.
    pub(crate) fn answered(&self, n: u64, us: u64) {
        self.requests.fetch_add(n, Ordering::Relaxed);
        self.latency_us.fetch_add(n * us, Ordering::Relaxed);
        self.latency_us_min.fetch_min(us, Ordering::Relaxed);
        self.latency_us_max.fetch_max(us, Ordering::Relaxed);
    }

    pub(crate) fn latency(&self) -> Latency {
        let requests = self.requests.load(Ordering::Relaxed);
        if requests == 0 {
            return Latency { min: 0, avg: 0.0, max: 0 };
        }
        let avg = self.latency_us.load(Ordering::Relaxed) as f64 / requests as f64 / 1000.0;
        Latency {
            min: self.latency_us_min.load(Ordering::Relaxed) / 1000,
            avg,
            max: self.latency_us_max.load(Ordering::Relaxed) / 1000,
        }
    }

    pub(crate) fn reset(&self) {
        for counter in [&self.received, &self.sent, &self.requests, &self.latency_us] {
            counter.store(0, Ordering::Relaxed);
        }
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
