//! Limits for tenants: how many znodes, bytes and ephemerals each may have, and how often it may write.
//!
//! A guard that compares counters with limits, and an observer that keeps the counters. They share the
//! store of their binding.
//!
//! Invariants:
//! * The counters of a tenant are the sums over the znodes at and below its own: each change is told of
//!   once, whatever caused it, and its own operation's failure undoes it.
//! * What shrinks is never refused for being too big: a tenant over its limits gets below them.
//! * A limit that is not set is not looked at, and costs nothing.

mod config;
mod rate;
mod usage;

use serde::Deserialize;
use vivarium_plugin_sdk::{
    Change, Circumstances, Denial, Guard, Observer, Operation, Plugin, code, deny, export, mode, op,
};

use self::config::Settings;
use self::usage::Usage;

/// The plugin.
#[derive(Debug, Deserialize)]
pub struct TenantQuota(Settings);

impl Plugin for TenantQuota {
    fn check(&self) -> Result<(), String> {
        self.0.check()
    }
}

impl Guard for TenantQuota {
    fn judge(&self, operation: &Operation, circumstances: &Circumstances) -> Result<(), Denial> {
        let Some(tenant) = self.0.tenant(&operation.path) else { return Ok(()) };
        let limits = self.0.limits(tenant);
        let usage = Usage::of(tenant);

        let old_bytes = circumstances.before.map_or(0, |before| i64::from(before.data_length));
        let new_bytes = operation.data.as_ref().map_or(0, |data| data.len() as i64);
        let (nodes, bytes, ephemerals) = match operation.op {
            op::CREATE => (1, new_bytes, i64::from(operation.mode == mode::EPHEMERAL)),
            op::SET_DATA => (0, new_bytes - old_bytes, 0),
            _ => (0, 0, 0),
        };
        within(tenant, "znodes", nodes, limits.max_nodes, || usage.nodes())?;
        within(tenant, "bytes", bytes, limits.max_bytes.map(|bytes| bytes.0), || usage.bytes())?;
        within(tenant, "ephemerals", ephemerals, limits.max_ephemerals, || usage.ephemerals())?;

        match limits.max_writes_per_second {
            Some(most) if !rate::take(tenant, most) => {
                deny(code::THROTTLED, format!("{tenant} writes more than {most} times a second"))
            }
            _ => Ok(()),
        }
    }
}

impl Observer for TenantQuota {
    fn observe(&self, change: &Change) {
        let Some(tenant) = self.0.tenant(&change.path) else { return };
        let before = change.before.map_or(0, |before| i64::from(before.data_length));
        let after = change.after.map_or(0, |after| i64::from(after.data_length));
        let nodes = match change.op {
            op::CREATE => 1,
            op::DELETE => -1,
            _ => 0,
        };
        let ephemerals = if change.mode == mode::EPHEMERAL { nodes } else { 0 };
        Usage::of(tenant).add(nodes, after - before, ephemerals);
    }
}

/// Whether a tenant that grows by so much is still within a limit.
fn within(
    tenant: &str,
    what: &str,
    growth: i64,
    most: Option<u64>,
    used: impl Fn() -> i64,
) -> Result<(), Denial> {
    let Some(most) = most.filter(|_| growth > 0) else { return Ok(()) };
    let wanted = used() + growth;
    if wanted > most.min(i64::MAX as u64) as i64 {
        return deny(
            code::QUOTA_EXCEEDED,
            format!("{tenant} would have {wanted} {what}, at most {most}"),
        );
    }
    Ok(())
}

export!(TenantQuota: Guard, Observer);

#[cfg(test)]
mod tests;
