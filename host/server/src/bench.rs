//! `vivarium bench`: load over the ZooKeeper protocol, for any server that speaks it.
//!
//! The generator must cost far less than what it measures, so: many connections share few threads,
//! a read and a write each carry a batch, buffers are kept, and of a reply only the header is read.
//! Each connection is a closed loop that keeps exactly `outstanding` requests in flight; latencies
//! are therefore those of that load, and do not show what an open arrival rate would suffer.

mod load;
mod report;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use self::load::{Loop, Span, Tally};
use self::report::{Report, Usage};
use self::wire::Keys;

/// Measure a server: throughput, latency, and what each operation costs in CPU.
///
/// Keys are created below /bench and stay there; what `--op create` makes is deleted afterwards.
///
/// A request that is answered with an error is no operation: errors are shown on their own. Latency is
/// that of a closed loop; it does not show what requests that arrive at a fixed rate would suffer.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The servers' client addresses; connections are dealt out to them in turn.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2181", value_name = "HOST:PORT")]
    pub servers: Vec<String>,
    /// What to ask for.
    #[arg(long, value_enum, default_value = "set")]
    pub op: Op,
    /// How many sessions.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests in flight on each connection; `connect` always has one.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub outstanding: u32,
    /// How many znodes the requests are spread over, 100 to a directory.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
    /// Bytes of data in a znode.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub size: u32,
    /// How many of 100 requests of `mixed` are reads.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub reads: u32,
    /// How many writes are in one `multi`, which counts as one operation.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub multi_size: u32,
    /// Seconds of load before anything is counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warmup: u64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// The generator's threads; one makes more than 100,000 requests a second.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// The servers' processes on this machine, to count their CPU time and memory (Linux).
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    pub pid: Vec<u32>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What the load consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// setData of a random key.
    Set,
    /// getData of a random key.
    Get,
    /// create of a new znode.
    Create,
    /// getData and setData, see --reads.
    Mixed,
    /// A multi of several setData, see --multi-size.
    Multi,
    /// create and delete of the same znode in turn; both are counted.
    Delete,
    /// exists of a random key.
    Exists,
    /// getChildren of a directory of up to 100 keys.
    Ls,
    /// sync of a random key.
    Sync,
    /// getData with a watch, then setData of the same key, in turn; both are counted.
    Watch,
    /// Opening and closing a session; one of each, with its TCP connection, is one operation.
    Connect,
}

/// Runs the load and prints the report to standard output.
///
/// # Errors
/// If a server or a process is not there, a server breaks the protocol or hangs up, or standard
/// output is closed. Error codes in replies are counted, not fatal.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    ensure!(!args.servers.is_empty(), "--servers expects at least one HOST:PORT");
    // A wrong pid should not be found out only after the load.
    Usage::read(&args.pid)?;
    let keys = Keys::new(args.keys, args.size);
    let server_of = |i: u32| args.servers[i as usize % args.servers.len()].as_str();

    if args.op != Op::Connect {
        load::prepare(server_of(0), &keys)?;
    }
    // Every session is open before the clock starts: setting up is not part of the load.
    let mut loops = Vec::new();
    if args.op != Op::Connect {
        for i in 0..args.connections {
            loops.push(Loop::open(server_of(i), i, args, &keys)?);
        }
    }
    let warm = Instant::now() + Duration::from_secs(args.warmup);
    let span = Span { start: warm, end: warm + Duration::from_secs(args.seconds) };

    let (tally, before, after) = thread::scope(|scope| -> anyhow::Result<_> {
        let mut workers = Vec::new();
        if args.op == Op::Connect {
            for i in 0..args.connections {
                workers.push(scope.spawn(move || load::connect_loop(server_of(i), span)));
            }
        } else {
            for share in deal(loops, args.threads) {
                workers.push(scope.spawn(move || load::drive(share, span)));
            }
        }
        thread::sleep(span.start.saturating_duration_since(Instant::now()));
        let before = Usage::read(&args.pid);
        thread::sleep(span.end.saturating_duration_since(Instant::now()));
        let after = Usage::read(&args.pid);
        let mut tally = Tally::new();
        for worker in workers {
            tally.add(&worker.join().expect("a worker does not panic")?);
        }
        Ok((tally, before, after))
    })?;
    load::clean(server_of(0), &tally.made).context("deleting what the load made")?;
    let gone = "the server ended during the load";
    let report =
        Report { args, tally: &tally, used: after.context(gone)?.since(&before.context(gone)?) };
    report.print(&mut std::io::stdout().lock())
}

fn deal(loops: Vec<Loop>, threads: u32) -> Vec<Vec<Loop>> {
    let threads = threads as usize;
    let mut shares = (0..threads).map(|_| Vec::new()).collect::<Vec<_>>();
    for (i, item) in loops.into_iter().enumerate() {
        shares[i % threads].push(item);
    }
    shares.retain(|share| !share.is_empty());
    shares
}
