//! `vivarium settings`: shows and changes what the cluster has agreed on.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use replica::operator::{OperatorReply, OperatorRequest};

use super::operator_args::OperatorArgs;

/// Examples that `--help` ends with.
pub(super) const EXAMPLES: &str = "\
Settings:
  apply-version  how entries are applied: raise it when all servers run a newer program, and it is
                 offered what the older one did not know; it never goes back
  ttl-nodes      whether znodes with a time to live may be created: true or false
  enforce-quota  whether hard quotas refuse writes: true or false
  skip-acl       whether no ACL is checked at all: true or false
  super-digest   who passes every ACL: user:base64(hash(user:password)), or none

They are the same on every server, and part of the replicated state: the configuration only seeds
them when a cluster is founded. A change holds from one log index on, and after a restart.

Who may: whoever may read the server's data directory (its operator.token, another one after each
start), or whoever authenticates as the super user with --auth.

Examples:
  On the server's own machine, in the directory it was started in:
    vivarium settings
    vivarium settings set enforce-quota=true ttl-nodes=false
  With the data directory elsewhere:
    vivarium settings --data-dir /var/lib/vivarium show
  From another machine:
    vivarium settings --server zoo1:2181 --auth-file super.auth show
  The digest of a password (for auth.digest-alg SHA-1):
    printf super:PASSWORD | openssl dgst -sha1 -binary | base64";

/// Flags of `settings`.
#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all settings. The default.
    Show,
    /// Change settings, all of those named or none.
    Set {
        /// A setting and its new value.
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
}

impl SettingsArgs {
    /// Asks the server and prints its answer.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let request = self.request()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reply = runtime.block_on(async {
            let operator = self.operator.connect("settings are for operators").await?;
            let reply = operator.ask(&request).await;
            operator.close().await;
            reply
        })?;
        self.print(&reply)
    }

    fn request(&self) -> anyhow::Result<OperatorRequest> {
        let Some(Action::Set { pairs }) = &self.action else {
            return Ok(OperatorRequest::ShowSettings {});
        };
        let mut set = BTreeMap::new();
        for pair in pairs {
            let (key, value) = pair.split_once('=').with_context(|| {
                format!("expected KEY=VALUE, got {pair:?}; for example: set skip-acl=false")
            })?;
            if set.insert(key.to_owned(), value.to_owned()).is_some() {
                bail!("{key} is given twice; give each setting once");
            }
        }
        Ok(OperatorRequest::ChangeSettings { set })
    }

    fn print(&self, reply: &OperatorReply) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", String::from_utf8_lossy(&reply.encode()))?;
        }
        match reply {
            OperatorReply::Refused { why } => bail!("{why}"),
            _ if self.json => {}
            OperatorReply::Settings { settings } => {
                for (name, value) in settings {
                    writeln!(out, "{name} = {value}")?;
                }
            }
            OperatorReply::SettingsChanged { before, after } => {
                for (name, value) in after {
                    let old = before.get(name).map_or("none", String::as_str);
                    if old == value {
                        writeln!(out, "{name} = {value}")?;
                    } else {
                        writeln!(out, "{name} = {value} (was {old})")?;
                    }
                }
            }
            other => bail!("the server gave another reply than the one asked for: {other:?}"),
        }
        Ok(())
    }
}
