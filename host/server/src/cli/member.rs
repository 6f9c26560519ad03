//! `vivarium member`: shows the servers of an ensemble, and changes which ones take part.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};
use proto::Address;
use replica::operator::{OperatorReply, OperatorRequest};
use replica::roster::{Listed, Standing};

use super::operator_args::{Operator, OperatorArgs};
use crate::roster::{MemberChange, Roster};

/// How often it is looked whether the servers are what they are to be.
const LOOK: Duration = Duration::from_millis(100);

/// Examples that `--help` ends with.
pub(super) const EXAMPLES: &str = "\
A server that is added starts with an empty data directory and a configuration that names itself and
those that are there ([[ensemble.servers]]); it waits until it is added, gets the data, and votes when
it has it. One that is removed serves nobody any more, and can be stopped once this command has ended.
A change that would leave no majority within reach is refused.

Who may: whoever may read the server's data directory (its operator.token), or whoever authenticates as
the super user with --auth. Clients may do the same with reconfig, if ensemble.reconfig-enabled is on
and the ACL of /zookeeper/config lets them.

Examples:
  vivarium member list
  vivarium member add 4 --peer zoo4:2888 --client zoo4:2181
  vivarium member add 5 --peer zoo5:2888 --client zoo5:2181 --observer
  vivarium member promote 5
  vivarium member remove 1 2";

/// Flags of `member`.
#[derive(Debug, Args)]
pub(super) struct MemberArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait until the servers are what they are to be, in seconds; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    wait: u64,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Show all servers. The default.
    List,
    /// Let a server take part, or say that it is found elsewhere.
    Add {
        /// Its `server-id`.
        #[arg(value_parser = clap::value_parser!(u32).range(0..=254))]
        id: u32,
        /// Where the other servers reach it; several times if it has several networks.
        #[arg(long, required = true, value_name = "HOST:PORT")]
        peer: Vec<Address>,
        /// Where clients reach it.
        #[arg(long, value_name = "HOST:PORT")]
        client: Address,
        /// It gets the data and serves clients, and does not vote.
        #[arg(long)]
        observer: bool,
    },
    /// Servers take part no more, all at once.
    Remove {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<u32>,
    },
    /// An observer is to vote.
    Promote {
        /// Its id.
        id: u32,
    },
    /// A server is to vote no more, and goes on as an observer.
    Demote {
        /// Its id.
        id: u32,
    },
}

impl MemberArgs {
    /// Asks the server, prints its answer, and waits until the servers are what they are to be.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let operator = self.operator.connect("servers are changed by operators").await?;
            let done = self.act(&operator).await;
            operator.close().await;
            done
        })
    }

    async fn act(&self, operator: &Operator) -> anyhow::Result<()> {
        let roster = look(operator).await?;
        let change = match self.action.clone().unwrap_or(Action::List) {
            Action::List => return self.print(&roster),
            Action::Add { id, peer, client, observer } => {
                MemberChange::Add { id, peer, client, observer }
            }
            Action::Remove { ids } => MemberChange::Remove { ids },
            Action::Promote { id } => MemberChange::Promote { id },
            Action::Demote { id } => MemberChange::Demote { id },
        };
        match operator.ask(&roster.request(&change)?).await? {
            OperatorReply::MembersChanged { .. } => self.wait(operator).await,
            OperatorReply::Refused { why } => bail!("{why}"),
            other => bail!("the server gave another reply than the one asked for: {other:?}"),
        }
    }

    /// Waits until all are what they are to be, and says what is waited for.
    async fn wait(&self, operator: &Operator) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(self.wait);
        let mut told: BTreeMap<u32, Standing> = BTreeMap::new();
        loop {
            let roster = look(operator).await?;
            for Listed { id, part, .. } in &roster.servers {
                if told.insert(*id, *part) != Some(*part) && !part.is_settled() {
                    writeln!(std::io::stderr(), "server {id} {}", part.text())?;
                }
            }
            if roster.is_settled() || self.wait == 0 {
                return self.print(&roster);
            }
            if Instant::now() > deadline {
                self.print(&roster)?;
                bail!(
                    "the change holds, but after {} s not all servers are what they are to be; they \
                     go on towards it (see `vivarium member list`)",
                    self.wait
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn print(&self, roster: &Roster) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let Roster { version, servers, leaving } = roster;
        if self.json {
            let (version, servers, leaving) = (*version, servers.clone(), *leaving);
            let reply = OperatorReply::Members { version, servers, leaving };
            writeln!(out, "{}", String::from_utf8_lossy(&reply.encode()))?;
            return Ok(());
        }
        for Listed { id, spec, part } in servers {
            writeln!(out, "server.{id}={spec}  {}", part.text())?;
        }
        if *leaving > 0 {
            writeln!(out, "{leaving} removed, and counted still")?;
        }
        writeln!(out, "version={version:x}")?;
        Ok(())
    }
}

async fn look(operator: &Operator) -> anyhow::Result<Roster> {
    Roster::of(operator.ask(&OperatorRequest::ShowMembers {}).await?)
}
