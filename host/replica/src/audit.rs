//! What an audit log is told: each write of this server's clients and each change of its operators with
//! what came of it, and the ephemerals that go with a session.
//!
//! The record of a write travels with its slot, so that it is told when its command is applied, also
//! where the client is gone by then. Where nobody listens ([`Published::audit`]) nothing is made.
//!
//! Invariants:
//! * Each write is told of once: with its outcome, or, when its slot is dropped before, without.
//!
//! [`Published::audit`]: crate::Published::audit

use std::net::IpAddr;
use std::sync::Arc;

use proto::{CreateMode, ErrorCode, Id, MultiResult, Reply};
use state::command::{CreateKind, PluginCommand};
use state::{Answer, Command, Op};

/// Takes what is told. It is called under the publish lock: it must not block, nor take long.
pub trait Audit: Send + Sync {
    /// A write of a client of this server has this outcome.
    fn write(&self, write: AuditedWrite, outcome: AuditOutcome);

    /// An ephemeral was deleted because its session ended.
    fn ephemeral_deleted(&self, session: i64, path: &str);
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused(ErrorCode),
    /// That is not known here: the server gave up before it was.
    Unknown,
}

/// A client's write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedWrite {
    /// Its session.
    pub session: i64,
    /// Who the client is.
    pub identities: Arc<Vec<Id>>,
    /// Where it comes from.
    pub remote: IpAddr,
    /// The zxid that it took; 0 if it took none, or that is not known here.
    pub zxid: i64,
    /// Whether it is a multi: one that fails has no parts of its own.
    pub is_multi: bool,
    /// Its operations, all but checks.
    pub parts: Vec<AuditedOp>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedOp {
    /// ZooKeeper's name of it, in an audit log.
    pub operation: &'static str,
    /// Which znode; of one that is made, its whole name once that is known.
    pub path: Option<String>,
    /// Of what kind a znode is that is made.
    pub mode: Option<CreateMode>,
    /// The new ACL: permissions, scheme, id.
    pub acl: Option<Vec<(i32, String, String)>>,
    /// Which binding, of what an operator does to one.
    pub binding: Option<String>,
}

impl AuditedOp {
    /// An operation of which nothing more is known.
    pub fn named(operation: &'static str) -> Self {
        Self { operation, path: None, mode: None, acl: None, binding: None }
    }

    /// What an operator does.
    fn of_operator(command: &Command) -> Self {
        match command {
            Command::ChangeSettings(_) => Self::named("changeSettings"),
            Command::Reconfig(_) => Self::named("reconfig"),
            Command::Plugin(command) => {
                let (operation, binding) = match command {
                    PluginCommand::Upload { .. } => ("uploadModule", None),
                    PluginCommand::Stage { binding, .. } => ("stagePlugin", Some(&binding.name)),
                    PluginCommand::Activate { name, .. } => ("activatePlugin", Some(name)),
                    PluginCommand::SetMode { name, .. } => ("setPluginMode", Some(name)),
                    PluginCommand::Rollback { name } => ("rollbackPlugin", Some(name)),
                    PluginCommand::Remove { name, .. } => ("removePlugin", Some(name)),
                    // The servers' own.
                    PluginCommand::Report { name, .. } => ("reportPlugin", Some(name)),
                    PluginCommand::Step => ("stepPlugins", None),
                };
                Self { binding: binding.cloned(), ..Self::named(operation) }
            }
            _ => Self::named("operator"),
        }
    }

    fn of(op: &Op) -> Option<Self> {
        let without = Self::named;
        let on = |operation, path: &String| Self { path: Some(path.clone()), ..without(operation) };
        Some(match op {
            Op::Create { kind, path, flags, .. } => {
                let mode = match kind {
                    CreateKind::Container => Some(CreateMode::Container),
                    CreateKind::Create | CreateKind::Create2 | CreateKind::Ttl => {
                        CreateMode::from_flags(*flags)
                    }
                };
                Self { mode, ..on("create", path) }
            }
            Op::Delete { path, .. } => on("delete", path),
            Op::SetData { path, .. } => on("setData", path),
            Op::SetAcl { path, acl, .. } => Self { acl: Some(acl.clone()), ..on("setAcl", path) },
            Op::Reconfig(_) => without("reconfig"),
            Op::Multi(_) => without("multiOperation"),
            Op::Check { .. } | Op::Refused(_) => return None,
        })
    }
}

/// The record of a write that is under way.
pub(crate) struct Audited {
    audit: Arc<dyn Audit>,
    write: Option<AuditedWrite>,
}

impl Audited {
    /// A record of a write; none if there is nothing to tell of it.
    pub(crate) fn of(
        audit: &Arc<dyn Audit>,
        op: &Op,
        session: i64,
        identities: &Arc<Vec<Id>>,
        remote: IpAddr,
    ) -> Option<Box<Self>> {
        let (is_multi, parts) = match op {
            Op::Multi(ops) => (true, ops.iter().filter_map(AuditedOp::of).collect()),
            op => (false, vec![AuditedOp::of(op)?]),
        };
        let who = (session, Arc::clone(identities), remote);
        Some(Self::begin(audit, who, is_multi, parts))
    }

    /// A record of an operator's change; one that comes over no session has the number 0.
    pub(crate) fn of_operator(
        audit: &Arc<dyn Audit>,
        command: &Command,
        session: i64,
        identities: &Arc<Vec<Id>>,
        remote: IpAddr,
    ) -> Box<Self> {
        let part = AuditedOp::of_operator(command);
        Self::begin(audit, (session, Arc::clone(identities), remote), false, vec![part])
    }

    fn begin(
        audit: &Arc<dyn Audit>,
        (session, identities, remote): (i64, Arc<Vec<Id>>, IpAddr),
        is_multi: bool,
        parts: Vec<AuditedOp>,
    ) -> Box<Self> {
        let write = AuditedWrite { session, identities, remote, zxid: 0, is_multi, parts };
        Box::new(Self { audit: Arc::clone(audit), write: Some(write) })
    }

    /// Tells what came of an operator's change.
    pub(crate) fn operated(mut self, zxid: i64, answer: &Answer) {
        let Some(mut write) = self.write.take() else { return };
        write.zxid = zxid;
        let outcome = match answer {
            Answer::Settings { .. }
            | Answer::Reply(Ok(_))
            | Answer::Plugin(Ok(_))
            | Answer::Done => AuditOutcome::Done,
            Answer::Reply(Err(code)) => AuditOutcome::Refused(*code),
            Answer::VersionRefused { .. } | Answer::SettingsRefused(_) | Answer::Plugin(Err(_)) => {
                AuditOutcome::Refused(ErrorCode::BadArguments)
            }
            _ => AuditOutcome::Unknown,
        };
        self.audit.write(write, outcome);
    }

    /// Tells what came of a write.
    pub(crate) fn done(mut self, zxid: i64, result: &Result<Reply, ErrorCode>) {
        let Some(mut write) = self.write.take() else { return };
        write.zxid = zxid;
        let made: Vec<&String> = match result {
            Ok(Reply::Path(path) | Reply::PathStat(path, _)) => vec![path],
            Ok(Reply::Multi(results)) => results.iter().filter_map(created).collect(),
            Ok(_) | Err(_) => Vec::new(),
        };
        let creates = write.parts.iter_mut().filter(|part| part.operation == "create");
        for (part, path) in creates.zip(made) {
            part.path = Some(path.clone());
        }
        let outcome = match result {
            Err(code) => AuditOutcome::Refused(*code),
            Ok(Reply::Multi(results)) => {
                results.iter().find_map(refused).map_or(AuditOutcome::Done, AuditOutcome::Refused)
            }
            Ok(_) => AuditOutcome::Done,
        };
        self.audit.write(write, outcome);
    }
}

fn created(result: &MultiResult) -> Option<&String> {
    match result {
        MultiResult::Create(path) | MultiResult::Create2(path, _) => Some(path),
        MultiResult::Delete | MultiResult::SetData(_) | MultiResult::Check => None,
        MultiResult::Error(_) => None,
    }
}

/// The error of the operation for which a multi failed.
fn refused(result: &MultiResult) -> Option<ErrorCode> {
    match result {
        MultiResult::Error(0) => None,
        MultiResult::Error(code) => ErrorCode::from_i32(*code),
        _ => None,
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            self.audit.write(write, AuditOutcome::Unknown);
        }
    }
}

impl std::fmt::Debug for Audited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Audited({:?})", self.write)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<(AuditedWrite, AuditOutcome)>>);

    impl Audit for Told {
        fn write(&self, write: AuditedWrite, outcome: AuditOutcome) {
            self.0.lock().push((write, outcome));
        }

        fn ephemeral_deleted(&self, _: i64, _: &str) {}
    }

    fn delete(path: &str) -> Op {
        Op::Delete { path: path.to_owned(), version: -1 }
    }

    fn create(path: &str, flags: i32) -> Op {
        let (kind, path) = (CreateKind::Create, path.to_owned());
        Op::Create { kind, path, data: None, acl: Vec::new(), flags, ttl_ms: -1 }
    }

    #[test]
    fn a_write_is_told_of_once_with_what_came_of_it() {
        let told = Arc::new(Told::default());
        let audit: Arc<dyn Audit> = Arc::clone(&told) as _;
        let begin = |op: &Op| {
            let remote = IpAddr::from([127, 0, 0, 1]);
            Audited::of(&audit, op, 7, &Arc::default(), remote).expect("it is told of")
        };
        begin(&delete("/a")).done(1, &Err(ErrorCode::NoNode));
        drop(begin(&delete("/b")));
        let check = Op::Check { path: "/c".to_owned(), version: 1 };
        let multi = Op::Multi(vec![check, create("/s-", 2), delete("/d")]);
        let results = [
            MultiResult::Check,
            MultiResult::Create("/s-0000000001".to_owned()),
            MultiResult::Delete,
        ];
        begin(&multi).done(2, &Ok(Reply::Multi(results.to_vec())));
        let errors = [0, ErrorCode::NoNode.code(), ErrorCode::RuntimeInconsistency.code()];
        begin(&multi).done(3, &Ok(Reply::Multi(errors.map(MultiResult::Error).to_vec())));
        let told = told.0.lock();
        let outcomes: Vec<_> = told.iter().map(|(_, outcome)| *outcome).collect();
        let refused = AuditOutcome::Refused(ErrorCode::NoNode);
        assert_eq!(outcomes, [refused, AuditOutcome::Unknown, AuditOutcome::Done, refused]);
        assert_eq!(told.iter().map(|(write, _)| write.zxid).collect::<Vec<_>>(), [1, 0, 2, 3]);
        let done = &told[2].0.parts;
        assert_eq!(
            done.iter().map(|part| part.operation).collect::<Vec<_>>(),
            ["create", "delete"]
        );
        assert_eq!(done[0].path.as_deref(), Some("/s-0000000001"));
        assert_eq!(done[0].mode, Some(CreateMode::PersistentSequential));
    }
}
