//! What the system says of this process.

use rustix::process::{Resource, getrlimit};

/// This process at one moment; 0 where the system does not say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    /// Open file descriptors, and how many may be open.
    pub(crate) descriptors: u64,
    pub(crate) descriptors_max: u64,
    pub(crate) resident_bytes: u64,
    /// Of all its threads, in their own code and in the system's.
    pub(crate) cpu_seconds: f64,
}

impl Process {
    pub(crate) fn look() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
        let descriptors_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            descriptors,
            descriptors_max,
            resident_bytes: resident_bytes().unwrap_or_default(),
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}
