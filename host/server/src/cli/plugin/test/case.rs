//! A case, as an author writes it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// In order.
    #[serde(rename = "case")]
    pub(super) cases: Vec<Case>,
}

/// What is there, what is done, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// In place of those of the binding.
    pub(super) settings: Option<toml::Table>,
    /// Other keys of the binding, in place of what it has.
    #[serde(default)]
    pub(super) binding: toml::Table,
    /// Znodes that are there before the binding is: path and data.
    #[serde(default)]
    pub(super) before: BTreeMap<String, String>,
    /// Part of what the plugin says to the settings; nothing else is done then.
    pub(super) refused: Option<String>,
    #[serde(default, rename = "do")]
    pub(super) steps: Vec<Step>,
    /// All znodes that are there then, `/zookeeper` aside, with their data.
    pub(super) after: Option<BTreeMap<String, String>>,
    /// All that the plugin keeps then: counters as numbers, other values as texts.
    pub(super) store: Option<BTreeMap<String, Kept>>,
}

/// Something that a plugin keeps.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Kept {
    Counter(i64),
    Text(String),
}

/// Something that is done. It names one of `create`, `set`, `delete`, `set-acl`, `get`, `multi`, `auth`,
/// `end-session`, `reap` and `advance-ms`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Step {
    pub(super) create: Option<String>,
    pub(super) set: Option<String>,
    pub(super) delete: Option<String>,
    pub(super) set_acl: Option<String>,
    /// Reads a znode, as far as it is a matter of ACLs and authorizers.
    pub(super) get: Option<String>,
    pub(super) multi: Option<Vec<Step>>,
    /// The scheme under which a client adds credentials; they are its `data`.
    pub(super) auth: Option<String>,
    pub(super) end_session: Option<i64>,
    /// Lets a TTL znode or an empty container come to its end.
    pub(super) reap: Option<String>,
    /// Lets time pass.
    pub(super) advance_ms: Option<i64>,

    /// Of a create or set; empty if it is not said.
    pub(super) data: Option<String>,
    /// Of a create.
    #[serde(default)]
    pub(super) mode: Mode,
    /// Of a TTL znode.
    pub(super) ttl_ms: Option<i64>,
    /// Of a create or set-acl, as in the shell: `scheme:id:perms,...`. Everything for everybody, if it
    /// is not said.
    pub(super) acl: Option<String>,
    /// Who does it; 1 if it is not said. Sessions are opened as they are named.
    pub(super) session: Option<i64>,
    /// What comes of it: `ok` if it is not said, a code such as `QUOTAEXCEEDED`, or `fault`.
    pub(super) expect: Option<String>,
    /// Part of the reason in the decision log.
    pub(super) reason: Option<String>,
    /// The ids that `auth` gives.
    pub(super) ids: Option<Vec<String>>,
}

/// A kind of znode.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    #[default]
    Persistent,
    Ephemeral,
    PersistentSequential,
    EphemeralSequential,
    Container,
    Ttl,
}

impl Cases {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or is not such a file.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        toml::from_str(&text).with_context(|| format!("{}", file.display()))
    }
}
