//! The listening side: one thread with a small runtime that accepts, serves and stops. All connections are futures
//! of the accept loop, so stopping drops none unseen.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::app::Service;
use super::seat::Seat;
use super::{connection, tls};
use crate::config::HttpConfig;
use crate::error::Error;
use crate::task;

/// How uploads under way are called in the folder.
pub(super) const UPLOAD_PREFIX: &str = ".upload-";
/// An upload this old was left behind by a host that was killed.
const LEFT_BEHIND: Duration = Duration::from_hours(1);
/// How long requests under way may take when the host stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept: most likely there are no file descriptors left.
const BREATH: Duration = Duration::from_millis(100);
/// Clients above the most connections that are told so at once; further ones are only closed.
const LEAVING: usize = 32;
/// Threads that write and hash uploads.
const WRITERS: usize = 4;

/// The API of a host while it runs. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    // Declared before the thread: its end is what stops the thread, which is joined after.
    stop: watch::Sender<bool>,
    thread: task::Thread<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more requests, answers those under way (at most 10 s) and returns.
    ///
    /// # Errors
    /// A bug, when the thread had panicked.
    pub fn stop(self) -> Result<(), Error> {
        self.stop.send_replace(true);
        self.thread.join()
    }
}

/// Serves the API on a thread of its own, at once, whoever sits in the seat. `folder` is where uploads under way are kept; it is made when missing.
///
/// # Errors
/// A `Config` error: the address is taken or not this machine's, the TLS files or the folder cannot be used.
pub fn serve(config: &HttpConfig, folder: &Path, seat: impl Into<Seat>) -> Result<Server, Error> {
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let listener = listen(config.listen)?;
    let addr = listener
        .local_addr()
        .map_err(|error| cannot_listen(config.listen, &error))?;
    prepare(folder)?;
    let service = Service::new(config, folder.to_owned(), seat.into());
    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WRITERS)
        .build()
        .map_err(|error| Error::outside("start the runtime of the API", error))?;
    let desk = Desk {
        service,
        tls,
        connections: config.limits.connections,
        patience: config.limits.stall,
        stopped,
    };
    let thread = task::thread("http", move || {
        runtime.block_on(desk.run(listener));
        // A checker that hangs in a blocking call must not keep the host from stopping.
        runtime.shutdown_timeout(Duration::from_secs(1));
    })?;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    tracing::info!(url = %format_args!("{scheme}://{addr}"), tokens = config.tokens.len(), "API listens");
    Ok(Server { addr, stop, thread })
}

fn listen(address: SocketAddr) -> Result<StdListener, Error> {
    let listener = StdListener::bind(address).map_err(|error| cannot_listen(address, &error))?;
    let ready = listener.set_nonblocking(true);
    ready.map_err(|error| cannot_listen(address, &error))?;
    Ok(listener)
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Error {
    Error::config(format!("listen on {address}"), error)
        .hint("choose another address with listen in [http], or stop what uses this one")
}

/// Makes the folder and clears what a killed host left there.
fn prepare(folder: &Path) -> Result<(), Error> {
    let cannot = |error: std::io::Error| {
        Error::config("use the folder of uploads", error)
            .about(folder.display())
            .hint("let the host's user write there, or choose another cache in [host]")
    };
    std::fs::create_dir_all(folder).map_err(cannot)?;
    for entry in std::fs::read_dir(folder).map_err(cannot)?.flatten() {
        if is_left_behind(&entry) {
            let path: PathBuf = entry.path();
            // Another host on this machine may clear it at the same time.
            let gone = std::fs::remove_file(&path).is_ok();
            tracing::info!(file = %path.display(), gone, "cleared an upload that was left behind");
        }
    }
    Ok(())
}

fn is_left_behind(entry: &std::fs::DirEntry) -> bool {
    let ours = entry
        .file_name()
        .to_string_lossy()
        .starts_with(UPLOAD_PREFIX);
    let changed = entry.metadata().and_then(|about| about.modified());
    let age = changed
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    ours && age.is_some_and(|age| age > LEFT_BEHIND)
}

/// What the accept loop needs.
struct Desk {
    service: Service,
    tls: Option<TlsAcceptor>,
    connections: usize,
    patience: Duration,
    stopped: watch::Receiver<bool>,
}

impl Desk {
    async fn run(self, listener: StdListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the API cannot listen");
                return;
            }
        };
        let mut stopped = self.stopped.clone();
        let mut open = FuturesUnordered::new();
        let mut leaving = FuturesUnordered::new();
        let mut again = Instant::now();
        let mut tired = false;
        loop {
            // Unbiased: neither new clients nor busy ones may starve the others.
            tokio::select! {
                accepted = listener.accept(), if !tired => match accepted {
                    Ok((stream, _)) if open.len() >= self.connections => {
                        tracing::warn!("as many connections as limits.connections of [http] allows are open");
                        if leaving.len() < LEAVING {
                            leaving.push(connection::turn_away(stream));
                        }
                    }
                    Ok((stream, peer)) => open.push(connection::serve(
                        self.service.clone(),
                        stream,
                        peer.ip(),
                        self.tls.clone(),
                        self.stopped.clone(),
                        self.patience,
                    )),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        again = Instant::now() + BREATH;
                        tired = true;
                    }
                },
                () = sleep_until(again), if tired => tired = false,
                Some(()) = open.next(), if !open.is_empty() => {}
                Some(()) = leaving.next(), if !leaving.is_empty() => {}
                // Also when the server's handle is gone.
                _ = stopped.changed() => break,
            }
        }
        drop(listener);
        let drained = timeout(DRAIN, async { while open.next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(
                connections = open.len(),
                "requests were cut when the host stopped"
            );
        }
    }
}
