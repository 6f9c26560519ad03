//! Known bugs, to show that the simulator finds them.

use replica::mutants::{ConnectionMutants, MachineMutants, NodeMutants};
use state::mutants::StateMutants;

use super::plugins::HookMutants;

/// The bugs planted in every server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted {
    /// In the log.
    pub log: Option<replica::log::Mutant>,
    /// In the Node.
    pub node: NodeMutants,
    /// In the Machine, with what it publishes to.
    pub machine: MachineMutants,
    /// In each connection.
    pub connection: ConnectionMutants,
    /// In the state.
    pub state: StateMutants,
    /// In what runs plugins.
    pub hooks: HookMutants,
    /// Every start of a server has the boot of its first one.
    pub reuse_boot: bool,
    /// A server that has lost its data takes part at once, as if it had never had any.
    pub vote_without_data: bool,
    /// A server whose log is damaged goes on with the id for raft that it had, without what it promised.
    pub vote_with_damaged_log: bool,
    /// A state that goes bad is always the leader's, or always a follower's, and no checker is told.
    pub corrupt: Option<Whose>,
    /// A server that starts again does not know any more that its state is of no use.
    pub forget_quarantine: bool,
}

/// Whose state goes bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The leader's.
    Leader,
    /// Another server's.
    Follower,
}

/// A bug that can be planted.
pub struct Mutant {
    /// Its name on the command line.
    pub name: &'static str,
    /// Plants it.
    pub plant: fn(&mut Planted),
}

macro_rules! mutants {
    ($($value:ident . $name:ident,)*) => {
        &[$(Mutant { name: stringify!($name), plant: |planted| planted.$value.$name = true },)*]
    };
}

/// All of them.
pub const ALL: &[Mutant] = mutants![
    node.acknowledge_before_sync,
    node.trim_past_durable,
    node.expire_early,
    node.expire_never,
    node.forget_to_go_on_closing,
    node.pack_past_reads,
    node.never_send_again,
    node.keep_decisions,
    node.no_full_timeouts,
    node.forget_to_report,
    node.forget_vote,
    node.repeat_read_index,
    node.trust_own_clock,
    node.ignore_digests,
    node.wrong_without_majority,
    node.forget_to_catch_up,
    machine.event_after_reply,
    machine.keep_one_shot,
    machine.tell_twice,
    machine.forget_to_wake,
    machine.lose_child_event,
    machine.keep_clients_over_snapshot,
    machine.read_unapplied,
    machine.serve_in_quarantine,
    machine.keep_read_only_clients,
    machine.forget_to_fence,
    connection.stale_read,
    connection.late_view,
    connection.watch_after_read,
    connection.keep_withdrawn,
    connection.no_heirs,
    connection.no_catch_up,
    connection.set_nothing_again,
    connection.show_private_events,
    state.multi_keeps_its_first_part,
    state.close_forgets_ephemerals,
    state.applied_apart,
    state.unfenced,
    state.reuse_sequence_numbers,
    state.digest_keeps_deleted,
    state.keep_store_effects,
    hooks.read_clock,
    hooks.keep_instances,
    hooks.lone_fault,
];

/// Those that are not one switch: of several values at once, of what a server is started with, or of
/// the log, whose tests find them too.
pub const OTHERS: &[Mutant] = &[
    Mutant {
        name: "accept_gap",
        plant: |planted| (planted.node.accept_gap, planted.state.accept_gap) = (true, true),
    },
    Mutant { name: "reuse_boot", plant: |planted| planted.reuse_boot = true },
    Mutant { name: "vote_without_data", plant: |planted| planted.vote_without_data = true },
    Mutant { name: "vote_with_damaged_log", plant: |planted| planted.vote_with_damaged_log = true },
    Mutant { name: "corrupt_leader", plant: |planted| planted.corrupt = Some(Whose::Leader) },
    Mutant { name: "corrupt_follower", plant: |planted| planted.corrupt = Some(Whose::Follower) },
    Mutant { name: "forget_quarantine", plant: |planted| planted.forget_quarantine = true },
    Mutant {
        name: "log_skip_sync",
        plant: |planted| planted.log = Some(replica::log::Mutant::SkipSync),
    },
    Mutant {
        name: "log_mark_before_sync",
        plant: |planted| planted.log = Some(replica::log::Mutant::MarkBeforeSync),
    },
];

/// The mutant with this name.
pub fn find(name: &str) -> Option<&'static Mutant> {
    all().find(|mutant| mutant.name == name)
}

/// All mutants.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    ALL.iter().chain(OTHERS)
}
