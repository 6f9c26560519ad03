//! Cluster settings as operators write them: a name and a value, both text.

use std::collections::BTreeMap;

use state::plugins::{PluginLimit, check_grants};
use state::{SettingChange, Settings};
use thiserror::Error;

/// The names of the settings that are not about plugins.
const NAMES: [&str; 5] =
    ["apply-version", "enforce-quota", "skip-acl", "super-digest", "ttl-nodes"];
/// What bindings may match and read: patterns, with commas between them.
const GRANTS: &str = "plugin-grants";

/// The names of all settings.
fn names() -> impl Iterator<Item = &'static str> {
    let limits = PluginLimit::ALL.into_iter().map(|limit| limit.describe().0);
    NAMES.into_iter().chain(limits).chain([GRANTS])
}

/// How a setting without a value is written.
const NONE: &str = "none";
/// Below this similarity a suggestion would puzzle more than it helps.
const NEAR_ENOUGH: f64 = 0.75;

/// Why a setting cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// There is none of this name.
    #[error("unknown setting {name:?}{}; the settings are {}", meant(.nearest), names().collect::<Vec<_>>().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// It is about plugins, and the value is not one that it takes.
    #[error("{0}")]
    Plugins(String),
    /// The value is not one that it takes.
    #[error("{name}: expected {expected}, got {got}")]
    Value {
        /// Which setting.
        name: String,
        /// What it takes.
        expected: &'static str,
        /// What was given.
        got: String,
    },
}

fn meant(nearest: &Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!(" (did you mean {name}?)"))
}

/// All settings and their values. A digest is shown by its user and its first characters.
pub fn shown(settings: &Settings) -> BTreeMap<String, String> {
    let Settings { ttl_nodes, enforce_quota, skip_acl, super_digest, apply_version, plugins } =
        settings;
    let digest = super_digest.as_ref().map_or_else(|| NONE.to_owned(), |digest| masked(digest));
    let [quota, skip, ttl] = [enforce_quota, skip_acl, ttl_nodes].map(|on| on.to_string());
    let values = [apply_version.to_string(), quota, skip, digest, ttl];
    let limits = PluginLimit::ALL.into_iter();
    let limits = limits.map(|limit| (limit.describe().0, plugins.limit(limit).to_string()));
    let grants = match plugins.grants() {
        [] => NONE.to_owned(),
        grants => grants.join(","),
    };
    let all = NAMES.into_iter().zip(values).chain(limits).chain([(GRANTS, grants)]);
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The names of the settings in which two differ, of those that a configuration may give.
pub fn different(a: &Settings, b: &Settings) -> Vec<&'static str> {
    let differs = [
        false,
        a.enforce_quota != b.enforce_quota,
        a.skip_acl != b.skip_acl,
        a.super_digest != b.super_digest,
        a.ttl_nodes != b.ttl_nodes,
    ];
    NAMES.into_iter().zip(differs).filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Enough of a digest to tell it from another.
fn masked(digest: &str) -> String {
    let (user, hash) = digest.split_once(':').unwrap_or((digest, ""));
    let head: String = hash.chars().take(4).collect();
    format!("{user}:{head}...")
}

/// Reads one setting as an operator wrote it.
///
/// # Errors
/// [`SettingError`], which says what would be right. A digest that is refused is not repeated.
pub fn parse(name: &str, value: &str) -> Result<SettingChange, SettingError> {
    let on = || match value {
        "true" | "on" | "yes" => Ok(true),
        "false" | "off" | "no" => Ok(false),
        _ => Err(SettingError::Value {
            name: name.to_owned(),
            expected: "true or false",
            got: format!("{value:?}"),
        }),
    };
    Ok(match name {
        "apply-version" => {
            SettingChange::ApplyVersion(value.parse().map_err(|_| SettingError::Value {
                name: name.to_owned(),
                expected: "a number",
                got: format!("{value:?}"),
            })?)
        }
        "ttl-nodes" => SettingChange::TtlNodes(on()?),
        "enforce-quota" => SettingChange::EnforceQuota(on()?),
        "skip-acl" => SettingChange::SkipAcl(on()?),
        "super-digest" if value == NONE => SettingChange::SuperDigest(None),
        "super-digest" => {
            if !is_digest(value) {
                return Err(SettingError::Value {
                    name: name.to_owned(),
                    expected: "user:base64(hash(user:password)) or none",
                    got: "text of another form".to_owned(),
                });
            }
            SettingChange::SuperDigest(Some(value.to_owned()))
        }
        GRANTS if value == NONE => SettingChange::PluginGrants(Vec::new()),
        GRANTS => {
            let grants: Vec<String> =
                value.split(',').map(|grant| grant.trim().to_owned()).collect();
            check_grants(&grants).map_err(SettingError::Plugins)?;
            SettingChange::PluginGrants(grants)
        }
        _ if let Some(limit) = PluginLimit::named(name) => {
            let number = value.parse().map_err(|_| SettingError::Value {
                name: name.to_owned(),
                expected: "a number",
                got: format!("{value:?}"),
            })?;
            limit.check(number).map_err(SettingError::Plugins)?;
            SettingChange::PluginLimit(limit, number)
        }
        _ => {
            let given = name.to_lowercase().replace('_', "-");
            let near = names().map(|known| (strsim::jaro_winkler(&given, known), known));
            let best = near.max_by(|a, b| a.0.total_cmp(&b.0));
            let nearest = best.filter(|(score, _)| *score > NEAR_ENOUGH).map(|(_, name)| name);
            return Err(SettingError::Unknown { name: name.to_owned(), nearest });
        }
    })
}

/// Whether this has the form of a digest id: a user, and a hash of a known length in base64. It is
/// to keep a password from being taken for a digest.
fn is_digest(text: &str) -> bool {
    let Some((user, hash)) = text.split_once(':') else { return false };
    let digits = hash.trim_end_matches('=');
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    // SHA-1, and the 224, 256, 384 and 512 bits of SHA-2 and SHA-3.
    let lengths = [28, 40, 44, 64, 88];
    let padded = hash.len() - digits.len() <= 2;
    !user.is_empty() && padded && lengths.contains(&hash.len()) && digits.chars().all(base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

    #[test]
    fn what_is_set_is_shown() {
        let mut settings = Settings::default();
        let before = settings.clone();
        for (name, value) in [("ttl-nodes", "off"), ("skip-acl", "true"), ("super-digest", DIGEST)]
        {
            settings.change(&parse(name, value).expect("it is right"));
        }
        let shown = shown(&settings);
        let values: Vec<_> = NAMES.iter().map(|name| shown[*name].as_str()).collect();
        assert_eq!(values, ["2", "false", "true", "super:D/In...", "false"]);
        assert_eq!(different(&before, &settings), ["skip-acl", "super-digest", "ttl-nodes"]);
        settings.change(&parse("super-digest", "none").expect("it is right"));
        assert_eq!(settings.super_digest, None);
    }

    #[test]
    fn what_plugins_may_take_is_set_and_shown() {
        let mut settings = Settings::default();
        assert_eq!(shown(&settings)["plugin-reads"], "64");
        assert_eq!(shown(&settings)["plugin-grants"], "none");
        for (name, value) in [("plugin-reads", "7"), ("plugin-grants", "/a/**, /b")] {
            settings.change(&parse(name, value).expect("it is right"));
        }
        assert_eq!(shown(&settings)["plugin-reads"], "7");
        assert_eq!(shown(&settings)["plugin-grants"], "/a/**,/b");
        settings.change(&parse("plugin-grants", "none").expect("it is right"));
        assert_eq!(shown(&settings)["plugin-grants"], "none");
        for (name, value) in
            [("plugin-reads", "many"), ("plugin-guard-fuel", "99999999"), ("plugin-grants", "a")]
        {
            parse(name, value).expect_err("it is wrong");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_advice() {
        let error = parse("ttl_node", "true").expect_err("unknown").to_string();
        assert!(error.contains("did you mean ttl-nodes?"), "{error}");
        let error = parse("zzz", "true").expect_err("unknown").to_string();
        assert!(!error.contains("mean") && error.contains("skip-acl"), "{error}");
        let error = parse("skip-acl", "maybe").expect_err("no value").to_string();
        assert_eq!(error, "skip-acl: expected true or false, got \"maybe\"");
        let error = parse("super-digest", "super:password").expect_err("no digest").to_string();
        assert!(!error.contains("super:password"), "{error}");
        assert!(error.contains("text of another form"), "{error}");
    }
}
