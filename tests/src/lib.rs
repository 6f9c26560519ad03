//! The project's tests that are programs of their own; those that cargo runs are in `it/`.

pub mod chaos;
pub mod differential;
pub mod failover;
pub mod real;
pub mod sim;

mod random;
mod wire;
