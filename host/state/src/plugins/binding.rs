//! A binding: which module takes part where, and how, as an operator writes it (TOML) and as it stands
//! in the log and in the state.

use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::pattern::Pattern;

/// What binds a module to paths and operations. Keys that it does not know are an error.
///
/// [`Binding::check`] says what is wrong with one that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Given to the plugin as it stands: an object of JSON. In a file it is a table.
    #[serde(default = "no_settings", deserialize_with = "settings")]
    pub settings: String,
}

fn no_settings() -> String {
    "{}".to_owned()
}

/// Reads settings as they stand in a file, a table, or in the log, text.
fn settings<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    struct Settings;
    impl<'de> Visitor<'de> for Settings {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a table")
        }

        fn visit_str<E: serde::de::Error>(self, json: &str) -> Result<String, E> {
            Ok(json.to_owned())
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<String, M::Error> {
            let map = serde_json::Map::deserialize(MapAccessDeserializer::new(map))?;
            serde_json::to_string(&map).map_err(serde::de::Error::custom)
        }
    }
    from.deserialize_any(Settings)
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

/// How long a name may be, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How many patterns of each kind, and how many schemes, a binding may have.
const PATTERNS_MAX: usize = 64;
const SCHEMES_MAX: usize = 8;
/// How long the settings may be, as JSON, in bytes.
const SETTINGS_BYTES_MAX: usize = 64 << 10;
/// The schemes that are not a plugin's to decide.
const NATIVE_SCHEMES: [&str; 8] =
    ["world", "auth", "digest", "ip", "x509", "sasl", "super", "host"];

/// Whether a scheme is built in, and not a plugin's to decide.
pub fn is_native_scheme(scheme: &str) -> bool {
    NATIVE_SCHEMES.contains(&scheme)
}

impl Binding {
    /// Says what is wrong with it, and what to do. What it may match and read is what the patterns of
    /// `grants` cover; everything, if there are none.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub fn check(&self, grants: &[String]) -> Result<(), String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let starts = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !self.name.starts_with(starts)
            || !self.name.chars().all(allowed)
            || self.name.len() > NAME_BYTES_MAX
        {
            return Err(format!(
                "the name \"{}\" is no good: expected 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ . that begin \
                 with a letter or a digit",
                self.name
            ));
        }
        if self.matches.is_empty() && self.schemes.is_empty() {
            return Err(
                "it is bound to nothing: give paths (`match = [\"/tenants/**\"]`), or, for an \
                        authorizer, `schemes`"
                    .to_owned(),
            );
        }
        for (key, count, most) in [
            ("match", self.matches.len(), PATTERNS_MAX),
            ("reads", self.reads.len(), PATTERNS_MAX),
            ("schemes", self.schemes.len(), SCHEMES_MAX),
        ] {
            if count > most {
                return Err(format!("`{key}` has {count} items; at most {most} are allowed"));
            }
        }
        let grants = patterns("the ensemble's plugin grants", grants)?;
        for (key, texts) in [("match", &self.matches), ("reads", &self.reads)] {
            for (pattern, text) in patterns(key, texts)?.iter().zip(texts) {
                if !grants.is_empty() && !grants.iter().any(|grant| grant.covers(pattern)) {
                    return Err(format!(
                        "`{key}` has \"{text}\", which is outside what the ensemble grants to plugins; \
                         see `vivarium settings`, plugin-grants"
                    ));
                }
            }
        }
        for scheme in &self.schemes {
            if is_native_scheme(scheme) {
                return Err(format!(
                    "the scheme \"{scheme}\" is built in, and no plugin's to decide"
                ));
            }
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if scheme.is_empty() || scheme.len() > 64 || !scheme.chars().all(is_name) {
                return Err(format!(
                    "the scheme \"{scheme}\" is no good: expected letters, digits, - and _"
                ));
            }
        }
        let length = self.settings.len();
        if length > SETTINGS_BYTES_MAX {
            return Err(format!(
                "the settings have {length} bytes as JSON; at most {SETTINGS_BYTES_MAX} are allowed"
            ));
        }
        let object =
            serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(&self.settings);
        object.map_err(|e| format!("the settings are no table: {e}"))?;
        Ok(())
    }

    /// Says what its module lacks, by what it was found to export.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn check_exports(&self, exports: &super::Exports) -> Result<(), String> {
        let has: Vec<String> = exports.points.iter().map(ToString::to_string).collect();
        let has = if has.is_empty() { "none of them".to_owned() } else { has.join(", ") };
        if exports.points.is_empty() {
            return Err("the module exports none of vivarium's interfaces".to_owned());
        }
        let needs = |point: Point, why: String| match exports.points.contains(&point) {
            true => Ok(()),
            false => Err(format!("the module exports no {point}, which {why}; it exports {has}")),
        };
        for point in &self.points {
            needs(*point, "`points` names".to_owned())?;
        }
        if let Some(scheme) = self.schemes.first() {
            needs(Point::Authorizer, format!("the scheme \"{scheme}\" needs"))?;
            if !self.points_of(exports).contains(&Point::Authorizer) {
                return Err(
                    "`schemes` need the point \"authorizer\", which `points` leaves out".into()
                );
            }
        }
        let only_asks = |kind: &OpKind| matches!(kind, OpKind::Check | OpKind::Read);
        if !self.ops.is_empty() && self.ops.iter().all(only_asks) {
            needs(Point::Authorizer, "`ops` of nothing but check and read need".to_owned())?;
        }
        if self.matches.is_empty() && self.points_of(exports) != [Point::Authorizer] {
            return Err(format!(
                "`match` is empty, so that a guard or an observer would never be called: give paths, or \
                 `points = [\"authorizer\"]`; the module exports {has}"
            ));
        }
        if self.instance == Some(Instance::Entry) && !exports.is_stateless {
            return Err(
                "`instance = \"entry\"` is for modules that say of themselves that they keep \
                        nothing between calls, which this one does not"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// At which points it takes part, if its module is such.
    pub fn points_of(&self, exports: &super::Exports) -> Vec<Point> {
        let named = |point: &Point| self.points.is_empty() || self.points.contains(point);
        exports.points.iter().copied().filter(named).collect()
    }
}

/// The patterns of a key.
pub(super) fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, String> {
    let parse = |text: &String| Pattern::parse(text).map_err(|why| format!("`{key}`: {why}"));
    texts.iter().map(parse).collect()
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Authorizer => "authorizer",
            Self::Guard => "guard",
            Self::Observer => "observer",
            Self::Trigger => "trigger",
            Self::View => "view",
        })
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{
        "name": "tenant-quota", "module": "quota.wasm", "mode": "enforce", "priority": 100,
        "match": ["/tenants/**"], "ops": ["create", "set-acl"], "reads": ["/tenants/*/limits"],
        "on-fault": "allow", "settings": { "max-nodes": 10000, "nested": { "b": [1, "x"] } }
    }"#;

    #[test]
    fn what_an_operator_writes_is_read_and_kept() {
        let binding: Binding = serde_json::from_str(EXAMPLE).expect("it is a binding");
        assert_eq!((binding.mode, binding.priority), (Mode::Enforce, 100));
        assert_eq!(binding.ops, [OpKind::Create, OpKind::SetAcl]);
        assert_eq!(binding.settings, r#"{"max-nodes":10000,"nested":{"b":[1,"x"]}}"#);
        assert_eq!((binding.on_fault, binding.instance), (OnFault::Allow, None));
        assert_eq!(binding.check(&[]), Ok(()));
        let row = rmp_serde::to_vec(&binding).expect("it encodes");
        let kept: Binding = rmp_serde::from_slice(&row).expect("it decodes");
        assert_eq!(kept, binding);
    }

    #[test]
    fn a_key_that_is_unknown_is_an_error_that_names_it() {
        let text = EXAMPLE.replace("priority", "prority");
        let why = serde_json::from_str::<Binding>(&text).expect_err("it is unknown").to_string();
        assert!(why.contains("unknown field `prority`"), "{why}");
        let text = EXAMPLE.replace("\"create\"", "\"creat\"");
        let why = serde_json::from_str::<Binding>(&text).expect_err("it is unknown").to_string();
        assert!(why.contains("creat"), "{why}");
        assert!(serde_json::from_str::<Binding>(r#"{"match": ["/a"]}"#).is_err(), "it has no name");
    }
}
