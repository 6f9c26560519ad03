//! The points, as traits of the plugin.

use serde::de::DeserializeOwned;

use crate::{Change, Circumstances, Credentials, Decision, Denial, Edit, Operation, Question};

/// A plugin: what it was set to do. It is read from the binding's `[settings]` by serde, once for each
/// instance.
///
/// For settings that need work before they are of use, `#[serde(try_from = "...")]` makes the plugin of
/// them, and says what is wrong with them.
pub trait Plugin: DeserializeOwned + 'static {
    /// Whether settings that could be read make sense. It is asked when the binding is brought in, when
    /// neither [`crate::tree`] nor [`crate::store`] can be called.
    ///
    /// # Errors
    /// What the operator is to change, in words. The binding is refused.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Says who somebody is, and who may do what.
pub trait Authorizer: Plugin {
    /// The ids, in their scheme, of a client that gives these credentials. It is asked on the client's
    /// server alone.
    ///
    /// # Errors
    /// Why they are worth nothing, for the decision log. The client gets AUTHFAILED.
    fn authenticate(&self, _credentials: &Credentials) -> Result<Vec<String>, String> {
        Err("this plugin takes no credentials".into())
    }

    /// Whether somebody may do something. It may read its store, and not write it.
    fn check(&self, _question: &Question) -> Decision {
        Decision::Abstain
    }
}

/// Says whether a change may be made.
pub trait Guard: Plugin {
    /// Asked just before the change, once ZooKeeper's own checks have passed. What it writes to its store
    /// is kept if the operation succeeds.
    ///
    /// # Errors
    /// The code that the client gets, and the reason for the decision log; see [`crate::deny`].
    fn judge(&self, operation: &Operation, circumstances: &Circumstances) -> Result<(), Denial>;
}

/// Keeps count of what is there.
pub trait Observer: Plugin {
    /// Told of every change, whatever caused it, and once of each znode that was there before.
    fn observe(&self, change: &Change);
}

/// Does something more, in the same transaction.
pub trait Trigger: Plugin {
    /// What is to be done after this change: all of it, or none of it and not the change either.
    ///
    /// # Errors
    /// Refuses the operation that made the change.
    fn fire(&self, change: &Change) -> Result<Vec<Operation>, Denial>;
}

/// Keeps a subtree that follows from the rest of the tree.
pub trait View: Plugin {
    /// What changes in the subtree after this change.
    fn update(&self, change: &Change) -> Vec<Edit>;
}
