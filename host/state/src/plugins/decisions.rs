//! What plugins have said lately, with their reasons: of this server alone, in memory, and bounded.

use std::collections::VecDeque;

use parking_lot::Mutex;
use proto::ErrorCode;

use super::ModuleHash;
use super::binding::{OpKind, Point};
use super::points::kind_of;
use crate::hooks::FaultKind;

/// How many are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// Something that a plugin said. That it let something pass is not remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Counts what this server has remembered, from 0.
    pub number: u64,
    /// The zxid of the transaction, or of the view that was read.
    pub zxid: i64,
    /// Its time, in ms since the epoch.
    pub time_ms: i64,
    /// The binding.
    pub name: String,
    /// Its generation.
    pub generation: u64,
    /// Its module.
    pub module: ModuleHash,
    /// The point at which it was asked.
    pub point: Point,
    /// What it was asked about: [`proto::OpCode`]'s number.
    pub operation: u16,
    /// Where.
    pub path: String,
    /// Whose session; 0 for the server itself.
    pub session: i64,
    /// What it said.
    pub said: Said,
    /// What came of that.
    pub effect: Effect,
    /// Why, in the plugin's or the server's words; or the line that the plugin wrote.
    pub reason: String,
}

impl Decision {
    /// Whether a write was refused because of it.
    pub fn refused_a_write(&self) -> bool {
        self.effect == Effect::Refused && kind_of(self.operation) != OpKind::Read
    }
}

/// What a plugin said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Refuse it, with this code.
    Deny(ErrorCode),
    /// Nothing: it did something wrong.
    Fault(FaultKind),
    /// A line for the log.
    Line,
}

/// What came of what a plugin said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The operation was refused.
    Refused,
    /// It passed: the binding only warns, the client is the super user, or faults let pass.
    Passed,
    /// Nothing: it was evaluated beside apply.
    Shadow,
    /// The observer's store is to be built anew.
    Stale,
}

/// The last decisions.
#[derive(Default)]
pub struct Decisions(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    next: u64,
    last: VecDeque<Decision>,
}

impl Decisions {
    /// Those from a number on that are still remembered, at most so many.
    pub fn since(&self, number: u64, most: usize) -> Vec<Decision> {
        let remembered = self.0.lock();
        let from = remembered.last.partition_point(|decision| decision.number < number);
        remembered.last.range(from..).take(most).cloned().collect()
    }

    /// The last ones of which this holds, the newest first.
    pub fn last(&self, most: usize, holds: impl Fn(&Decision) -> bool) -> Vec<Decision> {
        let remembered = self.0.lock();
        remembered
            .last
            .iter()
            .rev()
            .filter(|decision| holds(decision))
            .take(most)
            .cloned()
            .collect()
    }

    pub(crate) fn remember(&self, decisions: impl IntoIterator<Item = Decision>) {
        let mut remembered = self.0.lock();
        for decision in decisions {
            let number = remembered.next;
            remembered.next += 1;
            remembered.last.push_back(Decision { number, ..decision });
            if remembered.last.len() > REMEMBERED_MAX {
                remembered.last.pop_front();
            }
        }
    }
}
