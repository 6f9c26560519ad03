//! What the host keeps beside an instance: its limits, and how much of them a call has left.

use state::hooks::FaultKind;
use state::plugins::CallLimits;
use wasmtime::ResourceLimiter;

use crate::engine::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
use crate::sort::Stop;

/// Calls of the host in one call of the guest.
pub(crate) const HOST_CALLS_MAX: u32 = 1024;

/// Bytes that go between guest and host in these, both ways.
pub(crate) const HOST_BYTES_MAX: usize = 4 << 20;

/// The data of a store: what limits its instance.
#[derive(Debug)]
pub(crate) struct Guest {
    memory_bytes_max: usize,
    /// Whether the last growth asked for was granted by us: then its failure is the host's.
    granted: bool,
    /// Whether it was ever refused one.
    pub(crate) refused: bool,
    calls_left: u32,
    bytes_left: usize,
    /// Lines of the log that it may still write.
    pub(crate) lines_left: u32,
}

impl Guest {
    pub(crate) fn new(limits: &CallLimits) -> Self {
        Self {
            memory_bytes_max: memory_bytes_max(limits),
            granted: false,
            refused: false,
            calls_left: 0,
            bytes_left: 0,
            lines_left: 0,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, limits: &CallLimits) {
        self.memory_bytes_max = memory_bytes_max(limits);
        self.refused = false;
        self.calls_left = HOST_CALLS_MAX;
        self.bytes_left = HOST_BYTES_MAX;
        self.lines_left = limits.log_lines;
    }

    /// The guest called the host, with so many bytes.
    ///
    /// # Errors
    /// A fault, if it did so too often, or with too many.
    pub(crate) fn called(&mut self, bytes: usize) -> Result<(), Stop> {
        let too_much = |what: &str| Stop::plugin(FaultKind::Limit, what);
        self.calls_left = self
            .calls_left
            .checked_sub(1)
            .ok_or_else(|| too_much("more than 1,024 calls of the host in one call"))?;
        self.returned(bytes)
    }

    /// It gets so many bytes back.
    ///
    /// # Errors
    /// A fault, if these are too many.
    pub(crate) fn returned(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            Stop::plugin(FaultKind::Limit, "more than 4 MiB between plugin and host in one call")
        })?;
        Ok(())
    }

    /// Whether it may grow to `desired`; the guest is told -1 if not.
    fn grows(&mut self, desired: usize, maximum: Option<usize>, limit: usize) -> bool {
        self.granted = desired <= limit && maximum.is_none_or(|maximum| desired <= maximum);
        self.refused |= !self.granted;
        self.granted
    }

    /// A growth failed. What we granted failed for want of the host's memory; the rest could not be at all.
    fn failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if self.granted { Err(Stop::host(format!("no memory: {error}")).into()) } else { Ok(()) }
    }
}

fn memory_bytes_max(limits: &CallLimits) -> usize {
    usize::try_from(limits.memory_bytes.min(MEMORY_BYTES_MAX)).unwrap_or(usize::MAX)
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grows(desired, maximum, self.memory_bytes_max))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed(error)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grows(desired, maximum, TABLE_ELEMENTS_MAX))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed(error)
    }
}
