//! How often a tenant writes: a bucket that holds a second's worth and is refilled evenly, kept as one
//! number, the time at which it will be full again.

use vivarium_plugin_sdk::{context, store};

use crate::usage::{key, name};

const SECOND_US: i64 = 1_000_000;

/// Takes a write out of the tenant's bucket; `false` if there is none left. What was taken for an
/// operation that fails after all is put back with everything else that it did.
pub(crate) fn take(tenant: &str, per_second: u64) -> bool {
    if per_second == 0 {
        return false;
    }
    let key = key("full", name(tenant));
    let now_us = context::time_ms().saturating_mul(1000);
    let each_us = (SECOND_US / per_second.min(SECOND_US as u64) as i64).max(1);
    let full_us = store::counter(&key).max(now_us) + each_us;
    if full_us - now_us > SECOND_US {
        return false;
    }
    store::put(&key, full_us.to_le_bytes());
    true
}
