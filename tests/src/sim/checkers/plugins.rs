//! Who refuses something may do so, and says what it says; and what is to be built is built.

use state::plugins::{Mode, Said};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::plugins::DENIES;

/// Looks at each refusal: that it was told to the client, and nothing changed, is for other checkers to see.
pub(super) struct Refusals;

impl Checker for Refusals {
    fn name(&self) -> &'static str {
        "only who enforces refuses, with its own code, and never the server"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        let Event::Committed { first: true, index, .. } = event else { return Ok(()) };
        let (before, after) = known.reference.views();
        for refusal in known.reference.refusals().values() {
            let decision = &refusal.decision;
            let name = decision.name.as_str();
            // It may have begun or ended in this entry.
            let rows = [before.plugins.row(name), after.plugins.row(name)];
            let enforces = rows.iter().flatten().any(|row| row.mode == Mode::Enforce);
            if !enforces || decision.session == 0 {
                return Err(format!("entry {index}: it must not be refused: {decision:?}"));
            }
            let codes = DENIES.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, c)| c);
            if let Said::Deny(code) = decision.said
                && !codes.contains(&code)
            {
                return Err(format!("entry {index}: {name} never says {code:?}: {decision:?}"));
            }
        }
        Ok(())
    }
}

/// Looks whether anything is left to build, once all is quiet.
pub(super) struct Builds;

impl Checker for Builds {
    fn name(&self) -> &'static str {
        "what plugins have to build is built, and what is to be deleted is gone"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        if !matches!(event, Event::Quiet) {
            return Ok(());
        }
        let (_, view) = known.reference.views();
        if view.plugins.has_steps() {
            let rows: Vec<_> = view.plugins.rows().collect();
            return Err(format!("there are steps left to do: {rows:?}"));
        }
        Ok(())
    }
}
