//! What the threads of a replica leave behind for those who watch over it: how it stands, and how long
//! things take.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use replica::NodeStatus;
use replica::log::AroundSync;

use crate::histogram::Histogram;

/// Shared by the threads and whoever asks.
pub(crate) struct Watched {
    /// Syncs of the log.
    pub(crate) fsync: Histogram,
    /// Entries, from taking one in hand until its view is published.
    pub(crate) apply: Histogram,
    /// What this server proposed as the leader, until a majority was known to have it.
    pub(crate) proposal: Histogram,
    /// How often another server has led, or none.
    pub(crate) leader_changes: AtomicU64,
    /// As of the Node's last tick, and when that was.
    status: Mutex<(Arc<NodeStatus>, Instant)>,
}

impl Watched {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            fsync: Histogram::default(),
            apply: Histogram::default(),
            proposal: Histogram::default(),
            leader_changes: AtomicU64::new(0),
            status: Mutex::new((Arc::default(), Instant::now())),
        })
    }

    /// How the replica stood at its Node's last tick.
    pub(crate) fn status(&self) -> Arc<NodeStatus> {
        Arc::clone(&self.status.lock().0)
    }

    /// How long ago that was: much longer than a tick, and the Node's thread hangs.
    pub(crate) fn quiet(&self) -> Duration {
        self.status.lock().1.elapsed()
    }

    /// The Node has ticked.
    pub(crate) fn put(&self, status: NodeStatus) {
        *self.status.lock() = (Arc::new(status), Instant::now());
    }

    /// Times each sync of the log.
    pub(crate) fn around_syncs(self: Arc<Self>) -> AroundSync {
        AroundSync::new(move |sync: &mut dyn FnMut() -> io::Result<()>| {
            let began = Instant::now();
            let result = sync();
            self.fsync.add(1, microseconds(began.elapsed()));
            result
        })
    }
}

/// What was proposed and is not known to be committed.
#[derive(Default)]
pub(crate) struct Proposed {
    /// The last entry that there was, and when, of each round that added any.
    rounds: VecDeque<(u64, Instant)>,
    last: u64,
    leader: u64,
}

impl Proposed {
    /// A round of the Node that began at `began` is over: the log has entries up to `last`, those up to
    /// `committed` are committed, and `leader` leads.
    pub(crate) fn round(
        &mut self,
        watched: &Watched,
        (last, committed): (u64, u64),
        (leader, leads): (u64, bool),
        began: Instant,
    ) {
        if self.leader != leader {
            self.leader = leader;
            self.rounds.clear();
            watched.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        if leads && last > self.last {
            self.rounds.push_back((last, began));
        }
        self.last = last;
        while let Some((_, began)) = self.rounds.pop_front_if(|(last, _)| *last <= committed) {
            watched.proposal.add(1, microseconds(began.elapsed()));
        }
    }
}

pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
