//! A failing seed made smaller: it is run again and again without something, as long as the same claim
//! fails. What is left out changes what comes after it, so that this is a search and no proof; but what
//! is left is often a few faults and one client.

use std::collections::BTreeSet;
use std::fmt;

use super::schedule::{Failure, Options, run};

/// What of a seed does not happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Without {
    /// Faults, by their numbers, the first being 1.
    pub faults: BTreeSet<u64>,
    /// Clients, by theirs, the first being 0.
    pub clients: BTreeSet<u64>,
    /// Whether clients get into no trouble of their own.
    pub trouble: bool,
    /// Whether no single message between servers is lost, doubled or overtaken.
    pub rough: bool,
    /// Whether nobody brings in plugins.
    pub plugins: bool,
}

impl Without {
    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut without = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, numbers) = part.split_once('=').unwrap_or((part, ""));
            let numbers = numbers.split('+').filter(|number| !number.is_empty());
            let numbers: Result<BTreeSet<u64>, _> = numbers.map(str::parse).collect();
            let numbers = numbers.map_err(|_| format!("expected numbers with +, got {part:?}"))?;
            match name {
                "faults" => without.faults = numbers,
                "clients" => without.clients = numbers,
                "trouble" => without.trouble = true,
                "rough" => without.rough = true,
                "plugins" => without.plugins = true,
                _ => {
                    return Err(format!(
                        "expected faults=, clients=, trouble, rough or plugins, got {part:?}"
                    ));
                }
            }
        }
        Ok(without)
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |name: &str, numbers: &BTreeSet<u64>| {
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            (!numbers.is_empty()).then(|| format!("{name}={}", numbers.join("+")))
        };
        let flag = |name: &str, is: bool| is.then(|| name.to_owned());
        let parts = [
            list("faults", &self.faults),
            list("clients", &self.clients),
            flag("trouble", self.trouble),
            flag("rough", self.rough),
            flag("plugins", self.plugins),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

/// Leaves out of a seed that fails what it does not need for that; `tell` hears of each success.
pub fn shrink(
    options: &Options,
    mut failure: Failure,
    tell: &mut dyn FnMut(&Without),
) -> (Without, Failure) {
    let mut without = options.without.clone();
    loop {
        let before = without.clone();
        // Of what is left the next thing is tried, so that one round may leave out everything.
        let mut at = 0;
        while let Some(less) = smaller(&without, failure.faults).into_iter().nth(at) {
            let smaller = Options { without: less, trace: false, ..options.clone() };
            match run(&smaller) {
                (Err(same), _) if same.claim == failure.claim => {
                    (without, failure) = (smaller.without, same);
                    tell(&without);
                }
                _ => at += 1,
            }
        }
        if without == before {
            return (without, failure);
        }
    }
}

/// Each with one thing less.
fn smaller(without: &Without, faults: u64) -> Vec<Without> {
    let mut all = Vec::new();
    if !without.trouble {
        all.push(Without { trouble: true, ..without.clone() });
    }
    if !without.rough {
        all.push(Without { rough: true, ..without.clone() });
    }
    if !without.plugins {
        all.push(Without { plugins: true, ..without.clone() });
    }
    for client in 0..super::schedule::CLIENTS as u64 {
        let mut less = without.clone();
        if less.clients.insert(client) {
            all.push(less);
        }
    }
    for fault in 1..=faults {
        let mut less = without.clone();
        if less.faults.insert(fault) {
            all.push(less);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::mutants::{self, Planted};

    #[test]
    fn what_is_left_out_is_read_as_it_is_written() {
        for text in
            ["", "faults=1+7", "clients=0,rough", "faults=2,clients=1+3,trouble,rough,plugins"]
        {
            assert_eq!(
                Without::parse(text).map(|without| without.to_string()),
                Ok(text.to_owned())
            );
        }
        assert!(Without::parse("servers=1").is_err());
        assert!(Without::parse("faults=x").is_err());
    }

    #[test]
    fn a_seed_with_a_known_bug_shrinks_and_still_shows_it() {
        let mut planted = Planted::default();
        let mutant = mutants::find("keep_one_shot").expect("there is such a bug");
        (mutant.plant)(&mut planted);
        let options = Options { planted, ..Options::of(0) };
        let (found, _) = run(&options);
        let failure = found.expect_err("the bug is found");
        let claim = failure.claim.clone();
        let (without, failure) = shrink(&options, failure, &mut |_| {});
        assert_eq!(failure.claim, claim);
        assert!(without.trouble && without.clients.len() >= 3, "{without}");
        let (again, _) = run(&Options { without, ..options });
        assert_eq!(again.expect_err("the bug is found again").what, failure.what);
    }
}
