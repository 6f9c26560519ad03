//! What plugins decided, as the model is told, and what comes of that.

use std::sync::Arc;

use proto::{ErrorCode, OpCode};
use state::plugins::Point;

use super::{Model, Node, open};
use crate::sim::reference::Refusal;

/// Where bindings are shown.
const SHOWN: &str = "/zookeeper/plugins";

impl Model {
    /// What bindings are is not for clients to change, and here it is what the reference says.
    pub(super) fn show(&mut self) {
        let shown = self.tree.range(SHOWN.to_owned()..).map(|(path, _)| path);
        let shown: Vec<String> =
            shown.take_while(|path| path.starts_with(SHOWN)).cloned().collect();
        shown.iter().for_each(|path| drop(self.tree.remove(path)));
        for (path, data, stat, children) in std::mem::take(&mut self.plugged.shown) {
            let node = self.tree.get(&path).map_or_else(open, Arc::clone);
            let node = Node { data, stat, children, ..(*node).clone() };
            self.tree.insert(path, Arc::new(node));
        }
    }

    /// Whether an authorizer refuses this.
    pub(super) fn authorize(&mut self, op: OpCode, path: &str) -> Result<(), ErrorCode> {
        self.ask(|refusal| {
            let decision = &refusal.decision;
            decision.point == Point::Authorizer
                && decision.operation == op as u16
                && decision.path == path
        })
    }

    /// Whether a guard refuses this, which is operation `at` of its multi.
    pub(super) fn guard(&mut self, at: usize, op: OpCode, path: &str) -> Result<(), ErrorCode> {
        self.ask(|refusal| {
            let decision = &refusal.decision;
            decision.point == Point::Guard
                && decision.operation == op as u16
                && decision.path == path
                && refusal.at as usize == at
        })
    }

    fn ask(&mut self, is_meant: impl Fn(&Refusal) -> bool) -> Result<(), ErrorCode> {
        if !self.plugged.refusals.get(&self.zxid).is_some_and(is_meant) {
            return Ok(());
        }
        self.refused += 1;
        let refusal = self.plugged.refusals.remove(&self.zxid);
        Err(refusal.expect("it is there").code)
    }
}
