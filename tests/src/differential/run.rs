//! Sends the same to both servers, hears both out, and compares.
//!
//! A step has two halves. First the requests of one session, one or a burst, are sent and each is
//! answered on both servers. Then every session pings both: whatever a server had to tell a session
//! of the step comes before its ping's reply, so that the two servers' events can be compared
//! without waiting for time to pass.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::{ConnectRequest, Request};

use super::differences::Differences;
use super::mapping::{Mapping, Side};
use super::request::{Draft, shortened};
use super::session::{self, Connect, Session};
use super::tally::Tally;
use super::told::{Told, sort_events};

/// How many lines a transcript shows.
const TRANSCRIPT_LINES: usize = 34;
/// How long sessions that are to stay may be silent, in milliseconds.
pub(super) const LONG_MS: i32 = 300_000;

/// Why a seed failed: what was different, after what.
#[derive(Debug)]
pub(super) struct Mismatch(pub(super) String);

impl From<std::io::Error> for Mismatch {
    fn from(error: std::io::Error) -> Self {
        Self(format!("a server cannot be reached: {error}"))
    }
}

/// One pair of servers, with the sessions of one seed.
pub(super) struct Run<'a> {
    addresses: (SocketAddr, SocketAddr),
    pub(super) mapping: &'a mut Mapping,
    differences: &'a mut Differences,
    pub(super) tally: &'a mut Tally,
    pub(super) sessions: Vec<Session>,
    transcript: VecDeque<String>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        addresses: (SocketAddr, SocketAddr),
        mapping: &'a mut Mapping,
        differences: &'a mut Differences,
        tally: &'a mut Tally,
    ) -> Self {
        let (sessions, transcript) = (Vec::new(), VecDeque::new());
        Self { addresses, mapping, differences, tally, sessions, transcript }
    }

    fn note(&mut self, text: String) {
        self.transcript.push_back(shortened(&text));
        if self.transcript.len() > TRANSCRIPT_LINES {
            self.transcript.pop_front();
        }
    }

    pub(super) fn mismatch(&mut self, what: &str, zookeeper: &str, vivarium: &str) -> Mismatch {
        let steps: Vec<String> = self.transcript.iter().cloned().collect();
        Mismatch(format!(
            "{}\n{what}:\n    ZooKeeper < {zookeeper}\n    Vivarium  < {vivarium}",
            steps.join("\n")
        ))
    }

    /// The last zxids that each server told.
    pub(super) fn last(&self) -> [i64; 2] {
        Side::BOTH.map(|side| self.mapping.last(side))
    }

    /// One step of one session.
    pub(super) fn step(&mut self, who: usize, drafts: &[Draft]) -> Result<(), Mismatch> {
        self.ask(who, drafts)?;
        self.barrier()
    }

    /// The first half of a step. Gives what was told, in ZooKeeper's numbers.
    pub(super) fn ask(&mut self, who: usize, drafts: &[Draft]) -> Result<Vec<Told>, Mismatch> {
        let name = self.sessions[who].name.clone();
        for draft in drafts {
            self.note(format!("{name} > {}", draft.text));
        }
        self.tally.operations += drafts.len();
        self.sessions[who].send(drafts);
        let [zookeeper, vivarium] = Side::BOTH.map(|side| {
            let told = self.sessions[who].hear(side, drafts);
            let mut told: Vec<Told> =
                told.into_iter().map(|told| told.mapped(side, self.mapping)).collect();
            if drafts.iter().any(|draft| draft.op() == Some(proto::OpCode::CloseSession)) {
                sort_events(&mut told);
            }
            told
        });
        let mut ended = false;
        let mut answered = drafts.iter();
        for at in 0..zookeeper.len().max(vivarium.len()) {
            let nothing = Told::Silence;
            let z = zookeeper.get(at).unwrap_or(&nothing);
            let v = vivarium.get(at).unwrap_or(&nothing);
            self.note(format!("    {name} < {z}"));
            let reply = !z.is_event() && !v.is_event();
            let draft = if reply { answered.next() } else { None };
            if z == v {
                self.tally.event(z);
                if let Some(draft) = draft {
                    self.tally.reply(draft.name(), z);
                }
                ended |= *z == Told::Closed;
                continue;
            }
            let known = draft.and_then(|draft| {
                let (op, when) = (draft.name(), draft.when);
                self.differences.find(op, when, &z.outcome(), &v.outcome())
            });
            let Some(known) = known else {
                return Err(self.mismatch(&name, &z.to_string(), &v.to_string()));
            };
            if let Some(draft) = draft {
                self.tally.reply(draft.name(), z);
            }
            self.mapping.shift(known.more_zxids);
            if known.ends_connection {
                ended = true;
                break;
            }
        }
        if ended {
            self.tally.other("connections ended by the server");
            self.sessions[who].wires = None;
        }
        Ok(zookeeper)
    }

    /// The second half of a step: whatever each session was told is the same.
    pub(super) fn barrier(&mut self) -> Result<(), Mismatch> {
        let heard = self.ping_all();
        self.compare(heard)
    }

    /// Pings both servers from every session; what each was told, up to the reply.
    fn ping_all(&mut self) -> Vec<[Vec<Told>; 2]> {
        let ping = [Draft::from(Request::Ping)];
        for session in &mut self.sessions {
            session.send(&ping);
        }
        let mut heard = Vec::new();
        for session in &mut self.sessions {
            heard.push(Side::BOTH.map(|side| session.hear(side, &ping)));
        }
        if let Some([z, v]) = heard.iter().find(|[z, _]| !z.is_empty())
            && let (Some(Told::Reply { zxid: z, .. }), Some(Told::Reply { zxid: v, .. })) =
                (z.last(), v.last())
        {
            self.mapping.learn(*z, *v);
        }
        heard
    }

    fn compare(&mut self, heard: Vec<[Vec<Told>; 2]>) -> Result<(), Mismatch> {
        for (who, [z, v]) in heard.into_iter().enumerate() {
            let mut map = |side, told: Vec<Told>| -> Vec<Told> {
                told.into_iter().map(|told| told.mapped(side, self.mapping)).collect()
            };
            let mut z = map(Side::ZooKeeper, z);
            let mut v = map(Side::Vivarium, v);
            if z != v {
                // The ephemerals of a session that ended go in any order.
                sort_events(&mut z);
                sort_events(&mut v);
            }
            let name = self.sessions[who].name.clone();
            if z != v {
                let show = |told: &[Told]| -> String {
                    told.iter().map(Told::to_string).collect::<Vec<_>>().join("\n                ")
                };
                return Err(self.mismatch(&format!("{name}, pinging"), &show(&z), &show(&v)));
            }
            for told in &z {
                self.tally.event(told);
                if told.is_event() {
                    self.note(format!("    {name} < {told}"));
                }
            }
            if z.last() == Some(&Told::Closed) {
                self.note(format!("    {name} < closed"));
                self.tally.other("connections ended by the server");
                self.sessions[who].wires = None;
            }
        }
        Ok(())
    }

    /// Waits until `done` says of each server that what it told the session `who` is all that is to
    /// come, then compares as [`Self::barrier`] does. For what happens when time has passed.
    pub(super) fn wait_for(
        &mut self,
        who: usize,
        done: impl Fn(&[Told]) -> bool,
    ) -> Result<(), Mismatch> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut all: Vec<[Vec<Told>; 2]> = self.ping_all();
        while !all[who].iter().all(|told| done(told)) {
            if Instant::now() > deadline {
                return Err(self.mismatch(
                    "waited 20 s in vain",
                    &format!("{:?}", all[who][0]),
                    &format!("{:?}", all[who][1]),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
            for (all, more) in all.iter_mut().zip(self.ping_all()) {
                for (all, mut more) in all.iter_mut().zip(more) {
                    // Only the last ping's reply is of interest: how many there were is chance.
                    if matches!(all.last(), Some(Told::Reply { .. })) {
                        all.pop();
                    } else if matches!(all.last(), Some(Told::Closed)) {
                        more.clear();
                    }
                    all.append(&mut more);
                }
            }
        }
        self.compare(all)
    }

    /// Connects to both with a frame each; what is answered must be the same. `attaches` says
    /// whether Vivarium takes a zxid that ZooKeeper does not.
    pub(super) fn connect(
        &mut self,
        text: &str,
        frames: &[Bytes; 2],
        attaches: bool,
    ) -> Result<Connect, Mismatch> {
        self.note(format!("connect > {text}"));
        let connect = session::connect(self.addresses, frames)?;
        if attaches {
            self.mapping.shift(1);
        }
        if let [Some(z), Some(v)] = &connect.responses
            && z.timeout_ms > 0
            && v.timeout_ms > 0
            && !attaches
        {
            self.mapping.session(z.session_id, v.session_id);
        }
        let [z, v] = &connect.told;
        let mapped = match v {
            Told::Connected { timeout_ms, session, read_only } => Told::Connected {
                timeout_ms: *timeout_ms,
                session: self.mapping.zookeeper_session(*session),
                read_only: *read_only,
            },
            other => other.clone(),
        };
        self.tally.other(match z {
            Told::Connected { timeout_ms: 0, .. } => "connects refused",
            Told::Connected { .. } if attaches => "sessions attached again",
            Told::Connected { .. } => "sessions opened",
            _ => "connects without an answer",
        });
        self.note(format!("    connect < {z}"));
        if *z != mapped {
            let (z, v) = (z.to_string(), mapped.to_string());
            return Err(self.mismatch("connect", &z, &v));
        }
        Ok(connect)
    }

    /// Opens a session on both and adds it.
    pub(super) fn open(&mut self, name: &str, request: &ConnectRequest) -> Result<usize, Mismatch> {
        let frame = session::frame(request);
        let text = format!("{name}: {request:?}");
        let connect = self.connect(&text, &[frame.clone(), frame], false)?;
        let Some(session) = Session::new(name.to_owned(), connect) else {
            return Err(self.mismatch(name, "no session", "no session"));
        };
        self.sessions.push(session);
        Ok(self.sessions.len() - 1)
    }

    /// Attaches a session again. Connections that it still has must be closed by both.
    pub(super) fn attach(&mut self, who: usize) -> Result<(), Mismatch> {
        let session = &self.sessions[who];
        let requests = session.attach(self.last(), LONG_MS);
        let text = format!("{} again", session.name);
        let connect = self.connect(&text, &requests.map(|r| session::frame(&r)), true)?;
        let accepted = matches!(connect.told[0], Told::Connected { timeout_ms: 1.., .. });
        if self.sessions[who].wires.is_some() {
            // The reply to a ping would say that the old connection is still there.
            let old = &mut self.sessions[who];
            let ping = [Draft::from(Request::Ping)];
            old.send(&ping);
            let told = Side::BOTH.map(|side| old.hear(side, &ping));
            if told.iter().any(|told| *told != [Told::Closed]) {
                let [z, v] = told.map(|told| format!("{told:?}"));
                return Err(self.mismatch("the connection before the attach", &z, &v));
            }
        }
        self.sessions[who].wires = accepted.then_some(connect.wires);
        if !accepted {
            return Err(self.mismatch("an attach", "refused", "refused"));
        }
        Ok(())
    }

    /// Tries to attach a session with a wrong password. ZooKeeper then ends the connection that the
    /// session has, which must be a listed difference.
    pub(super) fn wrong_password(&mut self, who: usize) -> Result<(), Mismatch> {
        let session = &self.sessions[who];
        let name = session.name.clone();
        let mut requests = session.attach([0; 2], LONG_MS);
        for request in &mut requests {
            request.password = Bytes::from_static(&[7; 16]);
        }
        let text = format!("{name} with a wrong password");
        self.connect(&text, &requests.map(|r| session::frame(&r)), true)?;
        if self.sessions[who].wires.is_some() {
            let old = &mut self.sessions[who];
            let ping = [Draft::from(Request::Ping)];
            old.send(&ping);
            let told = Side::BOTH.map(|side| old.hear(side, &ping));
            let open = |told: &[Told]| if told == [Told::Closed] { "closed" } else { "open" };
            let (z, v) = (open(&told[0]), open(&told[1]));
            if z != v && self.differences.find("connect", "wrong-password", z, v).is_none() {
                return Err(self.mismatch("the connection before a wrong password", z, v));
            }
            self.sessions[who].wires = None;
        }
        self.barrier()
    }

    /// Closes a session as a client does and forgets it.
    pub(super) fn close(&mut self, who: usize) -> Result<(), Mismatch> {
        self.step(who, &[Request::CloseSession.into()])?;
        if self.sessions[who].wires.is_some() {
            return Err(self.mismatch("a closed session", "still connected", "still connected"));
        }
        self.sessions.remove(who);
        Ok(())
    }
}
