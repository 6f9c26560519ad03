//! What a read must answer.

use std::collections::BTreeSet;

use proto::{ErrorCode, ReadOp, ReadResult, Reply, Request};

use super::{GATED, Model, Snapshot, Tree, acl, parent};

impl Model {
    /// What a read must answer from a snapshot; `None` if it is not a read of the tree alone.
    pub fn read(
        &self,
        snapshot: &Snapshot,
        session: i64,
        reader: bool,
        request: &Request,
    ) -> Option<Result<Reply, ErrorCode>> {
        let (tree, gate) = (&snapshot.tree, snapshot.gate);
        let is_gated = |path: &str| gate && parent(path) == GATED;
        let node = |path: &String| {
            let node = tree.get(path).ok_or(ErrorCode::NoNode)?;
            let may = match (node.badge, reader) {
                (true, _) => gate && reader,
                (false, true) => true,
                (false, false) => !node.private && !is_gated(path),
            };
            if may { Ok(node) } else { Err(ErrorCode::NoAuth) }
        };
        Some(match request {
            Request::Exists { path, .. } => node(path).map(|node| Reply::Stat(node.shown())),
            Request::GetData { path, .. } => {
                node(path).map(|node| Reply::Data(node.data.clone(), node.shown()))
            }
            Request::GetChildren { path, .. } => {
                node(path).map(|_| Reply::Children(children(tree, path)))
            }
            Request::GetChildren2 { path, .. } => {
                node(path).map(|node| Reply::ChildrenStat(children(tree, path), node.shown()))
            }
            Request::GetAcl { path } => match tree.get(path) {
                None => Err(ErrorCode::NoNode),
                Some(node) => Ok(Reply::Acl(acl(node.private), node.shown())),
            },
            Request::GetAllChildrenNumber { path } => node(path).map(|_| {
                let below = format!("{path}/");
                Reply::Count(tree.keys().filter(|path| path.starts_with(&below)).count() as i32)
            }),
            Request::GetEphemerals { .. } => Ok(Reply::Children(self.ephemerals(tree, session))),
            Request::Sync { path } => Ok(Reply::Path(path.clone())),
            Request::MultiRead(ops) => {
                let one = |op: &ReadOp| match op {
                    ReadOp::GetData(path) => {
                        node(path).map(|node| ReadResult::Data(node.data.clone(), node.shown()))
                    }
                    ReadOp::GetChildren(path) => {
                        node(path).map(|_| ReadResult::Children(children(tree, path)))
                    }
                };
                let read = |op| one(op).unwrap_or_else(|code| ReadResult::Error(code.code()));
                Ok(Reply::MultiRead(ops.iter().map(read).collect()))
            }
            _ => return None,
        })
    }
}

/// The names of the children of a znode in a tree.
fn children(tree: &Tree, path: &str) -> Vec<String> {
    let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
    let inside = tree.range(below.clone()..).map(|(path, _)| path);
    let inside = inside.take_while(|path| path.starts_with(&below));
    let names: BTreeSet<&str> = inside
        .map(|path| &path[below.len()..])
        .filter(|n| !n.is_empty() && !n.contains('/'))
        .collect();
    names.into_iter().map(str::to_owned).collect()
}
