//! The only place that spawns: threads and tasks are named, owned and joined.
//!
//! [`Thread`] joins on drop, so nothing outlives its owner; a panic on it is reported to whoever joins.
//! [`local`] spawns onto the current shard and aborts when its handle is dropped. [`block_on`] is for threads without a
//! runtime: they make one of their own and wait.

use std::future::Future;
use std::thread;
use std::time::Duration;

use crate::error::Error;

/// Between two looks up of who waits for a turn.
const TICK: Duration = Duration::from_secs(10);

/// A named thread that is joined when dropped.
#[derive(Debug)]
pub struct Thread<T> {
    name: String,
    handle: Option<thread::JoinHandle<T>>,
}

impl<T> Thread<T> {
    /// Waits for the end and returns what the thread returned.
    ///
    /// # Errors
    /// A bug, when the thread panicked.
    pub fn join(mut self) -> Result<T, Error> {
        let handle = self
            .handle
            .take()
            .expect("only join and drop take the handle");
        let name = std::mem::take(&mut self.name);
        handle
            .join()
            .map_err(|panic| Error::bug(format!("thread {name}"), panic_text(&*panic)))
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
    }
}

impl<T> Drop for Thread<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take()
            && let Err(panic) = handle.join()
        {
            tracing::error!(
                thread = self.name,
                panic = panic_text(&*panic),
                "thread panicked"
            );
        }
    }
}

/// Starts a named thread.
///
/// # Errors
/// The operating system has no thread to give.
pub fn thread<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<Thread<T>, Error> {
    let name = name.into();
    let handle = thread::Builder::new()
        .name(name.clone())
        .spawn(body)
        .map_err(|error| Error::outside(format!("start thread {name}"), error))?;
    Ok(Thread {
        name,
        handle: Some(handle),
    })
}

/// A task of the current shard, aborted when dropped.
#[derive(Debug)]
pub struct LocalTask<T> {
    handle: tokio::task::JoinHandle<T>,
}

impl<T> Drop for LocalTask<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl<T> LocalTask<T> {
    /// Waits for the end.
    ///
    /// # Errors
    /// A bug, when the task panicked.
    pub async fn join(mut self) -> Result<T, Error> {
        (&mut self.handle)
            .await
            .map_err(|error| Error::bug("task", error))
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Runs a call on a thread of its own that nobody waits for; dropped where no thread can be had.
pub fn aside(name: &str, call: impl FnOnce() + Send + 'static) {
    let started = thread::Builder::new().name(name.to_owned()).spawn(call);
    if let Err(error) = started {
        tracing::warn!(thread = name, %error, "not started");
    }
}

/// Starts a task on the current thread's `LocalSet`.
pub fn local<T: 'static>(future: impl Future<Output = T> + 'static) -> LocalTask<T> {
    LocalTask {
        handle: tokio::task::spawn_local(future),
    }
}

/// A task that drives a connection on the current runtime until it ends or this handle is dropped.
#[derive(Debug)]
pub struct Driver {
    handle: tokio::task::AbortHandle,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Drives a connection: nothing waits for its end but whoever uses the connection.
pub fn drive(connection: impl Future<Output = ()> + Send + 'static) -> Driver {
    Driver {
        handle: tokio::spawn(connection).abort_handle(),
    }
}

/// Waits for a turn that others pass on, looking up now and then: who watches whether its caller still takes turns sees
/// that it waits, and does not hang.
pub async fn ticking<T>(turn: impl Future<Output = T>) -> T {
    let mut turn = std::pin::pin!(turn);
    loop {
        tokio::select! {
            biased;
            taken = &mut turn => return taken,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Runs a blocking call off the current runtime and waits for it.
///
/// # Errors
/// A bug, when it panicked.
pub async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| Error::bug("blocking call", error))
}

/// A runtime for a thread that has none: what it is asked to do is done on that thread, while somebody waits for it.
///
/// # Errors
/// The operating system has no means to give for waiting.
pub fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::outside("start a runtime", error))
}

/// Waits for a future on a thread that has no runtime; what it starts with [`local`] runs meanwhile, and no longer.
///
/// # Errors
/// Those of the future, and of [`runtime`].
pub fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = runtime()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, future)
}

/// The message of a panic.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without a message".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_panic_becomes_a_bug_that_names_the_thread() {
        let thread = thread("lane-7", || panic!("boom")).unwrap();
        let error: Error = thread.join().unwrap_err();
        assert_eq!(error.to_string(), "thread lane-7: boom");
        assert_eq!(error.blame(), crate::error::Blame::Bug);
    }
}
