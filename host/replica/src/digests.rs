//! Whether this server's state is what the others have. Every server tells all others its digests at
//! the same entries (`is_compared`); what a majority of the voters says alike is right.
//!
//! Invariants:
//! * A server is wrong only against a majority of the voters. Where some disagree and nobody has a
//!   majority, nothing is known but that (a `Verdict::Doubt`).
//! * A state that was copied from another server, of which no majority had said yet that it was right, is
//!   no witness for that one: the first word after the copy does not count, though it is judged.
//! * Who is in quarantine has taken back what it said before: else a majority that has become another one
//!   since (a voter was removed) would be in doubt over it, and give it nothing to heal by.
//! * Words of a bounded number of entries are kept: who is wrong once says something else ever after.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Every so many entries digests are compared; besides, after the first entry of each second and of
/// each leader.
pub const COMPARED_EVERY: u64 = 1024;
/// The words of so many entries are kept.
const KEPT_MAX: usize = 64;

/// Whether all servers tell their digests after this entry, of which `times_ms` are the state's time
/// before it and after it. `is_asked` says that a leader asks for it: by its first entry, an empty one, or
/// when nothing else follows on the last.
pub(crate) fn is_compared(index: u64, every: u64, is_asked: bool, times_ms: (i64, i64)) -> bool {
    let is_new_second = times_ms.0.div_euclid(1000) != times_ms.1.div_euclid(1000);
    index.is_multiple_of(every) || is_asked || is_new_second
}

/// What a state is after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digests {
    /// Of all its rows.
    pub state: u128,
    /// Of all that was ever applied.
    pub history: u128,
}

impl std::fmt::Display for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "state {:032x} history {:032x}", self.state, self.history)
    }
}

/// What a server says of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// After the entry at `index` it had these digests.
    At {
        /// The entry.
        index: u64,
        /// The digests.
        digests: Digests,
        /// Whether this is the first word of a state that was copied from another server, of which it
        /// was not known to be right.
        is_copy: bool,
    },
    /// It has no state that is of any use.
    Quarantined,
}

/// What is known of this server's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is against it; after the entry at this index, if any, it is what a majority has.
    Fine(Option<u64>),
    /// After the entry at `index` some voters had another state than others, and neither are a majority.
    Doubt {
        /// The entry.
        index: u64,
        /// What each voter that has said something had.
        said: Vec<(u64, Digests)>,
    },
    /// It is against a majority of the voters.
    Wrong(Wrong),
}

/// A majority has another state than this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// After this entry.
    pub index: u64,
    /// What this server had.
    pub ours: Digests,
    /// What they had.
    pub theirs: Digests,
    /// Who they are, by their ids for raft.
    pub majority: Vec<u64>,
}

/// What the servers have said of late.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// By entry and by id for raft: the digests, and whether they are those of a copy.
    said: BTreeMap<u64, BTreeMap<u64, (Digests, bool)>>,
    /// Who has no state of any use.
    quarantined: BTreeSet<u64>,
}

impl Comparison {
    /// A server has said something, by its id for raft.
    pub(crate) fn hear(&mut self, from: u64, word: Word) {
        let Word::At { index, digests, is_copy } = word else {
            self.quarantined.insert(from);
            self.forget(from);
            return;
        };
        self.quarantined.remove(&from);
        self.said.entry(index).or_default().insert(from, (digests, is_copy));
        while self.said.len() > KEPT_MAX {
            self.said.pop_first();
        }
    }

    /// What a server said of its state does not hold any more: it has another one.
    pub(crate) fn forget(&mut self, who: u64) {
        self.said.values_mut().for_each(|said| {
            said.remove(&who);
        });
        self.said.retain(|_, said| !said.is_empty());
    }

    /// Whether a server is known to have no state of any use.
    pub(crate) fn is_quarantined(&self, who: u64) -> bool {
        self.quarantined.contains(&who)
    }

    /// What follows from all that was said, for the server `me`.
    pub(crate) fn verdict(&self, me: u64, voters: &[u64]) -> Verdict {
        let (mut doubt, mut is_settled, mut right_at) = (None, false, None);
        for (index, said) in self.said.iter().rev() {
            let mut witnesses: BTreeMap<Digests, Vec<u64>> = BTreeMap::new();
            for (who, (digests, is_copy)) in said {
                if voters.contains(who) && !is_copy {
                    witnesses.entry(*digests).or_default().push(*who);
                }
            }
            let right = witnesses.iter().find(|(_, who)| who.len() * 2 > voters.len());
            let Some((theirs, majority)) = right else {
                if witnesses.len() > 1 && !is_settled && doubt.is_none() {
                    let each = |(digests, who): (&Digests, &Vec<u64>)| {
                        who.iter().map(|who| (*who, *digests)).collect::<Vec<_>>()
                    };
                    let said = witnesses.iter().flat_map(each).collect();
                    doubt = Some(Verdict::Doubt { index: *index, said });
                }
                continue;
            };
            // A quarrel before this is settled by it.
            is_settled = true;
            match said.get(&me) {
                Some((ours, _)) if ours != theirs => {
                    let (index, ours, theirs) = (*index, *ours, *theirs);
                    return Verdict::Wrong(Wrong {
                        index,
                        ours,
                        theirs,
                        majority: majority.clone(),
                    });
                }
                // Who is right here was right before.
                Some(_) => {
                    right_at = Some(*index);
                    break;
                }
                None => {}
            }
        }
        doubt.unwrap_or(Verdict::Fine(right_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Digests = Digests { state: 1, history: 1 };
    const OTHER: Digests = Digests { state: 2, history: 1 };
    const THIRD: Digests = Digests { state: 1, history: 3 };

    fn at(index: u64, digests: Digests) -> Word {
        Word::At { index, digests, is_copy: false }
    }

    fn heard(words: &[(u64, Word)]) -> Comparison {
        let mut comparison = Comparison::default();
        words.iter().for_each(|(from, word)| comparison.hear(*from, *word));
        comparison
    }

    fn is_doubt(verdict: &Verdict, expected: u64) -> bool {
        matches!(verdict, Verdict::Doubt { index, .. } if *index == expected)
    }

    #[test]
    fn seconds_and_round_numbers_are_compared() {
        assert!(is_compared(2048, 1024, false, (5, 5)));
        assert!(!is_compared(2049, 1024, false, (5, 5)));
        assert!(is_compared(2049, 1024, true, (5, 5)));
        assert!(is_compared(2049, 1024, false, (1999, 2000)));
        assert!(!is_compared(2049, 1024, false, (2000, 2999)));
    }

    #[test]
    fn who_is_against_a_majority_is_wrong() {
        let all = heard(&[(1, at(8, RIGHT)), (2, at(8, OTHER)), (3, at(8, RIGHT))]);
        let wrong = Wrong { index: 8, ours: OTHER, theirs: RIGHT, majority: vec![1, 3] };
        assert_eq!(all.verdict(2, &[1, 2, 3]), Verdict::Wrong(wrong.clone()));
        for right in [1, 3] {
            assert_eq!(all.verdict(right, &[1, 2, 3]), Verdict::Fine(Some(8)));
        }
        // One that does not vote is judged like them.
        assert_eq!(all.verdict(2, &[1, 3]), Verdict::Wrong(wrong));
        // Three of five is a majority, two of five is none.
        assert!(is_doubt(&all.verdict(2, &[1, 2, 3, 4, 5]), 8));
    }

    #[test]
    fn without_a_majority_nobody_is_wrong_until_there_is_one() {
        let mut all = heard(&[(1, at(8, RIGHT)), (2, at(8, OTHER))]);
        assert!(is_doubt(&all.verdict(1, &[1, 2, 3]), 8));
        assert!(is_doubt(&all.verdict(2, &[1, 2, 3]), 8));
        assert!(is_doubt(&all.verdict(1, &[1, 2]), 8));
        all.hear(3, at(8, THIRD));
        assert!(is_doubt(&all.verdict(3, &[1, 2, 3]), 8), "all differ");
        all.hear(3, at(8, RIGHT));
        assert_eq!(all.verdict(1, &[1, 2, 3]), Verdict::Fine(Some(8)));
        assert!(matches!(all.verdict(2, &[1, 2, 3]), Verdict::Wrong(_)));
    }

    #[test]
    fn a_later_majority_settles_what_was_doubtful_and_an_earlier_one_does_not() {
        let mut all = heard(&[(1, at(8, RIGHT)), (2, at(8, RIGHT))]);
        (1..3).zip([RIGHT, OTHER]).for_each(|(from, digests)| all.hear(from, at(9, digests)));
        assert!(is_doubt(&all.verdict(1, &[1, 2, 3]), 9));
        (1..4).step_by(2).for_each(|from| all.hear(from, at(10, RIGHT)));
        assert_eq!(all.verdict(1, &[1, 2, 3]), Verdict::Fine(Some(10)));
        let of_second = Verdict::Fine(Some(8));
        assert_eq!(all.verdict(2, &[1, 2, 3]), of_second, "it has said nothing of 10 yet");
        all.hear(2, at(10, OTHER));
        assert!(matches!(all.verdict(2, &[1, 2, 3]), Verdict::Wrong(_)));
    }

    #[test]
    fn a_copy_is_no_witness_and_is_judged() {
        let copy = Word::At { index: 8, digests: OTHER, is_copy: true };
        let mut all = heard(&[(1, at(8, RIGHT)), (2, at(8, OTHER)), (3, copy)]);
        assert!(is_doubt(&all.verdict(1, &[1, 2, 3]), 8), "it was copied from the second");
        all.hear(4, at(8, RIGHT));
        all.hear(5, at(8, RIGHT));
        assert!(matches!(all.verdict(3, &[1, 2, 3, 4, 5]), Verdict::Wrong(_)));
    }

    #[test]
    fn who_is_in_quarantine_has_taken_its_words_back() {
        let mut all = heard(&[(1, at(8, RIGHT)), (2, at(8, OTHER)), (3, at(8, RIGHT))]);
        all.hear(2, Word::Quarantined);
        (1..4).step_by(2).for_each(|from| all.hear(from, at(9, RIGHT)));
        // The third is removed: the first has no majority without the second, and no quarrel with it.
        assert_eq!(all.verdict(1, &[1, 2]), Verdict::Fine(None));
    }

    #[test]
    fn what_was_said_of_an_old_state_is_forgotten() {
        let mut all = heard(&[(1, at(8, RIGHT)), (2, at(8, OTHER)), (3, at(8, RIGHT))]);
        all.hear(2, Word::Quarantined);
        assert!(all.is_quarantined(2));
        all.forget(2);
        assert_eq!(all.verdict(2, &[1, 2, 3]), Verdict::Fine(None));
        all.hear(2, at(9, RIGHT));
        assert!(!all.is_quarantined(2));
        // Only the last ones are kept.
        (10..200).for_each(|index| all.hear(1, at(index, RIGHT)));
        assert_eq!(all.said.len(), KEPT_MAX);
    }
}
