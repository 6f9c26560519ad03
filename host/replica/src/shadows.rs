//! Writes that guards in the shadow are still to be asked about. Nobody waits for that: it happens beside
//! applying, and what is too much is left out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use state::View;
use state::plugins::Shadowed;

/// More of them do not wait: they hold the views that they were applied over.
const WAITING_MAX: usize = 4096;

/// Those of an entry, and the view before it.
type OfEntry = (Arc<View>, Vec<Shadowed>);

/// See the module.
#[derive(Default)]
pub struct Shadows {
    waiting: Mutex<(usize, VecDeque<OfEntry>)>,
    left_out: AtomicU64,
}

impl Shadows {
    /// Keeps those of an entry, unless too many wait.
    pub(crate) fn put(&self, before: Arc<View>, mut shadowed: Vec<Shadowed>) {
        if shadowed.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        let taken = shadowed.len().min(WAITING_MAX.saturating_sub(waiting.0));
        self.left_out.fetch_add((shadowed.len() - taken) as u64, Ordering::Relaxed);
        if taken > 0 {
            shadowed.truncate(taken);
            waiting.0 += taken;
            waiting.1.push_back((before, shadowed));
        }
    }

    /// Those of the oldest entry of which there are any, and the view that they were applied over.
    pub fn take(&self) -> Option<OfEntry> {
        let mut waiting = self.waiting.lock();
        let taken = waiting.1.pop_front()?;
        waiting.0 -= taken.1.len();
        Some(taken)
    }

    /// How many nobody was asked about, because too many waited.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}
