//! Bugs to plant, for the tests that show that the tests find them. Never set in a server: only the
//! simulator calls the `with_mutants` of [`crate::Node`], [`crate::Machine`] and
//! [`crate::Connection`].

/// Bugs of the Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeMutants {
    /// Entries are given out as committed before the log is synced.
    pub acknowledge_before_sync: bool,
    /// The log is trimmed up to what is applied, durable or not.
    pub trim_past_durable: bool,
    /// Sessions expire after half their timeouts.
    pub expire_early: bool,
    /// Sessions never expire.
    pub expire_never: bool,
    /// A close that takes several entries ends after the first.
    pub forget_to_go_on_closing: bool,
    /// A write goes into the entry of the one before it, though a read waits between them.
    pub pack_past_reads: bool,
    /// A leader proposes what a server sent though something before it did not come.
    pub accept_gap: bool,
    /// What a leader that is no more was sent is not sent to the next one.
    pub never_send_again: bool,
    /// What a leader had decided is proposed by the next one.
    pub keep_decisions: bool,
    /// A new leader does not give sessions their full timeouts.
    pub no_full_timeouts: bool,
    /// Whom a server has heard from it does not tell the leader.
    pub forget_to_report: bool,
    /// Whom it voted for is not written to the log.
    pub forget_vote: bool,
    /// What is asked for linearizable reads has the same name each time.
    pub repeat_read_index: bool,
    /// The time of a leader is what its own wall clock shows.
    pub trust_own_clock: bool,
    /// A state that is against the majority's stays in use.
    pub ignore_digests: bool,
    /// A state that differs from any other is wrong, with a majority against it or without.
    pub wrong_without_majority: bool,
    /// What was committed while a state was of no use is not applied to the one in its place.
    pub forget_to_catch_up: bool,
}

/// Bugs of the Machine and of what it publishes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineMutants {
    /// Events are queued behind the replies that wait.
    pub event_after_reply: bool,
    /// One-shot watches are not used up.
    pub keep_one_shot: bool,
    /// A deletion is told to data and child watches of one connection apart.
    pub tell_twice: bool,
    /// A connection is not woken for its events.
    pub forget_to_wake: bool,
    /// Child watches do not hear of deletions.
    pub lose_child_event: bool,
    /// Clients stay connected when a snapshot jumps over what they watch.
    pub keep_clients_over_snapshot: bool,
    /// A linearizable read does not wait until what the leader told it of is applied.
    pub read_unapplied: bool,
    /// Clients are served though the state is of no use.
    pub serve_in_quarantine: bool,
    /// A server that knows a leader again keeps the clients that it took to read only.
    pub keep_read_only_clients: bool,
    /// What comes of a local session's earlier connection is taken.
    pub forget_to_fence: bool,
}

/// Bugs of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionMutants {
    /// A read does not wait for its session's earlier writes.
    pub stale_read: bool,
    /// A read takes its view when it runs, which its session's later writes may have passed.
    pub late_view: bool,
    /// A watch is registered after its read.
    pub watch_after_read: bool,
    /// The watch of a read that failed is not withdrawn.
    pub keep_withdrawn: bool,
    /// A watch is withdrawn though a later read asked for it too.
    pub no_heirs: bool,
    /// `setWatches` does not look at what its client has missed.
    pub no_catch_up: bool,
    /// `setWatches` looks only: a client's watches are lost when it attaches its session.
    pub set_nothing_again: bool,
    /// Events are shown to those who may not read the znode.
    pub show_private_events: bool,
}
