//! The simulator: an ensemble of one, three or five servers, the network between them, their clients,
//! disks, stores and clocks, in one thread from one seed.
//!
//! The seed decides everything: how many servers there are and how each is configured, which step of
//! which value runs next, how the network splits bytes and loses links, what clients ask for, when
//! power is lost and what survives it. The same seed gives the same run. Time is simulated; between
//! two steps it stands still or passes.
//!
//! 1. `server.rs` is a server as values, step by step; `store.rs` and the log's own simulated disk
//!    lose what real ones lose. `network.rs` is what is between servers, `ensemble.rs` all of them.
//! 2. `client.rs` and `workload.rs` are their clients, `wire.rs` what is between.
//! 3. `model.rs` runs the log's commands by ZooKeeper's rules: what must be true; `reference.rs` is one
//!    more state.
//! 4. Everything that happens is an event (`history.rs`), and each of `checkers/` looks at all of
//!    them with one claim in mind.
//! 5. `faults.rs` decides what goes wrong, `schedule.rs` what happens next. After a minute nothing
//!    goes wrong any more, and all clients must get their answers.
//! 6. In every second seed operators bring in plugins (`plugins.rs`), hostile ones too.
//! 7. `mutants.rs` are known bugs: a simulator that finds nothing proves nothing.
//! 8. `shrink.rs` leaves out of a seed that fails what it does not need for that.

pub mod checkers;
pub mod client;
pub mod counts;
pub mod ensemble;
pub mod faults;
pub mod history;
pub mod membership;
pub mod model;
pub mod mutants;
pub mod network;
pub mod plugins;
pub mod reference;
pub mod schedule;
pub mod server;
pub mod shrink;
pub mod store;
pub mod wire;
pub mod workload;

pub use schedule::{Failure, Options, run};
