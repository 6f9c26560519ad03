//! What the author of a Vivarium plugin writes against.
//!
//! A plugin is a value made of the binding's settings. It takes part at the *points* whose traits it
//! implements, and [`export!`] makes a component of it. This one refuses data that is too long:
//!
//! ```
//! use vivarium_plugin_sdk::*;
//!
//! #[derive(Deserialize)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! struct SizeLimit {
//!     max_bytes: usize,
//! }
//!
//! impl Plugin for SizeLimit {}
//!
//! impl Guard for SizeLimit {
//!     fn judge(&self, operation: &Operation, _: &Circumstances) -> Result<(), Denial> {
//!         let bytes = operation.data.as_ref().map_or(0, Vec::len);
//!         if bytes > self.max_bytes {
//!             return deny(code::BAD_ARGUMENTS, format!("{bytes} bytes, at most {}", self.max_bytes));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export!(SizeLimit: Guard);
//! # fn main() {}
//! ```
//!
//! `README.md` goes from an empty directory to this guard on a running server. What each point is asked,
//! and what it may answer, is said in `wit/`.
//!
//! Invariants:
//! * An instance makes the plugin once, of its settings, and lends it out as `&self`: what a plugin is to
//!   remember goes into its [`store`], which is part of the transaction. So it is declared stateless, and
//!   its instances are used again, unless [`export!`] is told otherwise.
//! * Outside of Wasm the calls of [`tree`], [`store`], [`context`] and [`log`] go to a
//!   [`testing::Host`]; there is no other difference.
//! * Nothing is imported but `vivarium:plugin`.

#[cfg(target_family = "wasm")]
mod allocator;
#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod export;
mod host;
mod points;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod words;

pub use serde::{self, Deserialize, Serialize};
pub use serde_json as json;

pub use self::bindings::authorizing::exports::vivarium::plugin::authorizer::{
    Credentials, Decision, Question,
};
pub use self::bindings::guarding::exports::vivarium::plugin::guard::Circumstances;
pub use self::bindings::imports::vivarium::plugin::tree::Node;
pub use self::bindings::imports::vivarium::plugin::types::{
    AclEntry, Change, Denial, Identity, Operation, Stat,
};
pub use self::bindings::viewing::exports::vivarium::plugin::view::Edit;
pub use self::host::{context, log, store, tree};
pub use self::points::{Authorizer, Guard, Observer, Plugin, Trigger, View};
pub use self::words::{cause, code, deny, mode, op, parent, perm};
