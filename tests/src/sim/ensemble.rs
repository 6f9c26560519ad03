//! The ensemble: its servers and the network between them.

use std::collections::{BTreeMap, BTreeSet};

use replica::Input;
use replica::log::SimRng;
use state::{Command, Member, Reconfig};

use super::counts::Counts;
use super::faults::Faults;
use super::membership;
use super::mutants::Planted;
use super::network::{Delivery, Network};
use super::server::{Did, End, Server, Started, Step};
use super::wire::Wire;

/// What can happen next on a server or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A server's step.
    Server(u64, Step),
    /// Something on the network.
    Network(Delivery),
}

/// Who leads, as far as anybody can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// The server.
    pub server: u64,
    /// Its term.
    pub term: u64,
    /// Since when.
    pub since_ms: i64,
}

/// All servers.
pub struct Ensemble {
    /// By their ids for raft, which begin with 1.
    pub servers: BTreeMap<u64, Server>,
    /// What is between them.
    pub network: Network,
    /// When those that are down come back.
    pub back_ms: BTreeMap<u64, i64>,
    /// Those whose states are to go bad with the next change.
    pub doomed: BTreeSet<u64>,
    /// Those whose states are not what the log makes of them.
    pub corrupted: BTreeSet<u64>,
    leader: Option<Leader>,
    /// The voters as the leader had them a second ago, by their ids for raft, and since when.
    voters: (Vec<u64>, i64),
}

impl Ensemble {
    /// Servers with empty disks, which start soon.
    pub fn new(size: u64, rng: &mut SimRng, planted: Planted, plugins: bool) -> Self {
        let ids: Vec<u64> = (1..=size).collect();
        let server = |id: &u64| (*id, Server::new(*id, &ids, rng, planted, plugins));
        let servers = ids.iter().map(server).collect();
        let back_ms = ids.iter().map(|id| (*id, rng.below(200) as i64)).collect();
        Self {
            servers,
            network: Network::new(&ids, rng),
            back_ms,
            doomed: BTreeSet::new(),
            corrupted: BTreeSet::new(),
            leader: None,
            voters: Default::default(),
        }
    }

    /// How many servers there are.
    pub fn size(&self) -> u64 {
        self.servers.len() as u64
    }

    /// Their ids.
    pub fn ids(&self) -> Vec<u64> {
        self.servers.keys().copied().collect()
    }

    /// The server with this id, which there is.
    pub fn server(&mut self, id: u64) -> &mut Server {
        self.servers.get_mut(&id).expect("an id of one of the servers")
    }

    /// Whether a server runs.
    pub fn is_up(&self, id: u64) -> bool {
        self.servers.get(&id).is_some_and(Server::is_up)
    }

    /// The leader of the latest term, if it still runs and leads.
    pub fn leader(&self) -> Option<Leader> {
        let leader = self.leader?;
        let leads = self.servers.get(&leader.server).and_then(Server::leads);
        (leads == Some(leader.term)).then_some(leader)
    }

    /// A server leads.
    pub fn elected(&mut self, server: u64, term: u64, now_ms: i64) {
        if self.leader.is_none_or(|known| known.term < term) {
            self.leader = Some(Leader { server, term, since_ms: now_ms });
        }
    }

    /// The server with this id for raft.
    pub fn server_of(&self, raft_id: u64) -> Option<u64> {
        let found = self.servers.iter().find(|(_, server)| server.raft_id() == Some(raft_id));
        found.map(|(id, _)| *id)
    }

    /// Whom a server follows.
    pub fn led_by(&self, id: u64) -> Option<u64> {
        self.server_of(self.servers.get(&id)?.leader()?.0)
    }

    /// A server that has lost its data asks all others whether it may take part anew; its id for raft
    /// if it may. It asks again soon.
    pub fn join(&mut self, id: u64, now_ms: i64) -> Option<u64> {
        self.back_ms.insert(id, now_ms + 200);
        let nonce = self.server(id).nonce();
        let number = id as u32 - 1;
        let mut admitted = None;
        for (other, server) in &mut self.servers {
            let Some(state) = server.state() else { continue };
            if *other == id || self.network.is_cut(id, *other, now_ms) {
                continue;
            }
            let member = state.meta().members.servers.get(&number);
            let member = member.filter(|member| member.nonce == nonce);
            admitted = admitted.or(member.map(|member| member.raft_id));
            server.tell(Input::Join { server: number, nonce });
        }
        admitted
    }

    /// Whether all run and vote, and are to, and all know that.
    pub fn is_complete(&self) -> bool {
        let mut ids: Vec<u64> = self.servers.values().filter_map(Server::raft_id).collect();
        ids.sort_unstable();
        self.servers.values().all(|server| {
            server.state().is_some_and(|state| {
                let members = &state.meta().members;
                let stay = ids.iter().all(|id| members.server_of(*id).is_some());
                members.voters == ids && members.learners.is_empty() && stay
            })
        })
    }

    /// Whether a server runs that the leader, or it itself, knows to be removed, and counted by raft no
    /// more: until then an operator leaves it its data, as `vivarium member` says.
    pub fn is_removed(&self, id: u64) -> bool {
        let raft_id = self.servers.get(&id).filter(|s| s.is_up()).and_then(Server::raft_id);
        let state = self.leader().and_then(|leader| self.servers.get(&leader.server)?.state());
        let own = self.servers.get(&id).and_then(Server::state);
        let unknown = |raft_id: u64| {
            let mut known = state.into_iter().chain(own).map(|state| &state.meta().members);
            known.any(|m| {
                let is_counted = m.voters.contains(&raft_id) || m.learners.contains(&raft_id);
                !m.servers.is_empty() && m.server_of(raft_id).is_none() && !is_counted
            })
        };
        // One that was let in a moment ago may not know it yet; one in quarantine knows nothing else.
        let is_new = own.is_none_or(|state| state.meta().applied == 0);
        let is_quarantined = self.servers.get(&id).is_some_and(Server::is_quarantined);
        (!is_new || is_quarantined) && raft_id.is_some_and(unknown)
    }

    /// An operator sees that all servers are to vote, where that is not so.
    pub fn take_all_back(&mut self) {
        let Some(leader) = self.leader() else { return };
        let ids = self.ids();
        let Some(state) = self.servers.get(&leader.server).and_then(Server::state) else { return };
        let members = &state.meta().members;
        let there = ids.iter().all(|id| {
            let member = members.servers.get(&(*id as u32 - 1));
            member.is_some_and(Member::votes)
        });
        if there {
            return;
        }
        let servers = membership::all(&ids);
        let asked = Reconfig { servers, version: -1, ..Reconfig::default() };
        let command = Command::Reconfig(asked);
        self.server(leader.server).tell(Input::Command { command, ticket: None });
    }

    /// Whether all are complete, and no state has gone bad, or is to.
    pub fn is_sound(&self) -> bool {
        self.is_complete()
            && self.doomed.is_empty()
            && !self.ids().into_iter().any(|id| self.is_bad(id))
    }

    /// Whether no state but perhaps this server's has gone bad, or is to.
    pub fn others_are_sound(&self, id: u64) -> bool {
        let mut others = self.ids().into_iter().filter(|other| *other != id);
        !others.any(|other| self.is_bad(other) || self.doomed.contains(&other))
    }

    /// Whether a server's state has gone bad, known to it or not.
    fn is_bad(&self, id: u64) -> bool {
        let is_known = |server: &Server| server.is_quarantined() || server.has_damaged_store();
        self.corrupted.contains(&id) || self.servers.get(&id).is_some_and(is_known)
    }

    /// Whether a state is wrong, or is to be, and its server does not know that.
    pub fn is_unnoticed(&self) -> bool {
        let notices = |id| self.servers.get(id).is_some_and(Server::is_quarantined);
        !self.doomed.is_empty() || self.corrupted.iter().any(|id| !notices(id))
    }

    /// Since when a leader and a majority with it have run without anything wrong. A state that is
    /// wrong, and not yet found to be, counts for nobody: without a majority of the others there are no
    /// writes.
    pub fn well_since_ms(&mut self, faults: &Faults, now_ms: i64) -> Option<i64> {
        let Leader { server: leader, since_ms, .. } = self.leader()?;
        let voters = &self.servers.get(&leader)?.state()?.meta().members.voters;
        if self.voters.0 != *voters {
            self.voters = (voters.clone(), now_ms);
        }
        let (voters, settled_ms) = &self.voters;
        let votes = |id: u64| {
            let raft_id = self.servers.get(&id).and_then(Server::raft_id);
            raft_id.is_some_and(|raft_id| voters.contains(&raft_id))
        };
        let ways = |other: u64| [(leader, other), (other, leader)];
        let follower = |other: u64| {
            let running_ms = faults.running_since_ms(other, self)?;
            let clean = ways(other).map(|(from, to)| self.network.clean_since_ms(from, to));
            Some(running_ms.max(clean[0]?).max(clean[1]?))
        };
        let is_wrong =
            |id: u64| self.corrupted.contains(&id) && !self.servers[&id].is_quarantined();
        let counts = |id: u64| id != leader && votes(id) && !is_wrong(id);
        let others = self.servers.keys().filter(|id| counts(**id));
        let mut followers: Vec<i64> = others.filter_map(|id| follower(*id)).collect();
        followers.sort_unstable();
        let itself_ms = faults.running_since_ms(leader, self)?.max(since_ms).max(*settled_ms);
        match voters.len() / 2 + usize::from(is_wrong(leader)) {
            0 => Some(itself_ms),
            needed => followers.get(needed - 1).map(|ms| itself_ms.max(*ms)),
        }
    }

    /// Whether all run, nothing waits anywhere, and all have applied the entry at `index` and none after.
    pub fn is_at_rest(&self, index: u64) -> bool {
        let applied = |server: &Server| server.state().map(|state| state.meta().applied);
        self.is_complete()
            && self.corrupted.is_empty()
            && self
                .servers
                .values()
                .all(|server| server.is_idle() && applied(server) == Some(index))
    }

    /// What could be done now.
    pub fn turns(
        &mut self,
        now_ms: i64,
        wires: &BTreeMap<u64, Wire>,
        faults: &Faults,
        turns: &mut Vec<Turn>,
    ) {
        let mut steps = Vec::new();
        for (id, server) in &mut self.servers {
            server.steps(now_ms, wires, &faults.paused(*id), &mut steps);
            turns.extend(steps.drain(..).map(|step| Turn::Server(*id, step)));
        }
        let mut deliveries = Vec::new();
        self.network.due(now_ms, &|id| self.is_up(id), &mut deliveries);
        turns.extend(deliveries.into_iter().map(Turn::Network));
    }

    /// When a server or the network next has something to do by the clocks, after `now_ms`.
    pub fn next_timer_ms(&self, now_ms: i64) -> i64 {
        let servers = self.servers.values().filter_map(Server::next_timer_ms);
        let servers = servers.filter(|at_ms| *at_ms > now_ms).min().unwrap_or(i64::MAX);
        let back = self.back_ms.values().copied().min().unwrap_or(i64::MAX);
        servers.min(back).min(self.network.next_timer_ms(now_ms, &|id| self.is_up(id)))
    }

    /// Does one thing on the network.
    pub fn deliver(&mut self, delivery: Delivery, now_ms: i64) {
        let servers = &self.servers;
        let up = |id: u64| servers.get(&id).filter(|s| s.is_up()).and_then(Server::raft_id);
        let lets_in = |from: u64, to: u64| {
            let raft_id = servers.get(&from).and_then(Server::raft_id).unwrap_or_default();
            let members = servers.get(&to).and_then(Server::state).map(|s| &s.meta().members);
            members.is_some_and(|m| m.servers.is_empty() || m.knows(from as u32 - 1, raft_id))
        };
        if let Some((to, input)) = self.network.run(delivery, now_ms, &up, &lets_in) {
            self.server(to).tell(input);
        }
    }

    /// Lets a server do one step, and gives its messages to the network.
    ///
    /// # Errors
    /// [`End`]: its process must end.
    pub fn step(
        &mut self,
        (id, step): (u64, Step),
        (now_ms, clock_ms): (i64, i64),
        wires: &mut BTreeMap<u64, Wire>,
        rng: &mut SimRng,
        counts: &mut Counts,
        did: &mut Vec<Did>,
    ) -> Result<(), End> {
        let mut sent = Vec::new();
        let ended = self.server(id).run(step, (now_ms, clock_ms), wires, rng, did, &mut sent);
        for (to, message) in sent {
            let Some(to) = self.server_of(to) else { continue };
            self.network.send((id, to), &message, now_ms, rng, counts);
        }
        ended
    }

    /// The process of a server ended, with its power or without.
    pub fn down(&mut self, id: u64, power: bool, now_ms: i64, rng: &mut SimRng) {
        self.network.down(id, power, now_ms, rng);
        // Some are away for so long that the others forget what they need to catch up.
        let away_ms = if self.size() > 1 && rng.chance(20) { 9000 } else { 1200 };
        self.back_ms.insert(id, now_ms + 20 + rng.below(away_ms) as i64);
    }

    /// Starts a server.
    ///
    /// # Errors
    /// [`End`]: whatever the crash, a server starts again.
    pub fn start(&mut self, id: u64, now_ms: i64, rng: &mut SimRng) -> Result<Started, End> {
        self.back_ms.remove(&id);
        let started = self.server(id).start(now_ms, rng)?;
        self.network.back(id, now_ms);
        Ok(started)
    }
}
