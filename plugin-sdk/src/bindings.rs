//! What is generated from `wit/`: the imports, and one module for each point, so that a plugin exports
//! the points it has and no others. `tests/it/bindings.rs` holds them to `wit/`, and says how to make them
//! anew. Generated here, and not by a macro where they are used, so that a plugin builds in seconds.

#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

pub mod authorizing;
pub mod configuring;
pub mod guarding;
pub mod imports;
pub mod observing;
pub mod triggering;
pub mod viewing;
