//! A session ends when it is closed, or after its timeout of silence, and never before; and after
//! that it does end.
//!
//! Silence is measured where a server learns that a client is there: when it takes a packet from the
//! session's connection, when another server reports that it has, when it has published that the
//! session was attached, and when it begins to lead. Whoever leads may end only who was silent for his
//! timeout by that measure, in its term. And what one server hears its leader must come to know, as
//! long as nothing is wrong with either or with the way between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::Request;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::model::Closed;

/// How long after its timeout a session may still be there, in milliseconds, in a healthy ensemble.
const SLACK_MS: i64 = 3000;
/// How long it takes at most until a leader knows whom another server has heard from.
const REPORT_MS: i64 = 1500;
/// For how long it is remembered when a session was heard from; longer than any timeout.
const MEMORY_MS: i64 = 8000;

/// What a server knows of a session.
#[derive(Clone, Copy)]
struct Row {
    generation: u32,
    timeout_ms: i64,
    told_ms: i64,
}

/// A session and its attach generation.
type Attached = (i64, u32);

/// What each server knows, and whom it may end.
#[derive(Default)]
pub(super) struct Expiry {
    servers: BTreeMap<u64, BTreeMap<i64, Row>>,
    /// In which term each one leads.
    leads: BTreeMap<u64, u64>,
    /// Who was silent for too long at some tick of a leader, in its term; and what is wrong with that.
    silent: BTreeMap<(u64, u64), BTreeMap<Attached, Option<String>>>,
    /// When and where each session was heard from.
    heard: BTreeMap<i64, VecDeque<(i64, u64)>>,
    timeouts_ms: BTreeMap<i64, i64>,
    ended: BTreeMap<i64, u64>,
    /// Those that one server alone knew, at first at least.
    local: BTreeSet<i64>,
    /// Those whose close takes several entries, and since when.
    closing: BTreeMap<i64, i64>,
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
                if let Some(generation) = connection.generation {
                    let attached = (connection.session, generation);
                    // Only its newest connection speaks for a session.
                    if self.told(connection.server, attached, now_ms) {
                        self.remember(connection.session, now_ms, connection.server);
                    }
                }
            }
            Event::Told { server, sessions } => {
                for attached in sessions {
                    self.told(*server, *attached, now_ms);
                }
            }
            Event::Applied { server, view, .. } => {
                let rows = view.sessions().map_err(|fault| fault.to_string())?;
                let before = self.servers.remove(server).unwrap_or_default();
                let mut after = BTreeMap::new();
                for (session, row) in rows.into_iter().filter(|(_, row)| !row.closing) {
                    let known = before.get(&session).copied();
                    let known = known.filter(|known| known.generation == row.generation);
                    let timeout_ms = i64::from(row.timeout_ms);
                    let new = Row { generation: row.generation, timeout_ms, told_ms: now_ms };
                    if known.is_none() {
                        self.remember(session, now_ms, 0);
                        self.timeouts_ms.insert(session, timeout_ms);
                    }
                    after.insert(session, known.unwrap_or(new));
                }
                self.servers.insert(*server, after);
            }
            Event::Leads { server, term: Some(term) } => {
                self.leads.insert(*server, *term);
                // A new leader gives every session its full timeout.
                for row in self.servers.entry(*server).or_default().values_mut() {
                    row.told_ms = now_ms;
                }
            }
            Event::Leads { server, term: None } => {
                self.leads.remove(server);
            }
            Event::Ticked { server } => self.ticked(*server, known),
            Event::Committed { first: true, index, term, .. } => {
                counts.chunks += u64::from(known.model.went_on > 0);
                for closed in &known.model.closed {
                    self.closed(*closed, (*index, *term), known, counts)?;
                }
            }
            Event::AttachedLocally { session, .. } | Event::Reads { session, .. }
                if !known.model.sessions.contains_key(session) =>
            {
                self.local.insert(*session);
            }
            // Others never knew of those, or do not yet.
            Event::Refused { session, .. } if self.local.contains(session) => {}
            Event::Refused { session, .. } if !self.ended.contains_key(session) => {
                return Err(format!("session {session:#x} was refused, but it has not ended"));
            }
            Event::Crashed { server, .. } => {
                self.servers.remove(server);
                self.leads.remove(server);
            }
            Event::Second { well_since_ms: Some(since_ms) } => {
                self.closing.retain(|session, _| known.model.sessions.contains_key(session));
                for (session, at_ms) in &self.closing {
                    let open_ms = now_ms - at_ms.max(since_ms);
                    if open_ms > SLACK_MS {
                        return Err(format!(
                            "the close of session {session:#x} was begun {open_ms} ms ago and is not done"
                        ));
                    }
                }
                for (session, heard) in &self.heard {
                    let row = known.model.sessions.get(session);
                    let timeout_ms = self.timeouts_ms.get(session).copied().unwrap_or(i64::MAX);
                    let heard_ms = heard.back().map_or(0, |(at_ms, _)| *at_ms);
                    // A server that was cut off tells late whom it has heard from: that counts as news.
                    let told_ms = self
                        .leads
                        .keys()
                        .filter_map(|leader| Some(self.servers.get(leader)?.get(session)?.told_ms));
                    let told_ms = told_ms.max().unwrap_or(0);
                    let silence_ms = now_ms - heard_ms.max(told_ms).max(*since_ms);
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
    /// A server learned that a session's client is there, if it knows that attachment.
    fn told(&mut self, server: u64, (session, generation): Attached, now_ms: i64) -> bool {
        let row = self.servers.get_mut(&server).and_then(|rows| rows.get_mut(&session));
        let row = row.filter(|row| row.generation == generation);
        row.map(|row| row.told_ms = now_ms).is_some()
    }

    /// A session was heard from, by a server; or attached (0).
    fn remember(&mut self, session: i64, now_ms: i64, server: u64) {
        if self.ended.contains_key(&session) {
            return;
        }
        let heard = self.heard.entry(session).or_default();
        heard.push_back((now_ms, server));
        while heard.front().is_some_and(|(at_ms, _)| now_ms - at_ms > MEMORY_MS) {
            heard.pop_front();
        }
    }

    /// Finds out whom a leader may end.
    fn ticked(&mut self, server: u64, known: &Known<'_>) {
        let now_ms = known.now_ms;
        let Some(term) = self.leads.get(&server).copied() else { return };
        let Some(rows) = self.servers.get(&server) else { return };
        let silent = rows.iter().filter(|(_, row)| now_ms - row.told_ms >= row.timeout_ms);
        for (session, row) in silent {
            let decided = self.silent.entry((server, term)).or_default();
            let attached = (*session, row.generation);
            decided.entry(attached).or_insert_with(|| {
                let heard = self.heard.get(session);
                heard.and_then(|heard| missed(heard, server, row, known))
            });
        }
    }

    fn closed(
        &mut self,
        Closed { session, generation, server }: Closed,
        (index, term): (u64, u64),
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        self.ended.insert(session, index);
        self.closing.insert(session, known.now_ms);
        let heard = self.heard.remove(&session).unwrap_or_default();
        let asked = known.connections.all.values().any(|connection| {
            let mut sent = connection.sent.iter().map(|asked| &asked.request);
            connection.session == session && sent.any(|request| *request == Request::CloseSession)
        });
        if asked {
            return Ok(());
        }
        counts.expiries += 1;
        let decided = self.silent.get(&(server, term));
        match decided.and_then(|decided| decided.get(&(session, generation))) {
            Some(None) => Ok(()),
            Some(Some(wrong)) => Err(format!("session {session:#x} was ended: {wrong}")),
            None => Err(format!(
                "session {session:#x} was ended by server {server} in an entry of term {term}; it was \
                 heard from at {heard:?} (ms, server), its timeout is {:?} ms",
                self.timeouts_ms.get(&session)
            )),
        }
    }
}

/// What a leader should have known of a session that it takes to be silent: that another server had
/// heard from it within its timeout, long enough ago to have reported that.
fn missed(
    heard: &VecDeque<(i64, u64)>,
    leader: u64,
    row: &Row,
    known: &Known<'_>,
) -> Option<String> {
    let now_ms = known.now_ms;
    let (at_ms, server) = heard.iter().rev().find(|(at_ms, _)| now_ms - at_ms >= REPORT_MS)?;
    let silence_ms = now_ms - at_ms;
    let follows = known.ensemble.led_by(*server) == Some(leader);
    if *server == leader || !follows || silence_ms >= row.timeout_ms {
        return None;
    }
    let leads = known.ensemble.leader().filter(|known| known.server == leader)?;
    let well_ms = [
        leads.since_ms,
        known.faults.running_since_ms(leader, known.ensemble)?,
        known.faults.running_since_ms(*server, known.ensemble)?,
        known.ensemble.network.clean_since_ms(*server, leader)?,
        // Who does not hear from its leader does not know whom to tell.
        known.ensemble.network.clean_since_ms(leader, *server)?,
    ];
    let well = well_ms.iter().all(|since_ms| *since_ms < at_ms - REPORT_MS);
    well.then(|| {
        let timeout_ms = row.timeout_ms;
        format!(
            "server {server} had heard from it {silence_ms} ms before, its timeout is {timeout_ms} ms"
        )
    })
}
