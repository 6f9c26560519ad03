//! The four-letter words, by which a fresh connection may ask instead of connecting.

/// Every word that ZooKeeper 3.9 answers.
pub const WORDS: &[&str] = &[
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst",
    "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];

/// The word that these first four bytes of a connection are, if they are one. Read as a length
/// they would be above a gigabyte, so that no frame is mistaken for a word.
pub fn parse(first: [u8; 4]) -> Option<&'static str> {
    WORDS.iter().copied().find(|word| word.as_bytes() == first)
}
