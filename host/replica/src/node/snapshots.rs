//! Snapshots on their way, as the Node passes them on: between servers, the threads that read and stage
//! them, and raft.

use super::Node;
use crate::log::Disk;
use crate::marked::Marked;
use crate::peer::PeerMessage;
use crate::raft::RaftMessage;
use crate::snapshots::{SnapshotMessage, StageDone, Whole};

impl<D: Disk> Node<D> {
    /// Raft may take a snapshot only when its state is here: it is asked for first.
    pub(super) fn offered(&mut self, message: RaftMessage) {
        let (from, generation, linked) = (message.from, self.generation(), &self.linked);
        if self.receiver.offered(message, generation, |id| linked.contains(&id), self.ticks) {
            let server = self.server(from);
            tracing::info!(server, "too far behind; a snapshot is on its way");
        }
    }

    /// Which generation of the state it is, by the log.
    pub fn generation(&self) -> u64 {
        Marked::of(self.raft.log()).generation
    }

    pub(super) fn hear_of_snapshot(&mut self, from: u64, message: SnapshotMessage) {
        match message {
            SnapshotMessage::Ask { of, at } => match self.raft.offers().ask(from, of, at) {
                Some(job) => self.jobs.push(job),
                None => {
                    let gone = SnapshotMessage::Gone { of };
                    self.outgoing.push((from, PeerMessage::Snapshot(gone)));
                }
            },
            SnapshotMessage::Want { first } => {
                let of = self.raft.offers().want(from, first);
                let offer = |of| (from, PeerMessage::Snapshot(SnapshotMessage::Offer { of }));
                self.outgoing.extend(of.map(offer));
            }
            SnapshotMessage::Offer { of } => self.offered_state(from, of),
            SnapshotMessage::Chunk { of, chunk, is_confirmed } => {
                self.jobs.extend(self.receiver.take(of, chunk, is_confirmed));
            }
            SnapshotMessage::Gone { of } => {
                if self.receiver.gone(from, of) {
                    tracing::info!(server = self.server(from), "it keeps that snapshot no more");
                }
            }
        }
    }

    pub(super) fn staged(&mut self, done: StageDone) {
        match self.receiver.staged(done, self.ticks) {
            Ok(None) => {}
            Ok(Some(Whole { offer: None, staged, generation, is_confirmed })) => {
                self.has_state(staged, generation, is_confirmed);
            }
            Ok(Some(Whole { offer: Some(offer), staged, generation, is_confirmed })) => {
                self.is_given(is_confirmed);
                self.staged = Some((staged, generation));
                self.raft.step(offer);
            }
            Err(why) => {
                tracing::error!(%why, "a snapshot that came is not whole; asking for another");
            }
        }
    }
}
