//! The threads that serve clients: each has an event loop of its own, and a connection stays on the
//! thread that it was given.
//!
//! With one pool of threads that steal from each other, a reply to a single waiting client takes two
//! wake-ups: of the thread that watches the sockets, and of the one that takes its place there.

use std::future::Future;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};

/// The threads; they end, with all that runs on them, when this is dropped.
pub(crate) struct ClientThreads {
    threads: Vec<Thread>,
}

struct Thread {
    runtime: Handle,
    bell: Arc<Bell>,
    /// Each connection on it has a clone.
    connections: Arc<()>,
    _ends: oneshot::Sender<()>,
}

/// Wakes the tasks of a thread. The event loop is woken by a system call for each task that another thread
/// wakes; here the first of them wakes it, and it wakes all that came until then.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Notify,
    /// Those to wake.
    who: Mutex<Vec<Arc<Notify>>>,
}

impl Bell {
    /// Wakes a task of this thread, from any thread.
    pub(crate) fn ring(&self, task: &Arc<Notify>) {
        let mut who = self.who.lock();
        who.push(Arc::clone(task));
        let is_first = who.len() == 1;
        drop(who);
        if is_first {
            self.rung.notify_one();
        }
    }

    /// Wakes them, on the thread itself, for ever.
    async fn answer(&self) {
        let mut who = Vec::new();
        loop {
            self.rung.notified().await;
            std::mem::swap(&mut who, &mut *self.who.lock());
            who.drain(..).for_each(|task| task.notify_one());
        }
    }
}

impl ClientThreads {
    /// Starts so many threads.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let threads = (0..count).map(|at| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (ends, ended) = oneshot::channel();
            let bell = Arc::new(Bell::default());
            let thread = Thread {
                runtime: runtime.handle().clone(),
                bell: Arc::clone(&bell),
                connections: Arc::default(),
                _ends: ends,
            };
            // Reserved, not used: authorizers run here (see the crate `plugin`).
            let named = std::thread::Builder::new().name(format!("clients-{at}"));
            named.stack_size(plugin::THREAD_STACK_BYTES).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        // It never gets a value: it ends when the sender is dropped.
                        _ = ended => {}
                        () = bell.answer() => {}
                    }
                });
            })?;
            Ok(thread)
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()? })
    }

    /// Serves a connection on the thread that has the fewest, whose bell it is given.
    pub(crate) fn serve<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, Arc<Bell>) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send,
    {
        let fewest =
            self.threads.iter().min_by_key(|thread| Arc::strong_count(&thread.connections));
        let thread = fewest.ok_or_else(|| io::Error::other("no thread serves clients"))?;
        let (counted, bell) = (Arc::clone(&thread.connections), Arc::clone(&thread.bell));
        // It leaves this event loop, to be watched by the other.
        let stream = stream.into_std()?;
        thread.runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, bell).await,
                Err(error) => tracing::warn!(%error, "a connection could not be served"),
            }
            drop(counted);
        });
        Ok(())
    }
}
