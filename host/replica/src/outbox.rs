//! What a connection has to say to its client, in order.
//!
//! An outbox is a row of slots, numbered without a gap. A write's slot is pending until its entry
//! is published. A read's slot is taken together with its view, and filled when it has been read.
//!
//! Invariants:
//! * An event goes before the first pending slot: after every reply that was decided, or whose view
//!   was taken, before the change, and before every reply that can show it.
//! * Nothing is drained past a slot that is not decided.
//! * At most one slot is taken at a time: a connection reads one thing after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proto::connect::PASSWORD_BYTES;
use proto::{Acl, ErrorCode, EventType, Reply};
use state::Answer;

use crate::big_reads::Charge;
use crate::operator::OperatorReply;

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
}

/// A watch event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventType,
    pub(crate) path: Arc<str>,
    pub(crate) zxid: i64,
    pub(crate) acl: Arc<[Acl]>,
    /// The slot of the read whose watch alone this is for: taken back if that watch is withdrawn.
    pub(crate) since: Option<u64>,
}

impl Event {
    fn bytes(&self) -> usize {
        self.path.len() + size_of::<Self>()
    }
}

/// What a pending slot waits for.
#[derive(Debug)]
pub(crate) enum Waits {
    /// A write's reply.
    Write { xid: i32 },
    /// The reply to a close, after which the connection ends.
    Close { xid: i32 },
    /// What an operator's change did.
    Operator { xid: i32 },
    /// A session.
    Connect { session: i64, password: [u8; PASSWORD_BYTES], read_only: Option<bool> },
}

#[derive(Debug)]
enum State {
    Pending(Waits),
    Taken,
    Decided(Say),
}

#[derive(Debug)]
struct Slot {
    /// Events that go before it.
    before: Vec<Event>,
    state: State,
}

/// Where the answer to one command goes.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub(crate) outbox: Arc<Outbox>,
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    slots: VecDeque<Slot>,
    /// The number of the first of `slots`.
    first: u64,
    /// No slot before this number is pending.
    undecided: u64,
    /// Events that go after the last slot.
    after: Vec<Event>,
    event_bytes: usize,
    /// How many slots are pending.
    pub(crate) pending: usize,
    /// The slot of the read that holds its view and was not answered yet.
    pub(crate) reading: Option<u64>,
    /// Whether an event came for which the watch of that read asked.
    tentative: bool,
    /// The session, its attach generation and its timeout in ms, once there is one.
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
        inner.pending += 1;
        let number = inner.add(State::Pending(waits));
        Ticket { outbox: Arc::clone(self), number }
    }

    /// Takes the next slot for a read; the caller holds the publish lock and takes the view.
    pub(crate) fn take(&self) -> u64 {
        let mut inner = self.inner.lock();
        assert!(
            inner.pending == 0 && inner.reading.is_none(),
            "a read waits for what came before it"
        );
        let number = inner.add(State::Taken);
        (inner.reading, inner.tentative) = (Some(number), false);
        number
    }

    /// Answers the read that took a slot; `missed` are the events that go before its reply.
    pub(crate) fn answer(&self, number: u64, missed: Vec<Event>, say: Say) {
        let mut inner = self.inner.lock();
        inner.reading = None;
        inner.event_bytes += missed.iter().map(Event::bytes).sum::<usize>();
        let slot = inner.slot(number).expect("a slot that is not decided is not drained");
        assert!(matches!(slot.state, State::Taken), "a read is answered once");
        slot.before.extend(missed);
        slot.state = State::Decided(say);
    }

    /// Takes back the events of these kinds that only a withdrawn watch of the read at `number`
    /// asked for.
    pub(crate) fn withdraw(&self, number: u64, path: &str, kinds: &[EventType]) {
        let mut inner = self.inner.lock();
        if !inner.tentative {
            return;
        }
        let stays = |event: &Event| {
            event.since != Some(number) || &*event.path != path || !kinds.contains(&event.kind)
        };
        let mut freed = 0;
        let Inner { slots, after, .. } = &mut *inner;
        for events in slots.iter_mut().map(|slot| &mut slot.before).chain([after]) {
            let before: usize = events.iter().map(Event::bytes).sum();
            events.retain(stays);
            freed += before - events.iter().map(Event::bytes).sum::<usize>();
        }
        inner.event_bytes -= freed;
    }

    /// Whether a change came for which the watch of the read under way asked.
    pub(crate) fn has_tentative(&self) -> bool {
        self.inner.lock().tentative
    }

    /// Queues an event before the first pending slot.
    pub(crate) fn insert(&self, event: Event) {
        let mut inner = self.inner.lock();
        inner.event_bytes += event.bytes();
        inner.tentative |= event.since.is_some() && event.since == inner.reading;
        if inner.event_bytes > EVENT_BYTES_MAX {
            tracing::warn!(
                bytes_max = EVENT_BYTES_MAX,
                "a client does not read its watch events; its connection is closed"
            );
            inner.dead = true;
        }
        let undecided = inner.undecided;
        match inner.slot(undecided) {
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
    fn add(&mut self, state: State) -> u64 {
        let number = self.first + self.slots.len() as u64;
        let decided = !matches!(state, State::Pending(_));
        self.slots.push_back(Slot { before: std::mem::take(&mut self.after), state });
        if decided && self.undecided == number {
            self.undecided = number + 1;
        }
        number
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn decide(&mut self, number: u64, say: Say) {
        if let Some(slot) = self.slot(number) {
            slot.state = State::Decided(say);
        }
        while self.slot(self.undecided).is_some_and(|slot| slot.is_decided()) {
            self.undecided += 1;
        }
    }
}

impl Slot {
    fn is_decided(&self) -> bool {
        !matches!(self.state, State::Pending(_))
    }
}

impl Ticket {
    /// Fills the slot with a command's answer.
    pub(crate) fn fill(&self, zxid: i64, answer: Answer) {
        let mut inner = self.outbox.inner.lock();
        let Some(slot) = inner.slot(self.number) else { return };
        let State::Pending(_) = slot.state else { return };
        let State::Pending(waits) = std::mem::replace(&mut slot.state, State::Taken) else {
            return;
        };
        inner.pending -= 1;
        let mut ends = false;
        let say = match (waits, answer) {
            (Waits::Write { xid }, Answer::Reply(result)) => {
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
                inner.attached = Some((session, generation, timeout_ms));
                Say::Connected { session, timeout_ms, password, read_only }
            }
            (Waits::Connect { read_only, .. }, _) => {
                ends = true;
                Say::Refused { read_only }
            }
            (Waits::Operator { xid }, Answer::Settings { before, after }) => {
                let reply = OperatorReply::changed(&before, &after).encode();
                let result = Ok(Reply::Operator(reply.into()));
                Say::Reply { xid, zxid, result, charge: None }
            }
            // A command without effect: its outcome is unknown here, so the connection ends.
            (Waits::Write { .. } | Waits::Operator { .. }, _) => Say::Close,
        };
        inner.decide(self.number, say);
        if ends {
            inner.add(State::Decided(Say::Close));
        }
    }
}
