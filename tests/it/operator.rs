//! What an operator of an ensemble does, and what he waits for.

use std::process::Command;
use std::time::{Duration, Instant};

use tests::real::ensemble::Ensemble;

use crate::process::binary;

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What `vivarium VERB` prints and how it ends, as the operator of the server `at`.
pub(crate) fn operator(
    ensemble: &Ensemble,
    at: usize,
    verb: &str,
    arguments: &[&str],
) -> Result<String, String> {
    let mut command = Command::new(binary());
    command.arg(verb).arg("--server").arg(ensemble.clients[at].to_string());
    command.arg("--data-dir").arg(ensemble.home(at).join("data")).args(arguments);
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Waits until something holds.
///
/// # Panics
/// With `what`, if it does not within [`PATIENCE`].
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
