//! Compiling beside everything else: one thread of low priority.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use state::Fault;

use crate::engine::THREAD_STACK_BYTES;
use crate::runtime::{Loaded, Runtime};

/// How much lower its priority is than that of the rest of the process (`nice`).
const NICE: i32 = 10;

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// A thread that loads modules, one after the other. Its stack is large enough for calls of guests, so that a
/// job may also run `configure`.
#[derive(Debug)]
pub struct Compiler {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Compiler {
    /// Starts it.
    ///
    /// # Errors
    /// [`Fault::Waiting`], if there can be no such thread.
    pub fn start(runtime: Arc<Runtime>) -> Result<Self, Fault> {
        let (jobs, queue) = channel::<Job>();
        let work = move || {
            // Where that is not allowed it runs at the priority of the rest.
            let _ = rustix::process::nice(NICE);
            for job in queue {
                job(&runtime);
            }
        };
        let thread = thread::Builder::new().name("compiler".into()).stack_size(THREAD_STACK_BYTES);
        let thread = thread
            .spawn(work)
            .map_err(|error| Fault::Waiting(format!("no thread to compile on: {error}")))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has a module loaded, and `done` told on the compiler's thread what became of it. The queue has no bound
    /// of its own: who stages modules has one.
    pub fn load(
        &self,
        module: Arc<[u8]>,
        bytes_max: usize,
        done: impl FnOnce(Loaded) + Send + 'static,
    ) {
        let job: Job = Box::new(move |runtime| done(runtime.load(&module, bytes_max)));
        if let Some(jobs) = &self.jobs {
            // It is there until it is dropped.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Compiler {
    /// Waits for the module under way; those behind it are loaded too.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
