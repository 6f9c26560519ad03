//! Writes are linearizable: each takes effect at one moment between its request and its reply. So are
//! the reads of servers that are told so, and every `sync`: what they answer is no older than their
//! requests.
//!
//! There is no need to search for an order, as Wing and Gong do: replies and the log name it. Each
//! write has its place in the log, `Answers` shows that it did there what a tree does that is changed
//! by one after the other, and `ExactlyOnce` that it stands there once. What is left to show is that
//! this order is that of real time: what was sent after anybody had seen a zxid has a later one. (That
//! it took effect before its reply is certain: nothing is answered that is not committed.) That is
//! sound, and stronger than a search, which may find an order that the log does not have.
//!
//! Other reads are not linearizable, but of what they have shown the same is true.

use std::collections::BTreeMap;

use proto::{ErrorCode, Request};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::{Event, Zxid};
use crate::sim::server::reads_are_linearizable;

/// What had been seen by anybody when each request was sent.
#[derive(Default)]
pub(super) struct RealTime {
    seen: i64,
    /// By connection, for each of its writes.
    writes: BTreeMap<u64, Vec<i64>>,
    /// By connection and number, for each linearizable read.
    reads: BTreeMap<(u64, usize), i64>,
    /// How many writes of each session's generation were looked at.
    looked: BTreeMap<(i64, u32), usize>,
}

impl Checker for RealTime {
    fn name(&self) -> &'static str {
        "writes take effect between their requests and their replies"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            Event::Sent { conn, number } => {
                let asked = &known.connections.get(*conn).sent[*number];
                if asked.is_write {
                    self.writes.entry(*conn).or_default().push(self.seen);
                } else if is_linearizable(&asked.request, known.connections.get(*conn).server) {
                    self.reads.insert((*conn, *number), self.seen);
                }
            }
            Event::Committed { first: true, index, .. } => {
                for (key, done) in &known.model.writes {
                    let looked = self.looked.insert(*key, done.len()).unwrap_or_default();
                    let conn = known.connections.attached.get(key);
                    let before =
                        conn.map_or(0, |conn| known.connections.get(*conn).writes_before(key.1));
                    let sent = conn.and_then(|conn| self.writes.get(conn));
                    for (at, done) in done.iter().enumerate().skip(looked) {
                        let seen = sent
                            .and_then(|sent| sent.get(before + at))
                            .copied()
                            .unwrap_or_default();
                        if done.zxid <= seen {
                            return Err(format!(
                                "entry {index}: {:?} has {}, but {} was seen before it was sent",
                                done.op,
                                Zxid(done.zxid),
                                Zxid(seen)
                            ));
                        }
                    }
                }
            }
            Event::Replied { conn, number, zxid, result } => {
                let shows = matches!(result, Ok(_) | Err(ErrorCode::NoNode | ErrorCode::NoAuth));
                if let Some(seen) = self.reads.remove(&(*conn, *number))
                    && shows
                    // Whoever accepts a read-only server accepts old states.
                    && !known.connections.get(*conn).reads_only
                    && *zxid < seen
                {
                    return Err(format!(
                        "connection {conn}: a linearizable read is answered at {}, but {} was seen before",
                        Zxid(*zxid),
                        Zxid(seen)
                    ));
                }
                self.seen = self.seen.max(*zxid);
            }
            Event::Ponged { zxid, .. } => self.seen = self.seen.max(*zxid),
            Event::Notified { event, .. } => self.seen = self.seen.max(event.zxid),
            _ => {}
        }
        Ok(())
    }
}

fn is_linearizable(request: &Request, server: u64) -> bool {
    match request {
        Request::Sync { .. } => true,
        Request::Exists { .. }
        | Request::GetData { .. }
        | Request::GetAcl { .. }
        | Request::GetChildren { .. }
        | Request::GetChildren2 { .. }
        | Request::MultiRead(_)
        | Request::GetEphemerals { .. }
        | Request::GetAllChildrenNumber { .. } => reads_are_linearizable(server),
        _ => false,
    }
}
