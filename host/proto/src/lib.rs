//! ZooKeeper's client wire format: bytes to values and back. No I/O, no policy.
//!
//! The protocol on one page:
//!
//! * A packet is a big-endian `int32` length, then that many bytes ([`frame`]). Clients speak first.
//! * The first packet each way is a [`connect`] record without a header; `readOnly` is a trailing
//!   byte that old clients leave out, and then the response leaves it out too.
//! * Every later request is a [`header::RequestHeader`] and a body chosen by its [`opcode::OpCode`];
//!   every reply is a [`header::ReplyHeader`] and, when its error is 0, a body.
//! * Replies come in the order of requests. Only watch events (xid -1), pings (-2) and auth replies
//!   (-4) may come in between.
//! * Records are jute: fields back to back, no tags ([`codec`]).
//!
//! Everything that a peer sends can be wrong. Decoding never panics: it ends in a value or in a
//! [`error::DecodeError`], which is always the peer's fault.

pub mod codec;
pub mod frame;

pub mod connect;
pub mod header;
pub mod opcode;

pub mod multi;
pub mod reply;
pub mod request;

pub mod event;

pub mod acl;
pub mod create_mode;
pub mod path;
pub mod stat;

pub mod error;
pub mod four_letter;

pub mod address;
pub mod server_spec;

pub use acl::{Acl, Id, Perms};
pub use address::Address;
pub use connect::{ConnectRequest, ConnectResponse};
pub use create_mode::CreateMode;
pub use error::{DecodeError, ErrorCode};
pub use event::{EventType, WatchEvent};
pub use header::{ReplyHeader, RequestHeader};
pub use multi::{MultiOp, MultiResult, ReadOp, ReadResult};
pub use opcode::OpCode;
pub use reply::{ClientInfo, Reply};
pub use request::Request;
pub use server_spec::{Role, ServerSpec};
pub use stat::Stat;
