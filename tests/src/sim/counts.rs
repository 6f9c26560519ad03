//! How often what happened: a run in which something never happened proves nothing about it.

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// How often what happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counts {
            /// Adds those of another seed.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Each with what it counts.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name),)*]
            }
        }
    };
}

counts! {
    /// Simulated time.
    seconds: "simulated seconds",
    /// Steps of server and clients.
    steps: "steps",
    /// Requests sent, pings not counted.
    requests: "requests",
    /// Entries committed.
    entries: "entries committed",
    /// Seeds by how many servers they have.
    alone: "seeds of one server",
    /// Seeds by how many servers they have.
    threes: "seeds of three servers",
    /// Seeds by how many servers they have.
    fives: "seeds of five servers",
    /// Seeds with plugins.
    plugged: "seeds with plugins",
    /// Elections.
    elections: "elections won",
    /// Snapshots.
    installs: "snapshots of other servers installed",
    /// States that went bad.
    corruptions: "states that went bad",
    /// States of leaders that went bad.
    leaders_corrupted: "states of leaders that went bad",
    /// Quarantines.
    quarantines: "servers in quarantine",
    /// Starts in quarantine.
    quarantined_starts: "starts of servers in quarantine",
    /// States replaced.
    healings: "states that went bad and were replaced",
    /// Data lost.
    wipes: "servers that lost all their data",
    /// Logs damaged.
    logs_damaged: "servers whose logs were damaged",
    /// Stores damaged.
    stores_damaged: "states of which a row could not be read any more",
    /// Damaged stores that were found.
    stores_healed: "states that could not be read and were replaced",
    /// Taking part anew.
    rejoins: "servers that took part anew, with another id for raft",
    /// Cut off.
    partitions: "partitions between servers",
    /// One way.
    one_way: "cuts of one way between servers",
    /// Broken links.
    breaks: "times that links between servers broke",
    /// Slow links.
    slow: "times that servers were far from each other",
    /// Messages lost.
    messages_lost: "messages between servers lost by a rough network",
    /// Messages doubled or overtaken.
    messages_odd: "messages between servers doubled or overtaken",
    /// All servers at once.
    blackouts: "losses of power by all servers at once",
    /// Faults of all kinds.
    faults: "faults",
    /// Power lost.
    power: "losses of power",
    /// Power lost within a call to the disk.
    power_within: "losses of power within a call to the disk",
    /// Processes killed.
    kills: "processes killed",
    /// Graceful stops.
    stops: "graceful stops",
    /// Leaders told to hand over.
    hand_overs: "leaders told to hand over",
    /// Torn tails.
    torn: "recoveries with a torn tail",
    /// Starts cut short.
    cuts_at_start: "starts cut short by a loss of power",
    /// Disk errors.
    disk_errors: "disk errors",
    /// Full disks.
    full: "full disks",
    /// Store errors.
    store_errors: "store errors",
    /// Bit flips refused.
    flips_refused: "damaged logs refused",
    /// Bit flips without effect.
    flips_harmless: "damaged logs opened without harm",
    /// Pauses.
    pauses: "pauses",
    /// Clock jumps.
    jumps: "jumps of the wall clock",
    /// Clients leaving within a request.
    disconnects: "disconnects within a request",
    /// Networks cut without a word.
    cuts: "connections cut without a word",
    /// Moves begun.
    moves_begun: "moves begun with requests under way",
    /// Moves done.
    moves: "sessions that moved",
    /// Attached on another server than before.
    across: "sessions that moved to another server",
    /// Read-only connections.
    reads_only: "connections to servers that were read-only",
    /// Local sessions.
    locals: "sessions known to one server",
    /// The same.
    locals_again: "sessions known to one server that came back to it",
    /// Upgrades.
    upgrades: "sessions known to one server that all were told of",
    /// Fenced writes.
    fenced: "writes of an earlier connection fenced",
    /// Clients that do not read.
    deaf: "clients that did not read",
    /// Silent clients.
    silences: "clients that fell silent",
    /// Forgotten sessions.
    forgotten: "sessions left to die",
    /// Garbage sent.
    garbage: "packets that are not the protocol",
    /// Connections given up.
    given_up: "connections given up by clients",
    /// Hung up.
    hang_ups: "connections that servers ended for a reason",
    /// Sessions closed.
    closes: "sessions closed",
    /// Expiries.
    expiries: "sessions expired",
    /// Closes in chunks.
    chunks: "closes that took several entries",
    /// Ephemerals that died.
    ephemerals_died: "ephemerals that died with their sessions",
    /// Replies checked.
    replies: "replies checked",
    /// Reads behind writes.
    reads_behind: "reads pipelined behind writes",
    /// Reads before writes.
    reads_before: "reads pipelined before writes",
    /// Failed multis.
    multis_failed: "multis that failed",
    /// Changes of who is to take part.
    reconfigs: "changes of who takes part (reconfig)",
    /// Changes of raft's.
    conf_changes: "changes of whom raft counts",
    /// Removed servers.
    removals: "servers removed, and emptied",
    /// Reaped znodes.
    reaped: "containers and TTL znodes reaped",
    /// Events.
    created: "events NodeCreated",
    /// Events.
    deleted: "events NodeDeleted",
    /// Events.
    data_changed: "events NodeDataChanged",
    /// Events.
    children_changed: "events NodeChildrenChanged",
    /// Events of persistent watches.
    persistent: "events of persistent watches",
    /// Events of recursive watches.
    recursive: "events of recursive watches",
    /// Catch-up events.
    catch_up: "catch-up events of setWatches",
    /// Withheld events.
    withheld: "events withheld for want of READ",
    /// Watches removed.
    removed: "watches removed",
    /// Trees compared.
    trees: "whole trees compared",
    /// Starts with a log that was trimmed.
    trims: "starts with a log that was trimmed since the last",
    /// Calls of plugins.
    plugin_calls: "calls of plugins",
    /// Calls that said no.
    plugin_denials: "calls of plugins that said no",
    /// Writes refused.
    refused_by_plugins: "writes that plugins had refused",
    /// Faults by kind.
    faults_trap: "faults of plugins: traps",
    /// The same.
    faults_fuel: "faults of plugins: out of fuel",
    /// The same.
    faults_memory: "faults of plugins: out of memory",
    /// The same.
    faults_return: "faults of plugins: bad returns",
    /// The same.
    faults_grant: "faults of plugins: reads not granted",
    /// The same.
    faults_limit: "faults of plugins: over a limit",
    /// Activations.
    activations: "plugins activated",
    /// Activations of another generation.
    upgrades_of_plugins: "plugins activated in place of others",
    /// Activations refused.
    activations_refused: "plugins not activated, as servers were not ready",
    /// Modules that are none.
    cannot_run: "reports that a plugin cannot run",
    /// Uploads refused.
    uploads_refused: "parts of modules refused",
    /// Modes.
    modes_set: "changes of what a plugin does",
    /// Rollbacks.
    rollbacks: "plugins rolled back",
    /// Removals.
    plugins_removed: "plugins removed",
    /// Quarantines.
    tripped: "plugins put into quarantine by the breaker",
    /// Builds.
    builds: "stores of observers built",
    /// Recounts.
    recounts: "stores of observers compared with a recount",
    /// Guards in the shadow.
    shadowed: "writes that guards in the shadow were asked about",
    /// Held entries.
    held: "entries held until a module was compiled",
    /// The same.
    held_within: "entries held as a call in the middle could not be made",
}
