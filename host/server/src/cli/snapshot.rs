//! `vivarium snapshot`: saves a running server's state to a file, looks at one, restores one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use replica::operator::{OperatorReply, OperatorRequest};
use replica::saving::SnapshotHeader;
use state::keys::Keyspace;
use state::snapshot::Checker;

use super::operator_args::{Operator, OperatorArgs};
use crate::backup::{NewFile, Progress, SnapshotFile, mebibytes, restore};
use crate::recover::utc;

/// How long a server may take to write down what it has applied.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
A snapshot is the whole state as of one moment: znodes, ACLs, sessions, settings. It can be saved from
any server of an ensemble, while clients write, and is as new as what that server shows.

Examples:
  vivarium snapshot save /backup/monday.snapshot
  vivarium snapshot inspect /backup/monday.snapshot
  vivarium snapshot restore /backup/monday.snapshot --data-dir /var/lib/vivarium";

const SAVE_EXAMPLES: &str = "\
The file is there whole, checked and durable, or not at all: it has another name (FILE.new-...) until
then, and replaces one of the same name. It holds all that was acknowledged by this server before, and
secrets: only its owner may read it. Exit code 1 if it could not be saved.

Who may: whoever may read the server's data directory (its operator.token), or whoever authenticates as
the super user with --auth.

Examples:
  On the server's own machine, in the directory it was started in:
    vivarium snapshot save monday.snapshot
  With the data directory elsewhere:
    vivarium snapshot save monday.snapshot --data-dir /var/lib/vivarium
  From another machine:
    vivarium snapshot save monday.snapshot --server zoo1:2181 --auth-file super.auth";

const INSPECT_EXAMPLES: &str = "\
All of the file is read: each checksum is compared, and the digest of the state with what the rows give.
Exit code 1 if anything of it is damaged.";

const RESTORE_EXAMPLES: &str = "\
The directory must be empty or not exist. If the restore is interrupted, no server starts on it before
it was done again.

It is the birth of a new ensemble: servers with data of the old one are refused. For an ensemble of
several servers, restore on ONE of them, empty the data directories of the others, and start all with
the configuration that they had. The one waits until all others have answered that they are empty; then
they get the data from it. Whoever restores on several gets an answer that says so, and no ensemble.

zxids go on 65,536 epochs above those of the snapshot, so that clients that have seen what came after it
are taken all the same: an epoch begins with each election. Sessions of the snapshot live on, with their
ephemerals: clients that still run go on with theirs, the others expire.

Examples:
  vivarium snapshot restore monday.snapshot --data-dir /var/lib/vivarium
  vivarium serve --data-dir /var/lib/vivarium";

/// Flags of `snapshot`.
#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Save the state of a running server to a file.
    #[command(after_help = SAVE_EXAMPLES)]
    Save {
        /// The file to write.
        file: PathBuf,
        #[command(flatten)]
        operator: Box<OperatorArgs>,
    },
    /// Show what a file holds, and check all of it.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// The file to read.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the data directory of a server that begins a new ensemble with a file's state.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore {
        /// The file to read.
        file: PathBuf,
        /// The server's data directory: an empty one, or one that does not exist.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

impl SnapshotArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match &self.action {
            Action::Save { file, operator } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let (header, bytes) = runtime.block_on(async {
                    let operator = operator.connect("snapshots are saved by operators").await?;
                    let saved = save(&operator, file).await;
                    operator.close().await;
                    saved
                })?;
                let SnapshotHeader { index, zxid, znodes, .. } = header;
                writeln!(
                    out,
                    "saved {}: {znodes} znodes, {}, index {index}, zxid {zxid}",
                    file.display(),
                    mebibytes(bytes)
                )?;
            }
            Action::Inspect { file, json } => {
                let mut snapshot = SnapshotFile::open(file)?;
                let checker = snapshot.check(&mut Progress::new("checking"))?;
                if *json {
                    serde_json::to_writer(&mut out, snapshot.header())?;
                    writeln!(out)?;
                } else {
                    describe(&mut out, snapshot.header(), &checker, snapshot.bytes())?;
                }
            }
            Action::Restore { file, data_dir } => {
                let SnapshotHeader { znodes, zxid, cluster, .. } = restore(file, data_dir)?;
                writeln!(
                    out,
                    "restored {znodes} znodes, as of zxid {zxid} of the ensemble {cluster}, into {}: a \
                     new ensemble begins when a server is started on it; in an ensemble of several, \
                     start all others with empty data directories",
                    data_dir.display()
                )?;
            }
        }
        Ok(())
    }
}

/// Saves the state to a file; gives what it is and how long the file is.
async fn save(operator: &Operator, file: &Path) -> anyhow::Result<(SnapshotHeader, u64)> {
    let header = begin(operator).await?;
    let mut new = NewFile::create(file, header.clone())?;
    let mut progress = Progress::new("saving");
    loop {
        match operator.ask(&OperatorRequest::NextRecord {}).await? {
            OperatorReply::Record(record) => new.put(&record)?,
            OperatorReply::SnapshotEnd {} => break,
            other => return Err(unexpected(other)),
        }
        let (rows, bytes) = new.so_far();
        progress.show(rows, header.znodes, bytes);
    }
    let (_, bytes) = new.so_far();
    new.finish()?;
    Ok((header, bytes))
}

async fn begin(operator: &Operator) -> anyhow::Result<SnapshotHeader> {
    let (mut from, deadline) = (0, Instant::now() + PATIENCE);
    loop {
        match operator.ask(&OperatorRequest::SaveSnapshot { from }).await? {
            OperatorReply::SnapshotBegun { header } => return Ok(header),
            OperatorReply::SnapshotNotYet { from: index } => from = index,
            other => return Err(unexpected(other)),
        }
        if Instant::now() > deadline {
            bail!(
                "the server has not written down in {PATIENCE:?} what it has applied up to {from}"
            );
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn unexpected(reply: OperatorReply) -> anyhow::Error {
    match reply {
        OperatorReply::Refused { why } => anyhow::anyhow!("{why}"),
        other => anyhow::anyhow!("the server gave another reply than the one asked for: {other:?}"),
    }
}

fn describe(
    out: &mut impl Write,
    header: &SnapshotHeader,
    checker: &Checker,
    bytes: u64,
) -> anyhow::Result<()> {
    let SnapshotHeader { index, term, zxid, cluster, servers, digest, history, .. } = header;
    writeln!(out, "index       {index}, of term {term}")?;
    writeln!(out, "zxid        {zxid}")?;
    writeln!(out, "time        {}", utc(header.time_ms))?;
    writeln!(out, "ensemble    {cluster}, of the servers {servers:?}")?;
    writeln!(out, "znodes      {}", checker.rows_of(Keyspace::Nodes))?;
    writeln!(out, "sessions    {}", checker.rows_of(Keyspace::Sessions))?;
    writeln!(out, "ephemerals  {}", checker.rows_of(Keyspace::Ephemerals))?;
    writeln!(out, "digest      {digest}")?;
    writeln!(out, "history     {history}")?;
    writeln!(out, "size        {}", mebibytes(bytes))?;
    writeln!(out, "every checksum and the digest are right").context("standard output")
}
