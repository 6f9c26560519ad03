//! The project's tests that are programs of their own; those that cargo runs are in `it/`.

pub mod differential;
pub mod sim;
