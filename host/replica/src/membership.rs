//! Brings those that raft counts in line with the servers that are to be: one server at a time, each
//! change an entry of its own.
//!
//! Invariants:
//! * A server gets the log before it votes, and votes when it has nearly all of it, and can run the plugins.
//! * No change leaves voters of whom the majority cannot be reached.
//! * Nobody goes who has a state of use where no other has one that is up to date.
//! * What is gone is let go first, what is only not wanted any more last; the leader itself hands over
//!   before it goes.

use std::collections::BTreeMap;

use state::{ConfStep, Members};

/// A server that raft counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Its id for raft.
    pub(crate) id: u64,
    /// Whether it votes.
    pub(crate) votes: bool,
    /// Whether it can be reached.
    pub(crate) is_there: bool,
    /// Whether it has nearly all of the log.
    pub(crate) is_up_to_date: bool,
    /// Whether it has compiled all that plugins may need; of one that votes it decides nothing.
    pub(crate) is_ready: bool,
    /// Whether its state is of use: it is not in quarantine, as far as is known.
    pub(crate) is_well: bool,
}

/// What a leader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Changes whom raft counts.
    Change(ConfStep),
    /// Lets another server lead, by its id for raft.
    HandOver(u64),
}

/// The next step of the leader `me`; `None` when all is as it should be, or must wait.
pub(crate) fn next_step(members: &Members, counted: &[Counted], me: u64) -> Option<Step> {
    // One that has not asked to be let in yet has no id.
    let mut wanted: BTreeMap<u64, bool> =
        members.servers.values().map(|member| (member.raft_id, member.votes())).collect();
    wanted.remove(&0);
    let known = |id: u64| counted.iter().find(|c| c.id == id);
    let gone = || counted.iter().filter(|c| !c.is_there && !wanted.contains_key(&c.id));
    let new = || wanted.keys().filter(|id| known(**id).is_none());
    let ready = || {
        let waits = |c: &&Counted| {
            let may_vote = c.is_up_to_date && c.is_ready && !c.votes;
            may_vote && wanted.get(&c.id) == Some(&true)
        };
        counted.iter().filter(waits)
    };
    let demoted = || counted.iter().filter(|c| c.votes && wanted.get(&c.id) == Some(&false));
    let unwanted = || counted.iter().filter(|c| !wanted.contains_key(&c.id) && c.id != me);
    let steps = gone()
        .map(|c| ConfStep::Remove(c.id))
        .chain(new().map(|id| ConfStep::Learner(*id)))
        .chain(ready().map(|c| ConfStep::Voter(c.id)))
        .chain(demoted().filter(|c| c.id != me).map(|c| ConfStep::Learner(c.id)))
        .chain(unwanted().map(|c| ConfStep::Remove(c.id)));
    let may_be = |step: &ConfStep| keeps_quorum(counted, *step) && keeps_state(counted, *step);
    if let Some(step) = steps.into_iter().find(may_be) {
        return Some(Step::Change(step));
    }
    // All others are as they should be; those that still have to vote are waited for.
    let is_settled = wanted.iter().all(|(id, votes)| known(*id).is_some_and(|c| c.votes || !votes));
    let leaves = is_settled && wanted.get(&me) != Some(&true);
    let heir = counted
        .iter()
        .find(|c| c.id != me && c.votes && has_all(c) && wanted.get(&c.id) == Some(&true));
    heir.filter(|_| leaves).map(|heir| Step::HandOver(heir.id))
}

/// Whether a majority of the voters after this step can be reached.
fn keeps_quorum(counted: &[Counted], step: ConfStep) -> bool {
    let votes = |c: &&Counted| match step {
        ConfStep::Voter(id) if id == c.id => true,
        ConfStep::Learner(id) | ConfStep::Remove(id) if id == c.id => false,
        _ => c.votes,
    };
    let voters = counted.iter().filter(votes).count();
    let there = counted.iter().filter(votes).filter(|c| c.is_there).count();
    there * 2 > voters
}

/// Whether somebody has all that a server has that is let go, which may be what the others still need.
fn keeps_state(counted: &[Counted], step: ConfStep) -> bool {
    let ConfStep::Remove(gone) = step else { return true };
    let loses = counted.iter().any(|c| c.id == gone && c.is_there && c.is_well);
    !loses || counted.iter().any(|c| c.id != gone && has_all(c))
}

/// Whether a server can be reached, and has a state that is up to date.
fn has_all(counted: &Counted) -> bool {
    counted.is_there && counted.is_up_to_date && counted.is_well
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(all: &[(u64, &str)]) -> Vec<Counted> {
        let is = |what: &str, c: char| what.contains(c);
        all.iter()
            .map(|(id, what)| Counted {
                id: *id,
                votes: is(what, 'v'),
                is_there: is(what, 't'),
                is_up_to_date: is(what, 'u'),
                is_ready: !is(what, 'c'),
                is_well: !is(what, 'q'),
            })
            .collect()
    }

    /// Takes all steps; whoever is new is there, and up to date one step later.
    fn steps(members: &Members, mut all: Vec<Counted>, me: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = next_step(members, &all, me) {
            assert!(steps.len() < 20, "it does not end: {steps:?}");
            steps.push(step);
            let Step::Change(change) = step else { break };
            match change {
                ConfStep::Voter(id) => {
                    all.iter_mut().filter(|c| c.id == id).for_each(|c| c.votes = true)
                }
                ConfStep::Remove(id) => all.retain(|c| c.id != id),
                ConfStep::Learner(id) => match all.iter_mut().find(|c| c.id == id) {
                    Some(known) => known.votes = false,
                    None => all.extend(counted(&[(id, "tu")])),
                },
            }
        }
        steps
    }

    const ALL: &str = "vtu";

    #[test]
    fn nothing_is_done_where_all_is_as_it_should_be() {
        let members = Members::founders(&[1, 2, 3]);
        let all = counted(&[(1, ALL), (2, "v"), (3, ALL)]);
        assert_eq!(next_step(&members, &all, 1), None, "one that is away is waited for");
    }

    #[test]
    fn one_that_lost_its_data_is_let_go_and_comes_back_as_another() {
        let mut members = Members::founders(&[1, 2, 3]);
        let member = members.servers.get_mut(&1).expect("server 1");
        member.raft_id = 257;
        let all = counted(&[(1, ALL), (2, "v"), (3, ALL)]);
        let expected =
            [ConfStep::Remove(2), ConfStep::Learner(257), ConfStep::Voter(257)].map(Step::Change);
        assert_eq!(steps(&members, all, 1), expected);
    }

    #[test]
    fn all_are_replaced_by_others_and_the_leader_goes_last() {
        let members = Members::founders(&[4, 5, 6]);
        let all = counted(&[(1, ALL), (2, ALL), (3, ALL)]);
        let mut expected = [4, 5, 6].map(|id| Step::Change(ConfStep::Learner(id))).to_vec();
        expected.extend([4, 5, 6].map(|id| Step::Change(ConfStep::Voter(id))));
        expected.extend([2, 3].map(|id| Step::Change(ConfStep::Remove(id))));
        expected.push(Step::HandOver(4));
        assert_eq!(steps(&members, all, 1), expected);
    }

    #[test]
    fn nobody_goes_whose_state_the_others_still_need() {
        let mut members = Members::founders(&[1, 2, 3]);
        members.servers.remove(&2);
        // Of those that stay, one has a wrong state and one is far behind.
        let all = [(1, "vtuq"), (2, "vt"), (3, ALL)];
        assert_eq!(next_step(&members, &counted(&all), 1), None);
        assert_eq!(next_step(&members, &counted(&all), 3), None, "nobody is there to lead instead");
        let all = counted(&[(1, ALL), (2, "vt"), (3, ALL)]);
        assert_eq!(next_step(&members, &all, 3), Some(Step::HandOver(1)));
        assert_eq!(next_step(&members, &all, 1), Some(Step::Change(ConfStep::Remove(3))));
        // One whose own state is of no use takes nothing away.
        let all = counted(&[(1, "vtuq"), (2, "vt"), (3, "vtuq")]);
        assert_eq!(next_step(&members, &all, 1), Some(Step::Change(ConfStep::Remove(3))));
    }

    #[test]
    fn a_majority_can_always_be_reached() {
        let mut members = Members::founders(&[1, 2, 3]);
        members.servers.remove(&2);
        // Without the third, the second alone could not be reached.
        let all = counted(&[(1, ALL), (2, "v"), (3, ALL)]);
        assert_eq!(next_step(&members, &all, 1), None);
        let all = counted(&[(1, ALL), (2, ALL), (3, "v")]);
        assert_eq!(next_step(&members, &all, 1), Some(Step::Change(ConfStep::Remove(3))));
        // One that is not up to date does not vote.
        let members = Members::founders(&[1, 2]);
        assert_eq!(next_step(&members, &counted(&[(1, ALL), (2, "t")]), 1), None);
        let all = counted(&[(1, ALL), (2, "tu")]);
        assert_eq!(next_step(&members, &all, 1), Some(Step::Change(ConfStep::Voter(2))));
        // Nor does one that still compiles.
        assert_eq!(next_step(&members, &counted(&[(1, ALL), (2, "tuc")]), 1), None);
        let all = counted(&[(1, "vtuc"), (2, "tu")]);
        assert_eq!(next_step(&members, &all, 1), Some(Step::Change(ConfStep::Voter(2))));
    }
}
