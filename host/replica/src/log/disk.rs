//! The little that the log asks of a disk, and the real one.
//!
//! The log reaches storage only through [`Disk`], so that the same code runs on a directory and on a
//! simulated disk that tears, loses and flips.
//!
//! Invariants:
//! * Names are those of files directly in one directory.
//! * After `write_at` other readers see the bytes; only after `sync_data` do they survive power loss.
//! * A new, renamed or removed name survives power loss only after `sync_dir`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A directory of files. Every call blocks.
pub trait Disk: Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of the files directly in the directory, in no particular order; no folders.
    ///
    /// # Errors
    /// What the disk answered.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the disk answered; `NotFound` if there is no such file.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates a file, empty; one that exists is emptied.
    ///
    /// # Errors
    /// What the disk answered.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, replacing what had that name. Open files stay usable.
    ///
    /// # Errors
    /// What the disk answered.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the disk answered; `NotFound` if there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names as they are now survive power loss.
    ///
    /// # Errors
    /// What the disk answered.
    fn sync_dir(&self) -> io::Result<()>;

    /// A number nobody can guess, for the id of a new log.
    ///
    /// # Errors
    /// What the system answered.
    fn random(&self) -> io::Result<u64>;
}

/// An open file of a [`Disk`]. Every call blocks.
pub trait DiskFile: Send + 'static {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the disk answered.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// What the disk answered; `UnexpectedEof` if the file ends before `buffer` is full.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, growing the file if need be.
    ///
    /// # Errors
    /// What the disk answered; how much was written is then unknown.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Allocates space up to `bytes` and makes the file that long if it is shorter; the new part
    /// reads as zeros.
    ///
    /// # Errors
    /// What the disk answered, `StorageFull` when there is no room.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes everything written to this file so far survive power loss.
    ///
    /// # Errors
    /// What the disk answered; what was written since the last sync is then in an unknown state.
    fn sync_data(&self) -> io::Result<()>;
}

/// A real directory.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    handle: File,
}

impl RealDisk {
    /// Opens a directory, creating it (not its parents) if it is not there.
    ///
    /// Only one process may use a directory's log at a time; the caller holds the lock that says so.
    ///
    /// # Errors
    /// What the operating system answered.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        match fs::create_dir(&path) {
            Ok(()) => {
                // The new directory's own name has to survive too.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(&self.path)? {
            let item = item?;
            if item.file_type()?.is_file()
                && let Ok(name) = item.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).open(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            // Some file systems cannot; the zeros written later allocate there.
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        if self.metadata()?.len() < bytes {
            self.set_len(bytes)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}
