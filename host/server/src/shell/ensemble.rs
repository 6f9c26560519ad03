//! config, reconfig, sync.

use proto::{Reply, Request};

use super::command::{Command, Done, strange};
use super::problem::Problem;
use super::text;
use super::words::Words;

/// Where an ensemble's members stand. It is outside of any chroot.
const CONFIG: &str = "/zookeeper/config";

pub(super) async fn config(cx: &mut Command<'_>, words: &Words) -> Done {
    let watch = words.has("-w");
    let (data, stat) =
        match cx.ask(CONFIG, Request::GetData { path: CONFIG.to_owned(), watch }).await? {
            Reply::Data(data, stat) => (data.unwrap_or_default(), stat),
            other => return Err(strange(&other)),
        };
    let shown = text::data(&data);
    match words.has("-c") {
        true => writeln!(cx.out, "{}", for_clients(&shown))?,
        false => writeln!(cx.out, "{shown}")?,
    }
    if words.has("-s") {
        text::stat(cx.out, &stat)?;
    }
    if watch {
        cx.warn_of_watch();
    }
    Ok(())
}

/// The version and the client addresses: `VERSION HOST:PORT,HOST:PORT`.
fn for_clients(config: &str) -> String {
    let mut version = "";
    let mut clients = Vec::new();
    for line in config.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key.trim() {
            "version" => version = value.trim(),
            key if key.starts_with("server.") => {
                let client = value.split_once(';').map_or("", |(_, client)| client.trim());
                let host = value.split(':').next().unwrap_or_default();
                if client.is_empty() {
                    continue;
                }
                // Clients know a wildcard, or a port alone, by the server's own name.
                clients.push(match client.rsplit_once(':') {
                    None => format!("{host}:{client}"),
                    Some(("0.0.0.0" | "[::]", port)) => format!("{host}:{port}"),
                    Some(_) => client.to_owned(),
                });
            }
            _ => {}
        }
    }
    format!("{version} {}", clients.join(","))
}

pub(super) async fn reconfig(cx: &mut Command<'_>, words: &Words) -> Done {
    let (joining, leaving) = (words.values("-add").join(","), words.values("-remove").join(","));
    let new_members = match (words.value("-members"), words.value("-file")) {
        (Some(_), Some(_)) => return Err("expected -members or -file, got both".into()),
        (Some(members), None) => members.to_owned(),
        (None, Some(file)) => members_of(file)?,
        (None, None) => String::new(),
    };
    let incremental = !joining.is_empty() || !leaving.is_empty();
    if incremental != new_members.is_empty() {
        let expected = "expected either -add and -remove, or -members or -file";
        return Err(format!("{expected}; `help reconfig` shows them").into());
    }
    let config_id = match words.value("-v") {
        None => -1,
        Some(hex) => i64::from_str_radix(hex.trim_start_matches("0x"), 16)
            .map_err(|_| format!("-v: expected a hexadecimal number, got {}", text::line(hex)))?,
    };
    let request = Request::Reconfig { joining, leaving, new_members, config_id };
    match cx.ask("", request).await? {
        Reply::Data(data, stat) => {
            let shown = text::data(&data.unwrap_or_default());
            writeln!(cx.out, "Committed new configuration:\n{shown}")?;
            if words.has("-s") {
                text::stat(cx.out, &stat)?;
            }
            Ok(())
        }
        other => Err(strange(&other)),
    }
}

/// The `server.N` lines of a file, as one line.
fn members_of(file: &str) -> Result<String, Problem> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("-file {file}: {error}"))?;
    let members = text.lines().map(str::trim).filter(|line| line.starts_with("server."));
    Ok(members.collect::<Vec<_>>().join(","))
}

pub(super) async fn sync(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    cx.ask(&path, Request::Sync { path: path.clone() }).await?;
    Ok(writeln!(cx.out, "Sync is OK")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_need_of_a_configuration() {
        let config = "server.1=a:2888:3888:participant;0.0.0.0:2181\n\
                      server.2=b:2888:3888;2182\nserver.3=c:1:2;d:2183\nversion=100000000";
        assert_eq!(for_clients(config), "100000000 a:2181,b:2182,d:2183");
        assert_eq!(for_clients(""), " ");
    }
}
