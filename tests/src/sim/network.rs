//! The network between servers: what `server/src/peers.rs` keeps over TCP, and what may become of it.
//!
//! Each server keeps a link to each other one, for one direction. Messages of a link come in order;
//! while a way is cut nothing comes, and what was sent waits. When a link breaks, a first part of
//! what was under way still arrives, perhaps later than what the next link brings, the rest is lost,
//! and both ends hear of it, each when it does. On some seeds the network is rough too: single
//! messages are lost, doubled, or overtaken by others, which no link does; nothing may depend on that.

use std::collections::{BTreeMap, VecDeque};

use replica::log::SimRng;
use replica::{Input, PeerMessage};

use super::counts::Counts;

/// How long a server waits before it tries again to reach another, in milliseconds.
const RETRY_MS: i64 = 100;
/// How many messages may wait on a link before further ones are dropped.
const WAITING_MAX: usize = 400;

/// What can happen next between servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A link's next message comes.
    Next(u64, u64),
    /// A message comes that is not in the order of its link.
    Stray(usize),
    /// A server hears that a link is gone.
    Notice(usize),
    /// A server calls another.
    Call(u64, u64),
}

#[derive(Debug, Default)]
struct Link {
    /// Whether the caller has it.
    there: bool,
    /// The ids for raft of both ends, when it was made.
    ends: (u64, u64),
    /// Whether the other end is gone, which the caller does not know yet.
    dead: bool,
    /// When the caller tries next.
    calls_ms: i64,
    /// What is under way, and when it comes.
    under_way: VecDeque<(i64, Packet)>,
    /// Until when nothing passes.
    cut_until_ms: i64,
    /// Until when messages take long.
    slow_until_ms: i64,
    /// Nothing was wrong with it since then.
    clean_since_ms: i64,
}

/// A message, and between whom by their ids for raft.
#[derive(Debug, Clone)]
struct Packet {
    from: u64,
    to: u64,
    bytes: Vec<u8>,
}

/// A message out of its order, for a server.
#[derive(Debug)]
struct Stray {
    at_ms: i64,
    to: u64,
    packet: Packet,
}

/// A server is to hear that its link with another, either way, is gone.
#[derive(Debug)]
struct Notice {
    at_ms: i64,
    to: u64,
    lost: u64,
    /// The other server's id for raft, when there was a link.
    lost_raft_id: u64,
    /// Whether it is the one who called, and calls again.
    caller: bool,
}

/// All links.
pub struct Network {
    links: BTreeMap<(u64, u64), Link>,
    strays: Vec<Stray>,
    notices: Vec<Notice>,
    /// How many messages of a hundred are lost, and doubled or overtaken.
    rough: (u64, u64),
    /// How long a message takes, at most, when nothing is wrong.
    delay_ms: u64,
}

impl Network {
    /// The links between these servers; none is there yet. The seed decides how good they are.
    pub fn new(ids: &[u64], rng: &mut SimRng) -> Self {
        let pairs = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to)));
        let links = pairs.filter(|(from, to)| from != to).map(|pair| (pair, Link::default()));
        let rough = if rng.chance(30) { (1 + rng.below(4), 1 + rng.below(4)) } else { (0, 0) };
        let delay_ms = 2 + rng.below(4);
        Self { links: links.collect(), strays: Vec::new(), notices: Vec::new(), rough, delay_ms }
    }

    /// Since when nothing was wrong with the way from one server to another; `None` if something is.
    pub fn clean_since_ms(&self, from: u64, to: u64) -> Option<i64> {
        let link = self.links.get(&(from, to))?;
        let is_clean = link.there && !link.dead && self.rough == (0, 0);
        is_clean.then_some(link.clean_since_ms)
    }

    /// Whether nothing passes at least one way.
    pub fn is_cut(&self, one: u64, other: u64, now_ms: i64) -> bool {
        let is_cut = |way| self.links.get(&way).is_some_and(|link| now_ms < link.cut_until_ms);
        is_cut((one, other)) || is_cut((other, one))
    }

    /// A server gives a message to its link.
    pub fn send(
        &mut self,
        (from, to): (u64, u64),
        message: &PeerMessage,
        now_ms: i64,
        rng: &mut SimRng,
        counts: &mut Counts,
    ) {
        let Some(link) = self.links.get_mut(&(from, to)) else { return };
        if !link.there || link.dead || link.under_way.len() >= WAITING_MAX {
            return;
        }
        let (lost, odd) = self.rough;
        if rng.chance(lost) {
            counts.messages_lost += 1;
            return;
        }
        let slow_ms = if now_ms < link.slow_until_ms { 20 + rng.below(300) } else { 0 };
        let at_ms = now_ms + (rng.below(self.delay_ms) + slow_ms) as i64;
        let (from, to_raft_id) = link.ends;
        let packet = Packet { from, to: to_raft_id, bytes: message.encode() };
        if rng.chance(odd) {
            counts.messages_odd += 1;
            let at_ms = at_ms + rng.below(400) as i64;
            self.strays.push(Stray { at_ms, to, packet: packet.clone() });
            if rng.chance(50) {
                return;
            }
        }
        // It does not overtake what was sent before.
        let at_ms = link.under_way.back().map_or(at_ms, |(before_ms, _)| at_ms.max(*before_ms));
        link.under_way.push_back((at_ms, packet));
    }

    /// What may happen now. `up` says which servers run.
    pub fn due(&self, now_ms: i64, up: &dyn Fn(u64) -> bool, all: &mut Vec<Delivery>) {
        for ((from, to), link) in &self.links {
            let passes = now_ms >= link.cut_until_ms;
            if passes && link.under_way.front().is_some_and(|(at_ms, _)| now_ms >= *at_ms) {
                all.push(Delivery::Next(*from, *to));
            }
            if !link.there && up(*from) && now_ms >= link.calls_ms {
                all.push(Delivery::Call(*from, *to));
            }
        }
        let due = |at_ms: i64| now_ms >= at_ms;
        let strays = self.strays.iter().enumerate().filter(|(_, stray)| due(stray.at_ms));
        all.extend(strays.map(|(at, _)| Delivery::Stray(at)));
        let notices = self.notices.iter().enumerate().filter(|(_, notice)| due(notice.at_ms));
        all.extend(notices.map(|(at, _)| Delivery::Notice(at)));
    }

    /// When something may happen next, after `now_ms`.
    pub fn next_timer_ms(&self, now_ms: i64, up: &dyn Fn(u64) -> bool) -> i64 {
        let links = self.links.iter().flat_map(|((from, _), link)| {
            let next = link.under_way.front().map(|(at_ms, _)| (*at_ms).max(link.cut_until_ms));
            let call = (!link.there && up(*from)).then_some(link.calls_ms);
            next.into_iter().chain(call)
        });
        let strays = self.strays.iter().map(|stray| stray.at_ms);
        let notices = self.notices.iter().map(|notice| notice.at_ms);
        let all = links.chain(strays).chain(notices).filter(|at_ms| *at_ms > now_ms);
        all.min().unwrap_or(i64::MAX)
    }

    /// Lets it happen: gives what a server must be told of it. `up` gives the ids for raft of the
    /// servers that run, `lets_in` whether the second takes a call of the first.
    pub fn run(
        &mut self,
        delivery: Delivery,
        now_ms: i64,
        up: &dyn Fn(u64) -> Option<u64>,
        lets_in: &dyn Fn(u64, u64) -> bool,
    ) -> Option<(u64, Input)> {
        let message = |server: u64, Packet { from, to, bytes }: Packet| {
            let message = PeerMessage::decode(&bytes).expect("what was encoded can be decoded");
            (up(server) == Some(to)).then_some((server, Input::Peer { from, message }))
        };
        match delivery {
            Delivery::Next(from, to) => {
                let (_, packet) = self.links.get_mut(&(from, to))?.under_way.pop_front()?;
                message(to, packet)
            }
            Delivery::Stray(at) => {
                let Stray { to, packet, .. } = self.strays.swap_remove(at);
                message(to, packet)
            }
            Delivery::Notice(at) => {
                let Notice { to, lost, lost_raft_id, caller, .. } = self.notices.swap_remove(at);
                let input = match self.links.get_mut(&(to, lost)) {
                    Some(link) if caller => {
                        (link.there, link.dead) = (false, false);
                        link.calls_ms = now_ms + RETRY_MS;
                        Input::Unlinked(lost_raft_id)
                    }
                    _ => Input::HungUp(lost_raft_id),
                };
                up(to).map(|_| (to, input))
            }
            Delivery::Call(from, to) => {
                let is_cut = self.is_cut(from, to, now_ms) || !lets_in(from, to);
                let link = self.links.get_mut(&(from, to))?;
                let (false, Some(me), Some(peer)) = (is_cut, up(from), up(to)) else {
                    link.calls_ms = now_ms + RETRY_MS;
                    return None;
                };
                (link.there, link.ends) = (true, (me, peer));
                link.clean_since_ms = link.clean_since_ms.max(now_ms);
                Some((from, Input::Linked(peer)))
            }
        }
    }

    /// A link breaks. Each end hears of it within so many milliseconds.
    pub fn break_link(&mut self, (from, to): (u64, u64), now_ms: i64, rng: &mut SimRng) {
        let link = self.links.get(&(from, to)).filter(|link| link.there && !link.dead);
        let Some((_, lost_raft_id)) = link.map(|link| link.ends) else { return };
        self.lose(from, to, now_ms, rng);
        let at_ms = now_ms + rng.below(150) as i64;
        self.notices.push(Notice { at_ms, to: from, lost: to, lost_raft_id, caller: true });
    }

    /// What is under way on a link comes in part, and its other end hears that it is gone.
    fn lose(&mut self, from: u64, to: u64, now_ms: i64, rng: &mut SimRng) {
        let Some(link) = self.links.get_mut(&(from, to)) else { return };
        let was_there = link.there && !link.dead;
        link.dead = link.there;
        let comes = rng.below(link.under_way.len() as u64 + 1) as usize;
        let late_ms = rng.below(300) as i64;
        let mut last_ms = now_ms;
        for (at_ms, packet) in link.under_way.drain(..).take(comes) {
            last_ms = at_ms.max(last_ms).max(now_ms + late_ms).max(link.cut_until_ms);
            self.strays.push(Stray { at_ms: last_ms, to, packet });
        }
        if was_there {
            let at_ms = last_ms + rng.below(50) as i64;
            let lost_raft_id = link.ends.0;
            self.notices.push(Notice { at_ms, to, lost: from, lost_raft_id, caller: false });
        }
    }

    /// A server is gone: with its power nobody says so to the others, who find out later.
    pub fn down(&mut self, id: u64, power: bool, now_ms: i64, rng: &mut SimRng) {
        self.notices.retain(|notice| notice.to != id);
        let others: Vec<u64> =
            self.links.keys().filter(|(from, _)| *from == id).map(|(_, to)| *to).collect();
        for other in others {
            let late_ms = if power { rng.below(2000) as i64 } else { rng.below(20) as i64 };
            // From it.
            self.lose(id, other, now_ms, rng);
            for notice in &mut self.notices {
                if (notice.to, notice.lost) == (other, id) {
                    notice.at_ms += late_ms;
                }
            }
            if let Some(link) = self.links.get_mut(&(id, other)) {
                (link.there, link.dead, link.calls_ms) = (false, false, now_ms);
            }
            // To it.
            if let Some(link) = self.links.get_mut(&(other, id)) {
                link.under_way.clear();
                if link.there && !link.dead {
                    link.dead = true;
                    let (at_ms, lost_raft_id) = (now_ms + late_ms, link.ends.1);
                    let lost = id;
                    self.notices.push(Notice {
                        at_ms,
                        to: other,
                        lost,
                        lost_raft_id,
                        caller: true,
                    });
                }
            }
        }
        self.strays.retain(|stray| stray.to != id);
    }

    /// A server is back: whoever still believes in a link to its earlier life hears now.
    pub fn back(&mut self, id: u64, now_ms: i64) {
        for notice in &mut self.notices {
            if notice.lost == id {
                notice.at_ms = notice.at_ms.min(now_ms + 5);
            }
        }
    }

    /// Nothing passes one way for a while.
    pub fn cut(&mut self, (from, to): (u64, u64), until_ms: i64) {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.cut_until_ms = link.cut_until_ms.max(until_ms);
            // Even when it is over, what was sent comes late.
            link.clean_since_ms = link.clean_since_ms.max(until_ms + 1000);
        }
    }

    /// Messages take long, one way, for a while.
    pub fn slow(&mut self, (from, to): (u64, u64), until_ms: i64) {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.slow_until_ms = until_ms;
            link.clean_since_ms = link.clean_since_ms.max(until_ms + 1000);
        }
    }

    /// It does to single messages what links do, and no more.
    pub fn smooth(&mut self, now_ms: i64) {
        if std::mem::take(&mut self.rough) != (0, 0) {
            // What it did before is not undone by that.
            for link in self.links.values_mut() {
                link.clean_since_ms = link.clean_since_ms.max(now_ms + 1000);
            }
        }
    }

    /// Nothing is wrong any more.
    pub fn heal(&mut self, now_ms: i64) {
        for link in self.links.values_mut() {
            link.cut_until_ms = link.cut_until_ms.min(now_ms);
            link.slow_until_ms = link.slow_until_ms.min(now_ms);
            link.clean_since_ms = link.clean_since_ms.min(now_ms + 1000);
        }
        self.smooth(now_ms);
    }
}
