//! What of plugins' modules is compiled on which server, as far as it decides who may vote: a voter without a
//! module would hold up the entries that need it.
//!
//! It is known here only, and lost with the links. Who votes all the same, because modules came since, waits at
//! the entry that needs one.

use std::collections::BTreeMap;

use crate::peer::PeerMessage;

/// See the module. Servers are named by their ids for raft.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// What this server's state may call; 0 for nothing.
    wanted: u64,
    /// What is compiled of it: all, or 0.
    mine: u64,
    /// The same of the others, as they said.
    theirs: BTreeMap<u64, u64>,
}

impl Compiled {
    /// This server's state may call what `wanted` names, of which all is compiled or not; what there is to
    /// say of that.
    pub(crate) fn look(&mut self, wanted: u64, is_compiled: bool) -> Option<PeerMessage> {
        let mine = if is_compiled { wanted } else { 0 };
        self.wanted = wanted;
        let before = std::mem::replace(&mut self.mine, mine);
        (before != mine).then_some(PeerMessage::Compiled(mine))
    }

    /// What is to be said to whom nothing was said yet. Where there are no plugins, that is nothing.
    pub(crate) fn word(&self) -> Option<PeerMessage> {
        (self.mine != 0).then_some(PeerMessage::Compiled(self.mine))
    }

    /// Another server has compiled this.
    pub(crate) fn hear(&mut self, from: u64, compiled: u64) {
        self.theirs.insert(from, compiled);
    }

    /// There is no link to a server any more.
    pub(crate) fn lost(&mut self, peer: u64) {
        self.theirs.remove(&peer);
    }

    /// Whether a server has compiled what this one's state may call.
    pub(crate) fn is_ready(&self, peer: u64) -> bool {
        self.wanted == 0 || self.theirs.get(&peer) == Some(&self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_ready_with_what_is_wanted_here_and_with_nothing_else() {
        let mut compiled = Compiled::default();
        assert_eq!((compiled.word(), compiled.is_ready(2)), (None, true), "there are no plugins");
        assert_eq!(compiled.look(7, false), None);
        compiled.hear(3, 5);
        assert!(!compiled.is_ready(2) && !compiled.is_ready(3), "it has not all of it yet");
        assert_eq!(compiled.look(7, true), Some(PeerMessage::Compiled(7)));
        assert_eq!(compiled.look(7, true), None, "that was said");
        assert_eq!(compiled.word(), Some(PeerMessage::Compiled(7)));
        compiled.hear(3, 7);
        assert!(compiled.is_ready(3) && !compiled.is_ready(2));
        assert_eq!(compiled.look(9, false), Some(PeerMessage::Compiled(0)));
        assert!(!compiled.is_ready(3), "it knows nothing of the newest yet");
        compiled.hear(3, 9);
        assert!(compiled.is_ready(3));
        compiled.lost(3);
        assert!(!compiled.is_ready(3));
    }
}
