//! What is written down of a state that is of no use, so that a server that starts again knows it too,
//! and what is kept of it for people: the whole state, in `damaged`, with what is wrong with it. So is a
//! log that is of no use.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use replica::Quarantine;

use crate::data_dir::{self, Checked};
use crate::threads::clock_ms;

const FILE: &str = "quarantine";
const DAMAGED: &str = "damaged";
/// What a kept state says of itself.
const WHY: &str = "why.txt";
/// How many states are kept, the last ones.
const KEPT_MAX: usize = 2;

/// What is written down in a data directory; where that cannot be made out, it is of the generation in
/// use.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(dir: &Path, in_use: u64) -> anyhow::Result<Option<Quarantine>> {
    let text = match data_dir::read_checked(dir, FILE)? {
        Checked::Missing => return Ok(None),
        Checked::Whole(text) => text,
        Checked::Damaged(why) => return Ok(Some(Quarantine { generation: in_use, why })),
    };
    let mut lines = text.lines();
    let generation = lines.next().and_then(|line| line.strip_prefix("generation "));
    let generation = generation.and_then(|number| number.parse().ok()).unwrap_or(in_use);
    let why = lines.find_map(|line| line.strip_prefix("why ")).unwrap_or_default();
    Ok(Some(Quarantine { generation, why: why.to_owned() }))
}

/// Writes it, durably, so that it is there whole or not at all.
///
/// # Errors
/// What the operating system answered.
pub(crate) fn write(dir: &Path, quarantine: &Quarantine) -> anyhow::Result<()> {
    let Quarantine { generation, why } = quarantine;
    data_dir::write_checked(dir, FILE, &format!("generation {generation}\n{}", told(why)))
        .with_context(|| format!("cannot write {}", dir.join(FILE).display()))
}

fn told(why: &str) -> String {
    format!("time {} ms since 1970\nwhy {}", clock_ms(), why.replace('\n', " "))
}

/// Keeps a log that is of no use any more, and with it all states, with what is wrong; a new part of the
/// server in its ensemble begins without any.
///
/// # Errors
/// What the operating system answered; it can be tried again.
pub(crate) fn keep_log(dir: &Path, states: &[PathBuf], why: &str) -> std::io::Result<PathBuf> {
    let kept = make_room(dir, "log")?;
    fs::write(kept.join(WHY), told(why) + "\n")?;
    for part in states.iter().cloned().chain(["log", FILE].map(|name| dir.join(name))) {
        match fs::rename(&part, kept.join(part.file_name().unwrap_or_default())) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::File::open(&kept)?.sync_all()?;
    settle(dir)?;
    Ok(kept)
}

/// Makes a directory for what is kept, with a name that tells when.
fn make_room(dir: &Path, name: &str) -> std::io::Result<PathBuf> {
    let damaged = dir.join(DAMAGED);
    let mut names = (0..).map(|n| damaged.join(format!("{name}.{}", clock_ms() + n)));
    let kept = names.find(|path| !path.exists()).unwrap_or_default();
    fs::create_dir_all(&kept)?;
    Ok(kept)
}

/// What was moved stays moved, and the oldest of too much that is kept goes.
fn settle(dir: &Path) -> std::io::Result<()> {
    let damaged = dir.join(DAMAGED);
    fs::File::open(&damaged)?.sync_all()?;
    fs::File::open(dir)?.sync_all()?;
    forget_old(&damaged)
}

/// Keeps a state that is of no use any more, in place of removing it, and forgets the quarantine.
///
/// # Errors
/// What the operating system answered; it can be tried again.
pub(crate) fn keep(dir: &Path, state: &Path) -> std::io::Result<PathBuf> {
    let name = state.file_name().unwrap_or_default().to_string_lossy();
    // An empty directory is replaced.
    let kept = make_room(dir, &name)?;
    match fs::rename(state, &kept) {
        // A crash came between the two, or it was gone before.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => other?,
    }
    fs::rename(dir.join(FILE), kept.join(WHY))?;
    settle(dir)?;
    Ok(kept)
}

/// Removes the oldest of too many that are kept.
fn forget_old(damaged: &Path) -> std::io::Result<()> {
    let mut states: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(damaged)? {
        let path = entry?.path();
        let time = path.extension().and_then(|time| time.to_str()?.parse().ok());
        if path.join(WHY).exists() {
            states.extend(time.map(|time| (time, path)));
        }
    }
    states.sort_unstable();
    let old = states.len().saturating_sub(KEPT_MAX);
    for (_, path) in states.drain(..old) {
        tracing::info!(path = %path.display(), "removing what was kept of damage; newer is");
        fs::remove_dir_all(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_kept_with_the_state() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert_eq!(read(dir, 0).expect("there is none"), None);
        for generation in 0..4 {
            let quarantine = Quarantine { generation, why: "two lines\nof text".to_owned() };
            write(dir, &quarantine).expect("it can be written");
            let found = read(dir, 9).expect("it can be read").expect("there is one");
            assert_eq!((found.generation, &found.why[..]), (generation, "two lines of text"));
            let state = dir.join(format!("state-{generation}"));
            fs::create_dir(&state).expect("a directory");
            fs::write(state.join("rows"), "x").expect("a file");
            let kept = keep(dir, &state).expect("it can be moved");
            assert!(kept.join("rows").exists() && kept.join(WHY).exists());
            assert!(!state.exists() && read(dir, 0).expect("there is none").is_none());
            // Their names have the time in them.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let left = fs::read_dir(dir.join(DAMAGED)).expect("a directory").count();
        assert_eq!(left, KEPT_MAX);
        // As after a crash in the middle.
        write(dir, &Quarantine { generation: 9, why: String::new() }).expect("it can be written");
        let kept = keep(dir, &dir.join("state-9")).expect("the state was moved before");
        assert!(kept.join(WHY).exists());
        // Whatever it was, the state in use is not to be trusted.
        fs::write(dir.join(FILE), "nonsense").expect("a file");
        let found = read(dir, 9).expect("it can be read").expect("there is one");
        assert!(found.generation == 9 && found.why.contains("not as it was written"), "{found:?}");
        fs::create_dir(dir.join("log")).expect("a directory");
        let kept = keep_log(dir, &[dir.join("state-9")], "it is torn").expect("it can be moved");
        let why = fs::read_to_string(kept.join(WHY)).expect("it says why");
        assert!(why.contains("why it is torn") && kept.join("log").exists(), "{why}");
        assert!(!dir.join("log").exists() && !dir.join(FILE).exists());
    }
}
