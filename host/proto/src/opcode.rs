//! The operations' numbers, in the order of ZooKeeper's `ZooDefs.OpCode`.

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// A ZooKeeper operation, as its number on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum OpCode { $($(#[$doc])* $name = $number,)* }

        impl OpCode {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The operation with this number, if there is one.
            pub fn from_i32(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// ZooKeeper's name for it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

opcodes! {
    /// `create`: replies with the path.
    Create = 1, "create";
    /// `delete`.
    Delete = 2, "delete";
    /// `exists`.
    Exists = 3, "exists";
    /// `getData`.
    GetData = 4, "getData";
    /// `setData`.
    SetData = 5, "setData";
    /// `getACL`.
    GetAcl = 6, "getACL";
    /// `setACL`.
    SetAcl = 7, "setACL";
    /// `getChildren`: names only.
    GetChildren = 8, "getChildren";
    /// `sync`.
    Sync = 9, "sync";
    /// `ping`.
    Ping = 11, "ping";
    /// `getChildren2`: names and the parent's stat.
    GetChildren2 = 12, "getChildren2";
    /// `check`: legal inside a multi only.
    Check = 13, "check";
    /// `multi`.
    Multi = 14, "multi";
    /// `create2`: replies with path and stat.
    Create2 = 15, "create2";
    /// `reconfig`.
    Reconfig = 16, "reconfig";
    /// `checkWatches`.
    CheckWatches = 17, "checkWatches";
    /// `removeWatches`.
    RemoveWatches = 18, "removeWatches";
    /// `createContainer`.
    CreateContainer = 19, "createContainer";
    /// `deleteContainer`: sent by servers to themselves.
    DeleteContainer = 20, "deleteContainer";
    /// `createTTL`.
    CreateTtl = 21, "createTTL";
    /// `multiRead`.
    MultiRead = 22, "multiRead";
    /// `auth`.
    Auth = 100, "auth";
    /// `setWatches`.
    SetWatches = 101, "setWatches";
    /// `sasl`.
    Sasl = 102, "sasl";
    /// `getEphemerals`.
    GetEphemerals = 103, "getEphemerals";
    /// `getAllChildrenNumber`.
    GetAllChildrenNumber = 104, "getAllChildrenNumber";
    /// `setWatches2`: with persistent and recursive ones.
    SetWatches2 = 105, "setWatches2";
    /// `addWatch`.
    AddWatch = 106, "addWatch";
    /// `whoAmI`.
    WhoAmI = 107, "whoAmI";
    /// A request of an operator; Vivarium's own, which no ZooKeeper has.
    Operator = 200, "operator";
    /// `createSession`: never sent by a client, shown by `cons`.
    CreateSession = -10, "createSession";
    /// `closeSession`.
    CloseSession = -11, "closeSession";
}

impl OpCode {
    /// The four letters by which ZooKeeper's `cons` shows it (`Request.op2String`).
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Create => "CREA",
            Self::Delete => "DELE",
            Self::Exists => "EXIS",
            Self::GetData => "GETD",
            Self::SetData => "SETD",
            Self::GetAcl => "GETA",
            Self::SetAcl => "SETA",
            Self::GetChildren => "GETC",
            Self::Sync => "SYNC",
            Self::Ping => "PING",
            Self::GetChildren2 => "GETC2",
            Self::Check => "CHEC",
            Self::Multi => "MULT",
            Self::Create2 => "CREA2",
            Self::Reconfig => "RECO",
            Self::CheckWatches => "CHEW",
            Self::RemoveWatches => "REMW",
            Self::CreateContainer => "CREC",
            Self::DeleteContainer => "DELC",
            Self::CreateTtl => "CRET",
            Self::MultiRead => "MULR",
            Self::Auth => "AUTH",
            Self::SetWatches => "SETW",
            Self::Sasl => "SASL",
            Self::GetEphemerals => "GETE",
            Self::GetAllChildrenNumber => "GETACN",
            Self::SetWatches2 => "SETW2",
            Self::AddWatch => "ADDW",
            Self::WhoAmI => "WHOA",
            Self::Operator => "OPER",
            Self::CreateSession => "SESS",
            Self::CloseSession => "CLOS",
        }
    }
}
