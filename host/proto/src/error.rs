//! Errors that clients see ([`ErrorCode`]), and errors that are a peer's fault ([`DecodeError`]).

use thiserror::Error;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// ZooKeeper's error numbers. What a request got, not what went wrong with the server.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// The error with this number, if there is one.
            pub fn from_i32(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// The server failed in a way that is not the request's.
    SystemError = -1;
    /// An operation of a multi was not tried, because one before it failed.
    RuntimeInconsistency = -2;
    /// Never sent; kept so that the number stays taken.
    DataInconsistency = -3;
    /// Client side: the connection was lost.
    ConnectionLoss = -4;
    /// The request could not be decoded.
    MarshallingError = -5;
    /// The operation is unknown, or not available here.
    Unimplemented = -6;
    /// The operation took too long.
    OperationTimeout = -7;
    /// An argument is against the rules.
    BadArguments = -8;
    /// The session is not known.
    UnknownSession = -12;
    /// A reconfiguration without a quorum of the new ensemble.
    NewConfigNoQuorum = -13;
    /// Another reconfiguration is under way.
    ReconfigInProgress = -14;
    /// The boundary between system errors and those of the API.
    ApiError = -100;
    /// No such znode.
    NoNode = -101;
    /// Not allowed by an ACL.
    NoAuth = -102;
    /// The version given is not the znode's.
    BadVersion = -103;
    /// An ephemeral znode cannot have children.
    NoChildrenForEphemerals = -108;
    /// The znode is there already.
    NodeExists = -110;
    /// The znode has children.
    NotEmpty = -111;
    /// The session has expired.
    SessionExpired = -112;
    /// Client side.
    InvalidCallback = -113;
    /// An ACL is empty or malformed.
    InvalidAcl = -114;
    /// Authentication failed.
    AuthFailed = -115;
    /// The session is now served elsewhere.
    SessionMoved = -118;
    /// A write on a read-only server.
    NotReadOnly = -119;
    /// Local sessions cannot have ephemerals.
    EphemeralOnLocalSession = -120;
    /// There is no such watch.
    NoWatcher = -121;
    /// The request timed out.
    RequestTimeout = -122;
    /// Reconfiguration is switched off.
    ReconfigDisabled = -123;
    /// The session must authenticate first.
    SessionClosedRequireSaslAuth = -124;
    /// A hard quota is used up.
    QuotaExceeded = -125;
    /// The request was throttled.
    ThrottledOp = -127;
}

impl ErrorCode {
    /// Its number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// ZooKeeper's name for it, as in `KeeperException.Code`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemError => "SYSTEMERROR",
            Self::RuntimeInconsistency => "RUNTIMEINCONSISTENCY",
            Self::DataInconsistency => "DATAINCONSISTENCY",
            Self::ConnectionLoss => "CONNECTIONLOSS",
            Self::MarshallingError => "MARSHALLINGERROR",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::OperationTimeout => "OPERATIONTIMEOUT",
            Self::BadArguments => "BADARGUMENTS",
            Self::UnknownSession => "UNKNOWNSESSION",
            Self::NewConfigNoQuorum => "NEWCONFIGNOQUORUM",
            Self::ReconfigInProgress => "RECONFIGINPROGRESS",
            Self::ApiError => "APIERROR",
            Self::NoNode => "NONODE",
            Self::NoAuth => "NOAUTH",
            Self::BadVersion => "BADVERSION",
            Self::NoChildrenForEphemerals => "NOCHILDRENFOREPHEMERALS",
            Self::NodeExists => "NODEEXISTS",
            Self::NotEmpty => "NOTEMPTY",
            Self::SessionExpired => "SESSIONEXPIRED",
            Self::InvalidCallback => "INVALIDCALLBACK",
            Self::InvalidAcl => "INVALIDACL",
            Self::AuthFailed => "AUTHFAILED",
            Self::SessionMoved => "SESSIONMOVED",
            Self::NotReadOnly => "NOTREADONLY",
            Self::EphemeralOnLocalSession => "EPHEMERALONLOCALSESSION",
            Self::NoWatcher => "NOWATCHER",
            Self::RequestTimeout => "REQUESTTIMEOUT",
            Self::ReconfigDisabled => "RECONFIGDISABLED",
            Self::SessionClosedRequireSaslAuth => "SESSIONCLOSEDREQUIRESASLAUTH",
            Self::QuotaExceeded => "QUOTAEXCEEDED",
            Self::ThrottledOp => "THROTTLEDOP",
        }
    }
}

/// A peer sent what the format does not allow. Its connection is at fault, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The record ends before its last field.
    #[error("truncated {what}: {needed} bytes expected, {left} left")]
    Truncated {
        /// The field's type.
        what: &'static str,
        /// How many bytes it takes.
        needed: usize,
        /// How many there were.
        left: usize,
    },
    /// A length or a count is negative or otherwise impossible.
    #[error("impossible length {len} of a {what}")]
    Length {
        /// The field's type.
        what: &'static str,
        /// The length that came.
        len: i32,
    },
    /// A frame is longer than allowed, or of negative length.
    #[error("frame of {len} bytes, 0 to {max} allowed (`max-frame-bytes`, jute.maxbuffer)")]
    Frame {
        /// The length that came.
        len: i32,
        /// The longest frame allowed.
        max: usize,
    },
    /// A number that should be one of a few is none of them.
    #[error("unknown {what} {number}")]
    Unknown {
        /// What the number stands for.
        what: &'static str,
        /// The number that came.
        number: i32,
    },
}
