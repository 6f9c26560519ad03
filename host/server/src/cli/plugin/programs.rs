//! Finds other programs: nothing is looked for but in PATH.

use std::path::PathBuf;

/// The newest version that is looked for under a name such as `clang-19`.
const NEWEST: u32 = 40;

/// All programs of this name.
pub(super) fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).filter(|file| file.is_file()).collect()
}

/// A program of this name, or the newest of those with a version behind it.
pub(super) fn newest(name: &str) -> Option<PathBuf> {
    let numbered = (1..=NEWEST).rev().map(|version| format!("{name}-{version}"));
    [name.to_owned()].into_iter().chain(numbered).find_map(|name| in_path(&name).into_iter().next())
}
