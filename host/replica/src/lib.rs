//! One server as values: no sockets, no clocks, no threads.
//!
//! A write, end to end:
//!
//! 1. [`connection::Connection`] decodes a request, takes the next slot of its [`outbox::Outbox`],
//!    and gives an [`input::Input`].
//! 2. [`node::Node`] gathers inputs, packs all writes in hand into one batch, or a few (`packing.rs`),
//!    proposes them to raft (`raft.rs`), and syncs its [`log`] once.
//! 3. What is committed goes to the [`machine::Machine`], which applies it to the state.
//! 4. [`publish::Published`] swaps the view, queues the events of watches ([`watches`]) and fills
//!    the slots of the writes, under one lock.
//! 5. The connection drains its outbox into bytes.
//!
//! A read never enters the Node: when all earlier writes of its session are published, the connection
//! takes a view, a slot and a watch in one step, under the same lock (`Read::take` in [`reads`]).
//! Behind such writes it takes its slot at once, and the rest in the step that publishes the last of
//! them (`waiting.rs`). It then runs outside the lock, and what touches many rows goes on in turns
//! ([`big_reads`]). A linearizable read, and `sync`, waits in its slot as well, until this server has
//! applied what the leader says is committed (`read_index.rs`).

pub mod input;

mod backlog;
mod clocks;
mod compiled;
mod cut_off;
pub mod digests;
mod lines;
mod liveness;
pub mod log;
pub mod marked;
mod membership;
pub mod node;
mod packing;
pub mod peer;
mod proposals;
pub mod raft;
mod read_index;
pub mod snapshots;
mod standstill;

pub mod machine;
pub mod publish;
pub mod shadows;
pub mod watches;

pub mod audit;
pub mod big_reads;
pub mod connection;
pub mod outbox;
mod own_sessions;
pub mod reads;
mod waiting;
mod writes;

pub mod operator;
pub mod operator_call;
pub mod roster;
pub mod saving;
pub mod settings;

pub mod mutants;

pub use audit::Audit;
pub use big_reads::BigReads;
pub use clocks::Now;
pub use connection::{Authenticator, Connection, Policy, Sasl, SaslStep};
pub use input::{Input, Quarantine, Report, Work};
pub use machine::Machine;
pub use marked::Marked;
pub use node::{Node, NodeConfig, NodeStatus};
pub use operator_call::OperatorCall;
pub use outbox::{Attached, Outbox};
pub use own_sessions::Reach;
pub use peer::PeerMessage;
pub use publish::Published;
pub use reads::Read;
