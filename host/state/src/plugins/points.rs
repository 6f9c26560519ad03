//! The points at which plugins take part, in apply and in reads.
//!
//! Invariants:
//! * Nobody who is refused keeps what a plugin wrote for it, and nothing of a fault is kept.
//! * The super user is never refused, and what the server does by itself is asked of nobody.
//! * Nothing below `/zookeeper` is asked of anybody.

use std::sync::Arc;

use proto::{Acl, ErrorCode, Id, OpCode, Perms};

use super::binding::{OnFault, OpKind, Point};
use super::decisions::{Effect, Said};
use super::registry::{Live, Registry};
use super::running::{About, Came, call, make_stale, note, settle};
use crate::access;
use crate::fault::Fault;
use crate::hooks::{Changed, Check, Decision, OpNumber, Operation, Verdict};
use crate::ops::Stop;
use crate::txn::Txn;

pub(super) fn kind_of(operation: OpNumber) -> OpKind {
    match OpCode::from_i32(i32::from(operation)) {
        Some(OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl) => {
            OpKind::Create
        }
        Some(OpCode::Delete | OpCode::DeleteContainer) => OpKind::Delete,
        Some(OpCode::SetData) => OpKind::Set,
        Some(OpCode::SetAcl) => OpKind::SetAcl,
        Some(OpCode::Check) => OpKind::Check,
        _ => OpKind::Read,
    }
}

pub(crate) fn is_super(identities: &[Id]) -> bool {
    identities.iter().any(|id| id.scheme == "super")
}

/// Asks the guards that match, in order, whether a change may be made.
pub(crate) fn guard(txn: &mut Txn<'_>, operation: &Operation<'_>) -> Result<(), Stop> {
    if txn.plugins.registry.is_empty() {
        return Ok(());
    }
    let registry = Arc::clone(&txn.plugins.registry);
    let point = Point::Guard;
    let about = About { point, operation: operation.operation, path: operation.path };
    let is_super = is_super(operation.identities);
    if !registry.shadows(operation.path, kind_of(operation.operation)).is_empty() {
        txn.plugins.shadow(operation);
    }
    for at in registry.guards(operation.path, kind_of(operation.operation)).iter() {
        let live = registry.live(at);
        if !txn.plugins.calls_still(&registry, live) {
            continue;
        }
        let refuses = live.enforces && !is_super;
        let effect = |refuses: bool| if refuses { Effect::Refused } else { Effect::Passed };
        match call(txn, live, about, |hooks, call, env| hooks.guard(call, operation, env))? {
            Ok(Verdict::Allow) => settle(txn, live, point, Came::Yes),
            Ok(Verdict::Deny { code, reason }) => {
                settle(txn, live, point, Came::No(code.code()));
                note(txn, live, about, Said::Deny(code), effect(refuses), reason);
                if refuses {
                    return Err(code.into());
                }
            }
            Err(fault) => {
                let refuses = refuses && live.plugin.binding.on_fault == OnFault::Deny;
                note(txn, live, about, Said::Fault(fault.kind), effect(refuses), fault.why);
                if refuses {
                    return Err(ErrorCode::SystemError.into());
                }
            }
        }
    }
    Ok(())
}

/// Tells the observers that match, in order, of a change that was made. One that is being built is told
/// of what is behind it, and meets the rest on its way.
pub(crate) fn observe(txn: &mut Txn<'_>, changed: &Changed<'_>) -> Result<(), Fault> {
    let registry = Arc::clone(&txn.plugins.registry);
    for at in registry.observers(changed.path, kind_of(changed.operation)).iter() {
        let live = registry.live(at);
        if live.is_told_of(changed.path) && txn.plugins.calls_still(&registry, live) {
            tell(txn, live, changed)?;
        }
    }
    Ok(())
}

/// Tells one observer; false if that was a fault, and it is to be built anew.
pub(crate) fn tell(txn: &mut Txn<'_>, live: &Live, changed: &Changed<'_>) -> Result<bool, Fault> {
    let point = Point::Observer;
    let about = About { point, operation: changed.operation, path: changed.path };
    match call(txn, live, about, |hooks, call, env| hooks.observe(call, changed, env))? {
        Ok(()) => {
            settle(txn, live, point, Came::Yes);
            Ok(true)
        }
        Err(fault) => {
            note(txn, live, about, Said::Fault(fault.kind), Effect::Stale, fault.why);
            make_stale(txn, live);
            Ok(false)
        }
    }
}

/// Whether somebody may do something that an ACL is consulted for, in apply.
pub(crate) fn may(txn: &mut Txn<'_>, acl: &[Acl], check: &Check<'_>) -> Result<bool, Fault> {
    let registry = Arc::clone(&txn.plugins.registry);
    if registry.is_empty() {
        return Ok(access::allowed(acl, check.permission, check.identities));
    }
    allowed(&registry, acl, check, &mut |live, check| {
        if !txn.plugins.calls_still(&registry, live) {
            return Ok(Decision::Abstain);
        }
        let about = about(check);
        let answer = call(txn, live, about, |hooks, call, env| hooks.check(call, check, env))?;
        let (decision, noted) = match answer {
            Ok(decision) => {
                let no = ErrorCode::NoAuth;
                let came = match decision {
                    Decision::Allow => Came::Yes,
                    Decision::Deny => Came::No(no.code()),
                    Decision::Abstain => Came::Neither,
                };
                settle(txn, live, Point::Authorizer, came);
                (decision, is_noted(decision, check).then(|| (Said::Deny(no), String::new())))
            }
            Err(fault) => (after_fault(live), Some((Said::Fault(fault.kind), fault.why))),
        };
        let counts = if live.enforces { decision } else { Decision::Abstain };
        if let Some((said, reason)) = noted {
            note(txn, live, about, said, effect(counts), reason);
        }
        Ok(counts)
    })
}

pub(super) fn about<'a>(check: &Check<'a>) -> About<'a> {
    About { point: Point::Authorizer, operation: check.operation, path: check.path }
}

/// That an entry of an ACL does not match refuses nothing yet.
pub(super) fn is_noted(decision: Decision, check: &Check<'_>) -> bool {
    decision == Decision::Deny && check.entry.is_none()
}

pub(super) fn effect(counts: Decision) -> Effect {
    if counts == Decision::Deny { Effect::Refused } else { Effect::Passed }
}

/// What a fault of an authorizer comes to. It never allows anything.
pub(super) fn after_fault(live: &Live) -> Decision {
    match live.plugin.binding.on_fault {
        OnFault::Deny => Decision::Deny,
        OnFault::Allow => Decision::Abstain,
    }
}

/// Whether an ACL, with the authorizers that have a say, lets somebody do something. `ask` gives what an
/// authorizer's answer counts as.
pub(super) fn allowed(
    registry: &Registry,
    acl: &[Acl],
    check: &Check<'_>,
    ask: &mut dyn FnMut(&Live, &Check<'_>) -> Result<Decision, Fault>,
) -> Result<bool, Fault> {
    if is_super(check.identities) {
        return Ok(true);
    }
    let perms = check.permission;
    // Plugins are asked about one permission.
    let permission = if perms & Perms::READ != 0 { Perms::READ } else { perms };
    let mut overrides = false;
    for at in registry.authorizers(check.path, kind_of(check.operation)).iter() {
        let live = registry.live(at);
        match ask(live, &Check { permission, entry: None, ..*check })? {
            Decision::Deny => return Ok(false),
            Decision::Allow => overrides |= live.plugin.binding.override_acl,
            Decision::Abstain => {}
        }
    }
    let decides = |scheme: &str| registry.authorizer_of(scheme).is_some_and(|live| live.enforces);
    if overrides || access::allowed_but(acl, perms, check.identities, decides) {
        return Ok(true);
    }
    for entry in acl.iter().filter(|entry| entry.perms & perms != 0) {
        let Some(live) = registry.authorizer_of(&entry.id.scheme) else { continue };
        let asked = Check { permission, entry: Some(&entry.id), ..*check };
        if ask(live, &asked)? == Decision::Allow {
            return Ok(true);
        }
    }
    Ok(false)
}
