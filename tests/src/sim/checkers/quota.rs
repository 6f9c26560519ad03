//! What an observer keeps is what a recount of the tree gives, and its guard lets nobody over the quota.

use std::collections::BTreeSet;
use std::sync::Arc;

use state::View;
use state::plugins::{Binding, Build, Mode, Plugin, Row};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::model::Tree;
use crate::sim::plugins::{QUOTA, most};

/// How many entries are applied between two recounts.
const EVERY: u64 = 16;

/// How many znodes there are of those that a binding is about, and how many bytes they hold.
fn count(tree: &Tree, binding: &Binding) -> (i64, i64) {
    let below = binding.matches.iter().filter_map(|pattern| pattern.strip_suffix("**"));
    let inside = below.flat_map(|below| {
        tree.range(below.to_owned()..).take_while(move |(path, _)| path.starts_with(below))
    });
    inside.fold((0, 0), |(nodes, bytes), (_, node)| {
        let length = node.data.as_ref().map_or(0, |data| data.len() as i64);
        (nodes + 1, bytes + length)
    })
}

/// The binding, if its store must hold what is there.
fn built(view: &View) -> Option<&Row> {
    view.plugins.row(QUOTA).filter(|row| row.is_evaluated() && row.build == Build::Done)
}

/// Recounts now and then, and after every restart.
#[derive(Default)]
pub(super) struct Recount {
    restarted: BTreeSet<u64>,
}

impl Checker for Recount {
    fn name(&self) -> &'static str {
        "what an observer keeps is what a recount gives"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let (server, index, view) = match event {
            Event::Restarted { server, .. } => {
                self.restarted.insert(*server);
                return Ok(());
            }
            Event::Applied { server, index, view, .. }
                if !known.ensemble.corrupted.contains(server) =>
            {
                (server, index, view)
            }
            _ => return Ok(()),
        };
        if !(index.is_multiple_of(EVERY) || self.restarted.remove(server)) {
            return Ok(());
        }
        let Some(snapshot) = known.model.after(*index) else { return Ok(()) };
        let Some(active) = built(view).and_then(|row| row.active.as_ref()) else { return Ok(()) };
        counts.recounts += 1;
        let kept = view.kept(QUOTA, &[], 10).map_err(|fault| fault.to_string())?;
        let number = |key: &[u8]| {
            let found = kept.iter().find(|(known, _)| known.as_ref() == key);
            found.map_or(Ok(0), |(_, value)| {
                let bytes = value.as_ref().try_into().map_err(|_| format!("{value:?}"))?;
                Ok::<i64, String>(i64::from_le_bytes(bytes))
            })
        };
        let (found, right) =
            ((number(b"n")?, number(b"b")?), count(&snapshot.tree, &active.binding));
        if found != right || kept.len() > 2 {
            return Err(format!(
                "server {server}, entry {index}: the store says {found:?} znodes and bytes, there are {right:?}"
            ));
        }
        Ok(())
    }
}

/// Looks at the number of znodes after each entry.
pub(super) struct Quota;

impl Checker for Quota {
    fn name(&self) -> &'static str {
        "nobody gets over a quota that is enforced"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        let Event::Committed { first: true, index, .. } = event else { return Ok(()) };
        let (before, after) = known.reference.views();
        let enforced = |view: &View| {
            let row = built(view).filter(|row| row.mode == Mode::Enforce)?;
            let Plugin { generation, binding, .. } = row.active.as_ref()?;
            Some((*generation, Arc::clone(binding)))
        };
        // It may have been something else within the entry, but then its generation or mode has changed.
        let (Some(was), Some(is)) = (enforced(before), enforced(&after)) else { return Ok(()) };
        let trees = (known.model.after(index - 1), known.model.after(*index));
        let (Some(first), Some(second)) = trees else { return Ok(()) };
        let (had, has) = (count(&first.tree, &is.1).0, count(&second.tree, &is.1).0);
        let most = most(&is.1) as i64;
        if was.0 == is.0 && has > had && has > most {
            return Err(format!("entry {index}: {has} znodes where {most} are allowed"));
        }
        Ok(())
    }
}
