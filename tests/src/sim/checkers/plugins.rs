//! Who is to refuse something does so, and nobody else; and what is to be built is built.

use state::command::PluginCommand;
use state::plugins::{Build, Decision, Effect, Mode, OnFault, Row, Said};
use state::{Batch, Command};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::plugins::DENIES;

/// Looks at each thing that a plugin said: that what was refused was told to the client, and changed nothing,
/// is for other checkers to see.
pub(super) struct Refusals;

impl Checker for Refusals {
    fn name(&self) -> &'static str {
        "who enforces refuses, with its own code, and nobody else, and never the server"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        let Event::Committed { first: true, index, payload, .. } = event else { return Ok(()) };
        let (before, after) = known.reference.views();
        for decision in known.reference.decisions() {
            let name = decision.name.as_str();
            let rows = [before.plugins.row(name), after.plugins.row(name)];
            let refused = match decision.effect {
                Effect::Refused => true,
                Effect::Passed if decision.said != Said::Line => false,
                _ => continue,
            };
            let is_wrong = |what| Err(format!("entry {index}: {what}: {decision:?}, of {rows:?}"));
            if refused && decision.session == 0 {
                return is_wrong("the server was refused something");
            }
            let codes = DENIES.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, c)| c);
            if let Said::Deny(code) = decision.said
                && !codes.contains(&code)
            {
                return is_wrong("it never says that");
            }
            if is_told(payload, name) {
                // It may have begun and ended to decide between others' commands of this entry.
                continue;
            }
            let refuses = rows.map(|row| row.and_then(|row| refuses(row, decision)) == Some(true));
            // It may have gone into quarantine meanwhile, or have been built.
            let may = refuses[0];
            let is_built = rows.iter().flatten().all(|row| row.build == Build::Done);
            let must = refuses == [true; 2] && is_built;
            if refused && !may || !refused && must {
                return is_wrong(if refused { "it must not refuse" } else { "it must refuse" });
            }
        }
        Ok(())
    }
}

/// Whether operators say in this entry what becomes of a binding.
fn is_told(payload: &[u8], binding: &str) -> bool {
    let groups = Batch::decode(payload).into_iter().flat_map(|batch| batch.groups);
    groups.flat_map(|group| group.commands).any(|command| {
        matches!(
            &command,
            Command::Plugin(
                PluginCommand::Activate { name, .. }
                | PluginCommand::SetMode { name, .. }
                | PluginCommand::Rollback { name }
                | PluginCommand::Remove { name, .. }
            ) if name == binding
        )
    })
}

/// Whether a binding is to refuse something for what its plugin said; `None` if it is another generation.
fn refuses(row: &Row, decision: &Decision) -> Option<bool> {
    let active = row.active.as_ref()?;
    let on_fault = active.binding.on_fault == OnFault::Deny;
    let says_no = matches!(decision.said, Said::Deny(_)) || on_fault;
    let enforces = row.mode == Mode::Enforce && row.quarantine.is_none();
    (active.generation == decision.generation).then_some(says_no && enforces)
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
