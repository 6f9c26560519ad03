//! What several of these tests need.

use std::net::IpAddr;

use proto::Id;
use replica::Sasl;
use replica::connection::{Authenticator, Policy};

/// Nobody can prove to be anybody.
pub(crate) struct Nobody;

impl Authenticator for Nobody {
    fn authenticate(&self, _scheme: &str, _auth: &[u8], _remote: IpAddr) -> Option<Vec<Id>> {
        None
    }

    fn sasl(&self) -> Option<Box<dyn Sasl>> {
        None
    }
}

/// A server that demands nothing, with sessions of up to so many milliseconds.
pub(crate) fn policy(timeout_ms_max: i32) -> Policy {
    Policy {
        timeout_ms_min: 1,
        timeout_ms_max,
        required_schemes: Vec::new(),
        sasl_failures_allowed: false,
        ensemble: false,
        local_sessions: false,
        upgrades_sessions: false,
        linearizable: false,
        reconfig_enabled: false,
        acl_schemes: Vec::new(),
    }
}
