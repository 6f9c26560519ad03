//! What a connection has to say to its client, in order.
//!
//! An outbox is a row of slots. A read's slot is filled by the task that took it; a write's is
//! pending until its entry is published. An event goes before the first pending slot: after every
//! reply that was decided before the change, before every reply that can show it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proto::connect::PASSWORD_BYTES;
use proto::{Acl, ErrorCode, EventType, Reply};
use state::Answer;

/// One thing to say.
#[derive(Debug)]
pub(crate) enum Slot {
    /// A reply that is not decided yet.
    Pending { number: u64, waits: Waits },
    /// A reply.
    Reply { xid: i32, zxid: i64, result: Result<Reply, ErrorCode> },
    /// A watch event, for those who may read the znode.
    Event { kind: EventType, path: Arc<str>, zxid: i64, acl: Arc<[Acl]> },
    /// The session is there.
    Connected {
        session: i64,
        timeout_ms: i32,
        password: [u8; PASSWORD_BYTES],
        read_only: Option<bool>,
    },
    /// The session is not known (any more).
    Refused { read_only: Option<bool> },
    /// Nothing comes after this.
    Close,
}

/// What a pending slot waits for.
#[derive(Debug)]
pub(crate) enum Waits {
    /// A write's reply.
    Write { xid: i32 },
    /// The reply to a close, after which the connection ends.
    Close { xid: i32 },
    /// A session.
    Connect { session: i64, password: [u8; PASSWORD_BYTES], read_only: Option<bool> },
}

/// Where the answer to one command goes.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) slots: VecDeque<Slot>,
    next: u64,
    /// How many slots are pending.
    pub(crate) pending: usize,
    /// The session and its attach generation, once there is one.
    pub(crate) attached: Option<(i64, u32, i32)>,
    /// The connection is to end at once.
    pub(crate) dead: bool,
}

/// The slots of one connection, shared by its task and the Machine.
pub struct Outbox {
    /// Unique among the connections of this server since its start.
    pub id: u64,
    pub(crate) inner: Mutex<Inner>,
    /// Whether the client said anything since the Node last looked.
    heard: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({})", self.id)
    }
}

impl Outbox {
    /// An empty outbox; `wake` is called, from any thread, when there may be something to drain.
    pub fn new(id: u64, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { id, inner: Mutex::default(), heard: AtomicBool::new(true), wake })
    }

    /// Takes notice that the client said something.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the client said anything since the last call.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Ends the connection at once.
    pub fn kill(&self) {
        self.inner.lock().dead = true;
        self.wake();
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    pub(crate) fn push(&self, slot: Slot) {
        self.inner.lock().slots.push_back(slot);
    }

    pub(crate) fn push_pending(self: &Arc<Self>, waits: Waits) -> Ticket {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        inner.pending += 1;
        inner.slots.push_back(Slot::Pending { number, waits });
        Ticket { outbox: Arc::clone(self), number }
    }

    pub(crate) fn insert_event(&self, event: Slot) {
        let mut inner = self.inner.lock();
        let pending = |slot: &Slot| matches!(slot, Slot::Pending { .. });
        let at = inner.slots.iter().position(pending).unwrap_or(inner.slots.len());
        inner.slots.insert(at, event);
    }
}

impl Ticket {
    /// Fills the slot with a command's answer.
    pub(crate) fn fill(&self, zxid: i64, answer: Answer) {
        let mut inner = self.outbox.inner.lock();
        let inner = &mut *inner;
        let mine =
            |slot: &Slot| matches!(slot, Slot::Pending { number, .. } if *number == self.number);
        let Some(at) = inner.slots.iter().position(mine) else { return };
        let Some(Slot::Pending { waits, .. }) =
            inner.slots.get_mut(at).map(|slot| std::mem::replace(slot, Slot::Close))
        else {
            return;
        };
        inner.pending -= 1;
        inner.slots[at] = match (waits, answer) {
            (Waits::Write { xid }, Answer::Reply(result)) => Slot::Reply { xid, zxid, result },
            (Waits::Close { xid }, _) => {
                inner.slots.insert(at + 1, Slot::Close);
                Slot::Reply { xid, zxid, result: Ok(Reply::Empty) }
            }
            (
                Waits::Connect { session, password, read_only },
                Answer::Attached { timeout_ms, generation },
            ) => {
                inner.attached = Some((session, generation, timeout_ms));
                Slot::Connected { session, timeout_ms, password, read_only }
            }
            (Waits::Connect { read_only, .. }, _) => {
                inner.slots.insert(at + 1, Slot::Close);
                Slot::Refused { read_only }
            }
            // A command without effect: its outcome is unknown here, so the connection ends.
            (Waits::Write { .. }, _) => Slot::Close,
        };
    }
}
