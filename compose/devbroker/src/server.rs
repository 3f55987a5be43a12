//! The network side: accepts connections, cuts the stream into frames, answers in order.
//!
//! Owns the connections. Never interprets a request. All tasks belong to one set that ends with the server, and a
//! connection's trouble ends that connection only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dispatch::{self, Unanswerable};
use crate::state::Shared;

/// The largest request read, as Kafka's `socket.request.max.bytes`.
const MAX_REQUEST: usize = 100 * 1024 * 1024;
/// Rest after a failed accept (out of descriptors), so that it is not tried in a hot loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What connections watch: any change closes those that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Whether new connections are served; otherwise they are closed at once.
    pub(crate) open: bool,
    /// Counts the times connections were dropped.
    pub(crate) drops: u64,
    /// The server ends.
    pub(crate) stopped: bool,
}

/// Why a connection ended, apart from the client's leaving.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("request of {0} bytes is over the limit of {MAX_REQUEST}; was it Kafka that spoke?")]
    TooLarge(usize),
    #[error(transparent)]
    Unanswerable(#[from] Unanswerable),
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until the gate says stop.
pub(crate) async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut gate: watch::Receiver<Gate>,
) {
    let mut connections = JoinSet::new();
    let time = shared.keep_time();
    tokio::pin!(time);
    loop {
        // Unbiased: none of these may starve another.
        tokio::select! {
            () = &mut time => {}
            changed = gate.changed() => {
                if changed.is_err() || gate.borrow_and_update().stopped {
                    break;
                }
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed: this is a bug");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let mut gate = gate.clone();
                    let entry = *gate.borrow_and_update();
                    if entry.open {
                        connections.spawn(connection(stream, peer.to_string(), Arc::clone(&shared), gate));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: String,
    shared: Arc<Shared>,
    mut gate: watch::Receiver<Gate>,
) {
    let ended = tokio::select! {
        // Biased: once the gate moved, nothing more is answered.
        biased;
        _ = gate.changed() => Ok(()),
        ended = converse(stream, &peer, &shared) => ended,
    };
    match ended {
        Ok(()) => {}
        Err(Broken::Io(error)) => tracing::debug!(peer, %error, "connection closed"),
        Err(error) => tracing::warn!(peer, %error, "connection closed"),
    }
}

async fn converse(mut stream: TcpStream, peer: &str, shared: &Shared) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    while let Some(frame) = next_frame(&mut stream).await? {
        if let Some(answer) = dispatch::serve(shared, frame, peer).await? {
            stream.write_all(&answer).await?;
        }
    }
    Ok(())
}

/// The next request without its length; `None` when the client has left.
async fn next_frame(stream: &mut TcpStream) -> Result<Option<Bytes>, Broken> {
    let length = match stream.read_i32().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_REQUEST {
        return Err(Broken::TooLarge(length));
    }
    // Memory follows what has arrived, not what was announced.
    let mut frame = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut frame).await?;
    if read < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(frame.into()))
}
