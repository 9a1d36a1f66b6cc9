//! The threads that serve connections.
//!
//! A connection lives on one worker from its first byte to its last, and with it everything its requests need: the
//! connections to upstreams that they use, the streams on which listeners are asked. So no request wakes another
//! core. New connections go to the worker with the fewest.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tracing::error;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Which worker this thread is; 0 on all other threads.
pub(crate) fn current() -> usize {
    CURRENT.get()
}

type Job<T> = Box<dyn FnOnce(Arc<T>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Threads, each with a `T` of its own.
pub(crate) struct Workers<T> {
    workers: Vec<Worker<T>>,
}

struct Worker<T> {
    own: Arc<T>,
    /// As many as there may be connections.
    jobs: mpsc::UnboundedSender<Job<T>>,
    busy: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl<T: Send + Sync + 'static> Workers<T> {
    /// Starts `count` threads; `make` runs on each, within its runtime, and is told which one it is.
    ///
    /// # Errors
    /// When the system gives no thread, or what `make` says.
    pub(crate) async fn start<E>(
        count: usize,
        make: impl Fn(usize) -> Result<T, E> + Clone + Send + 'static,
    ) -> Result<Self, E>
    where
        E: From<io::Error> + Send + 'static,
    {
        let mut workers = Vec::with_capacity(count);
        for index in 0..count.max(1) {
            workers.push(Worker::start(index, make.clone()).await?);
        }
        Ok(Self { workers })
    }

    /// Every worker's own.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Arc<T>> {
        self.workers.iter().map(|worker| &worker.own)
    }

    /// Runs a job on the worker that has the fewest.
    pub(crate) fn spawn<F>(&self, job: impl FnOnce(Arc<T>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.busy.load(Ordering::Relaxed))
        else {
            return;
        };
        let busy = Busy::new(&worker.busy);
        let job: Job<T> = Box::new(move |own| {
            let work = job(own);
            Box::pin(async move {
                work.await;
                drop(busy);
            })
        });
        if worker.jobs.send(job).is_err() {
            error!("a worker is gone, and a connection with it");
        }
    }

    /// Ends all threads, and whatever still runs on them.
    pub(crate) async fn stop(self) {
        for worker in self.workers {
            drop(worker.jobs);
            let joined = tokio::task::spawn_blocking(|| worker.thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("a worker ended in a panic");
            }
        }
    }
}

impl<T: Send + Sync + 'static> Worker<T> {
    async fn start<E>(
        index: usize,
        make: impl FnOnce(usize) -> Result<T, E> + Send + 'static,
    ) -> Result<Self, E>
    where
        E: From<io::Error> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job<T>>();
        let (made, own) = oneshot::channel();
        let work = move || {
            CURRENT.set(index);
            runtime.block_on(async move {
                let own = make(index).map(Arc::new);
                let mine = own.as_ref().ok().cloned();
                // Whoever started the worker waits for it.
                let _ = made.send(own);
                let Some(mine) = mine else { return };
                while let Some(job) = waiting.recv().await {
                    tokio::spawn(job(Arc::clone(&mine)));
                }
            });
            // A lookup of a name may still be under way.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?;
        let own = own.await.map_err(|_| io::Error::other("a worker did not start"))??;
        Ok(Self { own, jobs, busy: Arc::default(), thread })
    }
}

/// One of the jobs that a worker has.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_go_where_the_fewest_are() {
        let workers = Workers::start(2, Ok::<_, io::Error>).await.unwrap();
        assert_eq!(workers.own().map(|own| **own).collect::<Vec<_>>(), [0, 1]);
        let (told, mut seen) = mpsc::unbounded_channel();
        for _ in 0..4 {
            let told = told.clone();
            workers.spawn(move |own| async move {
                told.send((*own, current())).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut found = Vec::new();
        for _ in 0..4 {
            found.push(seen.recv().await.unwrap());
        }
        found.sort_unstable();
        assert_eq!(found, [(0, 0), (0, 0), (1, 1), (1, 1)]);
        workers.stop().await;
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_told() {
        let failed = Workers::<()>::start(2, |_| Err(io::Error::other("no"))).await;
        assert_eq!(failed.err().unwrap().to_string(), "no");
    }
}
