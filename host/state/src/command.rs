//! What stands in the log: batches of commands, with an encoding of their own.
//!
//! The log outlives programs. A batch begins with its format's number; a reader that does not know
//! it must wait for a newer program, never skip the entry.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::{CreateMode, ServerSpec};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::members::ConfStep;
use crate::plugins::{Binding, Exports, Mode, ModuleHash, PluginLimit, PluginSettings};
use crate::spare;

/// The newest format of a batch that this program reads and writes.
pub const BATCH_FORMAT: u32 = 6;
/// The format of those without commands that came later, so that earlier programs go on reading them.
const BATCH_FORMAT_BEFORE_PLUGINS: u32 = 5;

/// The newest way of applying entries that this program knows. What changes an outcome comes with a new
/// number here, and holds where [`Settings::apply_version`] has come so far.
pub const APPLY_VERSION: u32 = 2;
/// From here on there are plugins, and `/zookeeper/plugins` is the system's.
pub(crate) const WITH_PLUGINS: u32 = 2;

/// One log entry: commands of all servers that the leader had in hand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's clock, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The commands, in order.
    pub groups: Vec<Group>,
    /// In an entry that changes who takes part, the servers that the leader could reach; else none.
    pub present: Vec<u32>,
    /// In an entry that raises [`Settings::apply_version`], the newest that every voter knows, 0 if the
    /// leader does not know that of one of them; else 0.
    pub supported: u32,
}

/// Commands of one server, numbered in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The server that the commands came from, and its boot.
    pub origin: (u32, u64),
    /// The number of the first command there; apply takes exactly the next one.
    pub first: u64,
    /// Sets of identities, (scheme, id), that the commands refer to.
    pub identities: Vec<Vec<(String, String)>>,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of an ensemble.
    Bootstrap {
        /// Names the ensemble.
        cluster_id: u64,
        /// The cluster settings it starts with.
        settings: Settings,
    },
    /// A server starts to number its commands, this one being the first, under a new boot.
    Origin {
        /// The boot that it is to replace, 0 for none: one that comes late, of an earlier start,
        /// replaces nothing.
        replaces: u64,
    },
    /// Makes a session.
    OpenSession {
        /// Its id, chosen by the server.
        session: i64,
        /// Its password, drawn by the server.
        password: [u8; 16],
        /// Its negotiated timeout.
        timeout_ms: i32,
    },
    /// Moves a session to a new connection.
    AttachSession {
        /// Its id.
        session: i64,
        /// Its password.
        password: [u8; 16],
        /// Its newly negotiated timeout.
        timeout_ms: i32,
    },
    /// Closes a session and deletes its ephemerals, up to a bound an entry.
    CloseSession {
        /// Its id.
        session: i64,
        /// The attach generation that asks for it, or that has been silent for too long; `None` for
        /// any.
        generation: Option<u32>,
    },
    /// Deletes the next ephemerals of a closing session.
    ContinueClose {
        /// Its id.
        session: i64,
    },
    /// A client's write.
    Write {
        /// Whose session.
        session: i64,
        /// The session's attach generation.
        generation: u32,
        /// Which of [`Group::identities`].
        identities: u32,
        /// What it asks for.
        op: Op,
        /// Whether the session is known to the server alone from which the command comes. That server
        /// has seen to it that it lives, and that nothing comes of an earlier attach.
        #[serde(default)]
        is_local: bool,
    },
    /// Deletes a container or a TTL node, if it still may be.
    Reap {
        /// Its path.
        path: String,
    },
    /// Changes cluster settings, those that are named and no other.
    ChangeSettings(Vec<SettingChange>),
    /// A server without data takes part: it is new, or lost what it had.
    Admit {
        /// Its id.
        server: u32,
        /// A random number of its own.
        nonce: u64,
    },
    /// Where servers are found, as the configuration of one of them says: it counts for those of whom
    /// that is not known.
    Locate(BTreeMap<u32, ServerSpec>),
    /// An operator changes who takes part.
    Reconfig(Reconfig),
    /// What raft counts changes: the one command of an entry of raft's own, of no server.
    Conf(ConfStep),
    /// Changes nothing and takes no zxid: what a leader had decided before it lost its place.
    Nothing,
    /// A step in the life of a plugin. None is proposed before [`Settings::has_plugins`].
    Plugin(PluginCommand),
}

/// A step in the life of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PluginCommand {
    /// A part of a module, at most [`crate::plugins::PART_BYTES_MAX`] bytes; parts come in order.
    Upload {
        /// Names it, by what it is to be in whole.
        module: ModuleHash,
        /// How large it is in whole.
        bytes: u64,
        /// Where the part begins.
        offset: u64,
        /// The part.
        part: Bytes,
    },
    /// A binding, with a module that was uploaded, is to be compiled and tried on every server.
    Stage {
        /// What the operator wrote.
        binding: Binding,
        /// The module.
        module: ModuleHash,
        /// The generation that it is to come after, 0 for none; `None` for whatever there is.
        after: Option<u64>,
        /// Whether to leave it if the same was ever proposed before: so that several servers which watch
        /// the same directory, or one with old files, do not undo what was done since.
        if_unseen: bool,
    },
    /// What a server found of what is staged.
    Report {
        /// The server.
        server: u32,
        /// The binding.
        name: String,
        /// Which generation.
        generation: u64,
        /// What its module was found to be, now that it is compiled and took its settings; or why it
        /// cannot run.
        result: Result<Exports, String>,
    },
    /// What is staged is called from now on.
    Activate {
        /// The binding.
        name: String,
        /// Which generation.
        generation: u64,
        /// Whether all voters must have reported, not only those that the leader reaches.
        wait_all: bool,
    },
    /// A binding does something else from now on.
    SetMode {
        /// The binding.
        name: String,
        /// What.
        mode: Mode,
    },
    /// The generation before is called from now on.
    Rollback {
        /// The binding.
        name: String,
    },
    /// A binding goes, with what its plugin keeps.
    Remove {
        /// The binding.
        name: String,
        /// The generation that is meant, `None` for whichever there is.
        generation: Option<u64>,
    },
    /// The next bounded step of what there is to build or to delete; the leader has it done.
    Step,
}

/// A client's write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Any of the four creates.
    Create {
        /// Which of the four.
        kind: CreateKind,
        /// The path, without a suffix.
        path: String,
        /// The data.
        #[serde(deserialize_with = "spare::data")]
        data: Option<Bytes>,
        /// The ACL as given: (permissions, scheme, id).
        acl: Vec<(i32, String, String)>,
        /// The flags as given.
        flags: i32,
        /// The time to live in ms, or -1.
        ttl_ms: i64,
    },
    /// `delete`.
    Delete {
        /// Which znode.
        path: String,
        /// Its version, or -1.
        version: i32,
    },
    /// `setData`.
    SetData {
        /// Which znode.
        path: String,
        /// The new data.
        #[serde(deserialize_with = "spare::data")]
        data: Option<Bytes>,
        /// Its version, or -1.
        version: i32,
    },
    /// `setACL`.
    SetAcl {
        /// Which znode.
        path: String,
        /// The new ACL.
        acl: Vec<(i32, String, String)>,
        /// Its ACL version, or -1.
        version: i32,
    },
    /// `check`, in a multi only.
    Check {
        /// Which znode.
        path: String,
        /// Its version, or -1.
        version: i32,
    },
    /// `multi`.
    Multi(Vec<Op>),
    /// `reconfig`.
    Reconfig(Reconfig),
    /// A write that was refused before it came here; it takes a zxid all the same.
    Refused(i32),
}

/// Who is to take part from now on, as the client wrote it; the texts are ZooKeeper's dynamic
/// configuration ([`proto::server_spec`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reconfig {
    /// `server.ID=SPEC`, with commas between them: those that come, or whose spec is another.
    pub joining: String,
    /// Ids, with commas between them: those that go.
    pub leaving: String,
    /// All that are to take part; then the two above are of no account.
    pub servers: String,
    /// The version of what is to be changed, or -1.
    pub version: i64,
}

/// Which of the four creates, hence which form of reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateKind {
    /// `create`.
    Create,
    /// `create2`.
    Create2,
    /// `createContainer`.
    Container,
    /// `createTTL`.
    Ttl,
}

/// What decides outcomes and is the same on every server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether TTL nodes may be created.
    pub ttl_nodes: bool,
    /// Whether hard quotas are enforced.
    pub enforce_quota: bool,
    /// Whether ACLs are not checked at all.
    pub skip_acl: bool,
    /// Whoever proves this digest id passes every ACL. No secret, but close to one: never log it.
    #[serde(default)]
    pub super_digest: Option<String>,
    /// How entries are applied: as programs of [`APPLY_VERSION`] up to this number do. It is only ever
    /// raised, by an operator, once all voters know how.
    #[serde(default = "first_apply_version")]
    pub apply_version: u32,
    /// What is about plugins. Left out where nothing was changed, as by earlier programs.
    #[serde(default, skip_serializing_if = "PluginSettings::is_default")]
    pub plugins: PluginSettings,
}

fn first_apply_version() -> u32 {
    1
}

/// A new value of one cluster setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingChange {
    /// [`Settings::ttl_nodes`].
    TtlNodes(bool),
    /// [`Settings::enforce_quota`].
    EnforceQuota(bool),
    /// [`Settings::skip_acl`].
    SkipAcl(bool),
    /// [`Settings::super_digest`].
    SuperDigest(Option<String>),
    /// [`Settings::apply_version`].
    ApplyVersion(u32),
    /// A limit of [`Settings::plugins`].
    PluginLimit(PluginLimit, u64),
    /// [`PluginSettings::grants`].
    PluginGrants(Vec<String>),
}

impl Command {
    /// How many operations it is: a multi is as many as are in it.
    pub fn operations(&self) -> usize {
        match self {
            Self::Write { op, .. } => op.operations(),
            _ => 1,
        }
    }
}

impl Op {
    /// How many operations it is: a multi is as many as are in it.
    pub fn operations(&self) -> usize {
        match self {
            Self::Multi(ops) => ops.len().max(1),
            _ => 1,
        }
    }

    /// Whether it asks for an ephemeral, which a local session cannot have.
    pub fn makes_ephemerals(&self) -> bool {
        match self {
            Self::Create { flags, .. } => {
                CreateMode::from_flags(*flags).is_some_and(CreateMode::is_ephemeral)
            }
            Self::Multi(ops) => ops.iter().any(Self::makes_ephemerals),
            Self::Delete { .. }
            | Self::SetData { .. }
            | Self::SetAcl { .. }
            | Self::Check { .. }
            | Self::Reconfig(_)
            | Self::Refused(_) => false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl_nodes: true,
            enforce_quota: false,
            skip_acl: false,
            super_digest: None,
            apply_version: APPLY_VERSION,
            plugins: PluginSettings::default(),
        }
    }
}

impl Settings {
    /// Whether there may be plugins: all voters know what to do with their commands.
    pub fn has_plugins(&self) -> bool {
        self.apply_version >= WITH_PLUGINS
    }

    /// Takes over one new value.
    pub fn change(&mut self, change: &SettingChange) {
        match change {
            SettingChange::TtlNodes(on) => self.ttl_nodes = *on,
            SettingChange::EnforceQuota(on) => self.enforce_quota = *on,
            SettingChange::SkipAcl(on) => self.skip_acl = *on,
            SettingChange::SuperDigest(digest) => self.super_digest.clone_from(digest),
            SettingChange::ApplyVersion(version) => self.apply_version = *version,
            SettingChange::PluginLimit(limit, value) => self.plugins.set_limit(*limit, *value),
            SettingChange::PluginGrants(grants) => self.plugins.set_grants(grants),
        }
    }
}

impl Batch {
    /// The bytes that stand in the log.
    pub fn encode(&self) -> Vec<u8> {
        Self::encode_of(
            self.time_ms,
            self.groups.iter().collect(),
            &self.present,
            self.supported,
            0,
        )
    }

    /// The bytes of a batch of these groups; there will be about `expected` of them.
    ///
    /// # Panics
    /// Never: every value of a batch can be encoded.
    pub fn encode_of(
        time_ms: i64,
        groups: Vec<&Group>,
        present: &[u32],
        supported: u32,
        expected: usize,
    ) -> Vec<u8> {
        /// The same on the wire as [`Batch`].
        #[derive(Serialize)]
        struct Borrowed<'a> {
            time_ms: i64,
            groups: Vec<&'a Group>,
            present: &'a [u32],
            supported: u32,
        }
        let mut out = Vec::with_capacity(expected);
        out.extend_from_slice(&format_of(&groups).to_be_bytes());
        let batch = Borrowed { time_ms, groups, present, supported };
        rmp_serde::encode::write(&mut out, &batch).expect("a batch can always be encoded");
        out
    }

    /// The bytes of an entry of raft's own.
    pub fn encode_conf(step: ConfStep) -> Vec<u8> {
        let (identities, commands) = (Vec::new(), vec![Command::Conf(step)]);
        let group = Group { origin: (u32::MAX, 0), first: 0, identities, commands };
        Self { groups: vec![group], ..Self::default() }.encode()
    }

    /// The change that an entry of raft's own holds.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_conf(bytes: &[u8]) -> Result<ConfStep, Fault> {
        match &Self::decode(bytes)?.groups[..] {
            [Group { commands, .. }] if let [Command::Conf(step)] = commands[..] => Ok(step),
            _ => Err(Fault::Damaged { keyspace: "log", why: "no change of raft's".to_owned() }),
        }
    }

    /// Reads the bytes of a log entry.
    ///
    /// # Errors
    /// [`Fault::Newer`] for a newer format, [`Fault::Damaged`] if it is not a batch at all.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let damaged = |why: String| Fault::Damaged { keyspace: "log", why };
        let (format, rest) =
            bytes.split_first_chunk::<4>().ok_or_else(|| damaged("shorter than 4 bytes".into()))?;
        let found = u32::from_be_bytes(*format);
        if found > BATCH_FORMAT {
            return Err(Fault::Newer { what: "a log entry", found, known: BATCH_FORMAT });
        }
        if found < BATCH_FORMAT_BEFORE_PLUGINS {
            return Err(damaged(format!("format {found}, which no release wrote")));
        }
        rmp_serde::from_slice(rest).map_err(|e| damaged(e.to_string()))
    }
}

/// Whether an earlier program does not know one of these commands.
fn is_later(command: &Command) -> bool {
    match command {
        Command::Plugin(_) => true,
        Command::ChangeSettings(changes) => changes.iter().any(|change| {
            matches!(change, SettingChange::PluginLimit(..) | SettingChange::PluginGrants(_))
        }),
        Command::Bootstrap { settings, .. } => !settings.plugins.is_default(),
        _ => false,
    }
}

fn format_of(groups: &[&Group]) -> u32 {
    match groups.iter().any(|group| group.commands.iter().any(is_later)) {
        true => BATCH_FORMAT,
        false => BATCH_FORMAT_BEFORE_PLUGINS,
    }
}
