//! An operator's request from within the process, without a client's connection: the admin API asks
//! so, and gets the same answers as the tools.
//!
//! Whoever calls this has made sure that an operator asks.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use proto::{Id, Reply};
use state::Command;
use thiserror::Error;

use crate::audit::Audited;
use crate::input::Input;
use crate::operator::{self, Decision, OperatorReply, OperatorRequest};
use crate::outbox::{Outbox, Say, Waits};
use crate::publish::Published;

/// What becomes of a request.
#[derive(Debug)]
pub enum Begun {
    /// It is answered.
    Answered(OperatorReply),
    /// It is a command: this is for the Node, and the answer comes when it is applied.
    Waits(OperatorCall, Input),
}

/// A request whose command is under way.
#[derive(Debug)]
pub struct OperatorCall {
    outbox: Arc<Outbox>,
}

/// It is not known whether a change took effect: this server gave up waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is not known whether the change took effect; look, and ask again")]
pub struct OutcomeUnknown;

impl OperatorCall {
    /// Begins a request of `who`, who calls from `remote`. `id` is unique among this server's connections; `wake` is called, from any
    /// thread, when [`Self::reply`] may have something.
    pub fn begin(
        published: &Published,
        request: OperatorRequest,
        (who, remote): (Id, IpAddr),
        id: u64,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Begun {
        let refused = |why: String| Begun::Answered(OperatorReply::Refused { why });
        if let Some(why) = published.shut() {
            return refused(format!("nobody is served from this server's state: {why}"));
        }
        let view = published.view();
        match operator::decide(Ok(request), &view) {
            Decision::Reply(reply) => Begun::Answered(reply),
            Decision::Command(_) if published.is_read_only() => {
                refused("no leader is known: nothing can be changed".to_owned())
            }
            Decision::Command(command) => {
                let (call, input) = Self::command(published, command, (who, remote), id, wake);
                Begun::Waits(call, input)
            }
            Decision::SaveSnapshot(_) | Decision::NextRecord => {
                refused("snapshots are saved with `vivarium snapshot save`".to_owned())
            }
        }
    }

    /// The same of a command, which nobody needs to look at first.
    pub fn command(
        published: &Published,
        command: Command,
        (who, remote): (Id, IpAddr),
        id: u64,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> (Self, Input) {
        let outbox = Outbox::new(id, wake);
        let audited = published
            .audit()
            .map(|audit| Audited::of_operator(audit, &command, 0, &Arc::new(vec![who]), remote));
        let ticket = Some(outbox.push_pending(Waits::Operator { xid: 0, audited }));
        (Self { outbox }, Input::Command { command, ticket })
    }

    /// The answer, if it is there.
    pub fn reply(&self) -> Option<Result<OperatorReply, OutcomeUnknown>> {
        self.outbox.looks();
        let mut said = VecDeque::new();
        self.outbox.take_decided(&mut said, 1);
        Some(match said.pop_front()? {
            Say::Reply { result: Ok(Reply::Operator(reply)), .. } => {
                OperatorReply::decode(&reply).map_err(|_| OutcomeUnknown)
            }
            _ => Err(OutcomeUnknown),
        })
    }
}
