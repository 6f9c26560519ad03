//! `vivarium settings`: shows and changes what the cluster has agreed on.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use proto::{ErrorCode, Reply, Request};
use replica::operator::{self, OperatorReply, OperatorRequest};

use super::config_args::ConfigArgs;
use super::connect_args::ConnectArgs;
use crate::operator_token::OperatorToken;
use crate::remote::{AskError, OpenError, Options, Session};

/// Examples that `--help` ends with.
pub(super) const EXAMPLES: &str = "\
Settings:
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
    connect: ConnectArgs,
    /// The server's data directory. Default: that of the configuration, else ./vivarium-data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The server's configuration, which says where its clients connect and where its data is.
    #[arg(long, value_name = "FILE", conflicts_with = "zoo_cfg")]
    config: Option<PathBuf>,
    /// The same, as a ZooKeeper's file.
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,
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
        let (options, data_dir) = self.options()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut token = self.token(&options, &data_dir);
        let reply = loop {
            let (mut options, mut how) = (options.clone(), None);
            match &token {
                _ if !options.auth.is_empty() => {
                    how = Some("not looked for, because --auth is given");
                }
                Ok(token) => {
                    options.auth.push((operator::SCHEME.to_owned(), token.clone().into_bytes()));
                }
                Err(why) => how = Some(why),
            }
            let reply = runtime.block_on(ask(options.clone(), &request, how, &data_dir));
            // A server that was starting has written its token by the time it answers.
            let now = self.token(&options, &data_dir);
            if reply.is_ok() || now.is_err() || now == token {
                break reply?;
            }
            token = now;
        };
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

    /// How to reach the server, and where its data is.
    fn options(&self) -> anyhow::Result<(Options, PathBuf)> {
        let data_dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let told = ConfigArgs::new(self.config.clone(), self.zoo_cfg.clone(), data_dir);
        let (config, _) = told.load()?;
        let client = config.listen.client.map(|address| address.to_string());
        let options = self.connect.options(client.as_deref().unwrap_or("127.0.0.1:2181"))?;
        Ok((options, config.data_dir))
    }

    /// The token to show, or why there is none to show.
    fn token(&self, options: &Options, data_dir: &Path) -> Result<String, String> {
        let told = self.data_dir.is_some() || self.config.is_some() || self.zoo_cfg.is_some();
        // A token that nobody pointed at goes no further than this machine.
        if !told && !options.target.servers.iter().all(|server| is_local(server)) {
            return Err("the server is not on this machine, as far as its address tells".to_owned());
        }
        let path = OperatorToken::path(data_dir);
        OperatorToken::read(data_dir).map_err(|error| format!("{}: {error}", path.display()))
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
        }
        Ok(())
    }
}

fn is_local(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => host.parse::<IpAddr>().ok(),
    };
    address.is_some_and(|address| address.to_canonical().is_loopback())
}

async fn ask(
    options: Options,
    request: &OperatorRequest,
    no_token: Option<&str>,
    data_dir: &Path,
) -> anyhow::Result<OperatorReply> {
    let target = options.target.to_string();
    let ways = || {
        let looked = no_token.map_or_else(
            || format!("its token was {}", OperatorToken::path(data_dir).display()),
            str::to_owned,
        );
        format!(
            "settings are for operators. Either run this as somebody who may read the server's data \
             directory, and name that with --data-dir ({looked}), or authenticate as the super \
             user, for example with --auth digest:super:PASSWORD"
        )
    };
    let session = match Session::open(options, Box::new(|_| {})).await {
        Ok(session) => session,
        Err(OpenError::Auth(scheme)) if scheme == operator::SCHEME => bail!(
            "{target} does not take the operator's token: it is that of another server, or of an \
             earlier start of this one, or {target} is not a Vivarium; {}",
            ways()
        ),
        Err(error) => return Err(error.into()),
    };
    let (name, body) = request.encode();
    let answer = session.ask(Request::Operator { name, body: body.into() }).await;
    session.close().await;
    match answer {
        Ok(Reply::Operator(json)) => Ok(OperatorReply::decode(&json)?),
        Ok(other) => bail!("{target} gave another reply than the one asked for: {other:?}"),
        Err(error) if error.is(ErrorCode::NoAuth) => bail!("{target} refuses: {}", ways()),
        Err(error) if error.is(ErrorCode::Unimplemented) => {
            bail!("{target} has no operators' requests: it is not a Vivarium, or an older one")
        }
        Err(error @ (AskError::Code(_) | AskError::Lost(_) | AskError::NotConnected)) => {
            Err(error).with_context(|| format!("{target} did not answer"))
        }
    }
}
