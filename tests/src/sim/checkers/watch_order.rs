//! A watch event reaches its client before any reply that shows the change, and after every reply
//! that does not.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::{Event, Zxid};

/// The last zxid that came over each connection, and whether it came with an event.
#[derive(Default)]
pub(super) struct WatchOrder {
    last: BTreeMap<u64, (i64, bool)>,
}

impl Checker for WatchOrder {
    fn name(&self) -> &'static str {
        "an event comes before any reply that shows the change"
    }

    fn observe(&mut self, event: &Event, _: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        let (conn, zxid, is_event) = match event {
            Event::Notified { conn, event } => (*conn, event.zxid, true),
            Event::Replied { conn, zxid, .. } | Event::Ponged { conn, zxid } => {
                (*conn, *zxid, false)
            }
            _ => return Ok(()),
        };
        if zxid <= 0 {
            return Ok(());
        }
        let (last, last_is_event) = self.last.get(&conn).copied().unwrap_or((0, false));
        if is_event && (zxid < last || (zxid == last && !last_is_event)) {
            let (event, last) = (Zxid(zxid), Zxid(last));
            return Err(format!("connection {conn}: the event of {event} after a reply at {last}"));
        }
        if !is_event && zxid < last {
            let (reply, last) = (Zxid(zxid), Zxid(last));
            return Err(format!("connection {conn}: a reply at {reply} after the event of {last}"));
        }
        self.last.insert(conn, (zxid, is_event));
        Ok(())
    }
}
