//! Tests of the real binary: real processes, real sockets, `kill -9`.

mod admin;
mod audit;
mod backup;
mod bad_input;
mod client;
mod clocks;
mod damage;
mod disk_full;
mod ensemble;
#[allow(dead_code, reason = "tests of the runtime use all of it")]
#[path = "../../host/plugin/tests/it/guest.rs"]
mod guest;
mod healing;
mod held_up;
mod hostile;
mod http;
mod kill;
mod limits;
mod local_ensemble;
mod local_sessions;
mod logging;
mod members;
mod operator;
mod peers;
mod plugins;
mod poison;
mod process;
mod pty;
mod read_only;
mod recover;
mod settings;
mod shell;
mod slow_apply;
mod stop;
mod tidy;
mod versions;
