//! Memory of znodes that nobody sees any more, for the next ones.
//!
//! What was given back last is still in the processor's cache; the block that the allocator would hand out
//! next was freed long ago, and is not: waiting for it is most of what a set spends on memory. Each thread
//! has its own; one that makes no znodes keeps nothing.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::znode::{Data, Znode};

/// How many blocks of each kind are kept: about what an entry replaces.
const KEPT_MAX: usize = 256;
/// Longer data are left to the allocator.
const DATA_BYTES_MAX: usize = 1024;

#[derive(Default)]
struct Spare {
    znodes: Vec<Arc<Znode>>,
    data: Vec<BytesMut>,
    is_used: bool,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// A znode in shared memory.
pub(crate) fn znode(node: Znode) -> Arc<Znode> {
    let spare = SPARE.with_borrow_mut(|spare| {
        spare.is_used = true;
        spare.znodes.pop()
    });
    match spare {
        Some(mut block) => {
            *Arc::get_mut(&mut block).expect("only blocks that nobody shares are kept") = node;
            block
        }
        None => Arc::new(node),
    }
}

/// Gives a znode back; it stays what it is where somebody else has it too.
pub(crate) fn give(mut node: Arc<Znode>) {
    let Some(unshared) = Arc::get_mut(&mut node) else { return };
    let data = std::mem::replace(&mut unshared.data, Data::Inline(None));
    SPARE.with_borrow_mut(|spare| {
        if !spare.is_used || spare.znodes.len() == KEPT_MAX {
            return;
        }
        spare.znodes.push(node);
        if let Data::Inline(Some(data)) = data
            && data.len() <= DATA_BYTES_MAX
            && spare.data.len() < KEPT_MAX
            && let Ok(data) = data.try_into_mut()
        {
            spare.data.push(data);
        }
    });
}

/// A copy of `bytes`.
fn copied(bytes: &[u8]) -> Bytes {
    let is_short = bytes.len() <= DATA_BYTES_MAX;
    let spare = SPARE.with_borrow_mut(|spare| is_short.then(|| spare.data.pop()).flatten());
    // Of the same length: room that is left over would cost as much as a new block.
    match spare.filter(|block| block.capacity() == bytes.len()) {
        Some(mut block) => {
            block.clear();
            block.extend_from_slice(bytes);
            block.freeze()
        }
        None => Bytes::copy_from_slice(bytes),
    }
}

/// A znode's data in a command, for serde's `deserialize_with`: in spare memory if there is some.
pub(crate) fn data<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    Ok(Option::<Copied>::deserialize(from)?.map(|Copied(data)| data))
}

struct Copied(Bytes);

impl<'de> Deserialize<'de> for Copied {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Copies;
        impl Visitor<'_> for Copies {
            type Value = Copied;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Copied, E> {
                Ok(Copied(copied(bytes)))
            }
        }
        from.deserialize_bytes(Copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::{self, Owner, RowHash};

    fn some(data: Bytes) -> Znode {
        let data_hash = znode::hash_of(Some(&data));
        Znode {
            czxid: 1,
            mzxid: 1,
            pzxid: 1,
            ctime: 0,
            mtime: 0,
            version: 0,
            creates: 0,
            aversion: 0,
            children: 0,
            owner: Owner::Persistent,
            acl_id: 0,
            acl: Arc::new([]),
            data: Data::Inline(Some(data)),
            data_hash,
            row_hash: RowHash::default(),
        }
    }

    #[test]
    fn a_znode_takes_the_place_of_one_that_nobody_has_and_of_no_other() {
        let first = znode(some(copied(b"abc")));
        let (place, bytes) = (Arc::as_ptr(&first), first.inline_data().map(<[u8]>::as_ptr));
        give(first);
        let data = copied(b"xyz");
        assert_eq!(Some(data.as_ptr()), bytes);
        let second = znode(some(data));
        assert_eq!(Arc::as_ptr(&second), place);
        assert_eq!(second.inline_data(), Some(&b"xyz"[..]));

        let (reader, data) = (Arc::clone(&second), copied(b"xyz"));
        give(second);
        let third = znode(some(copied(b"123")));
        assert_ne!(Arc::as_ptr(&third), place, "somebody reads what is there");
        assert_eq!((reader.inline_data(), &data[..]), (Some(&b"xyz"[..]), &b"xyz"[..]));
    }

    #[test]
    fn data_that_somebody_reads_are_left_to_him() {
        let first = znode(some(copied(b"abc")));
        let Data::Inline(Some(read)) = first.data.clone() else { panic!("short data are inline") };
        give(first);
        let next = copied(b"xyz");
        assert_eq!((&read[..], &next[..]), (&b"abc"[..], &b"xyz"[..]));
    }

    #[test]
    fn data_of_another_length_are_whole() {
        let first = znode(some(copied(b"a long one")));
        give(first);
        assert_eq!(&copied(b"short")[..], b"short");
        assert_eq!(&copied(b"")[..], b"");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "another thread than the one that makes znodes")]
    fn a_thread_that_makes_none_keeps_none() {
        let other = std::thread::spawn(|| {
            give(Arc::new(some(Bytes::from_static(b"abc"))));
            SPARE.with_borrow(|spare| spare.znodes.is_empty() && spare.data.is_empty())
        });
        assert!(other.join().expect("it does not panic"));
    }
}
