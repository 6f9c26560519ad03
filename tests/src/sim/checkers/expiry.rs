//! A session ends when it is closed, or after its timeout of silence, and never before; and after
//! that it does end.
//!
//! Silence is measured where the server hears: when it takes a packet from the session's connection,
//! and when it has attached the session to a new one. After a start every session has its full
//! timeout.

use std::collections::{BTreeMap, BTreeSet};

use proto::Request;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// How long after its timeout a session may still be there, in milliseconds, on a healthy server.
const SLACK_MS: i64 = 3000;

/// When each session was last heard from, and which were silent for too long at some tick.
#[derive(Default)]
pub(super) struct Expiry {
    heard_ms: BTreeMap<i64, i64>,
    silent: BTreeSet<i64>,
    ended: BTreeSet<i64>,
    timeouts_ms: BTreeMap<i64, i64>,
    /// By what was published, and by what was committed.
    generations: BTreeMap<i64, u32>,
    attached: BTreeMap<i64, u32>,
    /// The last entry that was looked at.
    looked: u64,
    /// The end of the log at the last start, and who had been silent before.
    before: (u64, BTreeSet<i64>),
}

impl Checker for Expiry {
    fn name(&self) -> &'static str {
        "sessions end by a close or after their timeout"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let now_ms = known.now_ms;
        match event {
            Event::Heard { conn } => {
                let connection = known.connections.get(*conn);
                let session = connection.session;
                // Only its newest connection speaks for a session.
                if connection.generation.is_some()
                    && self.generations.get(&session) == connection.generation.as_ref()
                {
                    self.heard_ms.insert(session, now_ms);
                }
            }
            Event::Applied { view, .. } => self.applied(view, now_ms)?,
            Event::Ticked => {
                for (session, heard_ms) in &self.heard_ms {
                    let timeout_ms = self.timeouts_ms.get(session).copied().unwrap_or(i64::MAX);
                    if now_ms - heard_ms >= timeout_ms {
                        self.silent.insert(*session);
                    }
                }
            }
            // An entry that is given out again after a restart was looked at before.
            Event::Committed { index, .. } if *index > self.looked => {
                self.looked = *index;
                counts.chunks += u64::from(known.model.went_on > 0);
                self.attached(known);
                for session in &known.model.closed {
                    self.closed(*session, *index, known, counts)?;
                }
            }
            Event::Refused { session, .. } if !self.ended.contains(session) => {
                return Err(format!("session {session:#x} was refused, but it has not ended"));
            }
            Event::Restarted { last, .. } => {
                // What was in the log then had been decided before.
                if self.looked >= self.before.0 {
                    self.before.1.clear();
                }
                self.before.0 = *last;
                self.before.1.append(&mut self.silent);
                self.heard_ms.values_mut().for_each(|heard_ms| *heard_ms = now_ms);
            }
            Event::Second { well_since_ms: Some(since_ms) } => {
                for (session, heard_ms) in &self.heard_ms {
                    let row = known.model.sessions.get(session);
                    let timeout_ms = self.timeouts_ms.get(session).copied().unwrap_or(i64::MAX);
                    let silence_ms = now_ms - heard_ms.max(since_ms);
                    if row.is_some() && silence_ms.saturating_sub(SLACK_MS) > timeout_ms {
                        return Err(format!(
                            "session {session:#x} was silent for {silence_ms} ms and is there, \
                             its timeout is {timeout_ms} ms"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Expiry {
    /// A session that was attached before it was ended is not silent any more.
    fn attached(&mut self, known: &Known<'_>) {
        for (session, row) in &known.model.sessions {
            if self.attached.insert(*session, row.generation) != Some(row.generation) {
                self.silent.remove(session);
            }
        }
    }

    /// What was published: new sessions, and new connections of old ones.
    fn applied(&mut self, view: &state::View, now_ms: i64) -> Result<(), String> {
        for (session, row) in view.sessions().map_err(|fault| fault.to_string())? {
            let known = self.generations.insert(session, row.generation);
            self.timeouts_ms.insert(session, i64::from(row.timeout_ms));
            if known != Some(row.generation) || !self.heard_ms.contains_key(&session) {
                self.heard_ms.insert(session, now_ms);
            }
        }
        Ok(())
    }

    fn closed(
        &mut self,
        session: i64,
        index: u64,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        self.ended.insert(session);
        let heard_ms = self.heard_ms.remove(&session);
        let asked = known.connections.all.values().any(|connection| {
            let mut sent = connection.sent.iter().map(|asked| &asked.request);
            connection.session == session && sent.any(|request| *request == Request::CloseSession)
        });
        if asked {
            return Ok(());
        }
        counts.expiries += 1;
        let before = index <= self.before.0 && self.before.1.contains(&session);
        if !self.silent.remove(&session) && !before {
            let silence_ms = heard_ms.map(|heard_ms| known.now_ms - heard_ms);
            let timeout_ms = self.timeouts_ms.get(&session);
            return Err(format!(
                "session {session:#x} was ended after {silence_ms:?} ms of silence, its timeout is \
                 {timeout_ms:?} ms"
            ));
        }
        Ok(())
    }
}
