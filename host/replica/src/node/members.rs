//! Who takes part, as the Node sees to it: servers that ask are let in, and raft counts whom it is to.

use std::collections::BTreeMap;
use std::sync::Arc;

use state::{Command, Members};

use super::Node;
use crate::log::Disk;
use crate::membership::{Step, next_step};
use crate::peer::PeerMessage;

/// After so many ticks a server that asks to take part is decided on again.
const JOIN_TICKS: u32 = 100;
/// One that has not asked for so many ticks waits no more.
const STRANGER_TICKS: u32 = 40;

/// Servers without data that ask to take part.
#[derive(Default)]
pub(super) struct Asking {
    /// Those of the ensemble: with what number, and when they were last decided on.
    members: BTreeMap<u32, (u64, u32)>,
    /// The others, and when they last asked.
    strangers: BTreeMap<u32, u32>,
}

impl Asking {
    /// One of the ensemble asks with this number; whether that is to be decided on now.
    fn member(&mut self, server: u32, nonce: u64, ticks: u32) -> bool {
        let asked = self.members.get(&server).filter(|(known, _)| *known == nonce);
        let is_due = asked.is_none_or(|(_, at)| ticks.wrapping_sub(*at) >= JOIN_TICKS);
        if is_due {
            self.members.insert(server, (nonce, ticks));
        }
        is_due
    }

    /// Another one asks; whether it did not wait before.
    fn stranger(&mut self, server: u32, ticks: u32) -> bool {
        let before = self.strangers.insert(server, ticks);
        before.is_none_or(|at| ticks.wrapping_sub(at) > STRANGER_TICKS)
    }

    /// Those that wait to be added.
    fn strangers(&self, ticks: u32) -> impl Iterator<Item = u32> {
        let waits = move |at: u32| ticks.wrapping_sub(at) <= STRANGER_TICKS;
        self.strangers.iter().filter(move |(_, at)| waits(**at)).map(|(server, _)| *server)
    }
}

impl<D: Disk> Node<D> {
    /// A server without data asks to take part: it is new, or lost what it had.
    pub(super) fn join(&mut self, server: u32, nonce: u64) {
        let member = self.members.servers.get(&server);
        if member.is_some_and(|member| member.nonce == nonce) {
            return;
        }
        if !self.leads() {
            if self.led.0 != 0 {
                self.outgoing.push((self.led.0, PeerMessage::Join(server, nonce)));
            }
            return;
        }
        let Some(member) = member else {
            if self.asking.stranger(server, self.ticks) {
                tracing::info!(
                    server,
                    "a server that is not of the ensemble waits to be added (`vivarium member add`)"
                );
            }
            return;
        };
        if !self.decides() {
            return;
        }
        if !self.asking.member(server, nonce, self.ticks) {
            return;
        }
        let is_there = self.linked.contains(&member.raft_id);
        if is_there {
            return tracing::warn!(
                server,
                "a server without data asks to take part, but there is one with its id; two servers \
                 must not have the same id"
            );
        }
        let is_new = member.raft_id == 0;
        tracing::info!(server, is_new, "a server without data takes part");
        self.decide(Command::Admit { server, nonce });
    }

    /// The servers that this one can reach, itself included, and those that wait to be added.
    pub(super) fn present(&self) -> Vec<u32> {
        let linked = self.linked.iter().chain([&self.config.raft_id]);
        let linked = linked.filter_map(|id| self.members.server_of(*id));
        linked.chain(self.asking.strangers(self.ticks)).collect()
    }

    /// The newest apply version that every voter knows, 0 if that is not known of one of them.
    pub(super) fn supported(&self) -> u32 {
        let knows = |id: &u64| match *id == self.config.raft_id {
            true => self.config.knows,
            false => self.knows.get(id).copied().unwrap_or(0),
        };
        self.members.voters.iter().map(knows).min().unwrap_or(0)
    }

    /// Brings whom raft counts in line with the servers that are to be.
    pub(super) fn change_members(&mut self) {
        if !self.decides() || self.raft.is_changing() {
            return;
        }
        let mut counted = self.raft.counted(|id| self.linked.contains(&id));
        for server in &mut counted {
            server.is_ready = self.compiled.is_ready(server.id);
            server.is_well = self.is_well(server.id);
        }
        match next_step(&self.members, &counted, self.config.raft_id) {
            Some(Step::Change(step)) => {
                tracing::info!(?step, "whom raft counts changes, by their ids for raft");
                if let Err(error) = self.raft.propose_change(step) {
                    tracing::debug!(%error, "not now");
                }
            }
            Some(Step::HandOver(to)) => self.raft.hand_over(to),
            None => {}
        }
    }

    /// The servers, as of what is applied.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Whether it takes part without a vote.
    pub fn observes(&self) -> bool {
        self.members.servers.get(&self.config.server).is_some_and(|member| !member.votes())
    }

    /// Whether it was of the ensemble, and is no more.
    pub fn is_removed(&self) -> bool {
        let members = &self.members;
        !members.servers.is_empty() && members.server_of(self.config.raft_id).is_none()
    }

    /// A server's id, for logs.
    pub(super) fn server(&self, raft_id: u64) -> u32 {
        self.members.server_of(raft_id).unwrap_or(u32::MAX)
    }
}
