//! A TCP proxy of our own between a host and one server: a link that fails in the ways networks fail, at run time.
//!
//! ```text
//! host ──requests──▶ Proxy (127.0.0.1:port, own thread) ──▶ server
//!      ◀──replies───   Link    what the link does now: pass, swallow, stall, delay, limit, refuse
//!                      Hold    one request caught on its way; let go when asked, its sender alive or dead
//!                      Counts  what it did, so that a test can assert that its fault happened
//! ```
//! | wanted | call |
//! |---|---|
//! | a cut cable, nothing comes back ever | `set(Link::black_hole())` |
//! | lost replies, half-open | `set(Link::half_open())` |
//! | a partition that ends: what was sent arrives late | `set(Link::stalled())` |
//! | slow, far | `set(Link { limit, delay, ..Link::default() })` |
//! | resets | `close_all()` |
//! | server not there | `set(Link { accept: false, ..Link::default() })` and `close_all()` |
//! | a connection that breaks under a request, which arrives later all the same | `hold(…)`, `cut_off()`, `let_go()` |
//! | good again | `heal()` |
//!
//! It owns the connections and their bytes. It never makes up a byte, never reorders, and on one connection never
//! forwards a byte after one that it swallowed: such a connection stays silent until somebody closes it.
//! Requests are recognised in plain text only: no TLS.

mod hold;
mod pump;
mod request;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use hold::{Hold, Outcome};
pub use request::{Protocol, Request};

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// They go on.
    #[default]
    Pass,
    /// They are read and thrown away; so is the end of the connection. For good on the connections it happened to.
    Swallow,
    /// They are not read: the sender's buffers fill, and all of it arrives when this ends.
    Stall,
}

/// What the link does. Changes hold for the next bytes of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether new connections are taken; otherwise they are closed at once.
    pub accept: bool,
    /// From the client to the server.
    pub requests: Way,
    /// From the server to the client.
    pub replies: Way,
    /// How much later bytes arrive, in each direction.
    pub delay: Duration,
    /// Bytes a second in each direction, all connections together.
    pub limit: Option<u64>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            accept: true,
            requests: Way::Pass,
            replies: Way::Pass,
            delay: Duration::ZERO,
            limit: None,
        }
    }
}

impl Link {
    /// Swallows both directions.
    pub fn black_hole() -> Self {
        Self {
            requests: Way::Swallow,
            replies: Way::Swallow,
            ..Self::default()
        }
    }

    /// Forwards requests and swallows replies.
    pub fn half_open() -> Self {
        Self {
            replies: Way::Swallow,
            ..Self::default()
        }
    }

    /// Nothing moves and nothing is lost.
    pub fn stalled() -> Self {
        Self {
            requests: Way::Stall,
            replies: Way::Stall,
            ..Self::default()
        }
    }

    /// At most this many bytes a second in each direction.
    pub fn limited(bytes: u64) -> Self {
        Self {
            limit: Some(bytes),
            ..Self::default()
        }
    }

    /// Everything arrives this much later.
    pub fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }
}

/// What a proxy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken.
    pub accepted: u64,
    /// Connections closed at once: [`Link::accept`] is off.
    pub refused: u64,
    /// Connections closed at once: the server is not there.
    pub unreachable: u64,
    /// Connections that [`Proxy::close_all`] or [`Proxy::heal`] ended.
    pub closed: u64,
    /// Bytes of requests forwarded.
    pub requests: u64,
    /// Bytes of replies forwarded.
    pub replies: u64,
    /// Bytes of requests thrown away.
    pub requests_swallowed: u64,
    /// Bytes of replies thrown away.
    pub replies_swallowed: u64,
    /// Pieces, of either direction, that waited for a stall to end.
    pub stalled: u64,
    /// Pieces that arrived later because of the delay.
    pub delayed: u64,
    /// Pieces that waited because of the limit.
    pub limited: u64,
    /// Requests caught by a [`Hold`].
    pub held: u64,
    /// Caught requests that were forwarded afterwards.
    pub let_go: u64,
    /// Of those, requests whose sender had gone before.
    pub let_go_orphaned: u64,
}

/// Which connections have to end: numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Closes {
    all: u64,
    /// Those that lost bytes.
    broken: u64,
    stop: bool,
}

/// What handle and connections share.
#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    target: Mutex<Option<SocketAddr>>,
    /// A watch, because only the latest word counts.
    link: watch::Sender<Link>,
    closes: watch::Sender<Closes>,
    counts: Mutex<Counts>,
    holds: Mutex<Vec<Arc<hold::Caught>>>,
    /// When the limit allows the next byte: requests, replies.
    free: Mutex<[Instant; 2]>,
}

impl Shared {
    fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut lock(&self.counts));
    }

    fn link(&self) -> Link {
        *self.link.borrow()
    }
}

/// A lock without the poison: what a panicking test leaves is only looked at.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1 that reaches nothing yet: for a server that has to know the proxy's address
    /// before it starts, such as a Kafka that advertises it.
    pub fn new(protocol: Protocol) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            protocol,
            target: Mutex::default(),
            link: watch::Sender::default(),
            closes: watch::Sender::default(),
            counts: Mutex::default(),
            holds: Mutex::default(),
            free: Mutex::new([Instant::now(); 2]),
        });
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{}", address.port()))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(serve(listener, served));
            });
        Self {
            address,
            shared,
            thread: Some(thread.unwrap()),
        }
    }

    /// A proxy in front of a server.
    pub fn to(protocol: Protocol, server: SocketAddr) -> Self {
        let proxy = Self::new(protocol);
        proxy.point_at(server);
        proxy
    }

    /// Where new connections lead from now on.
    pub fn point_at(&self, server: SocketAddr) {
        *lock(&self.shared.target) = Some(server);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the link does.
    pub fn set(&self, link: Link) {
        self.shared.link.send_replace(link);
    }

    /// What the link does now.
    pub fn link(&self) -> Link {
        self.shared.link()
    }

    /// Closes all connections; new ones are taken as the link says.
    pub fn close_all(&self) {
        self.shared.closes.send_modify(|closes| closes.all += 1);
    }

    /// A good link again: everything passes, what is held is let go, and connections that lost bytes are closed, as a
    /// firewall does that has forgotten them.
    pub fn heal(&self) {
        self.set(Link::default());
        for caught in std::mem::take(&mut *lock(&self.shared.holds)) {
            caught.let_go();
        }
        self.shared.closes.send_modify(|closes| closes.broken += 1);
    }

    /// Catches the next request of which `wanted` is true, and with it all that follows on its connection. The other
    /// connections go on. One request a call.
    pub fn hold(&self, wanted: impl Fn(&Request<'_>) -> bool + Send + Sync + 'static) -> Hold {
        let caught = Arc::new(hold::Caught::new(wanted));
        let mut holds = lock(&self.shared.holds);
        holds.retain(|hold| !hold.is_going());
        holds.push(Arc::clone(&caught));
        drop(holds);
        Hold::new(caught)
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closes.send_modify(|closes| closes.stop = true);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut closes = shared.closes.subscribe();
    loop {
        let client = tokio::select! {
            biased; // a proxy that is told to stop takes nobody in
            stop = closes.wait_for(|closes| closes.stop) => {
                drop(stop);
                return;
            }
            // out of descriptors for a moment: the next one may fit
            accepted = listener.accept() => accepted.ok().map(|(client, _)| client),
        };
        let Some(client) = client else { continue };
        if shared.link().accept {
            shared.count(|counts| counts.accepted += 1);
            tokio::spawn(taken(client, Arc::clone(&shared)));
        } else {
            shared.count(|counts| counts.refused += 1);
        }
    }
}

/// The life of one connection.
async fn taken(mut client: TcpStream, shared: Arc<Shared>) {
    client.set_nodelay(true).ok();
    let seen = *shared.closes.borrow();
    // into a black hole no connection is made
    let server = if shared.link().requests == Way::Swallow {
        None
    } else {
        let target = *lock(&shared.target);
        let connected = match target {
            Some(target) => TcpStream::connect(target).await.ok(),
            None => None,
        };
        if connected.is_none() {
            shared.count(|counts| counts.unreachable += 1);
            return;
        }
        connected
    };
    let fate = pump::Fate::default();
    let flows = async {
        match server {
            Some(mut server) => {
                server.set_nodelay(true).ok();
                pump::both(&mut client, &mut server, &shared, &fate).await;
            }
            None => pump::into_nothing(&mut client, &shared, &fate).await,
        }
    };
    let mut closes = shared.closes.subscribe();
    let ended = closes.wait_for(|now| {
        now.stop || now.all != seen.all || (now.broken != seen.broken && fate.is_broken())
    });
    tokio::select! {
        biased; // a connection that has to end forwards nothing more
        told = ended => drop(told),
        () = flows => return,
    }
    shared.count(|counts| counts.closed += 1);
}
