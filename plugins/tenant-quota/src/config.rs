//! What the operator sets.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use vivarium_plugin_sdk::{json, log, tree};

/// `[settings]` of the binding.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The znode whose children are the tenants; the binding's `match` is all below it.
    #[serde(default = "tenants")]
    root: String,
    /// Where a tenant's own limits are kept in the tree, as JSON with the keys of [`Limits`]; `{tenant}` stands
    /// for its name. The binding's `reads` must grant it.
    limits_at: Option<String>,
    max_nodes: Option<u64>,
    max_bytes: Option<Bytes>,
    max_ephemerals: Option<u64>,
    max_writes_per_second: Option<u64>,
    /// What is different for single tenants.
    #[serde(default)]
    tenants: BTreeMap<String, Limits>,
}

/// The limits of a tenant. What is not set is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Limits {
    /// Znodes, its own included.
    pub(crate) max_nodes: Option<u64>,
    /// The lengths of their data, in sum.
    pub(crate) max_bytes: Option<Bytes>,
    /// Ephemeral znodes.
    pub(crate) max_ephemerals: Option<u64>,
    /// Creates, sets and deletes, as the binding's `ops` say.
    pub(crate) max_writes_per_second: Option<u64>,
}

/// A number of bytes: `1048576` or `"1MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

fn tenants() -> String {
    "/tenants".into()
}

impl Settings {
    /// Says what makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_path = |path: &str| path.starts_with('/') && (path == "/" || !path.ends_with('/'));
        if !is_path(&self.root) {
            return Err(format!("root is a path such as \"/tenants\", and not {:?}", self.root));
        }
        match &self.limits_at {
            Some(at) if !is_path(at) || !at.contains("{tenant}") => {
                Err(format!("limits-at is a path such as \"/limits/{{tenant}}\", and not {at:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Whose znode it is; nobody's if it is not below the root.
    pub(crate) fn tenant<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = path.strip_prefix(self.root.trim_end_matches('/'))?.strip_prefix('/')?;
        below.split('/').next().filter(|name| !name.is_empty())
    }

    /// What holds for a tenant: what the tree says of it, else what the settings say of it, else what they
    /// say of all; each limit for itself.
    pub(crate) fn limits(&self, tenant: &str) -> Limits {
        let all = Limits {
            max_nodes: self.max_nodes,
            max_bytes: self.max_bytes,
            max_ephemerals: self.max_ephemerals,
            max_writes_per_second: self.max_writes_per_second,
        };
        let own = self.tenants.get(tenant).copied().unwrap_or_default();
        self.in_tree(tenant).unwrap_or_default().or(own).or(all)
    }

    fn in_tree(&self, tenant: &str) -> Option<Limits> {
        let path = self.limits_at.as_ref()?.replace("{tenant}", tenant);
        let data = tree::get(&path)?.data.filter(|data| !data.is_empty())?;
        match json::from_slice(&data) {
            Ok(limits) => Some(limits),
            // Refusing all that the tenant does would not be what is meant; neither is no limit at all.
            Err(error) => {
                log::line(&format!("{path} is passed over: {error}"));
                None
            }
        }
    }
}

impl Limits {
    /// These, and the others where these have none.
    fn or(self, others: Self) -> Self {
        Self {
            max_nodes: self.max_nodes.or(others.max_nodes),
            max_bytes: self.max_bytes.or(others.max_bytes),
            max_ephemerals: self.max_ephemerals.or(others.max_ephemerals),
            max_writes_per_second: self.max_writes_per_second.or(others.max_writes_per_second),
        }
    }
}

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text[digits.len()..].trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of bytes, or a text such as \"64MiB\"")
            }
            fn visit_u64<E: Error>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                let wrong = || E::invalid_value(Unexpected::Str(text), &self);
                Bytes::parse(text).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
