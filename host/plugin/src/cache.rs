//! Compiled code on disk: local, rebuildable, never sent to anybody.
//!
//! A file is named after all that its code depends on: the module's hash, the engine's exact version, what the
//! engine says it must be the same for (its settings and this processor's features), and the profile. It
//! begins with a SHA-256 of the code. What does not match is not loaded, and is written anew.
//!
//! Whoever can write here can run code in this process, as whoever can write to the program can: the directory
//! is the server's own, of mode 0700.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use state::Fault;
use state::plugins::ModuleHash;
use wasmtime::Engine;
use wasmtime::component::Component;
use xxhash_rust::xxh3::Xxh3Default;

use crate::engine::{ENGINE_VERSION, PROFILE};

const HASH_BYTES: usize = 32;

/// A directory of compiled modules, as seen by one engine.
pub(crate) struct Cache {
    directory: PathBuf,
    /// What follows a module's hash in the name of its file.
    suffix: String,
}

impl Cache {
    /// # Errors
    /// [`Fault::Waiting`], if the directory cannot be made.
    pub(crate) fn open(directory: PathBuf, engine: &Engine) -> Result<Self, Fault> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|error| Fault::Waiting(format!("{}: {error}", directory.display())))?;
        let mut hasher = Xxh3Default::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let suffix = format!("-{ENGINE_VERSION}-{:016x}-{PROFILE}.code", hasher.finish());
        Ok(Self { directory, suffix })
    }

    /// The compiled module, if there is one that is whole.
    pub(crate) fn get(&self, hash: &ModuleHash, engine: &Engine) -> Option<Component> {
        let file = fs::read(self.path(hash)).ok()?;
        let (sum, code) = file.split_at_checked(HASH_BYTES)?;
        if sum != Sha256::digest(code).as_slice() {
            return None;
        }
        load(engine, code)
    }

    /// Writes a compiled module: whole or not at all.
    pub(crate) fn put(&self, hash: &ModuleHash, code: &[u8]) -> io::Result<()> {
        let path = self.path(hash);
        let part = path.with_extension("part");
        write(&part, code).and_then(|()| fs::rename(&part, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&part);
        })
    }

    /// Deletes what is not wanted, or of another engine.
    pub(crate) fn retain(&self, wanted: impl Fn(&ModuleHash) -> bool) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let hash =
                name.to_str().and_then(|name| name.strip_suffix(&self.suffix)).and_then(parse);
            if !hash.is_some_and(|hash| wanted(&hash)) {
                // What cannot be deleted takes room, nothing else.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, hash: &ModuleHash) -> PathBuf {
        self.directory.join(format!("{hash}{}", self.suffix))
    }
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.sync_all()
}

fn parse(hex: &str) -> Option<ModuleHash> {
    let mut hash = [0; HASH_BYTES];
    if hex.len() != 2 * HASH_BYTES || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(ModuleHash(hash))
}

#[allow(unsafe_code, reason = "the one place where code is run that was not just compiled")]
fn load(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: the bytes must be what `Component::serialize` gave. Their SHA-256 is the one that was written in
    // the same step by `Cache::put`, which is given nothing else, in a directory that nobody else can write
    // to; so they are neither damaged nor another's. They are copied, so that a file that changes later
    // changes nothing. The engine refuses by itself what another version or other settings made.
    unsafe { Component::deserialize(engine, code) }.ok()
}
