//! `reconfig`: who takes part in the ensemble, and what `/zookeeper/config` says of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::server_spec::parse_servers;
use proto::{ErrorCode, OpCode, Perms, Reply, Role, ServerSpec};

use crate::change::Change;
use crate::command::Reconfig;
use crate::fault::Fault;
use crate::members::Members;
use crate::ops::{About, Context, Stop};
use crate::txn::Txn;
use crate::znode::{Data, Znode};

const CONFIG: &str = "/zookeeper/config";
/// Ids are a byte of the session ids that a server makes, and 255 is none.
const SERVER_MAX: u32 = 254;

/// Checks in ZooKeeper's order (`PrepRequestProcessor`, `OpCode.reconfig`): the version, the text, that
/// those who are to vote can, the right, if it is a client who asks.
pub(crate) fn reconfig(
    txn: &mut Txn<'_>,
    client: Option<&Context<'_>>,
    members: &mut Arc<Members>,
    present: &[u32],
    asked: &Reconfig,
) -> Result<Reply, Stop> {
    if asked.version != -1 && asked.version != members.version {
        return Err(ErrorCode::BadVersion.into());
    }
    let servers = wanted(members, asked)?;
    let votes = |id: &u32| servers.get(id).is_some_and(|spec| spec.role == Role::Participant);
    let voters = servers.keys().filter(|id| votes(id)).count();
    if voters == 0 {
        return Err(ErrorCode::BadArguments.into());
    }
    if present.iter().filter(|id| votes(id)).count() * 2 <= voters {
        return Err(ErrorCode::NewConfigNoQuorum.into());
    }
    let node = config(txn)?;
    let about = About(OpCode::Reconfig, CONFIG, CONFIG);
    client.map_or(Ok(()), |cx| cx.may(txn, &node, Perms::WRITE, about))?;
    if servers.keys().any(|id| *id > SERVER_MAX) {
        return Err(ErrorCode::BadArguments.into());
    }
    Arc::make_mut(members).reconfigure(servers, txn.zxid);
    let node = say(txn, &node, members)?;
    Ok(Reply::Data(Some(members.text().into()), node.stat()))
}

/// Those that are to take part.
fn wanted(members: &Members, asked: &Reconfig) -> Result<BTreeMap<u32, ServerSpec>, ErrorCode> {
    let parse = |text: &str| parse_servers(text).map_err(|_| ErrorCode::BadArguments);
    let located = |spec: &ServerSpec| !spec.peer.is_empty() && spec.client.is_some();
    if !asked.servers.is_empty() {
        return parse(&asked.servers);
    }
    let mut servers = members.specs();
    for id in asked.leaving.split(',').map(str::trim).filter(|id| !id.is_empty()) {
        servers.remove(&id.parse().map_err(|_| ErrorCode::BadArguments)?);
    }
    for (id, spec) in parse(&asked.joining)? {
        let others = servers.iter().filter(|(other, _)| **other != id);
        if !located(&spec) || others.into_iter().any(|(_, other)| other.shares_address(&spec)) {
            return Err(ErrorCode::BadArguments);
        }
        servers.insert(id, spec);
    }
    Ok(servers)
}

/// Where servers are found, for those of whom it is not known.
pub(crate) fn locate(
    txn: &mut Txn<'_>,
    members: &mut Arc<Members>,
    specs: &BTreeMap<u32, ServerSpec>,
) -> Result<(), Fault> {
    let is_new = |(id, _): &(&u32, &ServerSpec)| {
        members.servers.get(id).is_some_and(|member| !member.is_located())
    };
    if !specs.iter().any(|at| is_new(&at)) {
        return Ok(());
    }
    let mut servers = members.specs();
    servers.extend(specs.iter().filter(is_new).map(|(id, spec)| (*id, spec.clone())));
    Arc::make_mut(members).reconfigure(servers, txn.zxid);
    let node = config(txn)?;
    say(txn, &node, members)?;
    Ok(())
}

fn config(txn: &mut Txn<'_>) -> Result<Arc<Znode>, Fault> {
    let damaged = || Fault::Damaged { keyspace: "nodes", why: format!("there is no {CONFIG}") };
    txn.node(CONFIG)?.ok_or_else(damaged)
}

/// Writes what there is to say into `/zookeeper/config`, whose version stays, as in ZooKeeper.
fn say(txn: &mut Txn<'_>, before: &Arc<Znode>, members: &Members) -> Result<Znode, Fault> {
    let mut node = (**before).clone();
    // As a set with version -1 of a record whose version was set to -1.
    node.version = -1;
    node.mzxid = txn.zxid;
    node.mtime = txn.time_ms;
    match node.set_data(Some(Bytes::from(members.text()))) {
        Some(long) => txn.put_data(CONFIG, Some(long)),
        None if matches!(before.data, Data::Large(_)) => txn.put_data(CONFIG, None),
        None => {}
    }
    let (path, _) = txn.put_node(CONFIG, Some(node.clone()))?;
    txn.changes.push(Change::DataSet { path, acl: before.acl.clone() });
    Ok(node)
}
