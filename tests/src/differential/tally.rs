//! Counts of what was tried and what came of it; a full run must have seen everything that a
//! single server can do.

use std::collections::BTreeMap;

use proto::{ErrorCode, EventType, MultiResult, OpCode, ReadResult, Reply};

use super::told::Told;

/// The fewest operations of a run that must have seen everything.
pub(super) const FULL: usize = 10_000;

/// The errors that one standalone server can give a client. Of section 1.8's others:
/// * -1, -3, -7, -100 are given by no code path, -4, -113 and -122 by clients themselves;
/// * -12 and -112 need a request of a session that is gone on a connection that is not: the server
///   closes the connection with the session, and nothing of the rest is answered;
/// * -118 needs a second server, -13 and -14 an ensemble, -119 read-only mode, -120 local sessions,
///   -127 a throttled server.
const REACHABLE: [ErrorCode; 16] = [
    ErrorCode::RuntimeInconsistency,
    ErrorCode::MarshallingError,
    ErrorCode::Unimplemented,
    ErrorCode::BadArguments,
    ErrorCode::NoNode,
    ErrorCode::NoAuth,
    ErrorCode::BadVersion,
    ErrorCode::NoChildrenForEphemerals,
    ErrorCode::NodeExists,
    ErrorCode::NotEmpty,
    ErrorCode::InvalidAcl,
    ErrorCode::AuthFailed,
    ErrorCode::NoWatcher,
    ErrorCode::ReconfigDisabled,
    ErrorCode::SessionClosedRequireSaslAuth,
    ErrorCode::QuotaExceeded,
];

const EVENTS: [EventType; 4] = [
    EventType::NodeCreated,
    EventType::NodeDeleted,
    EventType::NodeDataChanged,
    EventType::NodeChildrenChanged,
];

/// What a run saw.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests sent to each of the two.
    pub(super) operations: usize,
    outcomes: BTreeMap<(String, i32), usize>,
    inside: BTreeMap<i32, usize>,
    events: BTreeMap<EventType, usize>,
    /// Connects, refusals, expiries and such.
    others: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Counts a reply to `op`.
    pub(super) fn reply(&mut self, op: &str, told: &Told) {
        let (err, body) = match told {
            Told::Reply { err, body, .. } => (err, body),
            // What ZooKeeper answers to a createSession.
            Told::Connected { .. } => (&0, &None),
            _ => return,
        };
        *self.outcomes.entry((op.to_owned(), *err)).or_default() += 1;
        let mut inside = |code: i32| *self.inside.entry(code).or_default() += 1;
        match body {
            Some(Reply::Multi(results)) => {
                for result in results {
                    if let MultiResult::Error(code) = result {
                        inside(*code);
                    }
                }
            }
            Some(Reply::MultiRead(results)) => {
                for result in results {
                    if let ReadResult::Error(code) = result {
                        inside(*code);
                    }
                }
            }
            _ => {}
        }
    }

    /// Counts an event.
    pub(super) fn event(&mut self, told: &Told) {
        if let Told::Event { kind, .. } = told {
            *self.events.entry(*kind).or_default() += 1;
        }
    }

    /// Counts something else.
    pub(super) fn other(&mut self, what: &'static str) {
        *self.others.entry(what).or_default() += 1;
    }

    /// What a full run should have seen and this one has not.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let tried = |op: &str| self.outcomes.keys().any(|(name, _)| name == op);
        for op in OpCode::ALL {
            // Operators' requests are Vivarium's own: a ZooKeeper has none.
            if !tried(op.name()) && *op != OpCode::Operator {
                missing.push(format!("no {} was answered", op.name()));
            }
        }
        if !tried("unknown") {
            missing.push("no unknown operation was answered".into());
        }
        for code in REACHABLE {
            let number = code.code();
            let alone = self.outcomes.keys().any(|(_, err)| *err == number);
            if !alone && !self.inside.contains_key(&number) {
                missing.push(format!("no {} ({number}) occurred", code.name()));
            }
        }
        for kind in EVENTS {
            if !self.events.contains_key(&kind) {
                missing.push(format!("no {kind:?} event occurred"));
            }
        }
        missing
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} operations on each server; answers by operation:", self.operations)?;
        let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((op, err), count) in &self.outcomes {
            let code = match err {
                0 => "ok".to_owned(),
                _ => ErrorCode::from_i32(*err).map_or(err.to_string(), |c| c.name().to_owned()),
            };
            rows.entry(op).or_default().push(format!("{code} {count}"));
        }
        for (op, counts) in rows {
            writeln!(f, "  {op:<22}{}", counts.join(", "))?;
        }
        writeln!(f, "  errors inside multi: {:?}", self.inside)?;
        writeln!(f, "  events: {:?}", self.events)?;
        write!(f, "  others: {:?}", self.others)
    }
}
