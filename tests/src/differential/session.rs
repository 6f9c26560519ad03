//! One session on both servers, and its connection to each.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proto::connect::PASSWORD_BYTES;
use proto::{ConnectRequest, ConnectResponse};

use super::mapping::Side;
use super::request::Draft;
use super::told::Told;
use crate::wire::{Heard, PATIENCE, Wire};

/// A session: two of everything.
pub(super) struct Session {
    /// How a transcript calls it.
    pub(super) name: String,
    /// Its connections; none after they were closed.
    pub(super) wires: Option<[Wire; 2]>,
    /// Its ids.
    pub(super) ids: [i64; 2],
    /// Its passwords.
    pub(super) passwords: [Bytes; 2],
    xid: i32,
}

/// What a connect brought.
pub(super) struct Connect {
    /// The connections.
    pub(super) wires: [Wire; 2],
    /// What was answered.
    pub(super) responses: [Option<ConnectResponse>; 2],
    /// The same, to be compared. Ids are not mapped yet.
    pub(super) told: [Told; 2],
}

/// A request for a new session.
pub(super) fn new_session(timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms,
        session_id: 0,
        password: Bytes::from_static(&[0; PASSWORD_BYTES]),
        read_only: Some(false),
    }
}

/// A connect as a frame.
pub(super) fn frame(request: &ConnectRequest) -> Bytes {
    let mut out = BytesMut::new();
    request.encode(&mut out);
    out.freeze()
}

/// Connects to both and sends each its frame.
pub(super) fn connect(
    addresses: (SocketAddr, SocketAddr),
    frames: &[Bytes; 2],
) -> std::io::Result<Connect> {
    let mut wires = [Wire::open(addresses.0)?, Wire::open(addresses.1)?];
    let mut responses = [None, None];
    let mut told = [Told::Closed, Told::Closed];
    for side in Side::BOTH {
        wires[side as usize].send(&frames[side as usize]);
    }
    for side in Side::BOTH {
        let at = side as usize;
        told[at] = match wires[at].hear(Instant::now() + PATIENCE) {
            Heard::Closed => Told::Closed,
            Heard::Silence => Told::Silence,
            Heard::Frame(frame) => match ConnectResponse::decode(frame) {
                Err(error) => Told::Broken(error.to_string()),
                Ok(response) => {
                    let ConnectResponse { timeout_ms, session_id: session, read_only, .. } =
                        response;
                    responses[at] = Some(response);
                    Told::Connected { timeout_ms, session, read_only }
                }
            },
        };
    }
    Ok(Connect { wires, responses, told })
}

impl Session {
    /// The session of a successful connect.
    pub(super) fn new(name: String, connect: Connect) -> Option<Self> {
        let Connect { wires, responses: [Some(zookeeper), Some(vivarium)], .. } = connect else {
            return None;
        };
        Some(Self {
            name,
            wires: Some(wires),
            ids: [zookeeper.session_id, vivarium.session_id],
            passwords: [
                Bytes::copy_from_slice(&zookeeper.password),
                Bytes::copy_from_slice(&vivarium.password),
            ],
            xid: 0,
        })
    }

    /// A request to attach to it again, for each server.
    pub(super) fn attach(&self, last: [i64; 2], timeout_ms: i32) -> [ConnectRequest; 2] {
        Side::BOTH.map(|side| ConnectRequest {
            last_zxid_seen: last[side as usize],
            session_id: self.ids[side as usize],
            password: self.passwords[side as usize].clone(),
            ..new_session(timeout_ms)
        })
    }

    /// Sends requests together to both.
    pub(super) fn send(&mut self, drafts: &[Draft]) {
        let first = self.xid + 1;
        self.xid += i32::try_from(drafts.len()).expect("few requests");
        for side in Side::BOTH {
            let mut out = BytesMut::new();
            for (xid, draft) in (first..).zip(drafts) {
                out.extend_from_slice(&draft.frame(side, draft.xid.unwrap_or(xid)));
            }
            if let Some(wires) = &mut self.wires {
                wires[side as usize].send(&out);
            }
        }
    }

    /// Hears one server out until each request is answered, or nothing more will come.
    pub(super) fn hear(&mut self, side: Side, drafts: &[Draft]) -> Vec<Told> {
        let mut told = Vec::new();
        let Some(wires) = &mut self.wires else { return told };
        let wire = &mut wires[side as usize];
        let deadline = Instant::now() + PATIENCE;
        let mut waiting = drafts.iter();
        let mut draft = waiting.next();
        while let Some(asked) = draft {
            match wire.hear(deadline) {
                Heard::Frame(frame) => {
                    let heard = Told::decode(frame, asked.op());
                    let last = heard.ends_connection();
                    if !heard.is_event() && !last {
                        draft = waiting.next();
                    }
                    told.push(heard);
                }
                Heard::Closed => {
                    told.push(Told::Closed);
                    break;
                }
                Heard::Silence => {
                    told.push(Told::Silence);
                    break;
                }
            }
        }
        told
    }
}
