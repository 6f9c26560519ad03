//! What the load showed, as a table or as JSON; and the operating system's account of who worked.

use std::fs;
use std::io::Write;

use anyhow::Context;
use proto::ErrorCode;
use serde_json::{Map, Value, json};

use super::BenchArgs;
use super::load::Tally;

/// /proc counts CPU time in ticks of this many microseconds: USER_HZ is 100 on every Linux.
const TICK_US: u64 = 10_000;

/// CPU time so far, over all threads, and memory now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    servers_us: u64,
    servers_rss_bytes: u64,
    own_us: u64,
}

impl Usage {
    /// # Errors
    /// If a process is not there. The generator's own time is 0 where there is no /proc.
    pub(super) fn read(pids: &[u32]) -> anyhow::Result<Self> {
        let own_us = cpu_us("self").unwrap_or(0);
        let mut usage = Self { servers_us: 0, servers_rss_bytes: 0, own_us };
        for pid in pids {
            let who = || format!("--pid {pid}: expected a running process on this machine");
            usage.servers_us += cpu_us(&pid.to_string()).with_context(who)?;
            usage.servers_rss_bytes += rss_bytes(*pid).with_context(who)?;
        }
        Ok(usage)
    }

    /// The time used since `before`, and the memory now.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            servers_us: self.servers_us.saturating_sub(before.servers_us),
            servers_rss_bytes: self.servers_rss_bytes,
            own_us: self.own_us.saturating_sub(before.own_us),
        }
    }
}

fn cpu_us(process: &str) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    cpu_ticks(&stat).map(|ticks| ticks * TICK_US).context("/proc/PID/stat has no CPU times")
}

/// utime and stime. The command's name, in parentheses, may itself hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// ZooKeeper's name for an error, or its number.
pub(super) fn code_name(code: i32) -> String {
    ErrorCode::from_i32(code).map_or_else(|| code.to_string(), |known| known.name().to_owned())
}

/// Everything that is printed.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) tally: &'a Tally,
    pub(super) used: Usage,
}

impl Report<'_> {
    pub(super) fn print(&self, out: &mut impl Write) -> anyhow::Result<()> {
        if self.args.json {
            writeln!(out, "{}", self.json())?;
            return Ok(());
        }
        let (tally, args) = (self.tally, self.args);
        writeln!(
            out,
            "{:?}: {} connections x {} outstanding, {} keys of {} bytes, {} s",
            args.op, args.connections, args.outstanding, args.keys, args.size, args.seconds
        )?;
        writeln!(out, "throughput      {:>12.0} op/s ({} ops)", self.per_second(), tally.ops)?;
        for (name, us) in self.latencies() {
            writeln!(out, "latency {name:<8}{us:>12} us")?;
        }
        if tally.events > 0 {
            writeln!(out, "watch events    {:>12}", tally.events)?;
        }
        if !args.pid.is_empty() {
            writeln!(out, "server CPU      {:>12.2} us/op", self.per_op(self.used.servers_us))?;
            writeln!(out, "server RSS      {:>12} MiB", self.used.servers_rss_bytes >> 20)?;
        }
        writeln!(out, "generator CPU   {:>12.2} us/op", self.per_op(self.used.own_us))?;
        for (code, count) in &tally.errors {
            writeln!(out, "error           {count:>12} {}", code_name(*code))?;
        }
        if tally.unanswered > 0 {
            writeln!(out, "unanswered      {:>12}", tally.unanswered)?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let (tally, args) = (self.tally, self.args);
        let errors = tally.errors.iter().map(|(code, n)| (code_name(*code), json!(n)));
        let latency = self.latencies().map(|(name, us)| (name.to_owned(), json!(us)));
        let servers = !args.pid.is_empty();
        json!({
            "op": format!("{:?}", args.op).to_lowercase(),
            "connections": args.connections,
            "outstanding": args.outstanding,
            "keys": args.keys,
            "size": args.size,
            "seconds": args.seconds,
            "ops": tally.ops,
            "ops_per_second": self.per_second(),
            "latency_us": latency.into_iter().collect::<Map<_, _>>(),
            "watch_events": tally.events,
            "errors": errors.collect::<Map<_, _>>(),
            "unanswered": tally.unanswered,
            "server_cpu_us_per_op": servers.then(|| self.per_op(self.used.servers_us)),
            "server_rss_bytes": servers.then_some(self.used.servers_rss_bytes),
            "generator_cpu_us_per_op": self.per_op(self.used.own_us),
        })
    }

    fn latencies(&self) -> [(&'static str, u64); 5] {
        let histogram = &self.tally.latency_us;
        let at = |quantile| histogram.value_at_quantile(quantile);
        [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", histogram.max()),
        ]
    }

    fn per_second(&self) -> f64 {
        self.tally.ops as f64 / self.args.seconds as f64
    }

    /// Microseconds per operation; 0 if there were none.
    fn per_op(&self, us: u64) -> f64 {
        us as f64 / self.tally.ops.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_times() {
        let stat = "12 (a) b (c)) S 1 1 1 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 9 0 77 1 2";
        assert_eq!(cpu_ticks(stat), Some(300));
    }

    #[test]
    fn codes_have_names() {
        assert_eq!(code_name(-101), "NONODE");
        assert_eq!(code_name(-4321), "-4321");
    }
}
