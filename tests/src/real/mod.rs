//! Ensembles of real processes, and sessions that live through the loss of a server.

pub mod ensemble;
pub mod ports;
pub mod proxy;
pub mod requests;
pub mod session;
