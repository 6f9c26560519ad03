//! Shows on standard error how far something is that takes long.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is shown, and when it was shown last.
pub(crate) struct Progress {
    doing: &'static str,
    last: Instant,
    shown: bool,
}

impl Progress {
    /// Nothing is shown at first: most things do not take long.
    pub(crate) fn new(doing: &'static str) -> Self {
        Self { doing, last: Instant::now(), shown: false }
    }

    /// So many rows and bytes are done; all rows are about `all`.
    pub(crate) fn show(&mut self, rows: u64, all: u64, bytes: u64) {
        let mut out = std::io::stderr();
        let (every, head, tail) = match out.is_terminal() {
            true => (Duration::from_millis(200), "\r", ""),
            false => (Duration::from_secs(5), "", "\n"),
        };
        if self.last.elapsed() < every {
            return;
        }
        (self.last, self.shown) = (Instant::now(), true);
        let percent = (rows * 100 / all.max(1)).min(99);
        let (doing, bytes) = (self.doing, mebibytes(bytes));
        // Nothing can be said of a closed standard error.
        let _ =
            write!(out, "{head}{doing}: {percent} %, {rows} of about {all} rows, {bytes}  {tail}");
        let _ = out.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut out = std::io::stderr();
        if self.shown && out.is_terminal() {
            let _ = writeln!(out);
        }
    }
}

/// A number of bytes, as people read it.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
