//! What plugins may take: replicated settings, since they decide outcomes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::binding::{Point, patterns};

/// What a call of a function costs in fuel, as the runtime counts it: a guest recurses no deeper than its fuel
/// over this.
const CALL_FUEL: u64 = 255;
/// How large the frame of a guest's function is at most, in bytes.
const FRAME_BYTES_MAX: u64 = 8 << 10;
/// How much of the stack reserved for guests they may reach: a quarter.
const STACK_BYTES_MAX: u64 = (256 << 20) / 4;
/// The most fuel of a call for which its stack is never the limit.
const CALL_FUEL_MAX: u64 = STACK_BYTES_MAX / FRAME_BYTES_MAX * CALL_FUEL;
/// The same for `authenticate`, which may have the whole stack: it is called on one server, outside of apply,
/// and to check a signature takes more than any decision does.
const AUTHENTICATE_FUEL_MAX: u64 = 4 * CALL_FUEL_MAX;

/// A limit of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PluginLimit {
    /// How large a module may be, in bytes.
    ModuleBytes,
    /// How much all modules may take, in bytes.
    ModulesBytes,
    /// How many bindings there may be.
    Bindings,
    /// A guest's linear memory, in bytes.
    MemoryBytes,
    /// The fuel of a call of an authorizer.
    AuthorizerFuel,
    /// The fuel of a call of its `authenticate`.
    AuthenticateFuel,
    /// The fuel of a call of a guard or an observer; a trigger and a view have twice as much.
    GuardFuel,
    /// The fuel of a transaction.
    TransactionFuel,
    /// The same, of one with many operations, for each of them, if that is more.
    OperationFuel,
    /// How many reads of the tree a call may make.
    Reads,
    /// How many bytes it may be given by them.
    ReadBytes,
    /// How many times a call may turn to its store.
    StoreCalls,
    /// How many bytes of keys and values may go either way.
    StoreCallBytes,
    /// How much its store may hold, keys and values, in bytes.
    StoreBytes,
    /// How many lines it may write to the decision log.
    LogLines,
    /// How long each may be, in bytes.
    LogLineBytes,
    /// How many faults, of the last [`Self::BreakerCalls`] calls, put a binding into quarantine.
    BreakerFaults,
    /// How many calls the breaker looks back.
    BreakerCalls,
}

impl PluginLimit {
    /// Every limit.
    pub const ALL: [Self; 18] = [
        Self::ModuleBytes,
        Self::ModulesBytes,
        Self::Bindings,
        Self::MemoryBytes,
        Self::AuthorizerFuel,
        Self::AuthenticateFuel,
        Self::GuardFuel,
        Self::TransactionFuel,
        Self::OperationFuel,
        Self::Reads,
        Self::ReadBytes,
        Self::StoreCalls,
        Self::StoreCallBytes,
        Self::StoreBytes,
        Self::LogLines,
        Self::LogLineBytes,
        Self::BreakerFaults,
        Self::BreakerCalls,
    ];

    /// Its name among the settings, its default, and the least and the most that it may be.
    pub fn describe(self) -> (&'static str, u64, u64, u64) {
        match self {
            Self::ModuleBytes => ("plugin-module-bytes", 4 << 20, 1, 64 << 20),
            Self::ModulesBytes => ("plugin-modules-bytes", 256 << 20, 1, 4 << 30),
            Self::Bindings => ("plugin-bindings", 256, 0, 256),
            Self::MemoryBytes => ("plugin-memory-bytes", 16 << 20, 64 << 10, 64 << 20),
            Self::AuthorizerFuel => ("plugin-authorizer-fuel", 500_000, 1_000, CALL_FUEL_MAX),
            Self::AuthenticateFuel => {
                ("plugin-authenticate-fuel", 8_000_000, 1_000, AUTHENTICATE_FUEL_MAX)
            }
            Self::GuardFuel => ("plugin-guard-fuel", 1_000_000, 1_000, CALL_FUEL_MAX / 2),
            Self::TransactionFuel => ("plugin-transaction-fuel", 8_000_000, 1_000, 1 << 40),
            Self::OperationFuel => ("plugin-operation-fuel", 64_000, 0, 1 << 30),
            Self::Reads => ("plugin-reads", 64, 0, 100_000),
            Self::ReadBytes => ("plugin-read-bytes", 1 << 20, 0, 64 << 20),
            Self::StoreCalls => ("plugin-store-calls", 256, 0, 100_000),
            Self::StoreCallBytes => ("plugin-store-call-bytes", 1 << 20, 0, 64 << 20),
            Self::StoreBytes => ("plugin-store-bytes", 64 << 20, 0, 1 << 40),
            Self::LogLines => ("plugin-log-lines", 16, 0, 1_000),
            Self::LogLineBytes => ("plugin-log-line-bytes", 1 << 10, 0, 64 << 10),
            Self::BreakerFaults => ("plugin-breaker-faults", 16, 1, 64),
            Self::BreakerCalls => ("plugin-breaker-calls", 64, 1, 64),
        }
    }

    /// The limit of this name among the settings.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.describe().0 == name)
    }

    /// Whether it may be so much.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(self, value: u64) -> Result<(), String> {
        let (name, _, least, most) = self.describe();
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(format!("{name} cannot be {value}: expected {least} to {most}"))
    }
}

/// The settings that are about plugins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PluginSettings {
    /// The limits that are not at their defaults.
    limits: BTreeMap<PluginLimit, u64>,
    /// Patterns of what bindings may match and read; everything, if there are none.
    grants: Vec<String>,
}

impl PluginSettings {
    /// A limit.
    pub fn limit(&self, limit: PluginLimit) -> u64 {
        self.limits.get(&limit).copied().unwrap_or(limit.describe().1)
    }

    /// Patterns of what bindings may match and read; everything, if there are none.
    pub fn grants(&self) -> &[String] {
        &self.grants
    }

    pub(crate) fn set_limit(&mut self, limit: PluginLimit, value: u64) {
        if value == limit.describe().1 {
            self.limits.remove(&limit);
        } else {
            self.limits.insert(limit, value);
        }
    }

    pub(crate) fn set_grants(&mut self, grants: &[String]) {
        self.grants = grants.to_vec();
    }

    /// Whether nothing was ever changed.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether these may be [`PluginSettings::grants`].
///
/// # Errors
/// What is wrong with them, in words.
pub fn check_grants(grants: &[String]) -> Result<(), String> {
    patterns("plugin-grants", grants).map(|_| ())
}

/// What a call may take, looked up once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// The linear memory, in bytes.
    pub memory_bytes: u64,
    /// Lines of the log.
    pub log_lines: u32,
    /// The length of each, in bytes.
    pub log_line_bytes: u32,
    authorizer_fuel: u64,
    authenticate_fuel: u64,
    guard_fuel: u64,
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) store_calls: u64,
    pub(crate) store_call_bytes: u64,
    pub(crate) store_bytes: u64,
}

impl CallLimits {
    pub(crate) fn of(settings: &PluginSettings) -> Self {
        let small = |limit| u32::try_from(settings.limit(limit)).unwrap_or(u32::MAX);
        Self {
            memory_bytes: settings.limit(PluginLimit::MemoryBytes),
            log_lines: small(PluginLimit::LogLines),
            log_line_bytes: small(PluginLimit::LogLineBytes),
            authorizer_fuel: settings.limit(PluginLimit::AuthorizerFuel),
            authenticate_fuel: settings.limit(PluginLimit::AuthenticateFuel),
            guard_fuel: settings.limit(PluginLimit::GuardFuel),
            reads: settings.limit(PluginLimit::Reads),
            read_bytes: settings.limit(PluginLimit::ReadBytes),
            store_calls: settings.limit(PluginLimit::StoreCalls),
            store_call_bytes: settings.limit(PluginLimit::StoreCallBytes),
            store_bytes: settings.limit(PluginLimit::StoreBytes),
        }
    }

    /// The fuel of a call at this point.
    pub fn fuel(&self, point: Point) -> u64 {
        match point {
            Point::Authorizer => self.authorizer_fuel,
            Point::Guard | Point::Observer => self.guard_fuel,
            Point::Trigger | Point::View => 2 * self.guard_fuel,
        }
    }

    /// The fuel of a call of `authenticate`.
    pub fn authenticate_fuel(&self) -> u64 {
        self.authenticate_fuel
    }
}

impl Default for CallLimits {
    fn default() -> Self {
        Self::of(&PluginSettings::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_bounds_and_names_are_unique() {
        for limit in PluginLimit::ALL {
            let (name, default, ..) = limit.describe();
            assert_eq!(limit.check(default), Ok(()));
            assert_eq!(PluginLimit::named(name), Some(limit));
        }
        assert!(PluginLimit::GuardFuel.check(CALL_FUEL_MAX).is_err(), "the stack is in danger");
        let mut settings = PluginSettings::default();
        settings.set_limit(PluginLimit::Reads, 5);
        assert_eq!((settings.limit(PluginLimit::Reads), settings.is_default()), (5, false));
        settings.set_limit(PluginLimit::Reads, 64);
        assert!(settings.is_default());
    }
}
