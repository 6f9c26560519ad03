//! What threads leave for a thread: many put, one takes all there is at once.
//!
//! A channel hands over one message at a time, and its receiver spins before it sleeps. Here whole
//! requests of a socket read go in under one lock, the taker swaps the lot out, and news that can
//! wait do not wake it: at low load each wake-up costs more than the work.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A queue between threads.
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
    emptied: Condvar,
    messages_max: usize,
}

struct Inner<T> {
    messages: Vec<T>,
    /// Whether one of them is to wake the taker.
    loud: bool,
    waiting: bool,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// A mailbox that takes no more while it holds `messages_max`.
    pub(crate) fn new(messages_max: usize) -> Self {
        let inner = Inner { messages: Vec::new(), loud: false, waiting: false, closed: false };
        let (arrived, emptied) = (Condvar::new(), Condvar::new());
        Self { inner: Mutex::new(inner), arrived, emptied, messages_max }
    }

    /// Puts messages in and wakes the taker; false if the mailbox is closed. Blocks while it is full.
    pub(crate) fn put(&self, messages: impl IntoIterator<Item = T>) -> bool {
        let mut inner = self.inner.lock();
        while inner.messages.len() >= self.messages_max && !inner.closed {
            self.emptied.wait(&mut inner);
        }
        if inner.closed {
            return false;
        }
        let before = inner.messages.len();
        inner.messages.extend(messages);
        inner.loud |= inner.messages.len() > before;
        let wake = inner.waiting && inner.loud;
        inner.waiting &= !wake;
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
        true
    }

    /// Puts a message in that the taker need not see before it wakes for something else.
    pub(crate) fn put_quietly(&self, message: T) {
        self.inner.lock().messages.push(message);
    }

    /// How many are there.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().messages.len()
    }

    /// Moves all messages behind those in `into`; waits up to `wait` for one that wakes. False if
    /// the mailbox is closed: nothing comes any more.
    pub(crate) fn take(&self, into: &mut Vec<T>, wait: Duration) -> bool {
        let mut inner = self.inner.lock();
        if !inner.loud && !inner.closed && !wait.is_zero() {
            inner.waiting = true;
            self.arrived.wait_for(&mut inner, wait);
            inner.waiting = false;
        }
        inner.loud = false;
        if inner.messages.len() >= self.messages_max {
            self.emptied.notify_all();
        }
        if into.is_empty() {
            std::mem::swap(into, &mut inner.messages);
        } else {
            into.append(&mut inner.messages);
        }
        !inner.closed
    }

    /// Ends it, from either side: nothing can be put in any more, what is there can be taken.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.arrived.notify_all();
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn messages_come_in_order_and_all_at_once() {
        let mailbox = Mailbox::new(usize::MAX);
        assert!(mailbox.put([1, 2]));
        mailbox.put_quietly(3);
        let mut taken = vec![0];
        mailbox.take(&mut taken, Duration::ZERO);
        assert_eq!(taken, [0, 1, 2, 3]);
        assert!(mailbox.put([4]));
        mailbox.close();
        assert!(!mailbox.put([5]));
        assert!(!mailbox.take(&mut taken, Duration::from_secs(30)), "closed: it does not wait");
        assert_eq!(taken, [0, 1, 2, 3, 4], "what came before the end is there");
    }

    #[test]
    fn a_full_mailbox_holds_up_who_puts() {
        let mailbox = Arc::new(Mailbox::new(2));
        let putter = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || (0..100).all(|n| putter.put([n])));
        let mut taken = Vec::new();
        while taken.len() < 100 {
            let before = taken.len();
            mailbox.take(&mut taken, Duration::from_secs(30));
            assert!(taken.len() <= before + 2, "never more than it holds");
        }
        assert!(thread.join().expect("it ends"));
        assert!(taken.is_sorted());
    }

    #[test]
    fn a_message_wakes_the_taker_and_quiet_ones_do_not() {
        let mailbox = Arc::new(Mailbox::new(usize::MAX));
        let putter = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            putter.put_quietly("quiet");
            std::thread::sleep(Duration::from_millis(20));
            putter.put(["loud"]);
        });
        let (started, mut taken) = (Instant::now(), Vec::new());
        mailbox.take(&mut taken, Duration::from_secs(30));
        assert!(started.elapsed() < Duration::from_secs(20), "a message wakes");
        thread.join().expect("it ends");
        assert_eq!(taken, ["quiet", "loud"]);
    }
}
