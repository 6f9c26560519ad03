//! Ephemerals die with their session and never before.
//!
//! Looks at what each server publishes, not at the model: after every entry that ends a session none
//! of its ephemerals is left, and an ephemeral whose creation was acknowledged is there as long as its
//! session lives and nobody deleted it.

use std::collections::{BTreeMap, BTreeSet};

use proto::{CreateMode, MultiResult, Reply, Request};
use state::Op;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// Ephemerals that clients know of, with their owners and when they were made.
type Made = BTreeMap<String, (i64, i64)>;

/// The same, as far as they are to be looked for on each server.
pub(super) struct Ephemerals {
    servers: BTreeMap<u64, Made>,
    restarted: BTreeSet<u64>,
}

impl Ephemerals {
    pub(super) fn new(ids: &[u64]) -> Self {
        let servers = ids.iter().map(|id| (*id, Made::default())).collect();
        Self { servers, restarted: BTreeSet::new() }
    }
}

impl Checker for Ephemerals {
    fn name(&self) -> &'static str {
        "ephemerals die with their session and never before"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match event {
            Event::Restarted { server, .. } => {
                self.restarted.insert(*server);
            }
            Event::Replied { conn, .. } if known.tainted.contains(conn) => {}
            Event::Replied { conn, number, zxid, result: Ok(reply) } => {
                let connection = known.connections.get(*conn);
                let request = &connection.sent[*number].request;
                for path in made(request, reply) {
                    let owner = (connection.session, *zxid);
                    self.servers.values_mut().for_each(|made| {
                        made.insert(path.clone(), owner);
                    });
                }
            }
            Event::Applied { server, .. } if known.ensemble.corrupted.contains(server) => {}
            Event::Applied { server, index, view, .. } => {
                // All of them now and then, and after every restart.
                if index % 16 != 0 && !self.restarted.remove(server) {
                    return Ok(());
                }
                let Some(made) = self.servers.get_mut(server) else { return Ok(()) };
                let fault = |fault: state::Fault| fault.to_string();
                let rows = view.sessions().map_err(fault)?;
                let alive: BTreeMap<i64, bool> =
                    rows.into_iter().map(|(session, row)| (session, !row.closing)).collect();
                let mut dead = Vec::new();
                for (path, (session, zxid)) in made.iter() {
                    if *zxid > view.zxid {
                        continue;
                    }
                    let there = view.node(path).map_err(fault)?;
                    let there = there.is_some_and(|node| node.stat().czxid == *zxid);
                    match alive.get(session) {
                        Some(true) if !there => {
                            if was_deleted(known, path, *zxid, view.zxid) {
                                dead.push(path.clone());
                                continue;
                            }
                            return Err(format!(
                                "server {server}, entry {index}: {path} is gone, its session {session:#x} lives"
                            ));
                        }
                        None if there => {
                            return Err(format!(
                                "server {server}, entry {index}: {path} is there, its session {session:#x} is gone"
                            ));
                        }
                        None => {
                            counts.ephemerals_died += 1;
                            dead.push(path.clone());
                        }
                        Some(_) => {}
                    }
                }
                made.retain(|path, _| !dead.contains(path));
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_ephemeral(flags: i32) -> bool {
    CreateMode::from_flags(flags).is_some_and(CreateMode::is_ephemeral)
}

/// The ephemerals that a request has made.
fn made<'r>(request: &'r Request, reply: &'r Reply) -> Vec<&'r String> {
    match (request, reply) {
        (Request::Create(new), Reply::Path(path) | Reply::PathStat(path, _))
            if is_ephemeral(new.flags) =>
        {
            vec![path]
        }
        (Request::Multi(ops), Reply::Multi(results)) => {
            let mut made = Vec::new();
            for (op, result) in ops.iter().zip(results) {
                match (op, result) {
                    (
                        proto::MultiOp::Create(new),
                        MultiResult::Create(path) | MultiResult::Create2(path, _),
                    ) if is_ephemeral(new.flags) => made.push(path),
                    // What it deletes again may come again in it, of nobody's session.
                    (proto::MultiOp::Delete { path, .. }, _) => made.retain(|made| *made != path),
                    _ => {}
                }
            }
            made
        }
        _ => Vec::new(),
    }
}

/// Whether a client deleted the znode that was made at `made`, not after `upto`.
fn was_deleted(known: &Known<'_>, path: &str, made: i64, upto: i64) -> bool {
    let is_delete = |op: &Op| matches!(op, Op::Delete { path: deleted, .. } if deleted == path);
    let done = known.model.writes.values().flatten();
    let mut done = done.filter(|done| made <= done.zxid && done.zxid <= upto);
    done.any(|done| match (&done.op, &done.result) {
        (Op::Multi(ops), Ok(Reply::Multi(results))) => {
            let mut both = ops.iter().zip(results);
            both.any(|(op, result)| is_delete(op) && *result == MultiResult::Delete)
        }
        (op, Ok(_)) => is_delete(op),
        (_, Err(_)) => false,
    })
}
