//! Whether this server stood still: what others said meanwhile may not have been taken yet, so that
//! the time does not count as their silence.

/// Two looks further apart than this, in milliseconds, mean that it did.
const STANDSTILL_MS: i64 = 1000;

/// When it was last looked, by the caller's monotonic clock.
#[derive(Default)]
pub(crate) struct Looks {
    last_ms: Option<i64>,
}

impl Looks {
    /// A look: for how many milliseconds it stood still before, 0 if it did not.
    pub(crate) fn stood_still_ms(&mut self, now_ms: i64) -> i64 {
        let since_ms = self.last_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms));
        self.last_ms = Some(now_ms);
        if since_ms > STANDSTILL_MS { since_ms } else { 0 }
    }
}
