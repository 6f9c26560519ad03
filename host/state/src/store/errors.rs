//! What an error of the store means: damage, which another server can heal, or a disk that does not
//! work, which nothing heals but its operator.
//!
//! | error | is |
//! |---|---|
//! | checksum, tag, header, trailer, version, encoding or compression that is not as written | damage |
//! | a file that is missing or too short, is there without what names it, or refers to nothing | damage |
//! | a journal that cannot be read, also where its torn tail is cut | damage |
//! | any other answer of the operating system (EIO, ENOSPC, EACCES, ...) | the store failed |
//! | poisoned: an earlier write, flush or compaction failed | damage if reading all finds some |
//! | a keyspace that was deleted | the store failed: a bug |

use std::io;

use fjall::{Error, LsmError};

use crate::fault::Fault;

/// What an error of fjall means.
pub(super) fn sort(error: &Error) -> Fault {
    let is_damage = match error {
        Error::Locked => return Fault::InUse,
        Error::Io(error) => is_of_file(error),
        Error::Storage(LsmError::Io(error)) => is_of_file(error),
        Error::Storage(_)
        | Error::JournalRecovery(_)
        | Error::InvalidVersion(_)
        | Error::Decompress(_)
        | Error::InvalidTrailer
        | Error::InvalidTag(_)
        | Error::Unrecoverable => true,
        // The enum may grow: what is not known is not healed by throwing the state away.
        _ => false,
    };
    if is_damage { damaged(error.to_string()) } else { Fault::Store(error.to_string()) }
}

/// Damage of the store as a whole.
pub(super) fn damaged(why: impl Into<String>) -> Fault {
    Fault::Damaged { keyspace: "the store", why: why.into() }
}

/// Whether an answer tells of what is in a file, or is not, and not of the disk.
pub(super) fn is_of_file(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, Other,
        UnexpectedEof,
    };
    match error.kind() {
        NotFound | AlreadyExists | UnexpectedEof | InvalidData | InvalidInput | NotADirectory
        | IsADirectory => true,
        // Not the system's.
        Other => error.raw_os_error().is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_lacks_is_damage_and_what_a_disk_refuses_is_not() {
        let is_damage = |error: &Error| matches!(sort(error), Fault::Damaged { .. });
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::NotFound] {
            assert!(is_damage(&Error::Io(kind.into())), "{kind}");
            assert!(is_damage(&Error::Storage(LsmError::Io(kind.into()))), "{kind}");
        }
        for error in
            [LsmError::Unrecoverable, LsmError::InvalidTrailer, LsmError::InvalidVersion(9)]
        {
            assert!(is_damage(&Error::Storage(error)));
        }
        // EIO, ENOSPC, EACCES, EMFILE, EDQUOT.
        for code in [5, 28, 13, 24, 122] {
            let of_system = || io::Error::from_raw_os_error(code);
            assert!(!is_damage(&Error::Io(of_system())), "{code}");
            assert!(!is_damage(&Error::Storage(LsmError::Io(of_system()))), "{code}");
        }
        assert!(!is_damage(&Error::Poisoned) && !is_damage(&Error::KeyspaceDeleted));
        assert_eq!(sort(&Error::Locked), Fault::InUse);
    }
}
