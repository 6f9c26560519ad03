//! The whole tree of each server, compared.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proto::{Reply, Request, Stat};

use super::context::{Client, Context};
use crate::real::requests::{get, sync};

/// Paths, with data and stat.
type Tree = BTreeMap<String, (Vec<u8>, Stat)>;

/// All servers have the same. Nobody writes meanwhile.
pub(super) fn compare(servers: &[SocketAddr], context: &Context) {
    let trees: Vec<Tree> = (0..servers.len()).map(|at| read(context, at)).collect();
    let [first, others @ ..] = &trees[..] else { return };
    for (other, at) in others.iter().zip(2..) {
        let differs = |path: &&String| first.get(*path) != other.get(*path);
        let paths = first.keys().chain(other.keys());
        for path in paths.filter(differs).take(5) {
            let (one, two) = (first.get(path), other.get(path));
            context.fail(&format!("{path}: server 1 has {one:?}, server {at} has {two:?}"));
        }
    }
    println!("chaos: {} znodes, the same on {} servers", first.len(), trees.len());
}

fn read(context: &Context, at: usize) -> Tree {
    let mut client = Client::new(context, "check", at);
    if client.session.server() != Some(at) {
        context.fail(&format!("server {} does not serve at the end", at + 1));
    }
    client.must(&sync("/"));
    let (mut tree, mut todo) = (Tree::new(), vec!["/".to_owned()]);
    while let Some(path) = todo.pop() {
        let children = Request::GetChildren { path: path.clone(), watch: false };
        let Some(Reply::Children(names)) = client.must(&children) else { continue };
        let below = if path == "/" { "" } else { &path };
        todo.extend(names.into_iter().map(|name| format!("{below}/{name}")));
        if let Some(Reply::Data(data, stat)) = client.must(&get(&path, false)) {
            tree.insert(path, (data.unwrap_or_default().to_vec(), stat));
        }
    }
    client.close();
    tree
}
