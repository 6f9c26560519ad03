//! A binding: which module takes part where, and how, as an operator writes it (TOML) and as it stands
//! in the log and in the state.

use serde::{Deserialize, Serialize};

/// What binds a module to paths and operations. Keys that it does not know are an error.
///
/// [`Binding::check`] says what is wrong with one that can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Binding {
    /// Names it, in the ensemble: 1 to 64 of `a-z 0-9 - _ .`, the first a letter or a digit.
    pub name: String,
    /// The file of the module, beside the binding's own. It says nothing to the state, which knows the
    /// module by its hash.
    #[serde(default)]
    pub module: String,
    /// What it does once it is active.
    #[serde(default)]
    pub mode: Mode,
    /// Among those of one point, the lower one is asked first; then names decide.
    #[serde(default)]
    pub priority: i32,
    /// Which paths; see [`super::Pattern`].
    #[serde(default, rename = "match")]
    pub matches: Vec<String>,
    /// Which operations; all if none is named.
    #[serde(default)]
    pub ops: Vec<OpKind>,
    /// Which paths it may read.
    #[serde(default)]
    pub reads: Vec<String>,
    /// The ACL schemes that an authorizer decides.
    #[serde(default)]
    pub schemes: Vec<String>,
    /// At which points it takes part, of those that the module exports; all of them if none is named.
    #[serde(default)]
    pub points: Vec<Point>,
    /// What a fault of an authorizer or a guard comes to.
    #[serde(default)]
    pub on_fault: OnFault,
    /// Whether what an authorizer that is bound to a path allows is allowed whatever the ACL says.
    #[serde(default)]
    pub override_acl: bool,
    /// How long an instance lives; as the module says if nothing is said here.
    #[serde(default)]
    pub instance: Option<Instance>,
    /// Given to the plugin as it stands, as JSON.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// What a binding does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing.
    Off,
    /// It is evaluated beside apply, and nothing comes of it.
    #[default]
    Shadow,
    /// It is evaluated in apply and keeps its store; whatever it says is written down and lets pass.
    Warn,
    /// It decides.
    Enforce,
}

/// An operation that a binding may be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpKind {
    /// All four creates.
    Create,
    /// `delete`, also by the server itself.
    Delete,
    /// `setData`.
    Set,
    /// `setACL`.
    SetAcl,
    /// `check` in a multi; of authorizers only.
    Check,
    /// Everything that reads; of authorizers only.
    Read,
}

/// Where plugins take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// Who is who, and who may do what.
    Authorizer,
    /// Whether a change may be made.
    Guard,
    /// Told of every change.
    Observer,
    /// Does something more, in the same transaction. Nothing calls it yet.
    Trigger,
    /// Keeps a subtree that follows from the rest. Nothing calls it yet.
    View,
}

/// What a fault of an authorizer or a guard comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// It is refused.
    #[default]
    Deny,
    /// It is as if the plugin had not been asked.
    Allow,
}

/// How long an instance of a module lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instance {
    /// One for each transaction.
    #[default]
    Transaction,
    /// One for a binding's calls of one log entry. Only for modules that keep nothing between calls.
    Entry,
}
