//! The directory of a local ensemble: `server1.toml`, `server1/` for its data, and so on.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::LocalEnsembleArgs;
use crate::config::{Config, Overrides};

const SERVERS: u8 = 3;
const CLIENT_PORT: u16 = 2181;
/// What is added to a server's port for clients to get that for the other servers.
const PEER_PORT_DISTANCE: u16 = 100;

/// One server, as its configuration has it.
pub(super) struct Member {
    pub(super) id: u8,
    pub(super) config: PathBuf,
    pub(super) data: PathBuf,
    /// Where its clients connect.
    pub(super) client: String,
}

/// Writes the configuration of every server, unless it is there already, and reads it.
///
/// # Errors
/// If the flags contradict what is there, or a file cannot be written or read.
pub(super) fn lay_out(args: &LocalEnsembleArgs) -> anyhow::Result<Vec<Member>> {
    let dir = std::path::absolute(&args.dir)?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if config(&dir, 1).exists() {
        anyhow::ensure!(
            args.servers.is_none() && args.client_port.is_none(),
            "{} has an ensemble already, whose files say how many servers there are and where they \
             listen: leave --servers and --client-port out, or give another --dir",
            dir.display()
        );
    } else {
        let (servers, port) =
            (args.servers.unwrap_or(SERVERS), args.client_port.unwrap_or(CLIENT_PORT));
        for id in 1..=servers {
            let path = config(&dir, id);
            std::fs::write(&path, text(&dir, id, servers, port))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    (1..).take_while(|id| config(&dir, *id).exists()).map(|id| read(&dir, id)).collect()
}

fn config(dir: &Path, id: u8) -> PathBuf {
    dir.join(format!("server{id}.toml"))
}

fn text(dir: &Path, id: u8, servers: u8, first_port: u16) -> String {
    let client = |id: u8| first_port + u16::from(id - 1);
    let data = toml::Value::from(dir.join(format!("server{id}")).display().to_string());
    let mut text = format!(
        "# Written by `vivarium local-ensemble`. Every key is explained in config/single.toml.\n\
         server-id = {id}\ndata-dir = {data}\n\n[listen]\nclient = \"127.0.0.1:{}\"\n",
        client(id)
    );
    for id in 1..=servers {
        let (client, peer) = (client(id), client(id) + PEER_PORT_DISTANCE);
        text += &format!(
            "\n[[ensemble.servers]]\nid = {id}\npeer = [\"127.0.0.1:{peer}\"]\n\
             client = \"127.0.0.1:{client}\"\n"
        );
    }
    text
}

fn read(dir: &Path, id: u8) -> anyhow::Result<Member> {
    let path = config(dir, id);
    let read = Config::load(Some(&path), std::iter::empty(), &Overrides::default())?;
    let client = read.listen.client.as_ref();
    let client = client.with_context(|| format!("{}: expected `listen.client`", path.display()))?;
    Ok(Member { id, client: client.to_string(), data: read.data_dir, config: path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path, servers: Option<u8>) -> LocalEnsembleArgs {
        LocalEnsembleArgs { servers, dir: dir.to_owned(), client_port: None, set: vec![] }
    }

    #[test]
    fn what_is_there_is_used_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let members = lay_out(&args(dir.path(), Some(5))).expect("it can be written");
        let clients: Vec<_> = members.iter().map(|member| member.client.as_str()).collect();
        let expected = ["2181", "2182", "2183", "2184", "2185"].map(|p| format!("127.0.0.1:{p}"));
        assert_eq!(clients, expected);
        assert_eq!(members[4].data, dir.path().join("server5"));
        let again = lay_out(&args(dir.path(), None)).expect("it can be read");
        assert_eq!(again.len(), 5);
        let error = lay_out(&args(dir.path(), Some(3))).err().expect("it is another one");
        assert!(error.to_string().contains("has an ensemble already"), "{error}");
    }
}
