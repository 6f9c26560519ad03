//! The process: sockets, threads, time, configuration, the command line. It moves bytes and time
//! into `replica`'s values, and decides nothing about the tree.

pub mod bench;
pub mod cli;
pub mod config;
pub mod digest;
pub mod sasl;
pub mod tls;

mod admin;
mod audit;
mod backup;
mod data_dir;
mod found;
mod histogram;
mod identity;
mod local_ensemble;
mod mailbox;
mod metrics;
mod peers;
pub mod plugins;
mod process;
mod quarantine;
mod recover;
mod repair;
mod roster;
pub mod serve;
mod stores;
mod threads;
mod watched;

mod auth;
mod client;
mod client_threads;
mod open;
mod operator_token;
mod remote;
mod shell;

mod four_letter;
mod slow;
mod stats;
