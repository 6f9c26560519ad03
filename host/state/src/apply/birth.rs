//! The state that every ensemble begins with.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::Perms;

use super::BIRTH;
use super::meta::{FORMAT_KEY, META_KEY, Meta, STORE_FORMAT, encode_meta};
use crate::acls::{self, AclTable};
use crate::command::Settings;
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::members::Members;
use crate::store::Store;
use crate::txn;
use crate::znode::{self, Data, Owner, RowHash, Znode};

/// Writes the tree that every ensemble begins with: the system's znodes, all of zxid 0.
pub(super) fn birth(store: &dyn Store, acls: &AclTable, founders: &Members) -> Result<Meta, Fault> {
    let mut digest = 0u128;
    let mut bytes = 0;
    let mut nodes = Vec::new();
    let tree = [
        ("/", 1, acls::OPEN, 0),
        ("/zookeeper", 2, acls::OPEN, 0),
        ("/zookeeper/config", 0, acls::READ_ONLY, -1),
        ("/zookeeper/quota", 0, acls::OPEN, 0),
    ];
    for (path, children, acl_id, aversion) in tree {
        let node = Znode {
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            creates: 0,
            aversion,
            children,
            owner: Owner::Persistent,
            acl_id,
            acl: acls.get(acl_id).unwrap_or_else(|| [proto::Acl::world(Perms::ALL)].into()),
            data: Data::Inline(Some(Bytes::new())),
            data_hash: znode::hash_of(Some(&[])),
            row_hash: RowHash::default(),
        };
        digest = digest.wrapping_add(txn::node_hash(path, &node));
        bytes += path.len() as u64;
        let mut row = Vec::new();
        node.encode(&mut row);
        nodes.push((keys::node(path), row));
    }
    // With nobody, it is nothing that anything could follow on: a snapshot must come.
    let (applied, term) = if founders.voters.is_empty() { (0, 0) } else { BIRTH };
    let meta = Meta {
        applied,
        term,
        zxid: 0,
        time_ms: 0,
        digest,
        history: 0,
        members: Arc::new(founders.clone()),
        cluster_id: 0,
        settings: Settings::default(),
        counts: (4, bytes, 0),
        next_acl: acls::FIRST_FREE,
        origins: BTreeMap::new(),
        bindings: 0,
    };
    store.commit(&mut |batch| {
        nodes.iter().for_each(|(key, row)| batch.put(Keyspace::Nodes, key, Some(row)));
        batch.put(Keyspace::Meta, META_KEY, Some(&encode_meta(&meta)));
        batch.put(Keyspace::Meta, FORMAT_KEY, Some(&STORE_FORMAT.to_be_bytes()));
    })?;
    Ok(meta)
}
