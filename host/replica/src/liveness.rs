//! Which sessions are heard from. The leader counts silence and proposes the close; apply never
//! decides that time passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::outbox::Outbox;
use crate::own_sessions::Reach;
use crate::standstill::Looks;

struct Alive {
    generation: u32,
    timeout_ms: i64,
    /// `None` until the next look: then it has its full timeout.
    expires_ms: Option<i64>,
    /// Whether it was named as expired, in this term.
    named: bool,
    outbox: Option<Arc<Outbox>>,
}

/// The sessions and when each would expire, by the caller's monotonic clock.
#[derive(Default)]
pub(crate) struct Liveness {
    sessions: BTreeMap<i64, Alive>,
    /// Those that were heard from before their connections were let go, and whom nobody was told of.
    left: Vec<(i64, u32)>,
    looks: Looks,
}

impl Liveness {
    pub(crate) fn attached(
        &mut self,
        session: i64,
        generation: u32,
        timeout_ms: i32,
        outbox: Option<Arc<Outbox>>,
    ) {
        let timeout_ms = i64::from(timeout_ms);
        let alive = Alive { generation, timeout_ms, expires_ms: None, named: false, outbox };
        self.sessions.insert(session, alive);
    }

    pub(crate) fn closed(&mut self, session: i64) {
        self.sessions.remove(&session);
    }

    /// The sessions that have been silent for longer than their timeouts, and the attach generations
    /// that were. Each is named once; it is known until it was closed, which a leader that loses its
    /// place may not live to see.
    pub(crate) fn expired(&mut self, now_ms: i64) -> Vec<(i64, u32)> {
        let mut expired = Vec::new();
        let grace_ms = self.looks.stood_still_ms(now_ms);
        for (session, alive) in &mut self.sessions {
            alive.expires_ms = alive.expires_ms.map(|at_ms| at_ms.saturating_add(grace_ms));
            let heard = alive.outbox.as_ref().is_some_and(|outbox| outbox.take_heard());
            match alive.expires_ms {
                Some(expires_ms) if !heard => {
                    if now_ms > expires_ms && !std::mem::replace(&mut alive.named, true) {
                        expired.push((*session, alive.generation));
                    }
                }
                _ => alive.expires_ms = Some(now_ms + alive.timeout_ms),
            }
        }
        expired
    }

    /// A client was heard from on another server.
    pub(crate) fn heard(&mut self, session: i64, generation: u32) {
        if let Some(alive) = self.sessions.get_mut(&session)
            && alive.generation == generation
        {
            alive.expires_ms = None;
        }
    }

    /// The sessions of this server's connections that were heard from since the last look.
    pub(crate) fn take_heard(&mut self) -> Vec<(i64, u32)> {
        let heard = self
            .sessions
            .iter()
            .filter(|(_, alive)| alive.outbox.as_ref().is_some_and(|outbox| outbox.take_heard()));
        let heard = heard.map(|(session, alive)| (*session, alive.generation));
        std::mem::take(&mut self.left).into_iter().chain(heard).collect()
    }

    /// The connections of this server that are to find another one: it has heard of no leader for more
    /// than two thirds of their sessions' timeouts. Each is named once.
    pub(crate) fn cut_off(&mut self, reach: Reach) -> Vec<Arc<Outbox>> {
        let mut gone = Vec::new();
        for (session, alive) in &mut self.sessions {
            let outbox = alive.outbox.take_if(|_| reach.is_cut_off(alive.timeout_ms));
            if outbox.as_ref().is_some_and(|outbox| outbox.take_heard()) {
                self.left.push((*session, alive.generation));
            }
            gone.extend(outbox);
        }
        gone
    }

    /// Every session has its full timeout again.
    pub(crate) fn begin_again(&mut self) {
        for alive in self.sessions.values_mut() {
            (alive.expires_ms, alive.named) = (None, false);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_cut_off_lets_its_clients_go_in_time() {
        let mut liveness = Liveness::default();
        liveness.attached(1, 1, 3000, Some(Outbox::new(1, Box::new(|| {}))));
        liveness.attached(2, 1, 9000, Some(Outbox::new(2, Box::new(|| {}))));
        liveness.attached(3, 1, 3000, None);
        let silent = |silent_ms| Reach { silent_ms, read_only: false };
        let ids = |gone: Vec<Arc<Outbox>>| gone.iter().map(|outbox| outbox.id).collect::<Vec<_>>();
        assert_eq!(ids(liveness.cut_off(silent(2000))), [0; 0], "not yet");
        assert_eq!(ids(liveness.cut_off(silent(2001))), [1]);
        assert_eq!(ids(liveness.cut_off(silent(6000))), [0; 0], "once");
        assert_eq!(ids(liveness.cut_off(silent(6001))), [2]);
        // They were heard from all the same, and the leader is to know.
        assert_eq!(liveness.take_heard(), [(1, 1), (2, 1)]);
        assert_eq!(liveness.take_heard(), [], "once");
    }

    #[test]
    fn whom_a_leader_named_is_named_again_when_it_leads_again() {
        let mut liveness = Liveness::default();
        liveness.attached(7, 1, 1000, None);
        let look = |liveness: &mut Liveness, from_ms: i64| -> Vec<(i64, u32)> {
            let ticks = (0..40).map(|tick| from_ms + 50 * tick);
            ticks.flat_map(|now_ms| liveness.expired(now_ms)).collect()
        };
        assert_eq!(look(&mut liveness, 0), [(7, 1)], "once");
        // It lost its place before the close was committed.
        liveness.begin_again();
        assert_eq!(look(&mut liveness, 2000), [(7, 1)]);
        liveness.closed(7);
        liveness.begin_again();
        assert_eq!(look(&mut liveness, 4000), []);
    }
}
