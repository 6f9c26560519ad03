//! `sim`: runs seeds of the simulator, replays one, or shows that it finds known bugs.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tests::sim::counts::Counts;
use tests::sim::mutants::{self, Mutant, Planted};
use tests::sim::shrink::{Without, shrink};
use tests::sim::{Failure, Options, run};

const USAGE: &str = "\
usage: sim [--seeds N] [--from S]            run N seeds (100) from S (0) on; also with --without
       sim --seed S [--trace]                replay one, and list what happened
       sim --seed S --shrink                 find out what it does not need to fail
       sim --seed S --without WHAT [--trace] replay it without that
       sim --mutant NAME [--seeds N]         show that a known bug is found within N seeds (300)
       sim --mutants [--seeds N]             the same for all known bugs
       sim --list                            the names of the known bugs
";

/// How often it is said how far many seeds have come.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// From this many seeds on every kind of thing must have happened.
const SEEDS_FOR_COUNTS: u64 = 100;

#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    shrink: bool,
    without: Without,
    mutant: Option<String>,
    mutants: bool,
    list: bool,
}

fn parse() -> Result<Args, String> {
    let mut args = Args::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| {
            text.parse::<u64>().map_err(|_| format!("{word} needs a number, got {text:?}"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = Some(number(value()?)?),
            "--from" => args.from = number(value()?)?,
            "--seed" => args.seed = Some(number(value()?)?),
            "--trace" => args.trace = true,
            "--shrink" => args.shrink = true,
            "--without" => args.without = Without::parse(&value()?)?,
            "--mutant" => args.mutant = Some(value()?),
            "--mutants" => args.mutants = true,
            "--list" => args.list = true,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(error) => {
            eprint!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic is a failure of its seed, and told as such; of one that is replayed also where it was.
    if args.seed.is_none() || args.shrink {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let planted = match args.mutant.as_deref().map(|name| (name, mutants::find(name))) {
        None => Planted::default(),
        Some((_, Some(mutant))) => planted(mutant),
        Some((name, None)) => {
            eprintln!("there is no mutant {name:?}; `sim --list` names them");
            return ExitCode::from(2);
        }
    };
    let good = if args.list {
        mutants::all().for_each(|mutant| println!("{}", mutant.name));
        true
    } else if args.mutants {
        all_mutants(args.from, args.seeds.unwrap_or(300))
    } else if let Some(seed) = args.seed {
        let without = args.without.clone();
        let options = Options { seed, planted, trace: args.trace, without };
        if args.shrink { make_smaller(&options) } else { replay(&options) }
    } else if let Some(name) = &args.mutant {
        let found = hunt(planted, args.from, args.seeds.unwrap_or(300));
        tell_found(name, found.as_ref());
        found.is_some()
    } else {
        many(&args.without, args.from, args.seeds.unwrap_or(100))
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn planted(mutant: &Mutant) -> Planted {
    let mut planted = Planted::default();
    (mutant.plant)(&mut planted);
    planted
}

/// Runs seeds on all processors until one fails; the sum of the counts, and the failure of the
/// lowest seed. How many are done is said on stderr every minute.
fn run_seeds(
    planted: Planted,
    without: &Without,
    from: u64,
    seeds: u64,
) -> (Counts, Option<Failure>) {
    let next = AtomicU64::new(from);
    let sum = Mutex::new((Counts::default(), None::<Failure>));
    let progress = Mutex::new((0, Instant::now()));
    let tell_progress = || {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, told) = &mut *progress;
        *done += 1;
        if told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            eprintln!("{done} of {seeds} seeds from {from} on are clean so far");
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let without = without.clone();
                    let (result, _) = run(&Options { planted, without, ..Options::of(seed) });
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    match result {
                        Ok(counts) => {
                            sum.0.add(&counts);
                            tell_progress();
                        }
                        Err(failure) => {
                            next.store(from + seeds, Ordering::Relaxed);
                            if sum.1.as_ref().is_none_or(|known| failure.seed < known.seed) {
                                sum.1 = Some(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn many(without: &Without, from: u64, seeds: u64) -> bool {
    let started = Instant::now();
    let (counts, failure) = run_seeds(Planted::default(), without, from, seeds);
    if let Some(failure) = failure {
        tell(&failure);
        println!("0 passed, 1 failed");
        return false;
    }
    let mut never = Vec::new();
    for (what, count) in counts.all() {
        println!("{count:>12}  {what}");
        if count == 0 {
            never.push(what);
        }
    }
    println!("{seeds} seeds from {from} on in {:.1} s", started.elapsed().as_secs_f64());
    if seeds >= SEEDS_FOR_COUNTS && !never.is_empty() {
        println!("never happened: {}", never.join(", "));
        println!("0 passed, 1 failed");
        return false;
    }
    println!("{seeds} passed, 0 failed");
    true
}

fn tell(failure: &Failure) {
    let Failure { seed, at_ms, claim, what, .. } = failure;
    println!("seed {seed} fails at {at_ms} ms: not so: {claim}\n  {what}");
    println!("  to see what happened: sim --seed {seed} --trace");
}

/// Says what of a failing seed can be left out.
fn make_smaller(options: &Options) -> bool {
    let (result, _) = run(options);
    let Err(failure) = result else {
        println!("seed {} is clean", options.seed);
        return false;
    };
    tell(&failure);
    let (without, failure) = shrink(options, failure, &mut |w| println!("also without {w}"));
    tell(&failure);
    println!("  without more than that: sim --seed {} --without {without} --trace", options.seed);
    true
}

fn replay(options: &Options) -> bool {
    let (result, events) = run(options);
    let seed = options.seed;
    for (at_ms, event) in events {
        println!("{at_ms:>8} ms  {event}");
    }
    match result {
        Ok(counts) => {
            counts.all().iter().for_each(|(what, count)| println!("{count:>12}  {what}"));
            println!("seed {seed} is clean");
            true
        }
        Err(failure) => {
            tell(&failure);
            false
        }
    }
}

fn hunt(planted: Planted, from: u64, seeds: u64) -> Option<Failure> {
    run_seeds(planted, &Without::default(), from, seeds).1
}

fn tell_found(name: &str, found: Option<&Failure>) {
    match found {
        Some(Failure { seed, claim, what, .. }) => {
            let what = what.lines().next().unwrap_or_default();
            let short: String = what.chars().take(110).collect();
            println!("{name}: found by seed {seed}: not so: {claim}: {short}");
        }
        None => println!("{name}: NOT FOUND"),
    }
}

fn all_mutants(from: u64, seeds: u64) -> bool {
    let (mut passed, mut failed) = (0, 0);
    let started = Instant::now();
    for mutant in mutants::all() {
        let found = hunt(planted(mutant), from, seeds);
        tell_found(mutant.name, found.as_ref());
        if found.is_some() { passed += 1 } else { failed += 1 }
    }
    println!("{} mutants in {:.1} s", passed + failed, started.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    failed == 0
}
