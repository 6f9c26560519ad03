//! What threads leave for a thread: many put, one takes all there is at once.
//!
//! A channel hands over one message at a time, and its receiver spins before it sleeps. Here whole
//! requests of a socket read go in under one lock, the taker swaps the lot out, and news that can
//! wait do not wake it: at low load each wake-up costs more than the work. Where the taker lends its
//! work ([`Mailbox::lend`]), a thread that can afford to wait does it itself with what it brings.

use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Takes what is in the mailbox and works on it; says after how long it is to be called again, though
/// nothing comes.
pub(crate) type Work = Box<dyn FnMut() -> Duration + Send>;

/// A queue between threads.
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    /// What the taker lends; locked by whoever is at it.
    work: Mutex<Option<Work>>,
    arrived: Condvar,
    emptied: Condvar,
    messages_max: usize,
}

struct Inner<T> {
    messages: Vec<T>,
    /// Whether one of them is to wake the taker.
    loud: bool,
    waiting: bool,
    /// Whether somebody is at the work who brought something, and looks once more before he leaves.
    visited: bool,
    closed: bool,
}

impl<T> Inner<T> {
    /// Whether the taker is to be woken, who then waits no more.
    fn wakes(&mut self) -> bool {
        let wakes = self.waiting && self.loud && !self.visited;
        self.waiting &= !wakes;
        wakes
    }
}

impl<T> Mailbox<T> {
    /// A mailbox that takes no more while it holds `messages_max`.
    pub(crate) fn new(messages_max: usize) -> Self {
        let (loud, waiting, visited, closed) = (false, false, false, false);
        let inner = Inner { messages: Vec::new(), loud, waiting, visited, closed };
        let (arrived, emptied) = (Condvar::new(), Condvar::new());
        Self { inner: Mutex::new(inner), work: Mutex::new(None), arrived, emptied, messages_max }
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
        let wake = inner.wakes();
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
        true
    }

    /// Puts messages in and, if nobody is at the work that the taker lends, does it at once on this
    /// thread, which spares a wake-up and may take as long as the work does. Otherwise as
    /// [`Self::put`], but for the bound.
    pub(crate) fn bring(&self, messages: impl IntoIterator<Item = T>) -> bool {
        let work = self.work.try_lock();
        let Some(mut work) = work.filter(|work| work.is_some()) else { return self.put(messages) };
        {
            let mut inner = self.inner.lock();
            if inner.closed {
                return false;
            }
            inner.messages.extend(messages);
            inner.visited = true;
        }
        if let Some(work) = work.as_mut() {
            work();
        }
        drop(work);
        // What came meanwhile is not for this thread: what it has to read itself would wait.
        let mut inner = self.inner.lock();
        inner.visited = false;
        let wake = inner.wakes();
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
        true
    }

    /// From now on those who [`Self::bring`] something may do this with it.
    pub(crate) fn lend(&self, work: Work) {
        *self.work.lock() = Some(work);
    }

    /// Nobody may any more, and nobody is at it.
    pub(crate) fn take_back(&self) {
        *self.work.lock() = None;
    }

    /// Waits up to `wait` for a message that wakes, then does the work that was lent, after whoever is
    /// at it; gives what that gave.
    pub(crate) fn work(&self, wait: Duration) -> Option<Duration> {
        drop(self.wait(wait));
        self.work.lock().as_mut().map(|work| work())
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
        let mut inner = self.wait(wait);
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

    fn wait(&self, wait: Duration) -> MutexGuard<'_, Inner<T>> {
        let mut inner = self.inner.lock();
        if !inner.loud && !inner.closed && !wait.is_zero() {
            inner.waiting = true;
            self.arrived.wait_for(&mut inner, wait);
            inner.waiting = false;
        }
        inner
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
    fn who_brings_does_the_work_that_is_lent_unless_somebody_is_at_it() {
        let mailbox = Arc::new(Mailbox::new(usize::MAX));
        let done = Arc::new(Mutex::new(Vec::new()));
        let (inner, log) = (Arc::clone(&mailbox), Arc::clone(&done));
        let thread_of = |n| (std::thread::current().name().unwrap_or_default().to_owned(), n);
        assert!(mailbox.bring([1]), "nothing is lent yet");
        mailbox.lend(Box::new(move || {
            let mut taken = Vec::new();
            inner.take(&mut taken, Duration::ZERO);
            if taken.contains(&2) {
                // Somebody else meanwhile, who must neither wait nor be forgotten.
                std::thread::scope(|scope| drop(scope.spawn(|| inner.bring([3]))));
            }
            log.lock().extend(taken.into_iter().map(thread_of));
            Duration::from_secs(30)
        }));
        let taker = Arc::clone(&mailbox);
        let body = move || while taker.work(Duration::from_secs(30)).is_some() {};
        let taker = std::thread::Builder::new().name("taker".to_owned()).spawn(body);
        while done.lock().is_empty() || !mailbox.inner.lock().waiting {
            std::thread::yield_now();
        }
        let bringer = std::thread::Builder::new().name("bringer".to_owned());
        let brought = bringer.spawn({
            let mailbox = Arc::clone(&mailbox);
            move || mailbox.bring([2])
        });
        assert!(brought.expect("a thread").join().expect("it ends"));
        while done.lock().len() < 3 {
            std::thread::yield_now();
        }
        let expected = [("taker", 1), ("bringer", 2), ("taker", 3)];
        assert_eq!(*done.lock(), expected.map(|(name, n)| (name.to_owned(), n)));
        mailbox.take_back();
        mailbox.close();
        taker.expect("a thread").join().expect("it ends");
        assert!(!mailbox.bring([4]));
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
