//! Requests of a session take effect and are answered in the order sent: a read sees all earlier
//! writes of its connection and none of its later ones, and the zxids that a session sees never go
//! back, whichever connection it moves to.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::{Event, Zxid};

/// The last zxid that each session has seen.
#[derive(Default)]
pub(super) struct SessionOrder {
    seen: BTreeMap<i64, i64>,
}

impl Checker for SessionOrder {
    fn name(&self) -> &'static str {
        "requests of a session take effect in the order sent"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let (conn, zxid) = match event {
            Event::Misplaced { conn, what } => {
                return Err(format!("connection {conn}: {what}"));
            }
            Event::Replied { conn, zxid, .. } | Event::Ponged { conn, zxid } => (*conn, *zxid),
            _ => return Ok(()),
        };
        if zxid <= 0 {
            return Ok(());
        }
        let connection = known.connections.get(conn);
        let seen = self.seen.entry(connection.session).or_default();
        if zxid < *seen {
            let (last, session) = (Zxid(*seen), connection.session);
            return Err(format!("session {session:#x} saw {last}, then {}", Zxid(zxid)));
        }
        *seen = zxid;
        let Event::Replied { number, .. } = event else { return Ok(()) };
        let asked = &connection.sent[*number];
        if asked.is_write || connection.reads_only {
            return Ok(());
        }
        let done = |n| known.model.done(connection, n);
        let before = asked.writes_before;
        if let Some(last) = before.checked_sub(1) {
            counts.reads_behind += 1;
            match done(last) {
                Some(write) if write.zxid <= zxid => {}
                other => {
                    return Err(format!(
                        "connection {conn}: {:?} was read at {}, before its session's own {other:?}",
                        asked.request,
                        Zxid(zxid)
                    ));
                }
            }
        }
        if before < connection.writes {
            counts.reads_before += 1;
        }
        if let Some(write) = done(before)
            && write.zxid <= zxid
        {
            return Err(format!(
                "connection {conn}: {:?} was read at {}, after the later {:?} at {}",
                asked.request,
                Zxid(zxid),
                write.op,
                Zxid(write.zxid)
            ));
        }
        Ok(())
    }
}
