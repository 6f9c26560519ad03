//! Tests of the runtime: components written by hand go in, outcomes come out.

mod corpus;
mod env;
mod faults;
mod generated;
mod guest;
mod hooks;
mod hostile;
mod instances;
mod refused;
mod store;
