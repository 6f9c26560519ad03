//! What stands beside the tree: a row of its own in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::Settings;
use crate::fault::Fault;
use crate::keys::Keyspace;
use crate::members::Members;
use crate::store::{ReadView, Store};

/// The format of the store that this program writes.
pub const STORE_FORMAT: u32 = 1;
pub(crate) const META_KEY: &[u8] = b"meta";
pub(crate) const FORMAT_KEY: &[u8] = b"format";

/// What stands beside the tree, in the same batch as every entry's effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The last applied log index.
    pub applied: u64,
    /// Its term.
    pub term: u64,
    /// The last zxid.
    pub zxid: i64,
    /// The time of the last batch, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The state digest.
    pub digest: u128,
    /// The history digest.
    pub history: u128,
    /// The servers.
    pub members: Arc<Members>,
    /// Names the ensemble; 0 before its first command.
    pub cluster_id: u64,
    pub(super) settings: Settings,
    pub(super) counts: (u64, u64, u64),
    pub(super) next_acl: u32,
    /// For each server: its boot, and the last command taken from it.
    pub(super) origins: BTreeMap<u32, (u64, u64)>,
    /// How many rows of bindings there are. Left out where there are none, as by earlier programs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) bindings: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Meta {
    /// That of the state in a store; none in an empty one.
    ///
    /// # Errors
    /// [`Fault::Newer`] if a newer program wrote it, any other [`Fault`] if the store fails.
    pub fn read(store: &dyn Store) -> Result<Option<Self>, Fault> {
        let view = store.view();
        let Some(format) = view.get(Keyspace::Meta, FORMAT_KEY)? else { return Ok(None) };
        let found = format.first_chunk::<4>().map_or(u32::MAX, |f| u32::from_be_bytes(*f));
        if found > STORE_FORMAT {
            return Err(Fault::Newer { what: "the store", found, known: STORE_FORMAT });
        }
        Self::of(view.as_ref()).map(Some)
    }

    pub(super) fn of(view: &dyn ReadView) -> Result<Self, Fault> {
        let row = view.get(Keyspace::Meta, META_KEY)?;
        let meta = row.and_then(|row| rmp_serde::from_slice(&row).ok());
        meta.ok_or_else(|| damaged_meta("it cannot be decoded"))
    }

    /// The boot of a server whose commands are taken, 0 if there is none.
    pub fn boot_of(&self, server: u32) -> u64 {
        self.origins.get(&server).map_or(0, |(boot, _)| *boot)
    }

    /// How many znodes there are.
    pub fn znodes(&self) -> u64 {
        self.counts.0
    }

    /// The number of the last command that was taken from this start of a server.
    pub fn taken_from(&self, (server, boot): (u32, u64)) -> Option<u64> {
        let (known, number) = self.origins.get(&server)?;
        (*known == boot).then_some(*number)
    }
}

pub(crate) fn encode_meta(meta: &Meta) -> Bytes {
    Bytes::from(rmp_serde::to_vec(meta).expect("the meta row can always be encoded"))
}

fn damaged_meta(why: &str) -> Fault {
    Fault::Damaged { keyspace: "meta", why: why.to_owned() }
}
