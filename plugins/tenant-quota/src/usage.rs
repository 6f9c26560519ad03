//! The counters of a tenant, in the plugin's store.

use vivarium_plugin_sdk::store;

/// Keys have 1 KiB at most. Tenants whose names agree so far share their counters.
const NAME_BYTES_MAX: usize = 1000;

/// A tenant's counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage<'a> {
    tenant: &'a [u8],
}

/// The key of something that is kept for a tenant.
pub(crate) fn key(what: &str, tenant: &[u8]) -> Vec<u8> {
    [what.as_bytes(), b"/", tenant].concat()
}

impl<'a> Usage<'a> {
    /// The counters of this tenant.
    pub(crate) fn of(tenant: &'a str) -> Self {
        Self { tenant: name(tenant) }
    }

    /// Its znodes, its own included.
    pub(crate) fn nodes(self) -> i64 {
        store::counter(key("nodes", self.tenant))
    }

    /// The lengths of their data, in sum.
    pub(crate) fn bytes(self) -> i64 {
        store::counter(key("bytes", self.tenant))
    }

    /// How many of them are ephemeral.
    pub(crate) fn ephemerals(self) -> i64 {
        store::counter(key("ephemerals", self.tenant))
    }

    /// Adds to those that change.
    pub(crate) fn add(self, nodes: i64, bytes: i64, ephemerals: i64) {
        for (what, delta) in [("nodes", nodes), ("bytes", bytes), ("ephemerals", ephemerals)] {
            if delta != 0 {
                let sum = store::add(key(what, self.tenant), delta);
                assert!(sum >= 0, "{what} of a tenant below 0: a change was not told of");
            }
        }
    }
}

/// As much of a tenant's name as keys have.
pub(crate) fn name(tenant: &str) -> &[u8] {
    &tenant.as_bytes()[..tenant.len().min(NAME_BYTES_MAX)]
}
