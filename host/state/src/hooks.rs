//! The points where plugins take part in a transaction: a contract, no Wasm.
//!
//! Invariants:
//! * A hook is a function of its arguments and of what it reads through [`Env`], and of nothing else:
//!   the same calls in the same order give the same answers on every replica.
//! * What is the plugin's fault is a [`PluginFault`], the same everywhere. What is this server's fault
//!   is a [`Fault`]: it is never turned into an outcome, and apply stops before the entry.
//! * A call that ends in either leaves nothing in the plugin's store.

use proto::{Acl, Id, Stat};

use crate::command::APPLY_VERSION;
use crate::fault::Fault;
use crate::plugins::Plugin;
use crate::znode::Owner;

pub use proto::ErrorCode;

/// What runs plugins. `state` calls it at the hook points; tests give their own.
///
/// It is shared by the one thread that applies and all that read; [`Call::scope`] tells the two apart.
pub trait Hooks: Send + Sync {
    /// Other hooks, of which these are a layer: what a layer does not do itself, they do.
    fn inner(&self) -> Option<&dyn Hooks> {
        None
    }

    /// The newest apply version that the program knows which they are part of. Tests alone say others.
    fn apply_version(&self) -> u32 {
        self.inner().map_or(APPLY_VERSION, Hooks::apply_version)
    }

    /// Whether this module is compiled here. An entry that needs one that is not waits.
    fn is_ready(&self, plugin: &Plugin) -> bool {
        self.inner().is_some_and(|inner| inner.is_ready(plugin))
    }

    /// A command of the log begins: what it calls, up to the next one, is one transaction.
    fn transaction_begins(&self, scope: Scope) {
        if let Some(inner) = self.inner() {
            inner.transaction_begins(scope);
        }
    }

    /// The entry under way is over, or was given up because of a fault and may come again: no instance
    /// outlives it.
    fn entry_ends(&self) {
        if let Some(inner) = self.inner() {
            inner.entry_ends();
        }
    }

    /// Says whether the plugin takes its settings, or why not. It is asked on each server when a binding
    /// is staged; there is nothing to read or write.
    ///
    /// # Errors
    /// See [`Outcome`].
    fn configure(&self, call: &Call<'_>) -> Outcome<Result<(), String>> {
        match self.inner() {
            Some(inner) => inner.configure(call),
            None => {
                Ok(Err(PluginFault::new(FaultKind::Trap, "there is nothing that runs plugins")))
            }
        }
    }

    /// The ids, under the scheme, of a client that gives these credentials, or why they are no good. It
    /// is asked on the client's server alone.
    ///
    /// # Errors
    /// See [`Outcome`].
    fn authenticate(
        &self,
        call: &Call<'_>,
        credentials: &Credentials<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Result<Vec<String>, String>> {
        match self.inner() {
            Some(inner) => inner.authenticate(call, credentials, env),
            None => Ok(Ok(Err("there is nothing that runs plugins".into()))),
        }
    }

    /// Whether somebody may do something, on writes (in apply) and on reads.
    ///
    /// # Errors
    /// See [`Outcome`].
    fn check(&self, call: &Call<'_>, check: &Check<'_>, env: &mut dyn Env) -> Outcome<Decision> {
        match self.inner() {
            Some(inner) => inner.check(call, check, env),
            None => Ok(Ok(Decision::Abstain)),
        }
    }

    /// Asked once all of ZooKeeper's own checks have passed, just before the change.
    ///
    /// # Errors
    /// See [`Outcome`].
    fn guard(
        &self,
        call: &Call<'_>,
        operation: &Operation<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Verdict> {
        match self.inner() {
            Some(inner) => inner.guard(call, operation, env),
            None => Ok(Ok(Verdict::Allow)),
        }
    }

    /// Told of every change, whatever its cause, and once of each znode that is there when the observer
    /// is built.
    ///
    /// # Errors
    /// See [`Outcome`].
    fn observe(&self, call: &Call<'_>, change: &Changed<'_>, env: &mut dyn Env) -> Outcome<()> {
        match self.inner() {
            Some(inner) => inner.observe(call, change, env),
            None => Ok(Ok(())),
        }
    }
}

/// What a call comes to. The outer error stops this replica before the entry; the inner one is the
/// plugin's, and the same on every replica.
pub type Outcome<T> = Result<Result<T, PluginFault>, Fault>;

/// One call's surroundings, the same on every replica.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What is called: name, module, settings, instance policy.
    pub plugin: &'a Plugin,
    /// Where it happens, hence which instance may be used again.
    pub scope: Scope,
    /// The zxid of the transaction; on reads the view's.
    pub zxid: i64,
    /// The time of the transaction, in milliseconds since the epoch; on reads the view's.
    pub time_ms: i64,
    /// The session that asks; 0 for the server itself.
    pub session: i64,
    /// A number that nobody can foretell and that is the same on every replica; on reads 0.
    pub seed: u64,
    /// How much fuel it may take.
    pub fuel_max: u64,
}

/// Where a call happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the apply of an entry: its index, and the number of the command in it, from 0. Commands are
    /// transactions.
    Apply {
        /// The log index.
        index: u64,
        /// Which of its commands.
        transaction: u32,
    },
    /// Anywhere else: a read, an `authenticate`, a `configure`, a shadow. Nothing is written.
    Read,
}

/// What a client gave to prove who it is.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The scheme, one of the binding's.
    pub scheme: &'a str,
    /// What follows it, as the client sent it.
    pub bytes: &'a [u8],
    /// Who the client is so far; its address is among them.
    pub identities: &'a [Id],
}

/// What is to be changed or read. Beside the numbers of [`proto::OpCode`] there is nothing.
pub type OpNumber = u16;

/// Somebody wants to do something, and an ACL is consulted.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// What is to be done; for a create always [`proto::OpCode::Create`].
    pub operation: OpNumber,
    /// What it is about: the path that the client gave, without a sequence suffix.
    pub path: &'a str,
    /// Whose ACL is consulted: `path` itself, or its parent.
    pub consulted: &'a str,
    /// The permission asked for ([`proto::Perms`]).
    pub permission: i32,
    /// The ACL entry of the plugin's scheme that is to match or not; `None` where the plugin is asked
    /// because it is bound to the path.
    pub entry: Option<&'a Id>,
    /// Who asks.
    pub identities: &'a [Id],
}

/// A change that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// `Create`, `Delete`, `SetData` or `SetAcl` of [`proto::OpCode`].
    pub operation: OpNumber,
    /// The final path, with its sequence suffix.
    pub path: &'a str,
    /// The new data, if it has any.
    pub data: Option<&'a [u8]>,
    /// The new ACL, of a create and a change of the ACL; otherwise empty.
    pub acl: &'a [Acl],
    /// Who owns it, of a create.
    pub owner: Ownership,
    /// The version that it must have, of data or ACL; -1 for any.
    pub version: i32,
    /// What is there, except for a create.
    pub before: Option<&'a Stat>,
    /// Who asks for it.
    pub identities: &'a [Id],
    /// Which operation of the multi it is, from 0; 0 for a single one.
    pub index: u32,
    /// How many operations the multi has that it is part of; 1 for a single one.
    pub of_multi: u32,
}

/// How a znode comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// It is deleted by somebody.
    #[default]
    Persistent,
    /// It dies with this session.
    Ephemeral(i64),
    /// It is deleted by the server once its last child is gone.
    Container,
    /// It is deleted by the server when it was not changed for so many milliseconds.
    Ttl(i64),
}

impl From<Owner> for Ownership {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Persistent => Self::Persistent,
            Owner::Session(session) => Self::Ephemeral(session),
            Owner::Container => Self::Container,
            Owner::Ttl(ms) => Self::Ttl(ms),
        }
    }
}

/// A change that was made.
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    /// `Create`, `Delete`, `SetData` or `SetAcl` of [`proto::OpCode`].
    pub operation: OpNumber,
    /// Why.
    pub cause: Cause,
    /// Where.
    pub path: &'a str,
    /// The new data, if it has any; not of a change of the ACL.
    pub data: Option<&'a [u8]>,
    /// What the znode is or was.
    pub owner: Ownership,
    /// What was there; not of a create.
    pub before: Option<&'a Stat>,
    /// What is there now; not of a delete.
    pub after: Option<&'a Stat>,
    /// Who asked for it; nobody for the server itself.
    pub identities: &'a [Id],
}

/// Why something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A client asked for it.
    Client,
    /// A session was closed or has expired.
    SessionEnd,
    /// A container or TTL node was due.
    Due,
    /// Nothing changed: it is there, and the observer is being built.
    Build,
}

/// What an authorizer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The ACL entry matches; bound to a path: it may, if the binding overrides ACLs.
    Allow,
    /// The ACL entry does not match; bound to a path: it may not.
    Deny,
    /// As if it had not been asked.
    Abstain,
}

/// What a guard says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny {
        /// What the client is told. A number that is no error of ZooKeeper's is a fault of the plugin;
        /// the runtime sees to that.
        code: ErrorCode,
        /// Why, for the decision log.
        reason: String,
    },
}

/// What a plugin did wrong. Its kind enters the history digest, its text only the decision log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {why}")]
pub struct PluginFault {
    /// Which kind.
    pub kind: FaultKind,
    /// In words, for the decision log. Need not be the same on every replica.
    pub why: String,
}

impl PluginFault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }
}

/// What kinds of faults plugins have. The numbers enter the history digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum FaultKind {
    /// The guest trapped: a panic, an access out of bounds, an unreachable instruction.
    #[error("trap")]
    Trap = 1,
    /// It used up its fuel.
    #[error("out of fuel")]
    Fuel = 2,
    /// It wanted more memory, or larger tables, than it may have.
    #[error("out of memory")]
    Memory = 3,
    /// It returned what it may not: too much, an unknown code, text that is not UTF-8.
    #[error("bad return")]
    BadReturn = 4,
    /// It read what its binding does not grant, or wrote where nothing may be written.
    #[error("not granted")]
    NotGranted = 5,
    /// It read, wrote or logged more than its limits allow.
    #[error("over a limit")]
    Limit = 6,
}

/// Why a call of [`Env`] did not give an answer. The hook must end with it: the guest gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvError {
    /// The plugin's fault.
    Plugin(PluginFault),
    /// This server's.
    Host(Fault),
}

impl From<Fault> for EnvError {
    fn from(fault: Fault) -> Self {
        Self::Host(fault)
    }
}

/// A znode as a plugin sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its data.
    pub data: Option<bytes::Bytes>,
    /// Its stat.
    pub stat: Stat,
}

/// Keys and values of a private store.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a plugin may read and write during a call: the tree as of this point of the transaction within
/// the binding's `reads`, and a store of its own.
///
/// It counts reads, bytes and what is written, and refuses what goes over the limits; fuel, memory,
/// lines of the log and what is returned are counted by the runtime.
pub trait Env {
    /// The znode at a path.
    ///
    /// # Errors
    /// [`EnvError`]
    fn node(&mut self, path: &str) -> Result<Option<Node>, EnvError>;

    /// As [`Self::node`], without the data: no more is read than that.
    ///
    /// # Errors
    /// [`EnvError`]
    fn stat(&mut self, path: &str) -> Result<Option<Stat>, EnvError>;

    /// Up to `most` names of children of the znode at a path: those after `after` (all, if it is empty), in
    /// the order of their bytes; `None` if there is no such znode. One read, and the bytes of the names.
    ///
    /// # Errors
    /// [`EnvError`]
    fn children(
        &mut self,
        path: &str,
        after: &str,
        most: usize,
    ) -> Result<Option<Vec<String>>, EnvError>;

    /// A value of the private store.
    ///
    /// # Errors
    /// [`EnvError`]
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, EnvError>;

    /// Sets or deletes a value of the private store.
    ///
    /// # Errors
    /// [`EnvError`]
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EnvError>;

    /// Adds to a number of the private store, 8 bytes, little-endian; what is not there is 0. Gives the
    /// sum. An overflow, or a value that is no number, is a [`FaultKind::BadReturn`].
    ///
    /// # Errors
    /// [`EnvError`]
    fn add(&mut self, key: &[u8], delta: i64) -> Result<i64, EnvError>;

    /// Up to `most` pairs of the private store in `[start, end)`, in the order of keys; an empty `end` is
    /// behind all keys. One call, and the bytes of keys and values.
    ///
    /// # Errors
    /// [`EnvError`]
    fn scan(&mut self, start: &[u8], end: &[u8], most: usize) -> Result<Pairs, EnvError>;

    /// Writes a line to the decision log of this server.
    fn log(&mut self, line: &str);

    /// The call is over, without a fault, and took so much fuel. After a fault, all that it might have
    /// taken counts.
    fn spent(&mut self, fuel: u64);
}

/// No plugins.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {}
