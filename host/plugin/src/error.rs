//! Why a module was refused when it was brought in.

use thiserror::Error;

/// A module cannot be a plugin. The same for the same bytes on every server of one version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// It is bigger than the limit. Nothing of it was read.
    #[error("the module has {bytes} bytes, the limit is {max}")]
    TooBig {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It is a WebAssembly module, but no component.
    #[error(
        "this is a core module; a plugin is a component (`vivarium plugin build` makes one of it)"
    )]
    NotComponent,
    /// It is not valid under the profile: damaged, truncated, or using a feature that plugins have not.
    #[error("the module is not valid here, at byte {offset}: {why}")]
    Invalid {
        /// Where.
        offset: usize,
        /// What is wrong there.
        why: String,
    },
    /// It imports what there is not.
    #[error(
        "the module imports `{0}`; plugins may import vivarium:plugin alone (see wit/), and no WASI"
    )]
    Import(String),
    /// It exports no point.
    #[error(
        "the module exports no point of vivarium:plugin: none of authorizer, guard, observer, trigger, view"
    )]
    NoPoint,
    /// It has a start function.
    #[error(
        "a core module has a start function; what is to be set up must wait for the first call"
    )]
    Start,
    /// A function's frame is too big.
    #[error("function {function} has a frame of {bytes} bytes, the limit is {max}")]
    Frame {
        /// Its index in its core module.
        function: u32,
        /// 16 for each parameter, local and operand.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It has more of something than a plugin may have.
    #[error("the module has {found} {what}, the limit is {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// It is built in a way that the profile does not have.
    #[error("the module {0}")]
    Shape(&'static str),
    /// It says of itself what this server does not know.
    #[error("the module's section `vivarium:plugin` says `{0}`; known is `stateless`")]
    Word(String),
    /// Its imports or exports have other types than `wit/` says.
    #[error("the module does not fit vivarium:plugin@0.1.0: {0}")]
    Interface(String),
    /// It faults as soon as it is instantiated.
    #[error("the module cannot be instantiated: {0}")]
    Instantiation(String),
}
