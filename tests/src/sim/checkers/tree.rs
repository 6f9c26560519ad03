//! The tree and the sessions are what the log's commands make of them, by ZooKeeper's rules.

use state::view::Listing;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::model;

/// How many entries are applied between two looks at the whole tree.
const EVERY: u64 = 48;

/// Compares all of what is published with the model.
#[derive(Default)]
pub(super) struct WholeTree {
    restarted: bool,
}

impl Checker for WholeTree {
    fn name(&self) -> &'static str {
        "the tree is what the log makes of it"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let Event::Applied { index, view, .. } = event else {
            self.restarted |= matches!(event, Event::Restarted { .. });
            return Ok(());
        };
        if !(index.is_multiple_of(EVERY) || std::mem::take(&mut self.restarted)) {
            return Ok(());
        }
        counts.trees += 1;
        let snapshot = known.model.after(*index);
        let snapshot = snapshot.ok_or_else(|| format!("entry {index} was never committed"))?;
        if view.zxid != snapshot.zxid {
            return Err(format!("entry {index}: zxid {:#x}, not {:#x}", view.zxid, snapshot.zxid));
        }
        let mut paths = vec!["/".to_owned()];
        let mut found = 0;
        while let Some(path) = paths.pop() {
            let fault = |fault: state::Fault| fault.to_string();
            let Some(node) = view.node(&path).map_err(fault)? else {
                return Err(format!("entry {index}: {path} is listed and not there"));
            };
            let Some(expected) = snapshot.tree.get(&path) else {
                return Err(format!("entry {index}: {path} is there and must not be"));
            };
            found += 1;
            let data = view.data(&path, &node).map_err(fault)?;
            if (node.stat(), &data) != (expected.shown(), &expected.data) {
                return Err(format!(
                    "entry {index}: {path} is {:?} {data:?}, must be {:?} {:?}",
                    node.stat(),
                    expected.shown(),
                    expected.data
                ));
            }
            if path != "/zookeeper/config" && node.acl[..] != model::acl(expected.private)[..] {
                return Err(format!("entry {index}: the ACL of {path} is {:?}", node.acl));
            }
            let below = if path == "/" { "" } else { &path };
            let children = view.list(Listing::children(&path)).map_err(fault)?;
            paths.extend(children.iter().map(|name| format!("{below}/{name}")));
        }
        if found != snapshot.tree.len() || view.counts.nodes != found as u64 {
            let counted = view.counts.nodes;
            return Err(format!(
                "entry {index}: {found} znodes found, {counted} counted, must be {}",
                snapshot.tree.len()
            ));
        }
        Ok(())
    }
}
