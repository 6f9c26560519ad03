//! How a tool reaches a server: the flags that `shell` and those for operators share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::remote::{Options, Target, TlsFiles, tls_connector};

/// Where a server is, and who asks.
#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// The servers, tried in turn, and optionally a path that all paths are below.
    #[arg(global = true, long, value_name = "HOST:PORT[,...][/PATH]")]
    pub(super) server: Option<String>,
    /// Credentials, such as digest:alice:secret. Repeatable. Other users of this machine can see a
    /// command line: prefer --auth-file.
    #[arg(global = true, long = "auth", value_name = "SCHEME:CREDENTIALS")]
    auth: Vec<String>,
    /// A file of credentials, one SCHEME:CREDENTIALS a line.
    #[arg(global = true, long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// The session timeout to ask for, such as 30s or 5000 (milliseconds); a server that does not
    /// serve yet is waited for as long.
    #[arg(global = true, long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    timeout: Duration,
    /// Speak TLS, to a server's `listen.client-tls`.
    #[arg(global = true, long, requires = "tls_ca")]
    tls: bool,
    /// The authorities that the server's certificate must come from, PEM.
    #[arg(global = true, long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,
    /// The certificate to show to the server, PEM.
    #[arg(global = true, long, value_name = "FILE", requires_all = ["tls", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(global = true, long, value_name = "FILE", requires_all = ["tls", "tls_cert"])]
    tls_key: Option<PathBuf>,
}

impl ConnectArgs {
    /// What a session is opened with; `default` is the server where none is named.
    pub(super) fn options(&self, default: &str) -> anyhow::Result<Options> {
        let server = self.server.as_deref().unwrap_or(default);
        let target = Target::parse(server).map_err(anyhow::Error::msg).context("--server")?;
        let mut auth = Vec::new();
        for text in &self.auth {
            auth.push(credentials(text).with_context(|| {
                // What was given may be a secret: it is not repeated.
                "--auth expects SCHEME:CREDENTIALS, such as digest:alice:secret; got text without \
                 a colon"
            })?);
        }
        if let Some(file) = &self.auth_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("--auth-file {} cannot be read", file.display()))?;
            let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
            for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
                auth.push(credentials(line).with_context(|| {
                    format!("{}:{at}: expected SCHEME:CREDENTIALS", file.display())
                })?);
            }
        }
        let tls = match (self.tls, &self.tls_ca) {
            (false, _) => None,
            (true, None) => bail!("--tls needs --tls-ca FILE, the authorities to trust"),
            (true, Some(ca)) => {
                let identity = self.tls_cert.clone().zip(self.tls_key.clone());
                Some(tls_connector(&TlsFiles { ca: ca.clone(), identity })?)
            }
        };
        let (timeout, read_only, reconnect) = (self.timeout, false, false);
        Ok(Options { target, timeout, read_only, auth, tls, reconnect })
    }
}

fn credentials(text: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, secret) = text.split_once(':')?;
    (!scheme.is_empty()).then(|| (scheme.to_owned(), secret.as_bytes().to_vec()))
}

/// A duration as people write it: a number of milliseconds, or one with a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as 30s, 2m or 5000 (ms), got {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(unit_ms).filter(|ms| (1..=86_400_000).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1500"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "s", "0", "1h", "-1s", "99999999999999999999"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
