//! What must always hold, one claim a file.

mod answers;
mod clocks;
mod commits;
mod digests;
mod durability;
mod ephemerals;
mod exactly_once;
mod expiry;
mod hang_ups;
mod one_leader;
mod plugins;
mod quarantine;
mod quota;
mod read_only;
mod real_time;
mod session_order;
mod tree;
mod votes;
mod watch_order;
mod watches;

use std::collections::BTreeSet;

use super::counts::Counts;
use super::ensemble::Ensemble;
use super::faults::Faults;
use super::history::{Connections, Event};
use super::model::Model;
use super::reference::Reference;

/// What is known when something happens.
pub struct Known<'a> {
    /// The time, in milliseconds.
    pub now_ms: i64,
    /// What the log's commands must do.
    pub model: &'a Model,
    /// What was sent on which connection.
    pub connections: &'a Connections,
    /// The servers and the network between them.
    pub ensemble: &'a Ensemble,
    /// What is wrong with them.
    pub faults: &'a Faults,
    /// The digests after each entry.
    pub reference: &'a Reference,
    /// Connections to servers while their states were not what the log makes of them, and nobody had
    /// noticed: what is said on them may be wrong.
    pub tainted: &'a BTreeSet<u64>,
}

/// One claim.
pub trait Checker {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at what happened.
    ///
    /// # Errors
    /// What is against the claim.
    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String>;
}

/// All of them, for an ensemble of these servers.
pub fn all(ids: &[u64]) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(one_leader::OneLeader::default()),
        Box::new(votes::Votes::default()),
        Box::new(clocks::Clocks::default()),
        Box::new(commits::Commits::default()),
        Box::new(durability::Durability::default()),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(digests::Digests),
        Box::new(quarantine::Quarantine::default()),
        Box::new(tree::WholeTree::default()),
        Box::new(answers::Answers),
        Box::new(real_time::RealTime::default()),
        Box::new(read_only::ReadOnly),
        Box::new(session_order::SessionOrder::default()),
        Box::new(watch_order::WatchOrder::default()),
        Box::new(watches::Watches::default()),
        Box::new(hang_ups::HangUps::default()),
        Box::new(ephemerals::Ephemerals::new(ids)),
        Box::new(expiry::Expiry::default()),
        Box::new(plugins::Refusals),
        Box::new(plugins::Builds),
        Box::new(quota::Recount::default()),
        Box::new(quota::Quota),
    ]
}
