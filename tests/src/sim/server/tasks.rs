//! What a client's task does: the loop of `server/src/client.rs`, cut into its steps.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use proto::frame::{FRAME_BYTES_MAX_DEFAULT, next_frame};
use replica::connection::Drained;
use replica::log::SimRng;
use replica::{Attached, Input, Read};

use super::life::{Client, Did, Life, OUT_BYTES_MAX, OUTSTANDING_MAX};
use crate::sim::wire::{DOWN_BYTES_MAX, Wire};

/// A server that heard of no leader within so many ticks may have let its clients go for that.
const CUT_OFF_TICKS: u32 = 40;

impl Client {
    pub(super) fn has_room(&self) -> bool {
        self.output.len() < OUT_BYTES_MAX && self.outstanding < OUTSTANDING_MAX
    }

    /// Whether it has something to look at.
    pub(super) fn is_due(&self) -> bool {
        self.advance_due || self.drain_due || self.woken.load(Ordering::Relaxed)
    }

    pub(super) fn patience_ms(&self) -> i64 {
        let session = self.connection.session();
        session.map_or(30_000, |attached| i64::from(attached.timeout_ms))
    }
}

impl Life {
    /// Whether it may let its clients go because it hears of no leader.
    pub(super) fn is_cut_off(&self) -> bool {
        self.led_ticks < CUT_OFF_TICKS || self.node.is_removed()
    }

    pub(super) fn receive(
        &mut self,
        conn: u64,
        wires: &mut BTreeMap<u64, Wire>,
        rng: &mut SimRng,
        next_session: &mut i64,
        did: &mut Vec<Did>,
    ) {
        let (Some(client), Some(wire)) = (self.connections.get_mut(&conn), wires.get_mut(&conn))
        else {
            return;
        };
        if wire.up.is_empty() {
            return self.end(conn, wires);
        }
        // The network splits where it likes.
        let most = if rng.chance(50) { wire.up.len() as u64 } else { 1 + rng.below(60) };
        let bytes = (most as usize).min(wire.up.len());
        client.input.extend_from_slice(&wire.up.split_to(bytes));
        let mut heard = false;
        let mut malformed = false;
        loop {
            match next_frame(&mut client.input, FRAME_BYTES_MAX_DEFAULT) {
                Err(_) => malformed = true,
                Ok(None) => {}
                Ok(Some(payload)) => {
                    heard = true;
                    let result = if client.connection.is_new() {
                        let new = || {
                            *next_session += 1;
                            let mut password = [0; 16];
                            password[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
                            (*next_session, password)
                        };
                        client.connection.connect(payload, new, &mut client.inputs)
                    } else {
                        client.connection.receive(payload)
                    };
                    malformed = result.is_err();
                    if !malformed {
                        continue;
                    }
                }
            }
            break;
        }
        if let (false, Some(Attached { session, generation, is_own: true, .. })) =
            (client.told, client.connection.session())
        {
            client.told = true;
            did.push(match client.connection.is_read_only() {
                true => Did::Reads { conn, session },
                false => Did::AttachedLocally { conn, session, generation },
            });
        }
        if heard {
            client.connection.outbox().hear();
            did.push(Did::Heard { conn });
        }
        client.advance_due = true;
        if malformed {
            self.end(conn, wires);
        }
    }

    pub(super) fn advance(&mut self, conn: u64, did: &mut Vec<Did>) {
        let Some(client) = self.connections.get_mut(&conn) else { return };
        let before = client.connection.session();
        if let (false, Some(Attached { session, generation, .. })) = (client.told, before) {
            client.told = true;
            did.push(Did::Attached { conn, session, generation });
        }
        client.reading = client.connection.advance(&mut client.inputs);
        let local = |input: &&Input| matches!(input, Input::Write { is_local: true, .. });
        client.local_writes += client.inputs.iter().filter(local).count();
        if let Some(Attached { session, generation, is_own: false, .. }) =
            client.connection.session()
            && before.is_some_and(|before| before.is_own)
        {
            let local_writes = client.local_writes;
            did.push(Did::Upgraded { conn, session, generation, local_writes });
        }
        self.inbox.extend(client.inputs.drain(..));
        (client.advance_due, client.drain_due) = (client.reading.is_some(), true);
    }

    pub(super) fn read(&mut self, conn: u64) {
        let Some(client) = self.connections.get_mut(&conn) else { return };
        if let Some(big) = client.reading.take().and_then(Read::run) {
            self.big_reads.push(big);
        }
    }

    pub(super) fn drain(&mut self, conn: u64, wires: &mut BTreeMap<u64, Wire>, did: &mut Vec<Did>) {
        let is_cut_off = self.is_cut_off();
        let Some(client) = self.connections.get_mut(&conn) else { return };
        client.drain_due = false;
        let before = client.output.len();
        let drained = client.connection.drain(&mut client.output, OUT_BYTES_MAX);
        // One that closed its session before is told so, and gone: it has nothing left to be let go of.
        if self.is_shut && drained == Drained::Open && client.output.len() > before {
            did.push(Did::Served { conn });
        }
        let says = drained == Drained::Open && client.output.len() > before;
        if client.connection.is_read_only() && self.led_ticks > 0 && says {
            did.push(Did::ReadsOn { conn });
        }
        client.outstanding = client.connection.outstanding();
        let woken_cut_off = std::mem::take(&mut client.woken_cut_off);
        if drained == Drained::Close {
            let cut_off = woken_cut_off || is_cut_off;
            did.push(Did::HungUp { conn, cut_off });
            if let Some(wire) = wires.get_mut(&conn) {
                wire.down.extend_from_slice(&client.output);
            }
            self.end(conn, wires);
        }
    }

    pub(super) fn send(
        &mut self,
        conn: u64,
        wires: &mut BTreeMap<u64, Wire>,
        rng: &mut SimRng,
        now_ms: i64,
    ) {
        let (Some(client), Some(wire)) = (self.connections.get_mut(&conn), wires.get_mut(&conn))
        else {
            return;
        };
        let room = DOWN_BYTES_MAX.saturating_sub(wire.down.len());
        let most = if rng.chance(50) { room } else { 1 + rng.below(80) as usize };
        let bytes = client.output.len().min(most).min(room);
        wire.down.extend_from_slice(&client.output.split_to(bytes));
        client.stalled_since_ms = now_ms;
        // The task goes round once more after every write.
        client.advance_due = true;
    }

    pub(super) fn end(&mut self, conn: u64, wires: &mut BTreeMap<u64, Wire>) {
        if let Some(client) = self.connections.remove(&conn) {
            client.connection.disconnect();
        }
        if let Some(wire) = wires.get_mut(&conn) {
            wire.down_closed = true;
            wire.up.clear();
        }
    }
}
