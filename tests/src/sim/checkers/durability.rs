//! No acknowledged write is lost: what a client was told is in the log of the server that told it
//! after every crash of that, and in the end on all servers.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// The last entry that a client knows to have happened, by the server that it knows that of, and what
/// each server has applied.
#[derive(Default)]
pub(super) struct Durability {
    acknowledged: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, u64>,
    /// What servers told that have lost their data since, over which connections at the latest.
    by_others: u64,
    before: BTreeMap<u64, u64>,
}

impl Checker for Durability {
    fn name(&self) -> &'static str {
        "no acknowledged write is lost"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            // A read shows what happened as well as a write's reply does.
            Event::Replied { conn, zxid, .. } | Event::Ponged { conn, zxid } if *zxid > 0 => {
                let snapshots = &known.model.snapshots;
                let at = snapshots.partition_point(|snapshot| snapshot.zxid < *zxid);
                let Some(snapshot) = snapshots.get(at) else {
                    return Err(format!("a client was told of zxid {zxid:#x}, which nothing took"));
                };
                let server = known.connections.get(*conn).server;
                let acknowledged = match self.before.get(&server) {
                    Some(last) if conn <= last => &mut self.by_others,
                    _ => self.acknowledged.entry(server).or_default(),
                };
                *acknowledged = (*acknowledged).max(snapshot.index);
            }
            Event::Applied { server, index, .. } => {
                self.applied.insert(*server, *index);
            }
            Event::Restarted { server, last, .. } => {
                let acknowledged = self.acknowledged.get(server).copied().unwrap_or_default();
                if *last < acknowledged {
                    return Err(format!(
                        "clients of server {server} know of entry {acknowledged}, now its log ends at \
                         {last}"
                    ));
                }
            }
            Event::Wiped { server } => {
                let acknowledged = self.acknowledged.remove(server).unwrap_or_default();
                self.by_others = self.by_others.max(acknowledged);
                self.applied.remove(server);
                let last = known.connections.all.last_key_value().map_or(0, |(conn, _)| *conn);
                self.before.insert(*server, last);
            }
            Event::Quiet | Event::AllBack => {
                let acknowledged = self.acknowledged.values().copied().chain([self.by_others]);
                let acknowledged = acknowledged.max().unwrap_or_default();
                for (server, applied) in &self.applied {
                    if *applied < acknowledged {
                        return Err(format!(
                            "clients know of entry {acknowledged}, in the end server {server} has \
                             applied {applied}"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
