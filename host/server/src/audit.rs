//! The audit log: who wrote what, and what came of it, in the fields of ZooKeeper's
//! (`org.apache.zookeeper.audit`). Each server writes down what its own clients do, and, as in
//! ZooKeeper, the ephemerals that go with any session.
//!
//! A line is `session=0x1<tab>user=a,b<tab>ip=...<tab>operation=create<tab>znode=/a<tab>...
//! <tab>result=success`, of a refusal with the error's name as `reason` behind it, or, where a plugin refused,
//! its `binding` and the reason that it gave; without the fields that say nothing. What is not printable in a
//! field is written as `\u{..}`, so that nobody can write a line of his own.
//!
//! Invariants:
//! * Nobody waits for it: lines that the disk does not take in time are counted as lost, and told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use proto::{CreateMode, Perms};
use replica::Audit;
use replica::audit::{AuditOutcome, AuditedOp, AuditedWrite};
use state::plugins::Decisions;

use crate::mailbox::Mailbox;
use crate::recover::utc;
use crate::threads::clock_ms;

/// How many records may wait to be written.
const RECORDS_MAX: usize = 1 << 16;
/// How long there may be nothing to write before that is looked at.
const WAIT: Duration = Duration::from_secs(3600);

/// Something to write down.
enum Record {
    Write(AuditedWrite, AuditOutcome),
    EphemeralDeleted { session: i64, path: String },
    Server { operation: &'static str },
}

/// An audit log that is being written.
pub(crate) struct AuditLog {
    /// When, in milliseconds since the epoch, and what.
    records: Arc<Mailbox<(i64, Record)>>,
    lost: Arc<AtomicU64>,
    thread: parking_lot::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl AuditLog {
    /// Opens the file, or takes the log of the server if there is none, and starts to write. `decisions` are
    /// where it finds what plugins have refused.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn start(
        file: Option<&Path>,
        decisions: &Arc<Decisions>,
    ) -> anyhow::Result<Arc<Self>> {
        let file = file.map(AuditFile::open).transpose()?;
        let records = Arc::new(Mailbox::new(usize::MAX));
        let lost = Arc::new(AtomicU64::new(0));
        let reasons =
            Reasons { decisions: Arc::clone(decisions), next: 0, refused: BTreeMap::new() };
        let writer =
            Writer { records: Arc::clone(&records), lost: Arc::clone(&lost), file, reasons };
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(|| writer.run())?;
        let log = Arc::new(Self { records, lost, thread: Some(thread).into() });
        log.put(Record::Server { operation: "serverStart" });
        Ok(log)
    }

    /// How many records could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes what there is, and ends.
    pub(crate) fn stop(&self) {
        self.put(Record::Server { operation: "serverStop" });
        self.records.close();
        if self.thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit log's thread panicked");
        }
    }

    fn put(&self, record: Record) {
        if self.records.len() >= RECORDS_MAX || !self.records.put([(clock_ms(), record)]) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Audit for AuditLog {
    fn write(&self, write: AuditedWrite, outcome: AuditOutcome) {
        self.put(Record::Write(write, outcome));
    }

    fn ephemeral_deleted(&self, session: i64, path: &str) {
        self.put(Record::EphemeralDeleted { session, path: path.to_owned() });
    }
}

struct Writer {
    records: Arc<Mailbox<(i64, Record)>>,
    lost: Arc<AtomicU64>,
    file: Option<AuditFile>,
    reasons: Reasons,
}

/// Who refused a write, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    binding: String,
    reason: String,
}

/// Which plugins have refused writes lately.
struct Reasons {
    decisions: Arc<Decisions>,
    /// The number of the first decision that was not looked at.
    next: u64,
    /// By zxid and session.
    refused: BTreeMap<(i64, i64), Refusal>,
}

impl Reasons {
    /// Which plugin refused a session's write that took this zxid, if one did. Zxids are asked for in order.
    fn take(&mut self, zxid: i64, session: i64) -> Option<Refusal> {
        for decision in self.decisions.since(self.next, usize::MAX) {
            self.next = decision.number + 1;
            if decision.refused_a_write() {
                let refusal = Refusal { reason: decision.reason, binding: decision.name };
                self.refused.insert((decision.zxid, decision.session), refusal);
            }
        }
        self.refused = self.refused.split_off(&(zxid, i64::MIN));
        self.refused.remove(&(zxid, session))
    }
}

impl Writer {
    fn run(mut self) {
        let (mut taken, mut text) = (Vec::new(), String::new());
        loop {
            let open = self.records.take(&mut taken, WAIT);
            let mut lines = 0;
            for (at_ms, record) in taken.drain(..) {
                for line in lines_of(&record, &mut |zxid, session| self.reasons.take(zxid, session))
                {
                    lines += 1;
                    match &self.file {
                        None => tracing::info!(target: "audit", "{line}"),
                        Some(_) => {
                            let ms = at_ms.rem_euclid(1000);
                            let at = utc(at_ms);
                            let at = at.trim_end_matches(" UTC").replace(' ', "T");
                            // Writing to a string does not fail.
                            let _ = writeln!(text, "{at}.{ms:03}Z {line}");
                        }
                    }
                }
            }
            if let Some(file) = &mut self.file
                && !text.is_empty()
                && let Err(error) = file.append(&text)
            {
                self.lost.fetch_add(lines, Ordering::Relaxed);
                tracing::error!(%error, path = %file.path.display(), lines, "the audit log cannot be written");
            }
            text.clear();
            if !open {
                return;
            }
        }
    }
}

struct AuditFile {
    path: PathBuf,
    file: File,
}

impl AuditFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = open(path).with_context(|| {
            format!("cannot write the audit log {} (`audit.file`)", path.display())
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends to the file that has the name now: whoever rotates it needs to tell nobody.
    fn append(&mut self, text: &str) -> io::Result<()> {
        let here = self.file.metadata()?;
        let is_there = std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()));
        if !is_there {
            self.file = open(&self.path)?;
        }
        self.file.write_all(text.as_bytes())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// One line for each operation that was done; one for all of a multi that was refused.
fn lines_of(
    record: &Record,
    refused_by: &mut dyn FnMut(i64, i64) -> Option<Refusal>,
) -> Vec<String> {
    match record {
        Record::Server { operation } => {
            vec![Line::default().put("operation", operation).put("result", "success").0]
        }
        Record::EphemeralDeleted { session, path } => {
            let line = Line::default().put("session", &format!("{session:#x}"));
            let line = line.put("operation", "ephemeralZNodeDeletionOnSessionCloseOrExpire");
            vec![line.put("znode", path).put("result", "success").0]
        }
        Record::Write(write, outcome) => {
            let result = match outcome {
                AuditOutcome::Done => "success",
                AuditOutcome::Refused(_) => "failure",
                AuditOutcome::Unknown => "unknown",
            };
            let (binding, reason) = match outcome {
                AuditOutcome::Refused(code) => match refused_by(write.zxid, write.session) {
                    Some(Refusal { binding, reason }) => (Some(binding), Some(reason)),
                    None => (None, Some(code.name().to_owned())),
                },
                AuditOutcome::Done | AuditOutcome::Unknown => (None, None),
            };
            let why = (binding.as_deref(), reason.as_deref());
            let whole = AuditedOp::named("multiOperation");
            let is_whole = write.is_multi && *outcome != AuditOutcome::Done;
            let parts = if is_whole { std::slice::from_ref(&whole) } else { &write.parts[..] };
            parts.iter().map(|part| line_of(write, part, result, why)).collect()
        }
    }
}

/// A line; `by` and `reason` say who refused it, if that was a plugin, and why.
fn line_of(
    write: &AuditedWrite,
    part: &AuditedOp,
    result: &str,
    (by, reason): (Option<&str>, Option<&str>),
) -> String {
    let users: Vec<&str> = write.identities.iter().map(|id| user(&id.scheme, &id.id)).collect();
    let mut line = Line::default();
    // An operator over HTTP has none.
    if write.session != 0 {
        line = line.put("session", &format!("{:#x}", write.session));
    }
    line = line
        .put("user", &users.join(","))
        .put("ip", &write.remote.to_string())
        .put("operation", part.operation);
    if let Some(path) = &part.path {
        line = line.put("znode", path);
    }
    if let Some(mode) = part.mode {
        line = line.put("znode_type", znode_type(mode));
    }
    if let Some(acl) = &part.acl {
        let entries =
            acl.iter().map(|(perms, scheme, id)| format!("{scheme}:{id}:{}", letters(*perms)));
        line = line.put("acl", &entries.collect::<Vec<_>>().join(","));
    }
    line = line.put("result", result);
    if let Some(binding) = by.or(part.binding.as_deref()) {
        line = line.put("binding", binding);
    }
    if let Some(reason) = reason {
        line = line.put("reason", reason);
    }
    line.0
}

/// What ZooKeeper calls a client: of a digest, the name alone.
fn user<'a>(scheme: &'a str, id: &'a str) -> &'a str {
    match (scheme, id.split_once(':')) {
        ("digest", Some((user, _))) => user,
        ("super", None) if id.is_empty() => "super",
        _ => id,
    }
}

fn znode_type(mode: CreateMode) -> &'static str {
    match mode {
        CreateMode::Persistent => "persistent",
        CreateMode::Ephemeral => "ephemeral",
        CreateMode::PersistentSequential => "persistent_sequential",
        CreateMode::EphemeralSequential => "ephemeral_sequential",
        CreateMode::Container => "container",
        CreateMode::PersistentTtl => "persistent_with_ttl",
        CreateMode::PersistentSequentialTtl => "persistent_sequential_with_ttl",
    }
}

fn letters(perms: i32) -> String {
    let letters = [
        ('c', Perms::CREATE),
        ('d', Perms::DELETE),
        ('r', Perms::READ),
        ('w', Perms::WRITE),
        ('a', Perms::ADMIN),
    ];
    letters.into_iter().filter(|(_, bit)| perms & bit != 0).map(|(letter, _)| letter).collect()
}

#[derive(Default)]
struct Line(String);

impl Line {
    fn put(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push('\t');
        }
        self.0.push_str(name);
        self.0.push('=');
        for character in value.chars() {
            match character.is_control() {
                true => self.0.extend(character.escape_unicode()),
                false => self.0.push(character),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proto::{ErrorCode, Id};

    use super::*;

    fn write(user: &str, parts: Vec<AuditedOp>) -> AuditedWrite {
        let identities = Arc::new(vec![Id::new("ip", "127.0.0.1"), Id::new("digest", user)]);
        let (session, remote) = (0x10002903fbe0000, IpAddr::from([127, 0, 0, 1]));
        AuditedWrite { session, identities, remote, zxid: 1, is_multi: parts.len() > 1, parts }
    }

    fn part(operation: &'static str, path: &str) -> AuditedOp {
        AuditedOp { path: Some(path.to_owned()), ..AuditedOp::named(operation) }
    }

    #[test]
    fn lines_are_those_of_zookeeper() {
        let mode = Some(CreateMode::EphemeralSequential);
        let create = AuditedOp { mode, ..part("create", "/es-0000000003") };
        let set_acl = AuditedOp {
            acl: Some(vec![
                (31, "digest".to_owned(), "bob:hash".to_owned()),
                (1, "world".to_owned(), "anyone".to_owned()),
            ]),
            ..part("setAcl", "/a")
        };
        let by = |write, outcome| lines_of(&Record::Write(write, outcome), &mut |_, _| None);
        let who = "session=0x10002903fbe0000\tuser=127.0.0.1,bob\tip=127.0.0.1";
        assert_eq!(
            by(write("bob:hash", vec![create.clone()]), AuditOutcome::Done),
            [format!(
                "{who}\toperation=create\tznode=/es-0000000003\tznode_type=ephemeral_sequential\tresult=success"
            )]
        );
        assert_eq!(
            by(write("bob:hash", vec![set_acl]), AuditOutcome::Refused(ErrorCode::NoAuth)),
            [format!(
                "{who}\toperation=setAcl\tznode=/a\tacl=digest:bob:hash:cdrwa,world:anyone:r\tresult=failure\treason=NOAUTH"
            )]
        );
        let both = vec![create, part("delete", "/b")];
        assert_eq!(by(write("bob:hash", both.clone()), AuditOutcome::Done).len(), 2);
        assert_eq!(
            by(write("bob:hash", both), AuditOutcome::Refused(ErrorCode::NoNode)),
            [format!("{who}\toperation=multiOperation\tresult=failure\treason=NONODE")]
        );
    }

    #[test]
    fn a_plugin_that_refused_is_named_with_what_it_said() {
        let both = vec![part("delete", "/a"), part("delete", "/b")];
        let record = write("bob:hash", both);
        let session = record.session;
        let record = Record::Write(record, AuditOutcome::Refused(ErrorCode::QuotaExceeded));
        let said = Refusal { binding: "quota".to_owned(), reason: "ten\nare enough".to_owned() };
        let lines = lines_of(&record, &mut |zxid, of| {
            Some(said.clone()).filter(|_| (zxid, of) == (1, session))
        });
        let end = "\tresult=failure\tbinding=quota\treason=ten\\u{a}are enough";
        assert!(lines.len() == 1 && lines[0].ends_with(end), "{lines:?}");
    }

    #[test]
    fn nobody_writes_a_line_of_his_own() {
        let forged = write("eve\nuser=bob\tresult=success:hash", vec![part("delete", "/a\n/b")]);
        let lines = lines_of(&Record::Write(forged, AuditOutcome::Unknown), &mut |_, _| None);
        assert!(!lines[0].contains('\n'), "{lines:?}");
        assert_eq!(lines[0].matches("\tresult=").count(), 1);
        assert!(lines[0].contains("znode=/a\\u{a}/b\tresult=unknown"), "{lines:?}");
    }

    #[test]
    fn a_file_that_was_rotated_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let log = AuditLog::start(Some(&path), &Arc::default()).expect("it starts");
        log.ephemeral_deleted(7, "/first");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains("/first")) {
            assert!(std::time::Instant::now() < deadline, "it is written");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::rename(&path, dir.path().join("audit.log.1")).expect("it is there");
        log.ephemeral_deleted(7, "/second");
        log.stop();
        let text = std::fs::read_to_string(&path).expect("it is there again");
        assert!(
            text.contains("znode=/second\tresult=success") && !text.contains("/first"),
            "{text}"
        );
        assert!(text.contains("operation=serverStop"), "{text}");
        assert_eq!(log.lost(), 0);
    }
}
