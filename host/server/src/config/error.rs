//! What can be wrong with a configuration, and where.
//!
//! Every error names the place (file and line, environment variable, or flag), what was expected,
//! what came, and what to do: an operator meets these at three in the morning.

use std::fmt;
use std::sync::Arc;

/// Where a setting came from, so that an error or warning can point at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it; the built-in default holds.
    Default,
    /// A line of a file, counted from 1; line 0 speaks of the file as a whole.
    File(Arc<str>, usize),
    /// An environment variable, by its full name.
    Env(String),
    /// A command-line flag, as the operator typed it (`--data-dir`).
    Flag(String),
    /// A Java system property, by its full name.
    Property(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "configuration"),
            Self::File(file, 0) => write!(f, "{file}"),
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Property(name) => write!(f, "java property {name}"),
        }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A key that no setting has.
    UnknownKey {
        /// Where the key stands.
        origin: Origin,
        /// The section it stands in, dotted; empty at the top level.
        section: String,
        /// The key as written.
        key: String,
        /// Every key the section knows; the message names the nearest.
        known: Vec<String>,
    },
    /// A known key with a value that does not fit.
    Value {
        /// Where the value stands.
        origin: Origin,
        /// The key, with its section (`limits.max-frame-bytes`).
        key: String,
        /// What would have been right, and what to write.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Text that is not TOML, properties or JAAS at all.
    Syntax {
        /// Where parsing stopped.
        origin: Origin,
        /// What the parser expected and found.
        message: String,
    },
    /// A file that the configuration needs cannot be read.
    Unreadable {
        /// Where the file is named.
        origin: Origin,
        /// The key that names it; empty for the configuration file itself.
        key: String,
        /// The file.
        path: String,
        /// The system's reason.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { origin, section, key, known } => {
                let nearest = nearest(key, known);
                if let Origin::Env(name) = origin {
                    write!(f, "unknown environment variable {name}")?;
                    return match nearest {
                        Some(near) => write!(f, ": did you mean {}?", env_name(section, &near)),
                        None => write!(f, ": no setting has that name; unset it"),
                    };
                }
                write!(f, "{origin}: unknown key `{key}`")?;
                if !section.is_empty() {
                    write!(f, " in [{section}]")?;
                }
                match nearest {
                    Some(near) => write!(f, ": did you mean `{near}`?"),
                    None => write!(f, ": known keys here are {}", known.join(", ")),
                }
            }
            Self::Value { origin, key, expected, got } => {
                write!(f, "{origin}: {key}: expected {expected}, got {got}")
            }
            Self::Syntax { origin, message } => write!(f, "{origin}: {message}"),
            Self::Unreadable { origin, key, path, reason } => {
                if !key.is_empty() {
                    write!(f, "{origin}: {key}: ")?;
                }
                write!(f, "expected a readable file at {path}, got \"{reason}\"; ")?;
                write!(f, "check the path and its permissions")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The environment variable that sets `key` of `section`.
pub(super) fn env_name(section: &str, key: &str) -> String {
    let mut name = String::from("VIVARIUM_");
    if !section.is_empty() {
        name.push_str(&section.replace('.', "__"));
        name.push_str("__");
    }
    name.push_str(key);
    name.to_uppercase().replace('-', "_")
}

/// The entry of `known` that `given` was probably meant to be.
pub(super) fn nearest<S: AsRef<str>>(given: &str, known: &[S]) -> Option<String> {
    let given = given.to_lowercase().replace('_', "-");
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(&given, k.as_ref()), k.as_ref()))
        .filter(|(score, _)| *score > NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

/// Below this similarity a suggestion would puzzle more than it helps.
const NEAR_ENOUGH: f64 = 0.75;
