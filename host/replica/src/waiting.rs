//! Reads that stand behind writes of their session which are not published yet, and linearizable ones,
//! which wait until this server is known to have caught up.
//!
//! Such a read waits in its slot, so that what comes after it goes on. With the entry of the last
//! write before it, it takes the new view and sets its watch, in one step with publishing; then its
//! connection runs it. The session's next write is in a later entry (`packing.rs`): the view shows
//! every write before the read, and none after it.
//!
//! Invariants:
//! * A read waits exactly as long as a slot before it is open, or it may be behind others' writes. So
//!   reads take their views in order.
//! * While a read may be behind others' writes, its session's next write waits at the connection:
//!   nothing says which entry that read's view will be of.
//! * Watches are set under the watch table's lock, and not after [`Published::disconnect`].
//!
//! [`Published::disconnect`]: crate::publish::Published::disconnect

use std::sync::Arc;

use proto::Request;
use state::View;

use crate::outbox::{Outbox, State, Ticket};
use crate::reads::Asked;
use crate::watches::{Table, WatchTable};

/// A read with all that it takes; it does not hold its connection, whose outbox holds it.
pub(crate) struct Taken {
    pub(crate) view: Arc<View>,
    pub(crate) number: u64,
    pub(crate) asked: Asked,
}

/// A read that has its slot, and neither its view nor its watch yet.
pub(crate) struct WaitingRead {
    pub(crate) number: u64,
    pub(crate) asked: Asked,
    /// Whether this server may be behind what it is to show.
    pub(crate) behind: bool,
}

/// What a connection has in hand, for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// All is decided.
    Nothing,
    /// Reads that hold their views are not answered yet.
    Reads,
    /// A write is not published yet.
    Writes,
}

/// Whether it may wait behind writes in a slot: what is answered from a view. All else waits at its
/// connection until nothing is in hand; so does `setWatches`, because [`Outbox::withdraw`] looks for
/// an heir among reads that ask for one watch.
pub(crate) fn may_wait(request: &Request) -> bool {
    match request {
        Request::Exists { .. }
        | Request::GetData { .. }
        | Request::GetAcl { .. }
        | Request::GetChildren { .. }
        | Request::GetChildren2 { .. }
        | Request::Sync { .. }
        | Request::MultiRead(_)
        | Request::GetEphemerals { .. }
        | Request::GetAllChildrenNumber { .. } => true,
        Request::Create(_)
        | Request::Delete { .. }
        | Request::SetData { .. }
        | Request::SetAcl { .. }
        | Request::Ping
        | Request::Check { .. }
        | Request::Multi(_)
        | Request::Reconfig { .. }
        | Request::CheckWatches { .. }
        | Request::RemoveWatches { .. }
        | Request::DeleteContainer { .. }
        | Request::Auth { .. }
        | Request::SetWatches(_)
        | Request::SetWatches2(_)
        | Request::Sasl { .. }
        | Request::AddWatch { .. }
        | Request::WhoAmI
        | Request::Operator { .. }
        | Request::CreateSession
        | Request::CloseSession => false,
    }
}

impl Outbox {
    /// Takes the next slot for a read that waits for the writes before it. Gives it back if they
    /// were published meanwhile.
    pub(crate) fn push_waiting(&self, asked: Asked) -> Option<Asked> {
        let mut inner = self.inner.lock();
        if inner.behind() != Behind::Writes {
            return Some(asked);
        }
        let number = inner.add(State::Waiting);
        inner.waiting.push_back(WaitingRead { number, asked, behind: false });
        None
    }

    /// Takes the next slot for a linearizable read: it waits for [`Ticket::confirm`] too.
    pub(crate) fn push_behind(self: &Arc<Self>, asked: Asked) -> Ticket {
        let mut inner = self.inner.lock();
        let number = inner.add(State::Waiting);
        inner.waiting.push_back(WaitingRead { number, asked, behind: true });
        inner.last_behind = Some(number);
        self.ticket(number, false)
    }

    /// The reads before which nothing is open any more take the view and set their watches. The
    /// caller holds the publish lock.
    pub(crate) fn take_waiting(self: &Arc<Self>, view: &Arc<View>, watches: &mut WatchTable) {
        let mut inner = self.inner.lock();
        while inner.may_take()
            && let Some(WaitingRead { number, asked, .. }) = inner.waiting.pop_front()
        {
            asked.register(watches, self, number);
            let slot = inner.slot(number).expect("a slot that is not decided is not drained");
            slot.state = State::Taken;
            inner.settle();
            inner.ready.push_back(Taken { view: Arc::clone(view), number, asked });
        }
    }

    /// Takes back what the watch in `table` of the read at `number` has caused, but for what the
    /// next read that asked for the same watch is to hear. Gives that one's slot. The caller holds
    /// the watch table's lock.
    pub(crate) fn withdraw(
        &self,
        number: u64,
        (table, path): (Table, &str),
        no_heirs: bool,
    ) -> Option<u64> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut later = inner.ready.iter().filter(|_| !no_heirs);
        let heir = later.find(|taken| taken.asked.watch() == Some((table, path)));
        let heir = heir.map(|taken| taken.number);
        if !inner.tentative {
            return heir;
        }
        let mut freed = 0;
        let rows = inner.slots.iter_mut().map(|slot| &mut slot.before).chain([&mut inner.after]);
        for (slot, events) in (inner.first..).zip(rows) {
            // What stands before the heir was published before it had its watch.
            let heir = heir.filter(|heir| *heir < slot);
            events.retain_mut(|event| {
                let Some(since) = event.since.as_mut().filter(|_| &*event.path == path) else {
                    return true;
                };
                let stays = since.withdraw(table, number, heir);
                if !stays {
                    freed += event.bytes();
                }
                stays
            });
        }
        inner.event_bytes -= freed;
        heir
    }

    /// Drops the reads that are not under way; the caller holds the watch table's lock. They are
    /// given back to be freed without it.
    #[must_use]
    pub(crate) fn forget_reads(&self) -> impl Sized + use<> {
        let mut inner = self.inner.lock();
        (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.ready))
    }
}

impl crate::outbox::Inner {
    /// Whether the first read that waits has nothing open before it, and is not behind.
    pub(crate) fn may_take(&self) -> bool {
        self.waiting.front().is_some_and(|read| read.number == self.open && !read.behind)
    }

    /// The next read to run, unless one is under way.
    pub(crate) fn next_read(&mut self) -> Option<Taken> {
        if self.reading.is_some() {
            return None;
        }
        let taken = self.ready.pop_front()?;
        self.reading = Some(taken.number);
        Some(taken)
    }

    /// What is in hand.
    pub(crate) fn behind(&self) -> Behind {
        if self.open < self.next() {
            Behind::Writes
        } else if self.reading.is_some() || !self.ready.is_empty() {
            Behind::Reads
        } else {
            Behind::Nothing
        }
    }

    /// How many requests wait or are under way.
    pub(crate) fn in_hand(&self) -> usize {
        let reading = usize::from(self.reading.is_some());
        self.pending + self.waiting.len() + self.ready.len() + reading
    }
}
