//! Whose fault an error is: the plugin's, which is an outcome, or this server's. `FAULTS.md` is the table.

use state::Fault;
use state::hooks::{EnvError, FaultKind, PluginFault};
use wasmtime::{OutOfMemory, Trap};

/// What a function of the host ends a call with, instead of an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?}")]
pub(crate) struct Stop(pub(crate) EnvError);

impl Stop {
    pub(crate) fn plugin(kind: FaultKind, why: impl Into<String>) -> Self {
        Self(EnvError::Plugin(PluginFault::new(kind, why)))
    }

    pub(crate) fn host(why: impl Into<String>) -> Self {
        Self(EnvError::Host(Fault::Waiting(why.into())))
    }
}

/// Where an error came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Instantiation,
    Call,
}

/// Sorts an error. `refused_growth`: whether the guest had been refused memory or table before.
///
/// # Errors
/// [`Fault`], if it is this server's.
pub(crate) fn sort(
    error: &wasmtime::Error,
    phase: Phase,
    refused_growth: bool,
) -> Result<PluginFault, Fault> {
    let host = |why: String| Err(Fault::Waiting(why));
    if let Some(Stop(stop)) = error.downcast_ref() {
        return match stop.clone() {
            EnvError::Plugin(fault) => Ok(fault),
            EnvError::Host(fault) => Err(fault),
        };
    }
    if error.is::<OutOfMemory>() {
        return host(format!("no memory: {error}"));
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match kind(*trap) {
            Some(FaultKind::Trap) if refused_growth => {
                Ok(PluginFault::new(FaultKind::Memory, format!("{trap}, after a refused growth")))
            }
            Some(kind) => Ok(PluginFault::new(kind, trap.to_string())),
            None => host(format!("{trap} cannot be")),
        };
    }
    match phase {
        Phase::Call => Ok(PluginFault::new(FaultKind::BadReturn, error.to_string())),
        Phase::Instantiation if refused_growth => {
            Ok(PluginFault::new(FaultKind::Memory, error.to_string()))
        }
        Phase::Instantiation => host(format!("no instance: {error}")),
    }
}

/// Which kind of fault of the plugin a trap is; none if it is the host's.
pub fn kind(trap: Trap) -> Option<FaultKind> {
    Some(match trap {
        Trap::MemoryOutOfBounds
        | Trap::TableOutOfBounds
        | Trap::IndirectCallToNull
        | Trap::BadSignature
        | Trap::IntegerOverflow
        | Trap::IntegerDivisionByZero
        | Trap::BadConversionToInteger
        | Trap::UnreachableCodeReached
        | Trap::CannotLeaveComponent => FaultKind::Trap,
        Trap::OutOfFuel => FaultKind::Fuel,
        Trap::InvalidChar
        | Trap::InvalidDiscriminant
        | Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::UnalignedPointer => FaultKind::BadReturn,
        // The others, and those that there will be, are listed in FAULTS.md as the host's.
        _ => return None,
    })
}
