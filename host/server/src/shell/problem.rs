//! Why a command of the shell failed, in words that say what to do.

use proto::ErrorCode;

use super::text;
use crate::remote::{AskError, OpenError, name_of};

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Problem {
    /// Something to tell.
    Told(String),
    /// The server's answer, and about which path.
    Server(AskError, String),
    /// The output is closed: nothing can be told, and nobody wants to know.
    Output(std::io::Error),
}

impl From<String> for Problem {
    fn from(told: String) -> Self {
        Self::Told(told)
    }
}

impl From<&str> for Problem {
    fn from(told: &str) -> Self {
        Self::Told(told.to_owned())
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        Self::Told(error.to_string())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told(told) => f.write_str(told),
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::Server(AskError::Code(code), path) => {
                f.write_str(&answer(*code, &text::line(path)))
            }
            Self::Server(error, path) if path.is_empty() => write!(f, "{error}"),
            Self::Server(error @ AskError::Lost(_), path) => {
                write!(f, "{error}; whether {} was changed is not known", text::line(path))
            }
            Self::Server(error, _) => write!(f, "{error}"),
        }
    }
}

/// The words of zkCli, where it has some.
fn answer(code: i32, path: &str) -> String {
    match ErrorCode::from_i32(code) {
        Some(ErrorCode::NoNode) => format!("Node does not exist: {path}"),
        Some(ErrorCode::NodeExists) => format!("Node already exists: {path}"),
        Some(ErrorCode::NotEmpty) => {
            format!("Node not empty: {path} (deleteall deletes all below)")
        }
        Some(ErrorCode::BadVersion) => format!("version No is not valid : {path}"),
        Some(ErrorCode::NoAuth) => format!(
            "Insufficient permission : {path} (addauth or --auth proves who you are; getAcl shows \
             who may)"
        ),
        Some(ErrorCode::NoChildrenForEphemerals) => {
            format!("Ephemerals cannot have children: {path}")
        }
        Some(ErrorCode::InvalidAcl) => format!(
            "Acl is not valid : {path} (expected SCHEME:ID:PERMISSIONS, and with auth:: an \
             authenticated session)"
        ),
        Some(ErrorCode::QuotaExceeded) => format!("Quota has exceeded : {path}"),
        Some(ErrorCode::NoWatcher) => format!("KeeperErrorCode = No such watcher for {path}"),
        Some(ErrorCode::NotReadOnly) => {
            "the server is read-only: it has no leader, and takes no changes".to_owned()
        }
        Some(ErrorCode::AuthFailed) => "the credentials were refused; the session has ended".into(),
        Some(ErrorCode::ReconfigDisabled) => "KeeperErrorCode = Reconfig is disabled".to_owned(),
        Some(ErrorCode::BadArguments) => format!("Arguments are not valid : {path}"),
        _ if path.is_empty() => format!("KeeperErrorCode = {}", name_of(code)),
        _ => format!("KeeperErrorCode = {} for {path}", name_of(code)),
    }
}
