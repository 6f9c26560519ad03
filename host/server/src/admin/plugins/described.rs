//! What is answered of plugins (`replica::operator::plugins`), for the document; `tests/it/admin/described.rs`
//! holds answers of a server against it.
#![allow(dead_code, reason = "it is read by the document alone")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// What comes of what a binding says: nothing; nothing, but it is evaluated; it is written down; it decides.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) enum PluginMode {
    Off,
    Shadow,
    Warn,
    Enforce,
}

/// An operation that a binding may be bound to.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) enum PluginOp {
    Create,
    Delete,
    Set,
    SetAcl,
    Check,
    Read,
}

/// Where plugins take part.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) enum PluginPoint {
    Authorizer,
    Guard,
    Observer,
    Trigger,
    View,
}

/// A binding. Its settings are not told.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) struct Plugin {
    /// Its name.
    name: String,
    /// What comes of what it says.
    mode: PluginMode,
    /// Why the servers themselves have switched it off, if they have.
    quarantine: Option<String>,
    /// What is called.
    active: Option<Generation>,
    /// What was called before, and can be again.
    previous: Option<Generation>,
    /// What is to be called next.
    staged: Option<Staged>,
    /// How far its observer's store is.
    build: PluginBuild,
    /// How often it was called.
    calls: u64,
    /// How often it said no.
    denials: u64,
    /// How often it did something wrong.
    faults: u64,
    /// How much its store holds, in bytes.
    store_bytes: u64,
}

/// One generation of a binding.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) struct Generation {
    /// Counts what was staged under the name, from 1.
    generation: u64,
    /// The module's SHA-256, in hexadecimal.
    module: String,
    /// Where it takes part; nowhere, as far as is known, before it was active.
    points: Vec<PluginPoint>,
    /// Its place among others of the same point: lower ones are asked first.
    priority: i32,
    /// Which paths.
    #[schema(rename = "match")]
    matches: Vec<String>,
    /// Which operations; all, if none is named.
    ops: Vec<PluginOp>,
    /// Which ACL schemes.
    schemes: Vec<String>,
}

/// What is staged, and what the servers say of it.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) struct Staged {
    /// What would be called.
    plugin: Generation,
    /// By server: null if it is ready there, or why it cannot run.
    reports: BTreeMap<String, Option<String>>,
    /// Servers that have not said anything yet.
    missing: Vec<u32>,
}

/// How far an observer's store is: it holds what follows from the tree, or there is none; what it held is being
/// deleted; it is told of the znodes that are there.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) enum PluginBuild {
    Done,
    Clearing,
    Walking,
}

/// Something that a plugin said.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) struct Decision {
    /// Counts what this server has remembered, from 0.
    number: u64,
    /// The transaction, or the view that was read.
    zxid: i64,
    /// Its time, in milliseconds since the epoch.
    time_ms: i64,
    /// The binding.
    name: String,
    /// Its generation.
    generation: u64,
    /// Where it was asked.
    point: PluginPoint,
    /// About which operation, by the protocol's number.
    operation: u16,
    /// About which path.
    path: String,
    /// Whose session, 0 for the server itself.
    session: i64,
    /// What it said: `deny CODE`, `fault KIND`, or `line`.
    said: String,
    /// What came of that: `refused`, `passed`, `shadow` or `stale`.
    effect: String,
    /// Why.
    reason: String,
}

/// Who would be asked.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(super) struct Asked {
    /// At which point.
    point: PluginPoint,
    /// The binding.
    name: String,
    /// Its pattern that matches, or `scheme NAME` of an entry of the znode's ACL.
    by: String,
    /// What comes of what it says.
    mode: PluginMode,
    /// Why it would not be asked all the same, if so.
    but: Option<String>,
}
