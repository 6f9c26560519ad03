//! One fault after the other; after each, all servers serve again.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::context::Context;
use crate::random::Random;
use crate::real::ensemble::Ensemble;
use crate::real::proxy::{Network, Way};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    KillLeader,
    KillTwo,
    KillAll,
    Terminate,
    Pause,
    PauseLeader,
    /// A server and the others do not hear each other.
    Isolate,
    IsolateLeader,
    /// A server hears, and is not heard; or the other way round.
    OneWay,
    /// Two servers do not hear each other; the third hears both.
    Pair,
    /// Nobody hears anybody.
    Split,
    /// A server is killed, and loses its data; while it has none nothing else goes wrong.
    Wipe,
    /// The same with a log that is damaged while the server does not run.
    DamageLog,
}

const FAULTS: [Fault; 14] = [
    Fault::Kill,
    Fault::KillLeader,
    Fault::KillTwo,
    Fault::KillAll,
    Fault::Terminate,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::Isolate,
    Fault::IsolateLeader,
    Fault::OneWay,
    Fault::Pair,
    Fault::Split,
    Fault::Wipe,
    Fault::DamageLog,
];

/// The longest time that a fault lasts.
const LASTS_MAX_MS: usize = 4000;
/// How long a server may take to vote again that lost its data.
const REJOINS_MAX: Duration = Duration::from_secs(60);
/// The longest time between two.
const CALM_MAX_MS: usize = 1500;

/// Draws a fault, lets it last, ends it, and waits until all serve.
pub(super) fn one(
    ensemble: &mut Ensemble,
    random: &mut Random,
    context: &Context,
) -> io::Result<()> {
    let fault = random.pick(&FAULTS);
    let lasts = Duration::from_millis(50 + random.below(LASTS_MAX_MS) as u64);
    let calm = Duration::from_millis(random.below(CALM_MAX_MS) as u64);
    let others = |at: usize, servers: usize| (0..servers).filter(move |other| *other != at);
    let servers = ensemble.count();
    let leads = matches!(fault, Fault::KillLeader | Fault::PauseLeader | Fault::IsolateLeader);
    let drawn = random.below(servers);
    let at = if leads { ensemble.leader().unwrap_or(drawn) } else { drawn };
    let began = Instant::now();
    match fault {
        Fault::Kill | Fault::KillLeader => kill(ensemble, &[at], lasts)?,
        Fault::KillTwo => kill(ensemble, &others(at, servers).collect::<Vec<_>>(), lasts)?,
        Fault::KillAll => kill(ensemble, &(0..servers).collect::<Vec<_>>(), lasts)?,
        Fault::Terminate => {
            let status = ensemble.terminate(at)?;
            if !status.success() {
                context.fail(&format!("server {} stopped with {status}", at + 1));
            }
            std::thread::sleep(lasts);
            ensemble.start(at)?;
        }
        Fault::Pause | Fault::PauseLeader => {
            ensemble.signal(at, Signal::STOP)?;
            std::thread::sleep(lasts);
            ensemble.signal(at, Signal::CONT)?;
        }
        Fault::Isolate | Fault::IsolateLeader => {
            let ways = others(at, servers).flat_map(|other| [(at, other), (other, at)]);
            cut(ensemble, &ways.collect::<Vec<_>>(), lasts, random);
        }
        Fault::OneWay => {
            let turn = random.percent(50);
            let way = |other| if turn { (at, other) } else { (other, at) };
            cut(ensemble, &others(at, servers).map(way).collect::<Vec<_>>(), lasts, random);
        }
        Fault::Pair => {
            let other = (at + 1) % servers;
            cut(ensemble, &[(at, other), (other, at)], lasts, random);
        }
        Fault::Split => {
            let ways = (0..servers).flat_map(|a| others(a, servers).map(move |b| (a, b)));
            cut(ensemble, &ways.collect::<Vec<_>>(), lasts, random);
        }
        Fault::Wipe => {
            ensemble.kill(at)?;
            fs::remove_dir_all(ensemble.home(at).join("data"))?;
            std::thread::sleep(lasts);
            ensemble.start(at)?;
        }
        Fault::DamageLog => {
            ensemble.kill(at)?;
            damage_log(&ensemble.home(at).join("data/log"))?;
            std::thread::sleep(lasts);
            ensemble.start(at)?;
        }
    }
    let ended = Instant::now();
    let leader = ensemble.wait()?;
    if matches!(fault, Fault::Wipe | Fault::DamageLog) {
        while !ensemble.all_vote(leader) {
            if ended.elapsed() > REJOINS_MAX {
                return Err(io::Error::other(format!("server {} does not vote again", at + 1)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    println!(
        "chaos: {fault:?} of server {} for {} ms, all serve {} ms later, server {} leads",
        at + 1,
        (ended - began).as_millis(),
        ended.elapsed().as_millis(),
        leader + 1
    );
    context.count(&format!("{fault:?}"));
    std::thread::sleep(calm);
    Ok(())
}

fn kill(ensemble: &mut Ensemble, which: &[usize], lasts: Duration) -> io::Result<()> {
    which.iter().try_for_each(|at| ensemble.kill(*at))?;
    std::thread::sleep(lasts);
    which.iter().try_for_each(|at| ensemble.start(*at))
}

/// Changes a bit of the first record of the newest segment, which was durable long ago.
fn damage_log(log: &Path) -> io::Result<()> {
    const AT: u64 = 540;
    let paths =
        fs::read_dir(log)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let segments =
        paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "segment"));
    let newest = segments.max().ok_or(io::ErrorKind::NotFound)?;
    let file = fs::OpenOptions::new().read(true).write(true).open(newest)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, AT)?;
    file.write_all_at(&[byte[0] ^ 16], AT)
}

fn cut(ensemble: &Ensemble, ways: &[Way], lasts: Duration, random: &mut Random) {
    let network: &Network = ensemble.network.as_ref().expect("there is one");
    network.cut(ways);
    std::thread::sleep(lasts);
    network.heal(random.percent(50));
}
