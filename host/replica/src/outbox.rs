//! What a connection has to say to its client, in order.
//!
//! An outbox is a row of slots, numbered without a gap. A write's slot is pending until its entry
//! is published. A read's slot waits while one before it is pending, or while this server may be behind
//! (`waiting.rs`), is taken together with the read's view, and filled when it has been read.
//!
//! Invariants:
//! * An event goes before the first open slot, one that is pending or waits: after every reply that
//!   was decided, or whose view was taken, before the change, and before every reply that can show it.
//! * Nothing is drained past a slot that is not decided.
//! * A slot is decided by its command only when no read before it waits: that read's view would show
//!   the command.
//! * Several slots may be taken, but one read is under way at a time, in the order of slots: replies
//!   that cannot be sent yet do not gather here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proto::connect::PASSWORD_BYTES;
use proto::{Acl, ErrorCode, EventType, Reply};
use state::Answer;

use crate::audit::Audited;
use crate::big_reads::Charge;
use crate::operator::OperatorReply;
use crate::waiting::{Behind, Taken, WaitingRead};
use crate::watches::Since;

/// How many bytes of events may wait for a client before its connection is closed; it then sets its
/// watches again and catches up. ZooKeeper has no bound here and runs out of memory.
pub const EVENT_BYTES_MAX: usize = 16 << 20;

/// One thing to say.
#[derive(Debug)]
pub(crate) enum Say {
    /// A reply; `charge` is the memory that it is accounted for with.
    Reply { xid: i32, zxid: i64, result: Result<Reply, ErrorCode>, charge: Option<Charge> },
    /// The session is there.
    Connected {
        session: i64,
        timeout_ms: i32,
        password: [u8; PASSWORD_BYTES],
        read_only: Option<bool>,
    },
    /// The session is not known (any more).
    Refused { read_only: Option<bool> },
    /// A SASL exchange failed.
    SaslFailed { xid: i32, code: ErrorCode },
    /// A watch event, for those who may read the znode.
    Event(Event),
    /// Nothing comes after this.
    Close,
    /// What no client asked for is done.
    Nothing,
}

/// A watch event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventType,
    pub(crate) path: Arc<str>,
    pub(crate) zxid: i64,
    pub(crate) acl: Arc<[Acl]>,
    /// The reads whose watches alone this is for: taken back if those are withdrawn.
    pub(crate) since: Option<Since>,
}

impl Event {
    pub(crate) fn bytes(&self) -> usize {
        self.path.len() + size_of::<Self>()
    }
}

/// The session of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Its id.
    pub session: i64,
    /// Its attach generation.
    pub generation: u32,
    /// Its timeout.
    pub timeout_ms: i32,
    /// Whether this server counts it by itself (`own_sessions.rs`).
    pub is_own: bool,
}

/// What a pending slot waits for.
#[derive(Debug)]
pub(crate) enum Waits {
    /// A write's reply.
    Write { xid: i32, audited: Option<Box<Audited>> },
    /// The reply to a close, after which the connection ends.
    Close { xid: i32 },
    /// What an operator's change did.
    Operator { xid: i32, audited: Option<Box<Audited>> },
    /// A session.
    Connect { session: i64, password: [u8; PASSWORD_BYTES], read_only: Option<bool> },
    /// That all servers know the local session. No client asked for that.
    Upgrade,
}

#[derive(Debug)]
pub(crate) enum State {
    Pending(Waits),
    Waiting,
    Taken,
    Decided(Say),
}

pub(crate) struct Slot {
    /// Events that go before it.
    pub(crate) before: Vec<Event>,
    pub(crate) state: State,
}

/// Where the answer to one command goes.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub(crate) outbox: Arc<Outbox>,
    number: u64,
    /// Between the connection's last command and this one a read waits, which must not see this one:
    /// it goes into a later entry.
    pub(crate) after_read: bool,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) slots: VecDeque<Slot>,
    /// The number of the first of `slots`.
    pub(crate) first: u64,
    /// No slot before this number is open.
    pub(crate) open: u64,
    /// Events that go after the last slot.
    pub(crate) after: Vec<Event>,
    pub(crate) event_bytes: usize,
    /// How many slots of clients' requests are pending.
    pub(crate) pending: usize,
    /// The last slot that was taken for a command.
    last_command: u64,
    /// The reads whose slots wait, in order.
    pub(crate) waiting: VecDeque<WaitingRead>,
    /// The last of those before which this server may be behind others' writes.
    pub(crate) last_behind: Option<u64>,
    /// The reads that hold their views and are not under way yet, in order.
    pub(crate) ready: VecDeque<Taken>,
    /// The slot of the read that is under way.
    pub(crate) reading: Option<u64>,
    /// Whether an event came for which the watch of a read asked that was not answered yet.
    pub(crate) tentative: bool,
    /// The session, once there is one.
    pub(crate) attached: Option<Attached>,
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
    /// Whether no write of its session, a local one, is to be taken any more.
    fenced: AtomicBool,
    /// Whether `wake` was called since the connection last looked.
    woken: AtomicBool,
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
        Arc::new(Self {
            id,
            inner: Mutex::default(),
            heard: AtomicBool::new(true),
            fenced: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            wake,
        })
    }

    /// Takes notice that the client said something.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the client said anything since the last call.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// No write of its session, a local one, is to be taken any more.
    pub(crate) fn fence(&self) {
        self.fenced.store(true, Ordering::Release);
    }

    /// Whether that is so.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Ends the connection at once.
    pub fn kill(&self) {
        self.inner.lock().dead = true;
        self.wake();
    }

    pub(crate) fn wake(&self) {
        // Once is enough until the connection looks: a batch may answer hundreds of its requests.
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// The connection is about to look at everything: later changes must wake it again.
    pub(crate) fn looks(&self) {
        self.woken.store(false, Ordering::Release);
    }

    /// Says something that is decided.
    pub(crate) fn push(&self, say: Say) {
        self.inner.lock().add(State::Decided(say));
    }

    /// Takes the next slot for a command.
    pub(crate) fn push_pending(self: &Arc<Self>, waits: Waits) -> Ticket {
        let mut inner = self.inner.lock();
        inner.pending += usize::from(!matches!(waits, Waits::Upgrade));
        let number = inner.add(State::Pending(waits));
        let after_read = inner.waiting.back().is_some_and(|read| read.number > inner.last_command);
        inner.last_command = number;
        self.ticket(number, after_read)
    }

    pub(crate) fn ticket(self: &Arc<Self>, number: u64, after_read: bool) -> Ticket {
        Ticket { outbox: Arc::clone(self), number, after_read }
    }

    /// Takes the next slot for a read; the caller holds the publish lock and takes the view.
    pub(crate) fn take(&self) -> u64 {
        let mut inner = self.inner.lock();
        assert!(inner.behind() == Behind::Nothing, "a read waits for what came before it");
        let number = inner.add(State::Taken);
        inner.reading = Some(number);
        number
    }

    /// Answers the read that took a slot; `missed` are the events that go before its reply.
    pub(crate) fn answer(&self, number: u64, missed: Vec<Event>, say: Say) {
        let mut inner = self.inner.lock();
        inner.reading = None;
        inner.tentative &= !inner.ready.is_empty();
        inner.event_bytes += missed.iter().map(Event::bytes).sum::<usize>();
        let slot = inner.slot(number).expect("a slot that is not decided is not drained");
        assert!(matches!(slot.state, State::Taken), "a read is answered once");
        slot.before.extend(missed);
        slot.state = State::Decided(say);
    }

    /// Queues an event before the first open slot.
    pub(crate) fn insert(&self, event: Event) {
        let mut inner = self.inner.lock();
        inner.event_bytes += event.bytes();
        inner.tentative |= event.since.is_some_and(|since| since.any(|slot| inner.is_taken(slot)));
        if inner.event_bytes > EVENT_BYTES_MAX {
            tracing::warn!(
                bytes_max = EVENT_BYTES_MAX,
                "a client does not read its watch events; its connection is closed"
            );
            inner.dead = true;
        }
        let open = inner.open;
        match inner.slot(open) {
            Some(slot) => slot.before.push(event),
            None => inner.after.push(event),
        }
    }

    /// Queues an event behind everything: a planted bug.
    pub(crate) fn insert_last(&self, event: Event) {
        let mut inner = self.inner.lock();
        inner.event_bytes += event.bytes();
        inner.after.push(event);
    }

    /// Moves what can be said now into `out`, in order, at most about `most` things.
    pub(crate) fn take_decided(&self, out: &mut VecDeque<Say>, most: usize) {
        let mut inner = self.inner.lock();
        if inner.dead {
            out.clear();
            out.push_back(Say::Close);
            return;
        }
        let inner = &mut *inner;
        while out.len() < most {
            let Some(slot) = inner.slots.front_mut() else { break };
            inner.event_bytes -= slot.before.iter().map(Event::bytes).sum::<usize>();
            out.extend(slot.before.drain(..).map(Say::Event));
            if !matches!(slot.state, State::Decided(_)) {
                return;
            }
            inner.first += 1;
            if let Some(Slot { state: State::Decided(say), .. }) = inner.slots.pop_front() {
                out.push_back(say);
            }
        }
        if inner.slots.is_empty() {
            inner.event_bytes -= inner.after.iter().map(Event::bytes).sum::<usize>();
            out.extend(inner.after.drain(..).map(Say::Event));
        }
    }

    /// Whether the connection has its session.
    pub(crate) fn is_attached(&self) -> bool {
        self.inner.lock().attached.is_some()
    }

    /// Whether the connection is to end at once.
    pub(crate) fn is_dead(&self) -> bool {
        self.inner.lock().dead
    }

    /// Whether there is something to say now.
    pub(crate) fn has_decided(&self) -> bool {
        let inner = self.inner.lock();
        inner.dead
            || match inner.slots.front() {
                Some(slot) => !slot.before.is_empty() || matches!(slot.state, State::Decided(_)),
                None => !inner.after.is_empty(),
            }
    }
}

impl Inner {
    /// Adds a slot; gives its number.
    pub(crate) fn add(&mut self, state: State) -> u64 {
        let number = self.next();
        self.slots.push_back(Slot { before: std::mem::take(&mut self.after), state });
        self.settle();
        number
    }

    /// The number of the next slot.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(crate) fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn is_taken(&mut self, number: u64) -> bool {
        self.slot(number).is_some_and(|slot| matches!(slot.state, State::Taken))
    }

    /// Goes on to the first open slot.
    pub(crate) fn settle(&mut self) {
        while self.slot(self.open).is_some_and(|slot| !slot.is_open()) {
            self.open += 1;
        }
    }
}

impl Slot {
    fn is_open(&self) -> bool {
        match self.state {
            State::Pending(_) | State::Waiting => true,
            State::Taken | State::Decided(_) => false,
        }
    }
}

impl Ticket {
    /// This server has caught up with whatever was told to anybody before the read in this slot came,
    /// and the reads before it. True if the first that waits need not wait any longer.
    pub(crate) fn confirm(&self) -> bool {
        let mut inner = self.outbox.inner.lock();
        let upto = inner.waiting.iter_mut().take_while(|read| read.number <= self.number);
        upto.for_each(|read| read.behind = false);
        inner.last_behind = inner.last_behind.filter(|last| *last > self.number);
        inner.may_take()
    }

    /// Fills the slot with a command's answer; true if a read waited for just that.
    pub(crate) fn fill(&self, zxid: i64, answer: Answer) -> bool {
        let mut inner = self.outbox.inner.lock();
        let Some(slot) = inner.slot(self.number) else { return false };
        let State::Pending(_) = slot.state else { return false };
        let State::Pending(waits) = std::mem::replace(&mut slot.state, State::Taken) else {
            return false;
        };
        inner.pending -= usize::from(!matches!(waits, Waits::Upgrade));
        let passed = inner.waiting.front().is_some_and(|read| read.number < self.number);
        assert!(
            !passed || inner.dead,
            "a write was published before a read in front of it had its view"
        );
        let mut ends = false;
        let waits = match waits {
            Waits::Operator { xid, audited: Some(audited) } => {
                audited.operated(zxid, &answer);
                Waits::Operator { xid, audited: None }
            }
            waits => waits,
        };
        let say = match (waits, answer) {
            (Waits::Write { xid, audited }, Answer::Reply(result)) => {
                if let Some(audited) = audited {
                    audited.done(zxid, &result);
                }
                Say::Reply { xid, zxid, result, charge: None }
            }
            (Waits::Close { xid }, _) => {
                ends = true;
                Say::Reply { xid, zxid, result: Ok(Reply::Empty), charge: None }
            }
            (
                Waits::Connect { session, password, read_only },
                Answer::Attached { timeout_ms, generation },
            ) => {
                inner.attached = Some(Attached { session, generation, timeout_ms, is_own: false });
                Say::Connected { session, timeout_ms, password, read_only }
            }
            (Waits::Connect { read_only, .. }, _) => {
                ends = true;
                Say::Refused { read_only }
            }
            (Waits::Operator { xid, .. }, Answer::Settings { before, after }) => {
                let reply = OperatorReply::changed(&before, &after).encode();
                let result = Ok(Reply::Operator(reply.into()));
                Say::Reply { xid, zxid, result, charge: None }
            }
            (Waits::Operator { xid, .. }, Answer::VersionRefused { now, supported }) => {
                let reply = OperatorReply::version_refused(now, supported).encode();
                let result = Ok(Reply::Operator(reply.into()));
                Say::Reply { xid, zxid, result, charge: None }
            }
            (Waits::Operator { xid, .. }, Answer::Reply(result)) => {
                let reply = OperatorReply::reconfigured(result).encode();
                let result = Ok(Reply::Operator(reply.into()));
                Say::Reply { xid, zxid, result, charge: None }
            }
            (Waits::Upgrade, Answer::Attached { .. }) => Say::Nothing,
            // A command without effect: its outcome is unknown here, so the connection ends.
            (Waits::Write { .. } | Waits::Operator { .. } | Waits::Upgrade, _) => Say::Close,
        };
        if let Some(slot) = inner.slot(self.number) {
            slot.state = State::Decided(say);
        }
        inner.settle();
        if ends {
            inner.add(State::Decided(Say::Close));
        }
        inner.may_take()
    }
}
