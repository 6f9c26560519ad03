//! Snapshots between servers: a leader offers one to a server that is too far behind for entries,
//! which then asks for it, chunk by chunk, and goes on from it.
//!
//! Raft's own message only offers: it is kept until the whole snapshot is staged beside the old
//! state, and put to raft then. What blocks on a store is a [`SnapshotJob`], run by a thread of its
//! own; its outcome comes back as an input.
//!
//! Invariants:
//! * The receiver asks, so it is sent no more than it can take, and both sides hold one chunk.
//! * What is staged becomes the state by one record in the log (`Log::install`), which names its
//!   generation; before that it is nothing, after that the old state is nothing.
//! * A snapshot under way goes on when its link comes back, and when the leader changes, as long as
//!   the sender answers and keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use state::snapshot::{CHUNK_BYTES_MAX, Chunk, Cursor, Progress, Source, Staged, Staging};
use state::{Fault, Members, Store};

use crate::input::Input;
use crate::peer::PeerMessage;
use crate::raft::{RaftMessage, SnapshotAt};

/// After so many ticks without an answer the receiver asks again.
const ASK_AGAIN_TICKS: u32 = 20;
/// After so many ticks without an answer it is taken from somebody else who offers one: the way from the
/// sender may be cut, and the link not be broken by that.
const MUTE_TICKS: u32 = 2 * ASK_AGAIN_TICKS;
/// After so many ticks without being asked, the leader offers anew.
const OFFER_AGAIN_TICKS: u32 = 60;
/// For so many ticks it is waited for a majority to have the same state.
const CONFIRM_TICKS: u32 = 40;
/// After so many ticks without being asked, a sender forgets which snapshot it offered.
const FORGET_TICKS: u32 = 1200;

/// What servers say to each other about snapshots; each is known by its last entry's position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SnapshotMessage {
    /// Send the chunk that begins there.
    Ask {
        /// Index and term.
        of: (u64, u64),
        /// Where it begins.
        at: Cursor,
    },
    /// A chunk.
    Chunk {
        /// Index and term.
        of: (u64, u64),
        /// The chunk.
        chunk: Chunk,
        /// Whether a majority is known to have had the same state then.
        is_confirmed: bool,
    },
    /// A server whose state is of no use, and whose log begins with `first`, asks for another's.
    Want {
        /// The first entry that it has.
        first: u64,
    },
    /// This one can be asked for.
    Offer {
        /// Index and term.
        of: (u64, u64),
    },
    /// It is not kept here any more.
    Gone {
        /// Index and term.
        of: (u64, u64),
    },
}

/// Work on a store, which may block.
#[derive(Debug)]
pub enum SnapshotJob {
    /// Reads a chunk for another server.
    Read {
        /// Its raft id.
        to: u64,
        /// What is sent.
        source: Arc<Source>,
        /// Where the chunk begins.
        at: Cursor,
    },
    /// Stages a chunk.
    Stage {
        /// What is staged already; nothing before the first chunk.
        staging: Option<Box<Staging>>,
        /// Names the store that is filled.
        generation: u64,
        /// The chunk.
        chunk: Chunk,
    },
}

/// What came of a [`SnapshotJob::Stage`].
#[derive(Debug)]
pub struct StageDone {
    generation: u64,
    /// Why the snapshot is not what it should be, if it is not.
    progress: Result<Progress, String>,
}

impl SnapshotJob {
    /// Does the work. `make` makes the empty store of a generation in place of any that is there.
    ///
    /// # Errors
    /// [`Fault`] if a store fails: stop the server.
    pub fn run(
        self,
        make: &mut dyn FnMut(u64) -> Result<Box<dyn Store>, Fault>,
    ) -> Result<Input, Fault> {
        match self {
            Self::Read { to, source, at } => {
                let of = position(&source);
                let chunk = source.chunk(at, CHUNK_BYTES_MAX)?;
                Ok(Input::ChunkRead { to, of, chunk })
            }
            Self::Stage { staging, generation, chunk } => {
                let staging = match staging {
                    Some(staging) => *staging,
                    None => Staging::new(make(generation)?),
                };
                let progress = match staging.put(&chunk) {
                    Ok(progress) => Ok(progress),
                    Err(fault @ Fault::Damaged { .. }) => Err(fault.to_string()),
                    Err(fault) => return Err(fault),
                };
                Ok(Input::Staged(StageDone { generation, progress }))
            }
        }
    }
}

fn position(source: &Source) -> (u64, u64) {
    (source.meta().applied, source.meta().term)
}

/// What this server offered to others, by raft id.
#[derive(Default)]
pub(crate) struct Offers {
    ticks: u32,
    latest: Option<Arc<Source>>,
    /// A newer one, of which it is not known yet whether the other servers have the same, and since
    /// when there is.
    unconfirmed: Option<(Arc<Source>, u32)>,
    /// Up to which entry this server had the state that a majority has.
    confirmed: u64,
    offered: BTreeMap<u64, Offer>,
    /// Who was offered what there is no more: raft waits for it, until it is told.
    withdrawn: Vec<u64>,
    /// To servers that asked for it, whose logs go on from there.
    wanted: BTreeMap<u64, Offer>,
    /// Whether nobody is to have this server's state.
    is_closed: bool,
}

struct Offer {
    source: Arc<Source>,
    /// When it was offered, or last asked for.
    used: u32,
}

impl Offers {
    /// A tick; gives the servers that do not ask for what they were offered, or could not get it any more.
    pub(crate) fn tick(&mut self) -> Vec<u64> {
        self.ticks = self.ticks.wrapping_add(1);
        let ticks = self.ticks;
        let silent = |offer: &Offer| ticks.wrapping_sub(offer.used);
        self.offered.retain(|_, offer| silent(offer) < FORGET_TICKS);
        self.wanted.retain(|_, offer| silent(offer) < FORGET_TICKS);
        let late = self.offered.iter().filter(|(_, offer)| silent(offer) % OFFER_AGAIN_TICKS == 0);
        let late = late.map(|(to, _)| *to);
        late.chain(std::mem::take(&mut self.withdrawn)).collect()
    }

    /// There is a newer picture of the store. The first is taken for right until that is shown to be
    /// wrong: there may be nobody to ask.
    pub(crate) fn put(&mut self, source: Arc<Source>) {
        let applied = source.meta().applied;
        let ticks = self.ticks;
        let has_to_do =
            |(_, since): &mut (Arc<Source>, u32)| ticks.wrapping_sub(*since) >= CONFIRM_TICKS;
        // It would keep newer ones out for as long as nobody says anything of it.
        if let Some((unconfirmed, _)) = self.unconfirmed.take_if(has_to_do) {
            self.latest = Some(unconfirmed);
        }
        let newest = self.latest.as_ref().map(|known| known.meta().applied);
        if newest.is_none() || newest < Some(applied) && applied <= self.confirmed {
            self.latest = Some(source);
        } else if newest < Some(applied) && self.unconfirmed.is_none() {
            self.unconfirmed = Some((source, self.ticks));
        }
    }

    /// After the entry at `index` this server had the state that a majority has.
    pub(crate) fn confirm(&mut self, index: u64) {
        self.confirmed = self.confirmed.max(index);
        let is_right = |(source, _): &mut (Arc<Source>, u32)| source.meta().applied <= index;
        if let Some((source, _)) = self.unconfirmed.take_if(is_right) {
            self.latest = Some(source);
        }
    }

    /// The last entry that is in the newest picture there is: a server that has none of the log behind it
    /// could be given nothing.
    pub(crate) fn newest(&self) -> u64 {
        let unconfirmed = self.unconfirmed.as_ref().map(|(source, _)| source);
        let all = [self.latest.as_ref(), unconfirmed].into_iter().flatten();
        all.map(|source| source.meta().applied).max().unwrap_or(0)
    }

    /// Whether a majority is known to have had the state as of `index`.
    pub(crate) fn is_confirmed(&self, index: u64) -> bool {
        index <= self.confirmed
    }

    /// Nobody is to have this server's state, or everybody may have it again.
    pub(crate) fn close(&mut self, is_closed: bool) {
        self.is_closed = is_closed;
    }

    /// This server's state is of no use: what there is of it is given up.
    pub(crate) fn forget(&mut self) {
        (self.latest, self.unconfirmed, self.confirmed) = (None, None, 0);
        self.withdrawn.extend(std::mem::take(&mut self.offered).into_keys());
        self.wanted.clear();
    }

    /// The best picture that is of use. One is not confirmed where nothing happens, or nobody is there
    /// to do so: then it has to do.
    fn best(&self, is_of_use: impl Fn(&Arc<Source>) -> bool) -> Option<Arc<Source>> {
        let ticks = self.ticks;
        let has_to_do =
            |(_, since): &&(Arc<Source>, u32)| ticks.wrapping_sub(*since) >= CONFIRM_TICKS;
        let unconfirmed = self.unconfirmed.as_ref().filter(has_to_do).map(|(source, _)| source);
        let all = [self.latest.as_ref(), unconfirmed];
        all.into_iter().flatten().find(|source| is_of_use(source)).cloned()
    }

    /// What a server gets that asks for a state and has the log from `first` on.
    pub(crate) fn want(&mut self, to: u64, first: u64) -> Option<(u64, u64)> {
        if self.is_closed {
            return None;
        }
        let is_of_use = |source: &Arc<Source>| source.meta().applied + 1 >= first;
        let given = self.wanted.get(&to).map(|offer| Arc::clone(&offer.source)).filter(is_of_use);
        let source = given.or_else(|| self.best(is_of_use))?;
        let of = position(&source);
        self.wanted.insert(to, Offer { source, used: self.ticks });
        Some(of)
    }

    /// What to offer to a server: what it was offered before, if entries from `first` on go on from
    /// there.
    pub(crate) fn offer(&mut self, to: u64, first: u64) -> Option<Arc<Source>> {
        if self.is_closed {
            return None;
        }
        let is_of_use = |source: &Arc<Source>| source.meta().applied + 1 >= first;
        if let Some(offer) = self.offered.get_mut(&to).filter(|offer| is_of_use(&offer.source)) {
            offer.used = self.ticks;
            return Some(Arc::clone(&offer.source));
        }
        // One that it is not among would be of no use to it.
        let lists = |source: &Arc<Source>| {
            let Members { voters, learners, .. } = &*source.meta().members;
            voters.contains(&to) || learners.contains(&to)
        };
        let source = self.best(|source| is_of_use(source) && lists(source))?;
        self.offered.insert(to, Offer { source: Arc::clone(&source), used: self.ticks });
        Some(source)
    }

    /// The work for a server that asks for what it was offered; nothing if it is not kept any more.
    pub(crate) fn ask(&mut self, to: u64, of: (u64, u64), at: Cursor) -> Option<SnapshotJob> {
        let both = [self.offered.get_mut(&to), self.wanted.get_mut(&to)];
        let mut both = both.into_iter().flatten().filter(|_| !self.is_closed);
        let offer = both.find(|offer| position(&offer.source) == of)?;
        offer.used = self.ticks;
        Some(SnapshotJob::Read { to, source: Arc::clone(&offer.source), at })
    }

    /// A server has all up to this index.
    pub(crate) fn reached(&mut self, to: u64, index: u64) {
        if self.offered.get(&to).is_some_and(|offer| offer.source.meta().applied <= index) {
            self.offered.remove(&to);
        }
    }

    /// Which servers were offered something.
    pub(crate) fn receivers(&self) -> Vec<u64> {
        self.offered.keys().copied().collect()
    }

    /// The oldest entry that somebody is being sent the state of, or would be: those behind it must be
    /// kept.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let offered = self.offered.values().map(|offer| &offer.source);
        offered.chain(&self.latest).map(|source| source.meta().applied).min()
    }
}

#[derive(Debug)]
enum Stage {
    /// The next chunk was asked for.
    Asked(Option<Box<Staging>>),
    /// A chunk is being written.
    Writing,
}

/// A snapshot that is on its way to this server.
#[derive(Debug)]
struct Incoming {
    /// The server that sends it, by raft id.
    from: u64,
    of: (u64, u64),
    generation: u64,
    /// Raft's message that offered it, or the latest that offered any; none if this server asked for it,
    /// and its log stays.
    offer: Option<RaftMessage>,
    stage: Stage,
    next: Cursor,
    asked: u32,
    /// The tick at which it last went on.
    moved: u32,
    /// Whether a majority is known to have had the same state then.
    is_confirmed: bool,
}

impl Incoming {
    /// Whether its sender does not answer.
    fn is_mute(&self, ticks: u32) -> bool {
        matches!(self.stage, Stage::Asked(_)) && ticks.wrapping_sub(self.moved) >= MUTE_TICKS
    }
}

/// A snapshot that is whole.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Raft's message that offered it; none if this server asked for it, and its log stays.
    pub(crate) offer: Option<RaftMessage>,
    /// The state.
    pub(crate) staged: Staged,
    /// Names the store that holds it.
    pub(crate) generation: u64,
    /// Whether a majority is known to have had the same state then.
    pub(crate) is_confirmed: bool,
}

/// What this server receives: one snapshot at a time.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    incoming: Option<Incoming>,
    /// The last generation that a store was made for; each has a name of its own, whatever became of
    /// those before.
    generation: u64,
}

impl Receiver {
    /// Takes an offer of raft's. One that is under way goes on, for whoever leads now, unless its
    /// sender cannot be reached or does not answer; true if another one begins. `generation` is that of
    /// the state in use.
    pub(crate) fn offered(
        &mut self,
        offer: RaftMessage,
        generation: u64,
        is_there: impl Fn(u64) -> bool,
        ticks: u32,
    ) -> bool {
        let Some(at) = &offer.snapshot else { return false };
        let (of, from) = ((at.index, at.term), offer.from);
        match &mut self.incoming {
            Some(incoming)
                if incoming.offer.is_some()
                    && (incoming.from == offer.from
                        || is_there(incoming.from) && !incoming.is_mute(ticks)) =>
            {
                incoming.offer = Some(offer);
                false
            }
            _ => {
                self.begin(from, of, Some(offer), generation, ticks);
                true
            }
        }
    }

    /// Takes what a server offered that was asked for its state, unless one is under way; true if it
    /// begins.
    pub(crate) fn offered_to_heal(
        &mut self,
        from: u64,
        of: (u64, u64),
        generation: u64,
        ticks: u32,
    ) -> bool {
        let begins = self.incoming.is_none();
        if begins {
            self.begin(from, of, None, generation, ticks);
        }
        begins
    }

    fn begin(
        &mut self,
        from: u64,
        of: (u64, u64),
        offer: Option<RaftMessage>,
        generation: u64,
        ticks: u32,
    ) {
        self.generation = self.generation.max(generation) + 1;
        let (stage, next) = (Stage::Asked(None), Cursor::default());
        let (generation, asked) = (self.generation, ticks.wrapping_sub(ASK_AGAIN_TICKS));
        let (moved, is_confirmed) = (ticks, false);
        self.incoming =
            Some(Incoming { from, of, generation, offer, stage, next, asked, moved, is_confirmed });
    }

    /// Whether nothing is under way; what this server asked for is given up if `keeps` does not hold of
    /// its sender, or it does not answer.
    pub(crate) fn is_free(&mut self, keeps: impl Fn(u64) -> bool, ticks: u32) -> bool {
        self.incoming.take_if(|incoming| {
            incoming.offer.is_none() && (!keeps(incoming.from) || incoming.is_mute(ticks))
        });
        self.incoming.is_none()
    }

    /// A tick, with the last entry known to be committed: gives what is to be asked, and whom, if it is
    /// time to.
    pub(crate) fn tick(&mut self, committed: u64, ticks: u32) -> Option<(u64, PeerMessage)> {
        // The entries came after all.
        self.incoming.take_if(|incoming| incoming.offer.is_some() && incoming.of.0 <= committed);
        let mute = self.incoming.as_mut().filter(|incoming| incoming.is_mute(ticks));
        let other = mute.and_then(|mute| mute.offer.take_if(|offer| offer.from != mute.from));
        if let Some(offer) = other
            && let Some(at) = &offer.snapshot
        {
            self.begin(offer.from, (at.index, at.term), Some(offer), 0, ticks);
        }
        let incoming = self.incoming.as_mut()?;
        let is_late = ticks.wrapping_sub(incoming.asked) >= ASK_AGAIN_TICKS;
        if !is_late || matches!(incoming.stage, Stage::Writing) {
            return None;
        }
        incoming.asked = ticks;
        let message = SnapshotMessage::Ask { of: incoming.of, at: incoming.next.clone() };
        Some((incoming.from, PeerMessage::Snapshot(message)))
    }

    /// There is a new link: what was asked for may be lost.
    pub(crate) fn ask_now(&mut self, ticks: u32) {
        if let Some(incoming) = &mut self.incoming {
            incoming.asked = ticks.wrapping_sub(ASK_AGAIN_TICKS);
        }
    }

    /// The work that a chunk makes, unless it came before.
    pub(crate) fn take(
        &mut self,
        of: (u64, u64),
        chunk: Chunk,
        is_confirmed: bool,
    ) -> Option<SnapshotJob> {
        let incoming = self.incoming.as_mut()?;
        if of != incoming.of || chunk.at != incoming.next {
            return None;
        }
        incoming.is_confirmed = is_confirmed;
        match std::mem::replace(&mut incoming.stage, Stage::Writing) {
            Stage::Asked(staging) => {
                Some(SnapshotJob::Stage { staging, generation: incoming.generation, chunk })
            }
            Stage::Writing => None,
        }
    }

    /// A server keeps a snapshot no more; true if it is this one. The leader offers another.
    pub(crate) fn gone(&mut self, from: u64, of: (u64, u64)) -> bool {
        self.incoming.take_if(|incoming| (incoming.from, incoming.of) == (from, of)).is_some()
    }

    /// Goes on after a chunk was written; gives the snapshot if that was the last.
    ///
    /// # Errors
    /// Why it is not what it should be; it is given up, and the leader offers another.
    pub(crate) fn staged(&mut self, done: StageDone, ticks: u32) -> Result<Option<Whole>, String> {
        let is_it = |incoming: &mut Incoming| incoming.generation == done.generation;
        let Some(mut incoming) = self.incoming.take_if(is_it) else { return Ok(None) };
        match done.progress? {
            Progress::Unfinished(staging) => {
                incoming.next = staging.next().clone();
                incoming.moved = ticks;
                incoming.stage = Stage::Asked(Some(Box::new(staging)));
                self.incoming = Some(incoming);
                self.ask_now(ticks);
                Ok(None)
            }
            Progress::Whole(staged) => {
                let Incoming { mut offer, generation, is_confirmed, .. } = incoming;
                if let Some(offer) = &mut offer {
                    offer.snapshot = Some(SnapshotAt::of(staged.meta()));
                }
                Ok(Some(Whole { offer, staged, generation, is_confirmed }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use state::State;
    use state::hooks::NoHooks;

    use super::*;

    fn offer(from: u64, index: u64) -> RaftMessage {
        let at = SnapshotAt { index, term: 1, voters: vec![1, 2, 3], learners: Vec::new() };
        RaftMessage::offer(from, at)
    }

    /// Whom it asks for what, at its next chance.
    fn asks(receiver: &mut Receiver) -> Option<(u64, u64)> {
        receiver.ask_now(10);
        match receiver.tick(0, 10)? {
            (from, PeerMessage::Snapshot(SnapshotMessage::Ask { of, .. })) => Some((from, of.0)),
            other => panic!("it asks for nothing else: {other:?}"),
        }
    }

    fn source() -> Arc<Source> {
        let (store, hooks) = (Box::new(state::MemoryStore::default()), Box::new(NoHooks));
        let state = State::open(store, hooks, 1 << 20).expect("a state");
        Arc::new(state.source().expect("a source"))
    }

    #[test]
    fn who_was_offered_a_state_that_is_of_no_use_is_offered_another() {
        let mut offers = Offers::default();
        offers.put(source());
        assert!(offers.offer(1, 1).is_some());
        assert_eq!(offers.tick(), Vec::<u64>::new());
        // Raft waits for what becomes of its offer, and nobody will ask for it any more.
        offers.forget();
        assert_eq!(offers.tick(), [1]);
        assert_eq!(offers.tick(), Vec::<u64>::new());
    }

    #[test]
    fn one_under_way_goes_on_as_long_as_its_sender_can_be_reached() {
        let mut receiver = Receiver::default();
        assert!(receiver.offered(offer(1, 50), 0, |_| true, 0));
        assert!(!receiver.offered(offer(2, 70), 0, |_| true, 0), "another leader");
        assert_eq!(asks(&mut receiver), Some((1, 50)));
        // The sender is gone for good.
        assert!(receiver.offered(offer(2, 70), 0, |id| id != 1, 0));
        assert_eq!(asks(&mut receiver), Some((2, 70)));
        let second = receiver.incoming.as_ref().map(|incoming| incoming.generation);
        assert_eq!(second, Some(2), "what the first had staged has another name");
    }

    #[test]
    fn a_sender_that_does_not_answer_makes_place_for_another() {
        let mut receiver = Receiver::default();
        let asks_at =
            |receiver: &mut Receiver, ticks| receiver.tick(0, ticks).map(|(from, _)| from);
        assert!(receiver.offered(offer(1, 50), 0, |_| true, 10));
        assert_eq!(asks_at(&mut receiver, 10), Some(1));
        assert!(!receiver.offered(offer(2, 70), 0, |_| true, 20), "it may answer yet");
        assert_eq!(asks_at(&mut receiver, 30), Some(1));
        assert_eq!(asks_at(&mut receiver, 49), None);
        assert_eq!(asks_at(&mut receiver, 50), Some(2), "its link is there, and it is mute");
        // Nobody else has offered anything: it is asked again and again.
        assert_eq!(asks_at(&mut receiver, 200), Some(2));
        assert!(receiver.offered(offer(3, 80), 0, |_| true, 200));
        assert_eq!(asks_at(&mut receiver, 200), Some(3));
        // One that this server asked for makes place for the next that it asks.
        let mut receiver = Receiver::default();
        assert!(receiver.offered_to_heal(1, (50, 1), 0, 10));
        assert!(!receiver.is_free(|_| true, 49));
        assert!(receiver.is_free(|_| true, 50));
    }

    #[test]
    fn one_that_is_not_needed_any_more_is_given_up() {
        let mut receiver = Receiver::default();
        assert!(receiver.offered(offer(1, 50), 4, |_| true, 0));
        assert!(!receiver.gone(2, (50, 1)) && !receiver.gone(1, (40, 1)), "it is not that one");
        receiver.ask_now(100);
        assert!(receiver.tick(49, 100).is_some());
        receiver.ask_now(100);
        assert!(receiver.tick(50, 100).is_none(), "the entries came");
        assert!(receiver.offered(offer(1, 60), 4, |_| true, 0));
        assert!(receiver.gone(1, (60, 1)));
        assert_eq!(asks(&mut receiver), None);
    }
}
