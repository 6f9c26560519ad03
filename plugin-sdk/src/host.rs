//! What a plugin may call. In Wasm it is the server that answers, elsewhere a [`crate::testing::Host`].

/// Sends a call where it is answered.
macro_rules! host {
    ($interface:ident :: $function:ident ( $($argument:expr),* )) => {{
        #[cfg(target_family = "wasm")]
        { crate::bindings::imports::vivarium::plugin::$interface::$function($($argument),*) }
        #[cfg(not(target_family = "wasm"))]
        { crate::testing::current::$interface::$function($($argument),*) }
    }};
}

/// The znodes, as of this point of the transaction.
///
/// The znode that the call is about may be read, its parent, and what the binding's `reads` grant; to read
/// anything else ends the call as a fault.
pub mod tree {
    use crate::{Node, Stat};

    /// A znode's data and stat.
    pub fn get(path: &str) -> Option<Node> {
        host!(tree::get(path))
    }

    /// Only its stat.
    pub fn exists(path: &str) -> Option<Stat> {
        host!(tree::exists(path))
    }

    /// Up to `most` names of its children (never more than 1,000), in order, after `after`; `None` if there
    /// is no such znode.
    pub fn children(path: &str, after: &str, most: u32) -> Option<Vec<String>> {
        host!(tree::children(path, after, most))
    }
}

/// What the plugin keeps: replicated, part of the transaction, and its own.
///
/// A key has 1 to 1,024 bytes, a value at most 64 KiB; anything else ends the call as a fault.
pub mod store {
    /// The value of a key.
    pub fn get(key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        host!(store::get(key.as_ref()))
    }

    /// Sets it.
    pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        host!(store::put(key.as_ref(), value.as_ref()));
    }

    /// Removes it.
    pub fn delete(key: impl AsRef<[u8]>) {
        host!(store::delete(key.as_ref()));
    }

    /// Adds to a counter and returns the sum. Where there is none it is 0, and a sum of 0 removes it.
    pub fn add(key: impl AsRef<[u8]>, delta: i64) -> i64 {
        host!(store::add(key.as_ref(), delta))
    }

    /// The value of a counter; 0 if there is none.
    ///
    /// # Panics
    /// If the value is not a counter's.
    pub fn counter(key: impl AsRef<[u8]>) -> i64 {
        get(key)
            .map_or(0, |value| i64::from_le_bytes(value.try_into().expect("a counter has 8 bytes")))
    }

    /// Up to `most` keys and values (never more than 256) with `start <= key < end`, in order; an empty
    /// `end` is behind the last one.
    pub fn scan(
        start: impl AsRef<[u8]>,
        end: impl AsRef<[u8]>,
        most: u32,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        host!(store::scan(start.as_ref(), end.as_ref(), most))
    }
}

/// What surrounds the call: the same on every server.
pub mod context {
    use crate::Identity;

    /// The settings, as JSON; [`crate::Plugin`] has read them already.
    pub fn settings() -> Vec<u8> {
        host!(context::settings())
    }

    /// The transaction's time, in milliseconds since the epoch. It never goes back.
    pub fn time_ms() -> i64 {
        host!(context::time_ms())
    }

    /// The transaction's zxid.
    pub fn zxid() -> i64 {
        host!(context::zxid())
    }

    /// The session that asks; 0 if none does.
    pub fn session() -> i64 {
        host!(context::session())
    }

    /// Who asks.
    pub fn identities() -> Vec<Identity> {
        host!(context::identities())
    }

    /// A number that follows from the transaction, and that no client can choose. Not a secret.
    pub fn seed() -> u64 {
        host!(context::seed())
    }
}

/// Lines for whoever looks after the server.
pub mod log {
    /// Writes a line into the server's log, at debug level; of a line 1 KiB is kept, of a call 16 lines.
    pub fn line(text: &str) {
        host!(log::line(text));
    }
}
