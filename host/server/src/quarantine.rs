//! What is written down of a state that is of no use, so that a server that starts again knows it too,
//! and what is kept of it for people: the whole state, in `damaged`, with what is wrong with it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use replica::Quarantine;

use crate::data_dir;
use crate::threads::clock_ms;

const FILE: &str = "quarantine";
const DAMAGED: &str = "damaged";
/// What a kept state says of itself.
const WHY: &str = "why.txt";
/// How many states are kept, the last ones.
const KEPT_MAX: usize = 2;

/// What is written down in a data directory.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<Quarantine>> {
    let file = dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let mut lines = text.lines();
            let generation = lines.next().and_then(|line| line.strip_prefix("generation "));
            let generation = generation.and_then(|number| number.parse().ok());
            let generation = generation.with_context(|| {
                format!("{}: expected \"generation\" and a number, got {text:?}", file.display())
            })?;
            let why = lines.find_map(|line| line.strip_prefix("why ")).unwrap_or_default();
            Ok(Some(Quarantine { generation, why: why.to_owned() }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes it, durably, so that it is there whole or not at all.
///
/// # Errors
/// What the operating system answered.
pub(crate) fn write(dir: &Path, quarantine: &Quarantine) -> anyhow::Result<()> {
    let Quarantine { generation, why } = quarantine;
    let why = why.replace('\n', " ");
    let text = format!("generation {generation}\ntime {} ms since 1970\nwhy {why}", clock_ms());
    data_dir::write_whole(dir, FILE, &text)
        .with_context(|| format!("cannot write {}", dir.join(FILE).display()))
}

/// Keeps a state that is of no use any more, in place of removing it, and forgets the quarantine.
///
/// # Errors
/// What the operating system answered; it can be tried again.
pub(crate) fn keep(dir: &Path, state: &Path) -> std::io::Result<PathBuf> {
    let damaged = dir.join(DAMAGED);
    fs::create_dir_all(&damaged)?;
    let name = state.file_name().unwrap_or_default().to_string_lossy();
    let free = (0..).map(|n| damaged.join(format!("{name}.{}", clock_ms() + n)));
    let kept = free.into_iter().find(|path| !path.exists()).unwrap_or_default();
    match fs::rename(state, &kept) {
        // A crash came between the two.
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(&kept)?,
        other => other?,
    }
    fs::rename(dir.join(FILE), kept.join(WHY))?;
    fs::File::open(&damaged)?.sync_all()?;
    fs::File::open(dir)?.sync_all()?;
    forget_old(&damaged)?;
    Ok(kept)
}

/// Removes the oldest of too many states.
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
        tracing::info!(path = %path.display(), "removing a damaged state that was kept; newer ones are");
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
        assert_eq!(read(dir).expect("there is none"), None);
        for generation in 0..4 {
            let quarantine = Quarantine { generation, why: "two lines\nof text".to_owned() };
            write(dir, &quarantine).expect("it can be written");
            let found = read(dir).expect("it can be read").expect("there is one");
            assert_eq!((found.generation, &found.why[..]), (generation, "two lines of text"));
            let state = dir.join(format!("state-{generation}"));
            fs::create_dir(&state).expect("a directory");
            fs::write(state.join("rows"), "x").expect("a file");
            let kept = keep(dir, &state).expect("it can be moved");
            assert!(kept.join("rows").exists() && kept.join(WHY).exists());
            assert!(!state.exists() && read(dir).expect("there is none").is_none());
            // Their names have the time in them.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let left = fs::read_dir(dir.join(DAMAGED)).expect("a directory").count();
        assert_eq!(left, KEPT_MAX);
        // As after a crash in the middle.
        write(dir, &Quarantine { generation: 9, why: String::new() }).expect("it can be written");
        let kept = keep(dir, &dir.join("state-9")).expect("the state was moved before");
        assert!(kept.join(WHY).exists());
        fs::write(dir.join(FILE), "nonsense").expect("a file");
        assert!(read(dir).is_err());
    }
}
