//! A new ensemble goes on with the state of another one, which is lost.
//!
//! Invariants:
//! * It has a name of its own: servers with data of the old one are refused.
//! * Its zxids are above all that the old one may have given out, so that no server is behind what a
//!   client has seen.
//! * No command that the old one had under way counts. Sessions stay, with their ephemerals, as in a
//!   ZooKeeper that is given a snapshot: clients that still run go on where they were, and those that
//!   do not come back within their timeout expire.

use std::sync::Arc;

use super::{BIRTH, META_KEY, Meta, State, encode_meta};
use crate::fault::Fault;
use crate::keys::Keyspace;
use crate::members::Members;

/// How many epochs of zxids a new ensemble leaves out. An epoch is a term, and a term is an election:
/// the old ensemble may have had so many after the snapshot was taken, or after this server heard of it
/// last.
const EPOCHS_LEFT_OUT: i64 = 1 << 16;
/// The last epoch that a zxid has room for.
const EPOCH_MAX: i64 = i32::MAX as i64;

impl Meta {
    /// What stands beside a tree that a new ensemble begins with. Who is in it is not known yet.
    pub(crate) fn at_birth_of(self, cluster_id: u64) -> Result<Self, Fault> {
        let (applied, term) = BIRTH;
        let members = Arc::new(Members::founders(&[]));
        Ok(Self { applied, term, members, ..self.of_another(cluster_id)? })
    }

    /// The same of an ensemble with another name.
    fn of_another(mut self, cluster_id: u64) -> Result<Self, Fault> {
        let epoch = (self.zxid >> 32) + EPOCHS_LEFT_OUT;
        if epoch > EPOCH_MAX {
            let why = format!("no zxids are left above {:#x}", self.zxid);
            return Err(Fault::Damaged { keyspace: "meta", why });
        }
        self.zxid = epoch << 32;
        self.cluster_id = cluster_id;
        self.origins.clear();
        Ok(self)
    }
}

impl State {
    /// Whether this is a tree for a new ensemble, of which no entry was applied yet.
    pub fn is_of_new_ensemble(&self) -> bool {
        self.meta.applied == BIRTH.0 && self.meta.cluster_id != 0
    }

    /// Says who is in the new ensemble, durably.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    ///
    /// # Panics
    /// If it has begun already.
    pub fn found(&mut self, members: Members) -> Result<(), Fault> {
        assert!(self.is_of_new_ensemble(), "it has begun already");
        self.meta.members = Arc::new(members);
        self.put_meta()
    }

    /// Makes of this state, with all that was applied to it, that of a new ensemble, in which the
    /// server with this id for raft decides alone. All of it is written as one batch, if
    /// [`State::with_gather_bytes`] has kept it from being written before.
    ///
    /// # Errors
    /// [`Fault`] if the store fails; if the server is not of the ensemble, nothing is changed.
    pub fn go_on_alone(mut self, raft_id: u64, cluster_id: u64) -> Result<(), Fault> {
        let members = self.meta.members.only(raft_id).ok_or_else(|| {
            let why = format!("nobody has the id {raft_id} for raft");
            Fault::Damaged { keyspace: "meta", why }
        })?;
        self.meta =
            Meta { members: Arc::new(members), ..self.meta.clone().of_another(cluster_id)? };
        // The meta row goes with what was gathered.
        self.begin_flush()?;
        self.end_flush()?;
        self.put_meta()
    }

    fn put_meta(&self) -> Result<(), Fault> {
        let row = encode_meta(&self.meta);
        self.store.commit(&mut |batch| batch.put(Keyspace::Meta, META_KEY, Some(&row)))?;
        self.store.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, NoHooks};

    fn open(store: &MemoryStore, voters: &[u64]) -> State {
        let (store, hooks) = (Box::new(store.crashed()), Box::new(NoHooks));
        State::open_or_found(store, hooks, 1 << 20, &Members::founders(voters)).expect("it opens")
    }

    #[test]
    fn zxids_go_on_far_above_and_come_to_an_end() {
        let mut meta = State::open(Box::new(MemoryStore::default()), Box::new(NoHooks), 1 << 20)
            .expect("it opens")
            .meta()
            .clone();
        meta.zxid = (7 << 32) | 5;
        let born = meta.clone().at_birth_of(99).expect("there is room");
        assert_eq!((born.zxid, born.cluster_id), ((7 + EPOCHS_LEFT_OUT) << 32, 99));
        assert_eq!((born.applied, born.term), BIRTH);
        assert!(born.members.servers.is_empty());
        meta.zxid = (EPOCH_MAX - EPOCHS_LEFT_OUT + 1) << 32;
        let error = meta.at_birth_of(99).expect_err("there is no room").to_string();
        assert!(error.contains("no zxids are left"), "{error}");
    }

    #[test]
    fn one_that_goes_on_alone_has_all_that_was_applied_or_nothing_of_it() {
        let store = MemoryStore::default();
        let (here, hooks) = (Box::new(store.clone()), Box::new(NoHooks));
        let state = State::open_or_found(here, hooks, 1 << 20, &Members::founders(&[2, 3, 4]));
        let mut state = state.expect("it opens").with_gather_bytes(usize::MAX);
        let before = state.meta().clone();
        for index in 2..50 {
            state.apply(index, 3, &[]).expect("it applies");
        }
        // Not applied for good before it is the new ensemble's.
        assert_eq!(open(&store, &[2, 3, 4]).meta(), &before);
        state.go_on_alone(3, 77).expect("it is of it");
        let after = open(&store, &[]).meta().clone();
        assert_eq!((after.applied, after.term, after.cluster_id), (49, 3, 77));
        assert_eq!(after.members.voters, [3]);
        assert_eq!(after.zxid, EPOCHS_LEFT_OUT << 32);
    }
}
