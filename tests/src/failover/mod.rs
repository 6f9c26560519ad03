//! How long clients wait when the leader is killed: three servers, clients that write without rest
//! through all of them, and `kill -9` of whoever leads, again and again.
//!
//! Each client has a session, a znode of its own, and one write in flight. Its gap is the longest time
//! between two acknowledged writes from the kill on. A client whose connection breaks attaches its
//! session to the next server at once, without the pause that client libraries make. Once the killed
//! server is back, its clients go back to it.

mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::real::ensemble::{Ensemble, Program};
use crate::real::session::{Session, Trouble};
use writer::{Meter, Writer};

/// How long before a kill all is calm, and what a client waits for then is looked at.
const CALM: Duration = Duration::from_secs(2);
/// How long after a kill is looked at.
const AFTER: Duration = Duration::from_secs(4);
const SERVERS: usize = 3;
/// The session timeout, which no gap comes near.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a silent server is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What happened at one kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// The longest gap of any client in the calm before.
    pub calm: Duration,
    /// The longest gap of the clients of the killed server.
    pub its_clients: Duration,
    /// The longest gap of the other clients.
    pub others: Duration,
    /// How many connections to servers that were not killed broke.
    pub dropped: usize,
    /// Sessions that expired.
    pub expired: usize,
}

impl Kill {
    /// The longest gap of any client.
    pub fn gap(&self) -> Duration {
        self.its_clients.max(self.others)
    }
}

/// Kills the leader so often, and gives what clients saw.
///
/// # Errors
/// If servers do not serve, or what clients were told is wrong.
pub fn run(program: Program, clients: usize, kills: usize) -> Result<Vec<Kill>, String> {
    let mut ensemble = Ensemble::lay_out(program, SERVERS, false).map_err(|e| e.to_string())?;
    for at in 0..SERVERS {
        ensemble.start(at).map_err(|e| e.to_string())?;
    }
    ensemble.wait().map_err(|e| e.to_string())?;
    let writers = (0..clients).map(|client| Writer::start(&ensemble.clients, client));
    let writers = writers.collect::<Result<Vec<_>, _>>()?;
    let meters: Vec<_> = writers.iter().map(|writer| Arc::clone(&writer.meter)).collect();
    // A JVM is slow at first.
    std::thread::sleep(AFTER * 2);
    let mut seen = Vec::new();
    for _ in 0..kills {
        seen.push(kill_leader(&mut ensemble, &meters)?);
        let kill = seen[seen.len() - 1];
        let ms = |gap: Duration| gap.as_millis();
        eprintln!(
            "kill {:2}: gap {:4} ms (clients of the killed server {:4}, others {:4}; before {:3}), {} dropped, {} expired",
            seen.len(),
            ms(kill.gap()),
            ms(kill.its_clients),
            ms(kill.others),
            ms(kill.calm),
            kill.dropped,
            kill.expired
        );
    }
    for writer in writers {
        writer.finish(&ensemble.clients)?;
    }
    Ok(seen)
}

fn kill_leader(ensemble: &mut Ensemble, meters: &[Arc<Meter>]) -> Result<Kill, String> {
    meters.iter().for_each(|meter| meter.begin());
    std::thread::sleep(CALM);
    let calm = meters.iter().map(|meter| meter.gap()).max().unwrap_or_default();
    let killed = ensemble.leader().ok_or("nobody leads")?;
    let its: Vec<bool> = meters.iter().map(|meter| meter.server() == killed).collect();
    meters.iter().for_each(|meter| meter.begin());
    ensemble.kill(killed).map_err(|e| e.to_string())?;
    std::thread::sleep(AFTER);
    let longest = |of_killed: bool| {
        let gaps = meters.iter().zip(&its).filter(|(_, its)| **its == of_killed);
        gaps.map(|(meter, _)| meter.gap()).max().unwrap_or_default()
    };
    let kill = Kill {
        calm,
        its_clients: longest(true),
        others: longest(false),
        dropped: meters.iter().map(|meter| meter.dropped(killed)).sum(),
        expired: meters.iter().map(|meter| meter.expired()).sum(),
    };
    ensemble.start(killed).map_err(|e| e.to_string())?;
    ensemble.wait().map_err(|e| e.to_string())?;
    meters.iter().for_each(|meter| meter.go_home());
    std::thread::sleep(CALM);
    Ok(kill)
}

/// Attaches a session, however long it takes while it lives.
pub(crate) fn attach(session: &mut Session) -> Result<(), Trouble> {
    session.attach(Instant::now() + SESSION_TIMEOUT).map(|_| ())
}
