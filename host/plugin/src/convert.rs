//! What `state` says, as `wit/` says it.

use proto::{Acl, CreateMode, Id};
use state::hooks::{Cause, Changed, Check, Credentials, Operation, Ownership};

use crate::bindings::exports::vivarium::plugin::{authorizer, guard, observer};
use crate::bindings::vivarium::plugin::types;
use crate::host::stat;

/// Who asks.
pub(crate) fn identities(ids: &[Id]) -> Vec<types::IdentityParam<'_>> {
    ids.iter().map(identity).collect()
}

fn identity(id: &Id) -> types::IdentityParam<'_> {
    types::IdentityParam { scheme: &id.scheme, id: &id.id }
}

/// An ACL.
pub(crate) fn acl(acl: &[Acl]) -> Vec<types::AclEntryParam<'_>> {
    let entry = acl.iter().map(|Acl { perms, id }| types::AclEntryParam {
        perms: *perms as u32,
        scheme: &id.scheme,
        id: &id.id,
    });
    entry.collect()
}

/// Credentials.
pub(crate) fn credentials<'a>(
    credentials: &'a Credentials<'a>,
    identities: &'a [types::IdentityParam<'a>],
) -> authorizer::Credentials<'a> {
    authorizer::Credentials {
        scheme: credentials.scheme,
        data: credentials.bytes,
        identities,
        attrs: &[],
    }
}

/// A question to an authorizer.
pub(crate) fn question<'a>(
    check: &'a Check<'a>,
    identities: &'a [types::IdentityParam<'a>],
) -> authorizer::Question<'a> {
    authorizer::Question {
        op: check.operation,
        perm: check.permission as u32,
        path: check.path,
        consulted: check.consulted,
        entry: check.entry.map(identity),
        identities,
        attrs: &[],
    }
}

/// What a guard is asked about.
pub(crate) fn operation<'a>(
    operation: &'a Operation<'a>,
    acl: &'a [types::AclEntryParam<'a>],
) -> types::OperationParam<'a> {
    let (mode, ttl_ms) = kind(operation.owner);
    types::OperationParam {
        op: operation.operation,
        path: operation.path,
        data: operation.data,
        acl,
        mode,
        ttl_ms,
        version: operation.version,
        attrs: &[],
    }
}

/// What there is to know of it besides.
pub(crate) fn circumstances<'a>(operation: &Operation<'_>) -> guard::Circumstances<'a> {
    guard::Circumstances {
        // Only clients ask for anything, until there are triggers.
        cause: 0,
        index: operation.index,
        operations: operation.of_multi,
        before: operation.before.map(stat),
        attrs: &[],
    }
}

/// A change.
pub(crate) fn change<'a>(change: &'a Changed<'a>) -> observer::Change<'a> {
    let (mode, ttl_ms) = kind(change.owner);
    observer::Change {
        op: change.operation,
        cause: match change.cause {
            Cause::Client => 0,
            Cause::SessionEnd => 1,
            Cause::Due => 2,
            Cause::Build => 4,
        },
        path: change.path,
        mode,
        ttl_ms,
        data: change.data,
        before: change.before.map(stat),
        after: change.after.map(stat),
        attrs: &[],
    }
}

/// The kind of a znode, and its time to live.
fn kind(owner: Ownership) -> (u16, i64) {
    let (mode, ttl_ms) = match owner {
        Ownership::Persistent => (CreateMode::Persistent, 0),
        Ownership::Ephemeral(_) => (CreateMode::Ephemeral, 0),
        Ownership::Container => (CreateMode::Container, 0),
        Ownership::Ttl(ms) => (CreateMode::PersistentTtl, ms),
    };
    (mode.flags() as u16, ttl_ms)
}
