//! Which views are still held, and so which versions of a row somebody may still ask for.
//!
//! Invariants:
//! * A view that nobody holds can never be held again.
//! * Only the newest view is handed out anew; it is held by the state itself.

use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use crate::view::View;

/// The views that were handed out, oldest first.
pub(crate) struct AliveViews {
    views: Vec<Weak<View>>,
    seen: Alive,
}

/// The log indices of the views that were held when they were last looked at, oldest first.
pub(crate) struct Alive(SmallVec<[u64; 8]>);

impl Alive {
    /// The indices of some views, in rising order.
    #[cfg(test)]
    pub(crate) fn at(indices: &[u64]) -> Self {
        Self(indices.into())
    }

    /// Whether there is a view whose index is in `[from, until)`.
    pub(crate) fn any(&self, from: u64, until: u64) -> bool {
        let next = self.0.partition_point(|index| *index < from);
        self.0.get(next).is_some_and(|index| *index < until)
    }
}

impl AliveViews {
    pub(crate) fn new(view: &Arc<View>) -> Self {
        Self { views: vec![Arc::downgrade(view)], seen: Alive(SmallVec::new()) }
    }

    /// Adds the newest.
    pub(crate) fn push(&mut self, view: &Arc<View>) {
        self.views.push(Arc::downgrade(view));
    }

    /// Looks who is still held: the oldest's index and the index of its picture of the store, and
    /// all.
    ///
    /// # Panics
    /// If nobody holds the newest.
    pub(crate) fn look(&mut self) -> ((u64, u64), &Alive) {
        self.seen.0.clear();
        let mut oldest = None;
        // Their holders drop them at any moment: each is judged by one look alone.
        self.views.retain(|view| {
            let Some(view) = view.upgrade() else { return false };
            oldest.get_or_insert((view.index, view.rows.base_index));
            self.seen.0.push(view.index);
            true
        });
        (oldest.expect("the state holds the newest"), &self.seen)
    }
}
