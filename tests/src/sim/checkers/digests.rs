//! The digests are those of the log: a second state that applies the same entries has the same ones
//! at every index, as has every server but those whose states went bad on purpose, and the state digest
//! is what all rows add up to.

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// Compares with the second state.
pub(super) struct Digests;

impl Checker for Digests {
    fn name(&self) -> &'static str {
        "digests are a function of the log"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            Event::Applied { server, .. } if known.ensemble.corrupted.contains(server) => {}
            Event::Applied { server, index, digest, history, .. } => {
                let expected = known.reference.at(*index);
                if expected != Some((*digest, *history)) {
                    return Err(format!(
                        "server {server}, entry {index}: digests {digest:x} and {history:x}, expected {expected:x?}"
                    ));
                }
            }
            Event::Recomputed { server, index, kept, fresh } if kept != fresh => {
                return Err(format!(
                    "server {server}, entry {index}: the digest kept is {kept:x}, of all rows it is {fresh:x}"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
