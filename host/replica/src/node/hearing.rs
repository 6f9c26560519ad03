//! What other servers say to the Node.

use super::Node;
use crate::log::Disk;
use crate::peer::{Missing, PeerMessage};

impl<D: Disk> Node<D> {
    /// Takes a message of the server with this id for raft.
    pub(super) fn hear(&mut self, from: u64, message: PeerMessage) {
        match message {
            PeerMessage::Raft { message, wall_ms } => {
                self.clocks.hear(from, wall_ms);
                match &message.snapshot {
                    Some(at) if at.index > self.raft.committed() => self.offered(message),
                    _ => self.raft.step(message),
                }
            }
            PeerMessage::Snapshot(message) => self.hear_of_snapshot(from, message),
            PeerMessage::Word(word) => self.hear_word(from, word),
            PeerMessage::Knows(version) => {
                self.knows.insert(from, version);
            }
            PeerMessage::Compiled(compiled) => self.compiled.hear(from, compiled),
            PeerMessage::Join(server, nonce) => self.join(server, nonce),
            PeerMessage::Forward(server, sent) if self.leads() => {
                if let Err(missing) = self.lines.put(server, sent) {
                    self.outgoing.push((from, PeerMessage::SendAgain(missing)));
                }
            }
            // It sends them to the leader as soon as it knows who that is.
            PeerMessage::Forward(..) => {}
            PeerMessage::SendAgain(missing) if from == self.led.0 => match missing {
                Missing::All => self.proposals.send_afresh(),
                Missing::From(number) => self.proposals.send_again_from(number),
            },
            PeerMessage::SendAgain(_) => {}
            PeerMessage::Heard(sessions) => {
                for (session, generation) in sessions {
                    self.liveness.heard(session, generation);
                }
            }
        }
    }
}
