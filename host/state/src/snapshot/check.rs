//! Checks a snapshot as it comes, chunk by chunk, in memory that does not grow with it.
//!
//! Invariants:
//! * ACLs come before znodes: each znode can be decoded as it comes.
//! * Large data is not compared with its znode, which is far away by then: the sum of the hashes that
//!   znodes announced must be that of the hashes of the data that came.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::{Chunk, Cursor, Next, ORDER, damaged};
use crate::acls::{self, AclTable};
use crate::apply::Meta;
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::txn;
use crate::znode::{self, Data, Znode};

/// Reads a snapshot and finds out whether it is what its meta row says.
pub struct Checker {
    acls: AclTable,
    digest: u128,
    /// The sum of the hashes of large data that was announced, less that of what came.
    large: u128,
    rows: [u64; ORDER.len()],
    next: Cursor,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// One that has seen nothing.
    pub fn new() -> Self {
        let (acls, next) = (AclTable::new(), Cursor::default());
        Self { acls, digest: 0, large: 0, rows: [0; ORDER.len()], next }
    }

    /// Where the next chunk begins.
    pub fn next(&self) -> &Cursor {
        &self.next
    }

    /// How many rows came.
    pub fn rows(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// How many rows of a table came.
    pub fn rows_of(&self, keyspace: Keyspace) -> u64 {
        let rows = ORDER.iter().zip(self.rows).find(|(of, _)| **of == keyspace);
        rows.map_or(0, |(_, rows)| rows)
    }

    /// Takes the next chunk. The last one gives the meta row, and then all that came is what it was.
    ///
    /// # Errors
    /// [`Fault::Damaged`] if it is not; there is no going on then.
    pub fn take(&mut self, chunk: &Chunk) -> Result<Option<Meta>, Fault> {
        if chunk.at != self.next {
            return Err(damaged("a part of it is missing"));
        }
        for (table, key, value) in &chunk.rows {
            let keyspace = ORDER.get(usize::from(*table));
            let keyspace = keyspace.ok_or_else(|| damaged("a row is of no table"))?;
            self.row(*keyspace, key, value)?;
            self.rows[usize::from(*table)] += 1;
        }
        match &chunk.next {
            Next::Chunk(next) => {
                self.next = next.clone();
                Ok(None)
            }
            Next::Meta(row) => self.finish(row).map(Some),
        }
    }

    fn row(&mut self, keyspace: Keyspace, key: &Bytes, value: &Bytes) -> Result<(), Fault> {
        let hash = match keyspace {
            Keyspace::Nodes => {
                let path = keys::path_of(key).ok_or_else(|| damaged("a znode has no path"))?;
                let node = Znode::decode(value.clone(), &self.acls)?;
                match &node.data {
                    Data::Large(_) => {
                        self.large = self.large.wrapping_add(of_data(key, node.data_hash.into()));
                    }
                    Data::Inline(data) if node.data_hash == znode::hash_of(data.as_deref()) => {}
                    Data::Inline(_) => return Err(damaged("data has not its hash")),
                }
                txn::node_hash(&path, &node)
            }
            Keyspace::Data => {
                self.large = self.large.wrapping_sub(of_data(key, xxh3_128(value)));
                return Ok(());
            }
            _ => {
                if keyspace == Keyspace::Acls {
                    let id = key.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
                    let (Some(id), Some(acl)) = (id, acls::decode(value)) else {
                        return Err(damaged("an ACL cannot be decoded"));
                    };
                    self.acls.insert(id, acl);
                }
                txn::row_hash(keyspace, key, value)
            }
        };
        self.digest = self.digest.wrapping_add(hash);
        Ok(())
    }

    fn finish(&self, row: &Bytes) -> Result<Meta, Fault> {
        let meta: Meta = rmp_serde::from_slice(row).map_err(|e| damaged(&e.to_string()))?;
        if meta.digest != self.digest {
            let (expected, got) = (meta.digest, self.digest);
            return Err(damaged(&format!("its digest is {got:#x}, not {expected:#x}")));
        }
        if self.large != 0 {
            return Err(damaged("data is missing, or has not its hash"));
        }
        Ok(meta)
    }
}

/// The hash of a znode's key and the hash of its data.
fn of_data(key: &[u8], data_hash: u128) -> u128 {
    xxh3_128(&[&data_hash.to_be_bytes(), key].concat())
}
