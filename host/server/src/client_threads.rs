//! The threads that serve clients: each has an event loop of its own, and a connection stays on the
//! thread that it was given.
//!
//! With one pool of threads that steal from each other, a reply to a single waiting client takes two
//! wake-ups: of the thread that watches the sockets, and of the one that takes its place there.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads; they end, with all that runs on them, when this is dropped.
pub(crate) struct ClientThreads {
    threads: Vec<Thread>,
}

struct Thread {
    runtime: Handle,
    /// Each connection on it has a clone.
    connections: Arc<()>,
    _ends: oneshot::Sender<()>,
}

impl ClientThreads {
    /// Starts so many threads.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let threads = (0..count).map(|at| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (ends, ended) = oneshot::channel();
            let thread = Thread {
                runtime: runtime.handle().clone(),
                connections: Arc::default(),
                _ends: ends,
            };
            // Reserved, not used: authorizers run here (see the crate `plugin`).
            let named = std::thread::Builder::new().name(format!("clients-{at}"));
            named.stack_size(plugin::THREAD_STACK_BYTES).spawn(move || {
                // It never gets a value: it ends when the sender is dropped.
                let _ = runtime.block_on(ended);
            })?;
            Ok(thread)
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()? })
    }

    /// Serves a connection on the thread that has the fewest.
    pub(crate) fn serve<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send,
    {
        let fewest =
            self.threads.iter().min_by_key(|thread| Arc::strong_count(&thread.connections));
        let thread = fewest.ok_or_else(|| io::Error::other("no thread serves clients"))?;
        let counted = Arc::clone(&thread.connections);
        // It leaves this event loop, to be watched by the other.
        let stream = stream.into_std()?;
        thread.runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a connection could not be served"),
            }
            drop(counted);
        });
        Ok(())
    }
}
