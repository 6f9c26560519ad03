//! What is sent: a request as the protocol has it, or something that only looks like one.

use bytes::{BufMut, Bytes, BytesMut};
use proto::header::{XID_AUTH, XID_PING, XID_SET_WATCHES};
use proto::{OpCode, Request};

use super::mapping::Side;

/// A request that has no xid yet.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// The operation's number, or any other.
    pub(super) opcode: i32,
    /// What follows the header.
    pub(super) body: Bytes,
    /// How a transcript shows it.
    pub(super) text: String,
    /// A condition that a listed difference may name.
    pub(super) when: &'static str,
    /// The xid, where it is not the connection's next.
    pub(super) xid: Option<i32>,
    /// What the body begins with on each server, where it is not the same on both: a zxid.
    pub(super) zxids: Option<[i64; 2]>,
    /// Sent in place of all of the above.
    pub(super) bytes: Option<Bytes>,
}

/// The body of a request.
pub(super) fn body(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    request.encode(0, &mut out);
    // The length, the xid and the opcode come before it.
    out.split_off(12).freeze()
}

/// The text with long runs of one character cut short: data and long paths.
pub(super) fn shortened(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    for run in chars.chunk_by(|a, b| a == b) {
        out.extend(run.iter().take(12));
        if run.len() > 12 {
            out.push_str(&format!("..({})", run.len()));
        }
    }
    out
}

impl From<Request> for Draft {
    fn from(request: Request) -> Self {
        let xid = match &request {
            Request::Ping => Some(XID_PING),
            Request::Auth { .. } => Some(XID_AUTH),
            Request::SetWatches(_) | Request::SetWatches2(_) => Some(XID_SET_WATCHES),
            _ => None,
        };
        let text = shortened(&format!("{request:?}"));
        Self {
            opcode: request.opcode() as i32,
            body: body(&request),
            text,
            when: "",
            xid,
            zxids: None,
            bytes: None,
        }
    }
}

impl Draft {
    /// A request of any number and body.
    pub(super) fn raw(opcode: i32, body: impl Into<Bytes>, text: impl Into<String>) -> Self {
        let (body, text) = (body.into(), text.into());
        Self { opcode, body, text, when: "", xid: None, zxids: None, bytes: None }
    }

    /// Bytes that are no request at all, their length prefix included.
    pub(super) fn garbage(bytes: impl Into<Bytes>, text: impl Into<String>) -> Self {
        Self { bytes: Some(bytes.into()), ..Self::raw(0, Bytes::new(), text) }
    }

    /// The same under a condition that a listed difference names.
    pub(super) fn when(self, when: &'static str) -> Self {
        Self { when, ..self }
    }

    /// The operation, if its number is one.
    pub(super) fn op(&self) -> Option<OpCode> {
        OpCode::from_i32(self.opcode)
    }

    /// The operation's name, for counts and for listed differences.
    pub(super) fn name(&self) -> &'static str {
        match (&self.bytes, self.op()) {
            (Some(_), _) => "garbage",
            (None, Some(op)) => op.name(),
            (None, None) => "unknown",
        }
    }

    /// The whole frame, for one of the two.
    pub(super) fn frame(&self, side: Side, xid: i32) -> Bytes {
        if let Some(bytes) = &self.bytes {
            return bytes.clone();
        }
        let mut out = BytesMut::with_capacity(12 + self.body.len());
        out.put_i32(i32::try_from(8 + self.body.len()).expect("a frame is short"));
        out.put_i32(xid);
        out.put_i32(self.opcode);
        out.put_slice(&self.body);
        if let Some(zxids) = self.zxids
            && let Some(first) = out.get_mut(12..20)
        {
            first.copy_from_slice(&zxids[side as usize].to_be_bytes());
        }
        out.freeze()
    }
}
