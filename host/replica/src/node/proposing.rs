//! What this server wants done, and what it has done as the leader, on the way to the log.

use state::command::PluginCommand;
use state::{Command, View};

use super::Node;
use crate::backlog::BACKLOG_ENTRIES_MAX;
use crate::log::Disk;
use crate::outbox::Ticket;
use crate::packing::{Item, pack};
use crate::peer::PeerMessage;

impl<D: Disk> Node<D> {
    /// It leads from now on.
    pub(super) fn take_over(&mut self) {
        self.steps = false;
        if !self.mutants.no_full_timeouts {
            self.liveness.begin_again();
        }
        if !self.mutants.forget_to_go_on_closing {
            let closing: Vec<i64> = self.closing.iter().copied().collect();
            for session in closing {
                self.decide(Command::ContinueClose { session });
            }
        }
    }

    /// Gives their numbers to the commands in hand, and sends them to the leader, once there is one.
    pub(super) fn number(&mut self, expect: &mut Vec<(u64, Ticket)>) {
        if self.led.0 == 0 {
            return;
        }
        let room = (BACKLOG_ENTRIES_MAX as usize).saturating_sub(self.proposals.groups());
        let mut apart = false;
        let operations_max = self.backlog.operations_max();
        let entries =
            if room == 0 { Vec::new() } else { pack(&mut self.queue, room, operations_max) };
        for items in entries {
            let after_read = |(_, ticket): &Item| ticket.as_ref().is_some_and(|t| t.after_read);
            apart |= items.iter().any(after_read);
            self.proposals.number(items, apart, expect);
            apart = true;
        }
        let sent = self.proposals.take_unsent();
        if sent.groups.is_empty() {
            return;
        }
        let server = self.config.server;
        if !self.leads() {
            self.outgoing.push((self.led.0, PeerMessage::Forward(server, sent)));
        } else if self.lines.put(server, sent).is_err() {
            self.proposals.send_afresh();
        }
    }

    /// Proposes what the servers want, if this one leads; true if there was something.
    pub(super) fn propose(&mut self, now_ms: i64) -> bool {
        if !self.decides() || self.is_in_doubt() || self.raft.hands_over() || self.lines.is_empty()
        {
            return false;
        }
        let room = self.backlog.room(self.raft.last_index(), now_ms);
        if room == 0 || !self.clocks.is_known() {
            return false;
        }
        for entry in self.lines.pack(room as usize, self.backlog.operations_max()) {
            let payload =
                entry.encode(self.clocks.time_ms(), || self.present(), || self.supported());
            if let Err(error) = self.raft.propose(payload) {
                // Whoever sent it sends it again.
                tracing::info!(%error, "raft takes no more for now");
                self.lines.clear();
                self.proposals.send_afresh();
                return false;
            }
        }
        true
    }

    /// Has the next step done of what plugins have to build or to delete, one after the other, if there
    /// are any.
    pub(super) fn go_on_with_steps(&mut self) {
        if self.wants.steps && self.decides() && !self.steps {
            self.steps = true;
            self.decide(Command::Plugin(PluginCommand::Step));
        }
    }

    /// Containers and TTL nodes that may go, up to `most`; the leader decides that they do.
    ///
    /// # Errors
    /// [`state::Fault`] if the store fails.
    pub fn reap(&mut self, view: &View, most: usize) -> Result<(), state::Fault> {
        if self.decides() {
            view.due(self.clocks.time_ms(), most)?
                .into_iter()
                .for_each(|path| self.decide(Command::Reap { path }));
        }
        Ok(())
    }
}
