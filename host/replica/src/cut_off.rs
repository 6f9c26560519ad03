//! How long this server has heard of no leader. Its clients must not wait here until their sessions
//! have expired elsewhere: it lets them go in time, and they find a server that is not cut off.

use crate::standstill::Looks;

/// When a leader was last heard of, by the caller's monotonic clock.
#[derive(Default)]
pub(crate) struct CutOff {
    heard_ms: Option<i64>,
    looks: Looks,
}

impl CutOff {
    /// For how many milliseconds there has been no leader, where `hears` says whether there is one now.
    pub(crate) fn silent_ms(&mut self, now_ms: i64, hears: bool) -> i64 {
        let stood_ms = self.looks.stood_still_ms(now_ms);
        let heard_ms = self.heard_ms.filter(|_| !hears).map_or(now_ms, |ms| ms + stood_ms);
        self.heard_ms = Some(heard_ms);
        now_ms - heard_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_word_and_not_while_it_stood_still() {
        let mut cut_off = CutOff::default();
        assert_eq!(cut_off.silent_ms(100, false), 0, "it has only begun to listen");
        assert_eq!(cut_off.silent_ms(150, false), 50);
        assert_eq!(cut_off.silent_ms(200, true), 0);
        assert_eq!(cut_off.silent_ms(250, false), 50);
        assert_eq!(cut_off.silent_ms(10_000, false), 50, "it stood still");
        assert_eq!(cut_off.silent_ms(10_050, false), 100);
        assert_eq!(cut_off.silent_ms(20_000, true), 0);
    }
}
