//! The two flows of one connection.
//!
//! Each flow is an intake, which reads and decides (pass, swallow, stall, hold), and an outlet, which writes when delay
//! and limit allow. They never share anything but the queue between them and what the connection has lost.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::hold::{Caught, Outcome};
use super::request::Cutter;
use super::{Protocol, Shared, Way, lock};

/// Greatest read, and unit in which the limit lets go.
const PIECE: usize = 16 * 1024;

/// How long the end of a dead sender's connection waits for the answer to its late request.
const ANSWER: Duration = Duration::from_secs(2);

/// Pieces on their way: with a delay, what the link carries (4 MiB).
const QUEUED: usize = 256;

/// What both flows of a connection know of it.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Bytes were thrown away.
    lost: AtomicBool,
    /// The server has closed.
    server_gone: AtomicBool,
    /// The client is to see the end now, whatever is on its way to it.
    cut_off: Notify,
    /// A request that was held and let go, until the server says something.
    unanswered: Mutex<Option<Arc<Caught>>>,
}

impl Fate {
    pub(super) fn is_broken(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn server_gone(&self) -> bool {
        self.server_gone.load(Ordering::SeqCst)
    }
}

/// Direction, as an index of what is kept for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Requests = 0,
    Replies = 1,
}

enum Out {
    /// Not before that instant.
    Bytes(Instant, Vec<u8>),
    End,
}

/// Carries both directions until both have ended.
pub(super) async fn both(
    client: &mut TcpStream,
    server: &mut TcpStream,
    shared: &Arc<Shared>,
    fate: &Fate,
) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::join!(
        flow(Flow::Requests, from_client, to_server, shared, fate),
        flow(Flow::Replies, from_server, to_client, shared, fate),
    );
}

/// Reads and forgets, until the client closes.
pub(super) async fn into_nothing(client: &mut TcpStream, shared: &Shared, fate: &Fate) {
    fate.lost.store(true, Ordering::SeqCst);
    let mut piece = vec![0; PIECE];
    while let Ok(1..) = client.read(&mut piece).await.inspect(|read| {
        shared.count(|counts| counts.requests_swallowed += *read as u64);
    }) {}
}

async fn flow(
    flow: Flow,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    shared: &Arc<Shared>,
    fate: &Fate,
) {
    let (queue, queued) = channel(QUEUED);
    let intake = Intake {
        flow,
        from,
        queue,
        shared,
        fate,
        lost: false,
    };
    // an outlet whose receiver has gone ends the queue, and with it the intake at its next piece
    tokio::join!(intake.run(), outlet(flow, queued, to, shared, fate));
}

struct Intake<'a> {
    flow: Flow,
    from: ReadHalf<'a>,
    queue: Sender<Out>,
    shared: &'a Shared,
    fate: &'a Fate,
    /// Whether this flow has swallowed: then it goes on doing so.
    lost: bool,
}

impl Intake<'_> {
    async fn run(mut self) {
        let protocol = match self.flow {
            Flow::Requests => self.shared.protocol,
            Flow::Replies => Protocol::Raw,
        };
        let mut cutter = Cutter::new(protocol);
        let mut piece = vec![0; PIECE];
        while let Ok(read @ 1..) = self.from.read(&mut piece).await {
            if self.flow == Flow::Replies
                && let Some(hold) = lock(&self.fate.unanswered).take()
            {
                hold.answered();
            }
            cutter.push(&piece[..read]);
            if self.forward(&mut cutter).await.is_err() {
                return; // the other side is gone: nothing has to end there
            }
        }
        if self.flow == Flow::Replies {
            self.fate.server_gone.store(true, Ordering::SeqCst);
        }
        // a server that learns at once that nobody waits may drop what it has not begun
        let unanswered = lock(&self.fate.unanswered).clone();
        if let Some(hold) = unanswered.filter(|_| self.flow == Flow::Requests) {
            tokio::time::timeout(ANSWER, hold.is_answered()).await.ok();
        }
        let rest = cutter.rest();
        if (rest.is_empty() || self.pass(rest).await.is_ok()) && self.may_end().await {
            self.queue.send(Out::End).await.ok();
        }
    }

    /// Hands on all whole requests; waits where one is caught.
    async fn forward(&mut self, cutter: &mut Cutter) -> Result<(), ()> {
        let mut passing = Vec::new();
        loop {
            let next = cutter.next(|request| {
                let holds = lock(&self.shared.holds);
                let hold = holds
                    .iter()
                    .find(|hold| self.flow == Flow::Requests && hold.takes(request));
                hold.cloned()
            });
            match next {
                None => return self.pass(passing).await,
                Some((bytes, None)) => passing.extend(bytes),
                Some((bytes, Some(hold))) => {
                    // what came before it has nothing to wait for
                    self.pass(std::mem::take(&mut passing)).await?;
                    self.held(&hold, cutter).await;
                    self.goes_on(&hold, bytes).await?;
                }
            }
        }
    }

    /// Hands on a request that was let go.
    async fn goes_on(&mut self, hold: &Arc<Caught>, bytes: Vec<u8>) -> Result<(), ()> {
        let server_gone = self.fate.server_gone();
        let sent = self.pass(bytes).await;
        let outcome = match sent {
            _ if self.lost => Outcome::Swallowed,
            Ok(()) if !server_gone => Outcome::Delivered,
            _ => Outcome::ServerGone,
        };
        self.shared.count(|counts| {
            counts.let_go += 1;
            counts.let_go_orphaned += u64::from(hold.is_orphaned());
        });
        *lock(&self.fate.unanswered) = Some(Arc::clone(hold));
        hold.ends(outcome);
        sent
    }

    /// Waits until the request may go on, reading meanwhile to notice that its sender is gone.
    async fn held(&mut self, hold: &Arc<Caught>, cutter: &mut Cutter) {
        self.shared.count(|counts| counts.held += 1);
        let _closed = EndsClosed(Arc::clone(hold));
        let mut piece = vec![0; PIECE];
        let mut cut_off = false;
        loop {
            tokio::select! {
                biased; // let go is let go, whatever still comes
                () = hold.wait() => return,
                () = hold.is_cut_off(), if !cut_off => {
                    cut_off = true;
                    self.fate.cut_off.notify_one();
                }
                read = self.from.read(&mut piece) => match read {
                    Ok(read @ 1..) => cutter.push(&piece[..read]),
                    Ok(_) | Err(_) => {
                        hold.sender_gone();
                        hold.wait().await;
                        return;
                    }
                },
            }
        }
    }

    /// Queues bytes as the link says now.
    async fn pass(&mut self, bytes: Vec<u8>) -> Result<(), ()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let many = bytes.len() as u64;
        if self.way() == Way::Stall {
            self.shared.count(|counts| counts.stalled += 1);
            self.stall_ends().await;
        }
        if self.lost || self.way() == Way::Swallow {
            self.lost = true;
            self.fate.lost.store(true, Ordering::SeqCst);
            self.shared.count(|counts| match self.flow {
                Flow::Requests => counts.requests_swallowed += many,
                Flow::Replies => counts.replies_swallowed += many,
            });
            return Ok(());
        }
        let due = Instant::now() + self.shared.link().delay;
        match (self.queue.send(Out::Bytes(due, bytes)).await, self.flow) {
            (Err(_), Flow::Requests) => Err(()),
            // of a client that has gone: what the server does is still of interest
            _ => Ok(()),
        }
    }

    /// Whether the receiver learns of the end.
    async fn may_end(&mut self) -> bool {
        self.stall_ends().await;
        !self.lost && self.way() == Way::Pass
    }

    async fn stall_ends(&self) {
        let mut link = self.shared.link.subscribe();
        let flow = self.flow;
        // the sender is shared: it lives
        link.wait_for(|link| way(link, flow) != Way::Stall)
            .await
            .unwrap();
    }

    fn way(&self) -> Way {
        way(&self.shared.link(), self.flow)
    }
}

fn way(link: &super::Link, flow: Flow) -> Way {
    match flow {
        Flow::Requests => link.requests,
        Flow::Replies => link.replies,
    }
}

/// Says of a hold whose connection was closed meanwhile that its request never arrived.
struct EndsClosed(Arc<Caught>);

impl Drop for EndsClosed {
    fn drop(&mut self) {
        if !self.0.is_going() {
            self.0.ends(Outcome::Closed);
        }
    }
}

async fn outlet(
    flow: Flow,
    mut queued: Receiver<Out>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    fate: &Fate,
) {
    loop {
        let out = tokio::select! {
            biased; // who is cut off hears nothing more
            () = fate.cut_off.notified(), if flow == Flow::Replies => {
                to.shutdown().await.ok();
                return;
            }
            out = queued.recv() => out,
        };
        let Some(out) = out else { return };
        let written = match out {
            Out::Bytes(due, bytes) => write(flow, due, &bytes, &mut to, shared).await,
            Out::End => to.shutdown().await,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn write(
    flow: Flow,
    due: Instant,
    bytes: &[u8],
    to: &mut WriteHalf<'_>,
    shared: &Shared,
) -> io::Result<()> {
    if due > Instant::now() {
        shared.count(|counts| counts.delayed += 1);
        tokio::time::sleep_until(due.into()).await;
    }
    for piece in bytes.chunks(PIECE) {
        let many = piece.len() as u64;
        if let Some(limit) = shared.link().limit {
            let free = {
                let mut free = lock(&shared.free);
                let free = &mut free[flow as usize];
                *free = (*free).max(Instant::now())
                    + Duration::from_secs_f64(many as f64 / limit.max(1) as f64);
                *free
            };
            shared.count(|counts| counts.limited += 1);
            tokio::time::sleep_until(free.into()).await;
        }
        to.write_all(piece).await?;
        shared.count(|counts| match flow {
            Flow::Requests => counts.requests += many,
            Flow::Replies => counts.replies += many,
        });
    }
    Ok(())
}
