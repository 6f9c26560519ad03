//! A host for the unit tests of a plugin, without Wasm and without a server.
//!
//! ```
//! # use vivarium_plugin_sdk::*;
//! # #[derive(Deserialize)]
//! # struct Names {}
//! # impl Plugin for Names {}
//! # impl Guard for Names {
//! #     fn judge(&self, operation: &Operation, _: &Circumstances) -> Result<(), Denial> {
//! #         if operation.path.ends_with('_') { return deny(code::BAD_ARGUMENTS, "its name") }
//! #         Ok(())
//! #     }
//! # }
//! use vivarium_plugin_sdk::testing::{Host, json, ops};
//!
//! let host = Host::new(json!({}));
//! host.node("/a", "");
//! assert_eq!(host.guard::<Names>(&[ops::create("/a/b", "data")]), Ok(()));
//! let denied = host.guard::<Names>(&[ops::create("/a/c", ""), ops::create("/a/d_", "")]);
//! assert_eq!(denied.unwrap_err().code, code::BAD_ARGUMENTS);
//! assert!(!host.exists("/a/c"), "a multi is all or nothing");
//! ```
//!
//! It is no server: it knows no ACLs, watches or versions, and counts no fuel. What it does as a server does is
//! the order of calls, what may be read, that a refused transaction leaves nothing behind, and that each
//! transaction has an instance of its own. `vivarium plugin test` runs cases on the real thing.

pub(crate) mod current;
mod host;
pub mod ops;

pub use self::host::Host;
pub use serde_json::json;
