//! What applying commands did: answers for clients, and changes for watches.

use std::sync::Arc;

use proto::{Acl, ErrorCode, Reply};

use crate::command::Settings;

/// What one command did. The same on every replica.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Which server the command came from, and under which boot.
    pub origin: (u32, u64),
    /// Its number there.
    pub sequence: u64,
    /// The zxid that it took.
    pub zxid: i64,
    /// What its client is told.
    pub answer: Answer,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// What a command's sender is told. An error is a result, not a failure.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A write's reply.
    Reply(Result<Reply, ErrorCode>),
    /// A session was made or attached.
    Attached {
        /// Its timeout.
        timeout_ms: i32,
        /// The attach generation that its commands must carry.
        generation: u32,
    },
    /// The session does not exist, or the password is wrong.
    NoSession,
    /// It had no effect: out of order, or of an earlier boot.
    Skipped,
    /// A close that deletes more ephemerals than fit an entry goes on.
    Closing {
        /// Which session.
        session: i64,
    },
    /// Settings were changed.
    Settings {
        /// All of them as they were.
        before: Settings,
        /// All of them as they are.
        after: Settings,
    },
    /// The apply version cannot be changed to what was asked for, nor anything else with it.
    VersionRefused {
        /// What it is.
        now: u32,
        /// The newest that all voters know, 0 if that is not known of one of them.
        supported: u32,
    },
    /// A plugin's command was carried out; or why not, what was expected, and what to do, in words.
    Plugin(Result<PluginDone, String>),
    /// Settings cannot be changed to what was asked for: why, in words. Nothing was changed.
    SettingsRefused(String),
    /// Done.
    Done,
}

/// What a plugin's command has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginDone {
    /// So much of the module is here, in bytes.
    Received(u64),
    /// This generation is staged; or it was proposed before, and was left.
    Staged(Option<u64>),
    /// This generation is called.
    Active(u64),
    /// A step was done; whether there are more.
    Stepped(bool),
    /// There is nothing more to say.
    Done,
}

/// One change of the tree or of the sessions, with what watches need to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A znode was created.
    Created {
        /// Where.
        path: Arc<str>,
        /// Its ACL.
        acl: Arc<[Acl]>,
        /// Its parent's ACL.
        parent_acl: Arc<[Acl]>,
    },
    /// A znode was deleted.
    Deleted {
        /// Where.
        path: Arc<str>,
        /// Its ACL.
        acl: Arc<[Acl]>,
        /// Its parent's ACL.
        parent_acl: Arc<[Acl]>,
    },
    /// A znode's data was set.
    DataSet {
        /// Where.
        path: Arc<str>,
        /// Its ACL.
        acl: Arc<[Acl]>,
    },
    /// A session got a new connection; the old one is to be closed.
    SessionAttached {
        /// Which session.
        session: i64,
        /// Its timeout.
        timeout_ms: i32,
        /// Its attach generation.
        generation: u32,
    },
    /// A session was fenced: it takes no more commands. Its ephemerals may go on dying.
    SessionClosing {
        /// Which session.
        session: i64,
    },
    /// A session and all its ephemerals are gone.
    SessionClosed {
        /// Which session.
        session: i64,
    },
}
