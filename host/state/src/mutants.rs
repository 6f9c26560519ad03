//! Bugs to plant, for the tests that show that the tests find them. Never set in a server: only the
//! simulator calls [`crate::State::with_mutants`].

/// Bugs of apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateMutants {
    /// A multi that fails leaves what its first operations did to znodes.
    pub multi_keeps_its_first_part: bool,
    /// A session that ends leaves its ephemerals.
    pub close_forgets_ephemerals: bool,
    /// An entry's effects and the applied index are committed apart.
    pub applied_apart: bool,
    /// Commands of a session's earlier connections are taken.
    pub unfenced: bool,
    /// A sequential znode is numbered by how many children there are.
    pub reuse_sequence_numbers: bool,
    /// The digest keeps what is deleted.
    pub digest_keeps_deleted: bool,
    /// A server's command is taken though one before it was not.
    pub accept_gap: bool,
    /// What a plugin's store was given by an operation stays when that is undone.
    pub keep_store_effects: bool,
    /// The next entry that changes a znode changes it wrongly: see [`crate::State::misapply_once`].
    pub misapply: bool,
}
