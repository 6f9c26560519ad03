//! Interned ACLs: most znodes share a few.
//!
//! An id is never reused, so that an id means the same list in every view.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use proto::{Acl, Id, Perms};

/// `world:anyone` with all permissions.
pub(crate) const OPEN: u32 = 0;
/// `world:anyone` may read: `/zookeeper/config`.
pub(crate) const READ_ONLY: u32 = 1;
/// The first id that is not fixed.
pub(crate) const FIRST_FREE: u32 = 2;

#[derive(Default)]
struct Tables {
    lists: BTreeMap<u32, Arc<[Acl]>>,
    ids: BTreeMap<Arc<[Acl]>, u32>,
}

/// The ACLs in use, by id and by content.
pub(crate) struct AclTable {
    tables: RwLock<Tables>,
    /// The one that most znodes have.
    pub(crate) open: Arc<[Acl]>,
}

impl AclTable {
    pub(crate) fn new() -> Self {
        let open: Arc<[Acl]> = [Acl::world(Perms::ALL)].into();
        let table = Self { tables: RwLock::default(), open: Arc::clone(&open) };
        table.insert(OPEN, open);
        table.insert(READ_ONLY, vec![Acl::world(Perms::READ)].into());
        table
    }

    pub(crate) fn get(&self, id: u32) -> Option<Arc<[Acl]>> {
        self.tables.read().lists.get(&id).cloned()
    }

    pub(crate) fn id_of(&self, acl: &[Acl]) -> Option<u32> {
        self.tables.read().ids.get(acl).copied()
    }

    pub(crate) fn insert(&self, id: u32, acl: Arc<[Acl]>) {
        let mut tables = self.tables.write();
        tables.lists.insert(id, Arc::clone(&acl));
        tables.ids.insert(acl, id);
    }
}

/// A row of the ACL keyspace.
pub(crate) fn encode(acl: &[Acl]) -> Vec<u8> {
    let rows: Vec<(i32, &str, &str)> =
        acl.iter().map(|a| (a.perms, a.id.scheme.as_str(), a.id.id.as_str())).collect();
    rmp_serde::to_vec(&rows).expect("an ACL can always be encoded")
}

/// Reads a row of the ACL keyspace.
pub(crate) fn decode(row: &[u8]) -> Option<Arc<[Acl]>> {
    let rows: Vec<(i32, String, String)> = rmp_serde::from_slice(row).ok()?;
    Some(rows.into_iter().map(|(perms, scheme, id)| Acl { perms, id: Id { scheme, id } }).collect())
}
