//! How a tool asks a running server something as its operator: with the token of the server's data
//! directory, or as the super user.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use proto::{ErrorCode, Reply, Request};
use replica::operator::{self, OperatorReply, OperatorRequest};

use super::config_args::ConfigArgs;
use super::connect_args::ConnectArgs;
use crate::operator_token::OperatorToken;
use crate::remote::{AskError, OpenError, Options, Session};

/// Where a server is, and where its data is.
#[derive(Debug, Args)]
pub(super) struct OperatorArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The server's data directory. Default: that of the configuration, else ./vivarium-data.
    #[arg(global = true, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The server's configuration, which says where its clients connect and where its data is.
    #[arg(global = true, long, value_name = "FILE", conflicts_with = "zoo_cfg")]
    config: Option<PathBuf>,
    /// The same, as a ZooKeeper's file.
    #[arg(global = true, long, value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,
}

/// A server that is asked by its operator.
pub(super) struct Operator {
    session: Session,
    target: String,
    /// What to do for somebody who has not the right.
    ways: String,
}

impl OperatorArgs {
    /// Opens a session with the server. `purpose` says who may do what is to be done.
    pub(super) async fn connect(&self, purpose: &str) -> anyhow::Result<Operator> {
        let (options, data_dir) = self.options()?;
        let mut token = self.token(&options, &data_dir);
        loop {
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
            let opened = open(options.clone(), &ways(purpose, how, &data_dir)).await;
            // A server that was starting has written its token by the time it answers.
            let now = self.token(&options, &data_dir);
            let is_proven = opened.is_ok() && (how.is_none() || !options.auth.is_empty());
            if is_proven || now.is_err() || now == token {
                return opened;
            }
            token = now;
        }
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

fn ways(purpose: &str, no_token: Option<&str>, data_dir: &Path) -> String {
    let looked = no_token.map_or_else(
        || format!("its token was {}", OperatorToken::path(data_dir).display()),
        str::to_owned,
    );
    format!(
        "{purpose}. Either run this as somebody who may read the server's data directory, and name \
         that with --data-dir ({looked}), or authenticate as the super user, for example with \
         --auth digest:super:PASSWORD"
    )
}

async fn open(options: Options, ways: &str) -> anyhow::Result<Operator> {
    let target = options.target.to_string();
    match Session::open(options, Box::new(|_| {})).await {
        Ok(session) => Ok(Operator { session, target, ways: ways.to_owned() }),
        Err(OpenError::Auth(scheme)) if scheme == operator::SCHEME => bail!(
            "{target} does not take the operator's token: it is that of another server, or of an \
             earlier start of this one, or {target} is not a Vivarium; {ways}"
        ),
        Err(error) => Err(error.into()),
    }
}

impl Operator {
    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, request: &OperatorRequest) -> anyhow::Result<OperatorReply> {
        let (name, body) = request.encode();
        let (answer, target) = (Request::Operator { name, body: body.into() }, &self.target);
        match self.session.ask(answer).await {
            Ok(Reply::Operator(bytes)) => Ok(OperatorReply::decode(&bytes)?),
            Ok(other) => bail!("{target} gave another reply than the one asked for: {other:?}"),
            Err(error) if error.is(ErrorCode::NoAuth) => bail!("{target} refuses: {}", self.ways),
            Err(error) if error.is(ErrorCode::Unimplemented) => {
                bail!("{target} has no operators' requests: it is not a Vivarium, or an older one")
            }
            Err(error @ (AskError::Code(_) | AskError::Lost(_) | AskError::NotConnected)) => {
                Err(error).with_context(|| format!("{target} did not answer"))
            }
        }
    }

    /// Ends the session.
    pub(super) async fn close(self) {
        self.session.close().await;
    }
}
