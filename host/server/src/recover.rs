//! `vivarium recover --force-single`: a server of an ensemble that has lost its majority goes on alone.
//!
//! Everything in its log is kept, also what it does not know to be committed: others may have
//! acknowledged it before they were lost. It becomes the only voter of a new ensemble, so that servers
//! with data of the old one are refused; without data they may take part. Where the log is of no use, it
//! goes on with what its state has by itself.
//!
//! Invariant: one batch of the store makes the new ensemble; before it, the data is the old one's.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use anyhow::{Context, bail, ensure};
use plugin::{Guests, Runtime};
use replica::Marked;
use replica::log::{Log, Position, RealDisk};
use state::{Fault, Hooks, Members, State};

use crate::config::Config;
use crate::data_dir::{self, Claim};
use crate::found::{self, NoLog, Opened, REPLAY_BYTES};
use crate::identity::{self, Identity};
use crate::plugins::{self, Host};
use crate::stores::{self, Stores};
use crate::{peers, quarantine};

/// The data of a server that is to go on alone.
pub(crate) struct Survivor {
    _claim: Claim,
    server: u32,
    raft_id: u64,
    log: Kept,
    state: State,
    config: Config,
    runtime: Arc<Runtime>,
}

/// What there is beside the state.
enum Kept {
    /// The log.
    Log(Box<Log<RealDisk>>),
    /// Nothing, for this reason; the state is of this generation.
    Nothing(String, u64),
}

impl Survivor {
    /// Opens the data, and changes nothing of what it is.
    ///
    /// # Errors
    /// If there is none, it is in use or damaged, or there is nothing to recover from.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let (dir, server) = (&config.data_dir, u32::from(config.server_id));
        ensure!(
            dir.join("format").is_file(),
            "{} is not the data directory of a server; name it with --data-dir",
            dir.display()
        );
        let claim = data_dir::claim(dir)?;
        let stores = Stores::new(dir, stores::options(config));
        let runtime = plugins::runtime(dir)?;
        let make = hooks(&runtime);
        let host = Host { runtime: &runtime, make: &make };
        let mut lost = None;
        let mut with_log = None;
        match found::open_log(config, &dir.join("log"))? {
            Err(NoLog::Missing) => lost = Some(found::gone(&dir.join("log"))),
            Err(NoLog::Damaged(why)) => lost = Some(why),
            Ok(mut log) => {
                let generation = Marked::of(&log).generation;
                stores.begin(generation)?;
                refuse_known(dir, generation)?;
                match found::open_with(config, &stores, generation, &mut log, &host)? {
                    Opened::State(state) => with_log = Some((Kept::Log(Box::new(log)), *state)),
                    Opened::BadLog(mismatch) => lost = Some(mismatch.to_string()),
                    Opened::BadState(why) => bail!(
                        "{}: the state is damaged ({why}): recover another server, restore a snapshot, \
                         or put the data directory back from a backup",
                        dir.display()
                    ),
                }
            }
        }
        let (log, mut state) = match with_log {
            Some(both) => both,
            None => {
                let (generation, _) = stores.newest().with_context(|| {
                    format!("{} has neither a log nor a state of use", dir.display())
                })?;
                refuse_known(dir, generation)?;
                let store = Box::new(stores.open(generation)?);
                let state = found::open_state(config, store, &host, &Members::founders(&[]))?;
                (Kept::Nothing(lost.unwrap_or_default(), generation), state)
            }
        };
        state.sync()?;
        let members = &state.meta().members;
        let servers: Vec<u32> = members.servers.keys().copied().collect();
        ensure!(
            state.meta().applied > 0,
            "{} has no data yet: it waits for a snapshot of an ensemble; recover another server, or \
             restore a snapshot",
            dir.display()
        );
        let given = identity::read(dir)?;
        let raft_id = match (&given, members.servers.get(&server)) {
            (Identity::Is(id), _) => *id,
            (_, Some(member)) => member.raft_id,
            (_, None) => peers::raft_id(server),
        };
        if members.server_of(raft_id) != Some(server) {
            bail!(
                "{} is of one of the servers {servers:?}, but not of server {server}: say which one it \
                 is with --config, --zoo-cfg or --server-id",
                dir.display()
            );
        }
        let is_whole = matches!((&log, &given), (Kept::Log(_), Identity::Is(_) | Identity::None));
        ensure!(
            members.voters != [raft_id] || !is_whole,
            "server {server} decides alone already; start it"
        );
        Ok(Self { _claim: claim, server, raft_id, log, state, config: config.clone(), runtime })
    }

    /// Makes it the only voter of a new ensemble.
    ///
    /// # Errors
    /// If the disk fails, or an entry is of a newer version or needs a plugin that does not run here: nothing
    /// is changed then.
    pub(crate) fn go_on_alone(self) -> anyhow::Result<()> {
        let (dir, config) = (self.config.data_dir.clone(), &self.config);
        // With it, and without a log, the data is that of a server whose log was lost: until there is a
        // new one, this can be done again.
        identity::write(&dir, self.raft_id)?;
        // Nothing of it is written before all of it is.
        let mut state = self.state.with_gather_bytes(usize::MAX);
        let make = hooks(&self.runtime);
        let host = Host { runtime: &self.runtime, make: &make };
        if let Kept::Log(log) = &self.log {
            let last = log.last_index();
            while state.meta().applied < last {
                for entry in log.entries(state.meta().applied + 1, last + 1, REPLAY_BYTES)? {
                    match found::apply(&mut state, &entry, &host) {
                        Err(Fault::Waiting(why)) => bail!(cannot_apply(entry.index, &why)),
                        applied => applied?,
                    }
                }
            }
        }
        let at = Position { index: state.meta().applied, term: state.meta().term };
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let id = u64::from_be_bytes(id) | 1;
        let Kept::Nothing(why, generation) = &self.log else {
            return Ok(state.go_on_alone(self.raft_id, id)?);
        };
        let cannot = || format!("cannot begin a new log in {}", dir.display());
        let mut others = Stores::new(&dir, stores::options(config)).all().with_context(cannot)?;
        let ours = others.remove(generation);
        let others: Vec<_> = others.into_values().collect();
        quarantine::keep_log(&dir, &others, why).with_context(cannot)?;
        state.go_on_alone(self.raft_id, id)?;
        // A new log goes with the first generation.
        if let Some(ours) = ours {
            fs::rename(ours, stores::path(&dir, 0)).with_context(cannot)?;
        }
        let disk = RealDisk::new(dir.join("log")).with_context(cannot)?;
        fs::File::open(&dir).and_then(|dir| dir.sync_all()).with_context(cannot)?;
        Log::create(disk, found::log_options(config), at.index, at.term)?;
        Ok(())
    }
}

fn hooks(runtime: &Arc<Runtime>) -> impl Fn() -> Box<dyn Hooks> + Sync + use<> {
    let runtime = Arc::clone(runtime);
    move || Box::new(Guests::new(Arc::clone(&runtime)))
}

fn cannot_apply(index: u64, why: &str) -> String {
    format!(
        "entry {index} of the log cannot be applied here: {why}. See what is wrong with this machine (memory, \
         disk), and try again; or have the entry applied without that plugin, and then recover (`vivarium \
         repair --skip-binding NAME --at {index}`)"
    )
}

/// Refuses a state that is known to be wrong.
fn refuse_known(dir: &Path, generation: u64) -> anyhow::Result<()> {
    let known = quarantine::read(dir, generation)?;
    if let Some(known) = known.filter(|known| known.generation == generation) {
        bail!(
            "{}: the state is known to be wrong ({}): recover another server, or restore a snapshot; to go \
             on with it all the same, remove the file `quarantine`",
            dir.display(),
            known.why
        );
    }
    Ok(())
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (meta, server) = (self.state.meta(), self.server);
        let others: Vec<u32> =
            meta.members.servers.keys().copied().filter(|other| *other != server).collect();
        let unsure = match &self.log {
            Kept::Log(log) => {
                let unsure = log.last_index().saturating_sub(meta.applied);
                format!(
                    "and {unsure} further entries of which it is not known\n\
                     whether they were acknowledged; they are kept."
                )
            }
            Kept::Nothing(why, _) => format!(
                "and no log that is of use\n\
                 ({why}):\n\
                 LOST is what only the log had, as a rule the writes of the last ten seconds."
            ),
        };
        write!(
            f,
            "This is the data of server {server}; the other servers are {others:?}.\n\
             It has {} znodes, all up to zxid {:#x} of {}, {unsure}\n\
             \n\
             From now on server {server} decides alone, in a new ensemble with this data.\n\
             - LOST is what the others have acknowledged and this server has not got. Nobody can tell \
             what\n  that is, or whether there is any.\n\
             - What the others still hold is of no use any more: with it they are refused for ever. \
             With\n  their data directories emptied they may take part again.\n\
             - Stop the others first, if any of them may still run, and see to it that they stay \
             stopped:\n  two ensembles would answer clients.\n\
             - If a majority of the servers can still be started, do that instead: nothing is lost \
             then.",
            meta.znodes(),
            meta.zxid,
            utc(meta.time_ms),
        )
    }
}

/// A time in milliseconds since the epoch, as people read it.
pub(crate) fn utc(time_ms: i64) -> String {
    let seconds = time_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the epoch to a date, by Howard Hinnant's `civil_from_days`.
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696_789), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(4_102_444_799_000), "2099-12-31 23:59:59 UTC");
    }
}
