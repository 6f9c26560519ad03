//! The tree and the sessions are what the log's commands make of them, by ZooKeeper's rules.

use std::collections::BTreeSet;

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
    restarted: BTreeSet<u64>,
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
        let (server, index, view) = match event {
            Event::Applied { server, .. } if known.ensemble.corrupted.contains(server) => {
                return Ok(());
            }
            Event::Applied { server, index, view, .. } => (server, index, view),
            Event::Restarted { server, .. } => {
                self.restarted.insert(*server);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if !(index.is_multiple_of(EVERY) || self.restarted.remove(server)) {
            return Ok(());
        }
        counts.trees += 1;
        let snapshot = known.model.after(*index);
        let snapshot = snapshot.ok_or_else(|| format!("entry {index} was never committed"))?;
        if view.zxid != snapshot.zxid {
            let (found, right) = (view.zxid, snapshot.zxid);
            return Err(format!("server {server}, entry {index}: zxid {found:#x}, not {right:#x}"));
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
            let acl = match expected.badge {
                true => model::badge_acl(),
                false => model::acl(expected.private),
            };
            let is_system = path == "/zookeeper/config" || path.starts_with("/zookeeper/plugins");
            if !is_system && node.acl[..] != acl[..] {
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
