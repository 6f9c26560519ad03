//! A znode, its stat, and its row in the store.
//!
//! Internally only creations of children are counted; what clients see as `cversion` is twice
//! that less the number of children, which counts deletions too (ZooKeeper's `DataNode.copyStat`).

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use proto::{Acl, Stat};
use xxhash_rust::xxh3::xxh3_128;

use crate::acls::AclTable;
use crate::fault::Fault;
use crate::keys::DATA_INLINE_BYTES_MAX;

/// Why a znode will go away by itself, if it will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It stays.
    Persistent,
    /// It dies with this session.
    Session(i64),
    /// It may be deleted once it has had children and has none any more.
    Container,
    /// It may be deleted when it has no children and was not set for so many milliseconds.
    Ttl(i64),
}

/// A znode's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Null, or up to [`DATA_INLINE_BYTES_MAX`] bytes.
    Inline(Option<Bytes>),
    /// So many bytes, in a row of their own.
    Large(u32),
}

/// A znode as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of `proto::Stat`")]
pub struct Znode {
    pub czxid: i64,
    pub mzxid: i64,
    pub pzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    /// How many children were ever created; the next sequential child's number.
    pub creates: i32,
    pub aversion: i32,
    pub children: u32,
    pub owner: Owner,
    /// The interned ACL's id.
    pub acl_id: u32,
    /// The ACL itself.
    pub acl: Arc<[Acl]>,
    pub data: Data,
    pub data_hash: Hash128,
    /// The hash of its row in the digest, once somebody has computed it.
    pub row_hash: RowHash,
}

/// 128 bits of a hash, in halves: a `u128` would make a znode's memory one that the allocator has to
/// align, which costs it more than the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hash128(u64, u64);

impl From<u128> for Hash128 {
    fn from(hash: u128) -> Self {
        Self((hash >> 64) as u64, hash as u64)
    }
}

impl From<Hash128> for u128 {
    fn from(Hash128(high, low): Hash128) -> Self {
        Self::from(high) << 64 | Self::from(low)
    }
}

/// A hash that is remembered, 0 if it is not; it says nothing that the rest of a znode does not say.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowHash(Hash128);

impl PartialEq for RowHash {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for RowHash {}

/// The hash of a znode's data, 0 for null.
pub(crate) fn hash_of(data: Option<&[u8]>) -> Hash128 {
    data.map_or(0, xxh3_128).into()
}

/// The version of a row.
const ROW_VERSION: u8 = 1;

/// The bytes of a row before its inline data.
const HEAD_BYTES: usize = 1 + 40 + 16 + 9 + 4 + 16 + 5;

impl Znode {
    /// What clients see.
    pub fn stat(&self) -> Stat {
        let children = self.children as i32;
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.creates.wrapping_mul(2).wrapping_sub(children),
            aversion: self.aversion,
            ephemeral_owner: match self.owner {
                Owner::Session(session) => session,
                Owner::Persistent | Owner::Container | Owner::Ttl(_) => 0,
            },
            data_length: self.data_bytes() as i32,
            num_children: children,
            pzxid: self.pzxid,
        }
    }

    /// How long its data is; 0 for null.
    pub fn data_bytes(&self) -> u32 {
        match &self.data {
            Data::Inline(data) => data.as_ref().map_or(0, |d| d.len() as u32),
            Data::Large(bytes) => *bytes,
        }
    }

    /// The same but for its data, which is to be replaced.
    pub(crate) fn without_data(&self) -> Self {
        Self { data: Data::Inline(None), acl: Arc::clone(&self.acl), ..*self }
    }

    /// Its data, if that is not long.
    pub(crate) fn inline_data(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Inline(data) => data.as_deref(),
            Data::Large(_) => None,
        }
    }

    /// Replaces the data; long data is returned, to be stored in its own row.
    pub fn set_data(&mut self, data: Option<Bytes>) -> Option<Bytes> {
        self.data_hash = hash_of(data.as_deref());
        match data {
            Some(long) if long.len() > DATA_INLINE_BYTES_MAX => {
                self.data = Data::Large(long.len() as u32);
                Some(long)
            }
            short => {
                self.data = Data::Inline(short);
                None
            }
        }
    }

    /// The hash of its row, if it was computed since it last changed.
    pub(crate) fn row_hash(&self) -> Option<u128> {
        let hash = u128::from(self.row_hash.0);
        (hash != 0).then_some(hash)
    }

    pub(crate) fn set_row_hash(&mut self, hash: u128) {
        self.row_hash = RowHash(hash.into());
    }

    /// Forgets the hash of what it was before.
    pub(crate) fn changed(mut self) -> Self {
        self.row_hash = RowHash::default();
        self
    }

    /// Reads some of every part of it, for [`crate::cache::NodeCache::bring_near`]; what it gives means
    /// nothing.
    pub(crate) fn read_all(&self) -> u64 {
        let data = self.inline_data().and_then(|data| data.first()).map_or(0, |&byte| byte.into());
        let (stat, children) = (self.czxid ^ self.mtime ^ self.pzxid, u64::from(self.children));
        stat as u64 ^ children ^ self.data_hash.0 ^ self.row_hash.0.0 ^ data
    }

    /// Roughly how much memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let data = match &self.data {
            Data::Inline(data) => data.as_ref().map_or(0, Bytes::len),
            Data::Large(_) => 0,
        };
        size_of::<Self>() + data + 64
    }

    /// The row.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(out);
        if let Data::Inline(Some(data)) = &self.data {
            out.extend_from_slice(data);
        }
    }

    /// The row without its inline data: what the digest covers.
    pub(crate) fn encode_head(&self, out: &mut Vec<u8>) {
        let before = out.len();
        out.put_u8(ROW_VERSION);
        for number in [self.czxid, self.mzxid, self.pzxid, self.ctime, self.mtime] {
            out.put_i64(number);
        }
        for number in [self.version, self.creates, self.aversion] {
            out.put_i32(number);
        }
        out.put_u32(self.children);
        let (tag, value) = match self.owner {
            Owner::Persistent => (0, 0),
            Owner::Session(session) => (1, session),
            Owner::Container => (2, 0),
            Owner::Ttl(ms) => (3, ms),
        };
        out.put_u8(tag);
        out.put_i64(value);
        out.put_u32(self.acl_id);
        out.put_u128(self.data_hash.into());
        out.put_u8(match &self.data {
            Data::Inline(None) => 0,
            Data::Inline(Some(_)) => 1,
            Data::Large(_) => 2,
        });
        out.put_u32(self.data_bytes());
        assert_eq!(out.len() - before, HEAD_BYTES, "the head of a row has a fixed length");
    }

    /// Reads a row.
    pub(crate) fn decode(mut row: Bytes, acls: &AclTable) -> Result<Self, Fault> {
        let damaged = |why: &str| Fault::Damaged { keyspace: "nodes", why: why.to_owned() };
        if row.len() < HEAD_BYTES {
            return Err(damaged("shorter than its head"));
        }
        let version = row.get_u8();
        if version > ROW_VERSION {
            return Err(Fault::Newer {
                what: "a znode's row",
                found: version.into(),
                known: ROW_VERSION.into(),
            });
        }
        let (czxid, mzxid, pzxid) = (row.get_i64(), row.get_i64(), row.get_i64());
        let (ctime, mtime) = (row.get_i64(), row.get_i64());
        let (version, creates, aversion) = (row.get_i32(), row.get_i32(), row.get_i32());
        let children = row.get_u32();
        let owner = match (row.get_u8(), row.get_i64()) {
            (0, _) => Owner::Persistent,
            (1, session) => Owner::Session(session),
            (2, _) => Owner::Container,
            (3, ms) => Owner::Ttl(ms),
            _ => return Err(damaged("unknown owner")),
        };
        let acl_id = row.get_u32();
        let acl = acls.get(acl_id).ok_or_else(|| damaged("unknown ACL"))?;
        let data_hash = Hash128::from(row.get_u128());
        let data = match (row.get_u8(), row.get_u32()) {
            (0, _) => Data::Inline(None),
            // Without the head before it, which would stay in memory as long.
            (1, bytes) if row.len() == bytes as usize => {
                Data::Inline(Some(Bytes::copy_from_slice(&row)))
            }
            (2, bytes) => Data::Large(bytes),
            _ => return Err(damaged("data of another length than its head says")),
        };
        if let Data::Inline(data) = &data
            && data_hash != hash_of(data.as_deref())
        {
            return Err(damaged("data has not its hash"));
        }
        Ok(Self {
            czxid,
            mzxid,
            pzxid,
            ctime,
            mtime,
            version,
            creates,
            aversion,
            children,
            owner,
            acl_id,
            acl,
            data,
            data_hash,
            row_hash: RowHash::default(),
        })
    }
}
