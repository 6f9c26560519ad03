//! No acknowledged write is lost: what a client was told is in the log after every crash.

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// The last entry that a client knows to have happened.
#[derive(Default)]
pub(super) struct Durability {
    acknowledged: u64,
}

impl Checker for Durability {
    fn name(&self) -> &'static str {
        "no acknowledged write is lost"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            // A read shows what happened as well as a write's reply does.
            Event::Replied { zxid, .. } | Event::Ponged { zxid, .. } if *zxid > 0 => {
                let snapshots = &known.model.snapshots;
                let at = snapshots.partition_point(|snapshot| snapshot.zxid < *zxid);
                let Some(snapshot) = snapshots.get(at) else {
                    return Err(format!("a client was told of zxid {zxid:#x}, which nothing took"));
                };
                self.acknowledged = self.acknowledged.max(snapshot.index);
            }
            Event::Restarted { last, .. } if *last < self.acknowledged => {
                let acknowledged = self.acknowledged;
                return Err(format!(
                    "clients know of entry {acknowledged}, now the log ends at {last}"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
