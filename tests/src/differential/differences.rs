//! The list of intended differences, read from `tests/differential/differences.toml`.
//!
//! A difference in a reply is tolerated if one entry fits it; nothing else is. A difference that is
//! listed and does not occur in a full run fails it, so that the list cannot rot.

use serde::Deserialize;

/// The most that may be listed.
const COUNT_MAX: usize = 10;

/// One of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Difference {
    /// What it is called.
    pub(super) name: String,
    /// The operation, by ZooKeeper's name; `connect` for a connect.
    op: String,
    /// The condition under which it was sent, or nothing for any.
    #[serde(default)]
    when: String,
    /// ZooKeeper's outcome: an error's number, `[N]` for one inside a multi, `closed`, `open`.
    zookeeper: String,
    /// Vivarium's.
    vivarium: String,
    /// How many more zxids Vivarium takes.
    #[serde(default)]
    pub(super) more_zxids: i64,
    /// Whether the connection cannot be used any more, because one of the two has closed it.
    #[serde(default)]
    pub(super) ends_connection: bool,
    /// Why it is as it is.
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Difference>,
}

/// The list, and how often each was seen.
#[derive(Debug)]
pub(super) struct Differences {
    list: Vec<(Difference, usize)>,
}

impl Differences {
    /// Reads the list.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let count = file.difference.len();
        if count > COUNT_MAX {
            return Err(format!("at most {COUNT_MAX} differences may be listed, got {count}"));
        }
        for difference in &file.difference {
            if difference.reason.trim().is_empty() || difference.zookeeper == difference.vivarium {
                return Err(format!("{}: expected a reason and two outcomes", difference.name));
            }
        }
        Ok(Self { list: file.difference.into_iter().map(|d| (d, 0)).collect() })
    }

    /// The entry that fits, which is thereby seen.
    pub(super) fn find(
        &mut self,
        op: &str,
        when: &str,
        zookeeper: &str,
        vivarium: &str,
    ) -> Option<Difference> {
        let fits = |difference: &Difference| {
            difference.op == op
                && (difference.when.is_empty() || difference.when == when)
                && difference.zookeeper == zookeeper
                && difference.vivarium == vivarium
        };
        let (difference, seen) = self.list.iter_mut().find(|(d, _)| fits(d))?;
        *seen += 1;
        Some(difference.clone())
    }

    /// Each name, and how often it was seen.
    pub(super) fn seen(&self) -> impl Iterator<Item = (&str, usize)> {
        self.list.iter().map(|(difference, seen)| (difference.name.as_str(), *seen))
    }
}
