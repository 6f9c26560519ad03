//! `vivarium plugin`, for operators: what is done with plugins on a running ensemble.

mod install;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use replica::operator::plugins::PluginRequest;
use replica::operator::{OperatorReply, OperatorRequest};
use state::plugins::{Mode, OpKind};

use super::super::connect_args::duration;
use super::super::operator_args::{Operator, OperatorArgs};

/// What is done with plugins on a running ensemble.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Bring in a binding with its module, or a new version of one: upload, try on every server, activate.
    Install {
        /// The binding's file.
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
        /// Activate only once all voters are ready, not only those that can be reached.
        #[arg(long)]
        wait_all: bool,
        /// How long to wait for the servers to be ready, such as 60s.
        #[arg(long, default_value = "120s", value_name = "DURATION", value_parser = duration)]
        wait: Duration,
    },
    /// Show all bindings.
    List,
    /// Show one binding, or all, in full.
    Status {
        /// Which one.
        name: Option<String>,
    },
    /// Have a binding do something else, from one zxid on.
    Mode {
        /// Which one.
        name: String,
        /// What.
        mode: ModeArg,
    },
    /// Go back to the generation before, and with another `rollback` forth again.
    Rollback {
        /// Which one.
        name: String,
    },
    /// Take a binding away, with everything that its plugin has kept.
    Remove {
        /// Which one.
        name: String,
        /// Only if this is its newest generation.
        #[arg(long)]
        generation: Option<u64>,
    },
    /// Show what plugins refused lately on this server, and why; what they let pass is not kept.
    Log {
        /// Of this binding only.
        name: Option<String>,
        /// About this path only.
        #[arg(long)]
        path: Option<String>,
        /// How many at most.
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: usize,
        /// Go on showing what is added, until Ctrl-C.
        #[arg(long, short)]
        follow: bool,
    },
    /// Show who is asked about an operation, in which order, and what was refused there lately.
    Explain {
        /// The path.
        path: String,
        /// The operation.
        op: OpArg,
    },
}

/// [`Mode`], on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ModeArg {
    /// Not called at all.
    Off,
    /// Evaluated beside apply; nothing comes of it.
    Shadow,
    /// Evaluated in apply; what it refuses is logged, and passes.
    Warn,
    /// It decides.
    Enforce,
}

/// [`OpKind`], on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OpArg {
    Create,
    Delete,
    Set,
    SetAcl,
    Check,
    Read,
}

impl Operate {
    /// Does what is asked for, and prints what came of it.
    pub(super) fn run(&self, args: &OperatorArgs, json: bool) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let operator = args.connect("plugins are for operators").await?;
            let done = self.act(&operator, json).await;
            operator.close().await;
            done
        })
    }

    async fn act(&self, operator: &Operator, json: bool) -> anyhow::Result<()> {
        match self {
            Self::Install { file, wait_all, wait } => {
                install::install(operator, file, *wait_all, *wait).await
            }
            Self::List => show::list(operator, json).await,
            Self::Status { name } => show::status(operator, name.as_deref(), json).await,
            Self::Log { name, path, lines, follow } => {
                show::log(operator, (name, path), *lines, *follow, json).await
            }
            Self::Explain { path, op } => show::explain(operator, path, op.kind(), json).await,
            Self::Mode { name, mode } => {
                let (name, mode) = (name.clone(), mode.mode());
                let generation =
                    active(operator, PluginRequest::SetPluginMode { name: name.clone(), mode });
                let generation = generation.await?;
                show::said(&format!("{name}, generation {generation}: {mode}, on all servers"))
            }
            Self::Rollback { name } => {
                let request = PluginRequest::RollbackPlugin { name: name.clone() };
                let generation = active(operator, request).await?;
                show::said(&format!("{name}: back to generation {generation}, on all servers"))
            }
            Self::Remove { name, generation } => {
                let (name, generation) = (name.clone(), *generation);
                let request = PluginRequest::RemovePlugin { name: name.clone(), generation };
                match ask(operator, request).await? {
                    OperatorReply::PluginChanged {} => show::said(&format!("{name} is removed")),
                    other => unexpected(&other),
                }
            }
        }
    }
}

impl ModeArg {
    fn mode(self) -> Mode {
        match self {
            Self::Off => Mode::Off,
            Self::Shadow => Mode::Shadow,
            Self::Warn => Mode::Warn,
            Self::Enforce => Mode::Enforce,
        }
    }
}

impl OpArg {
    fn kind(self) -> OpKind {
        match self {
            Self::Create => OpKind::Create,
            Self::Delete => OpKind::Delete,
            Self::Set => OpKind::Set,
            Self::SetAcl => OpKind::SetAcl,
            Self::Check => OpKind::Check,
            Self::Read => OpKind::Read,
        }
    }
}

/// Asks; what is refused is an error.
async fn ask(operator: &Operator, request: PluginRequest) -> anyhow::Result<OperatorReply> {
    match operator.ask(&OperatorRequest::Plugin { request }).await? {
        OperatorReply::Refused { why } => bail!("{why}"),
        reply => Ok(reply),
    }
}

/// Asks for something after which a generation is active.
async fn active(operator: &Operator, request: PluginRequest) -> anyhow::Result<u64> {
    match ask(operator, request).await? {
        OperatorReply::PluginActive { generation } => Ok(generation),
        other => unexpected(&other),
    }
}

fn unexpected<T>(reply: &OperatorReply) -> anyhow::Result<T> {
    bail!("the server gave another reply than the one asked for: {reply:?}")
}
