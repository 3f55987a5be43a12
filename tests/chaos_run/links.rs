//! Faults of the links between hosts and servers: a proxy closes, delays, stalls or swallows. It counts what it did to
//! bytes that were on their way, and that is what says that a fault happened.

use wasmill_tests::proxy::{Counts, Link, Proxy};

use super::injector::{HEALED, Injector};
use super::tally::Trouble;

impl Injector {
    /// A link, and its name.
    fn link(&self, which: u64) -> (&Proxy, &'static str) {
        let links = self.stage.links.as_ref().expect("this stage has them");
        match which {
            0 => (&links.kafka, "Kafka"),
            1 => (&links.postgres, "Postgres"),
            _ => (&self.to_cassandra, "Cassandra"),
        }
    }

    /// Makes one of the links bad for some time; what the proxy counted says whether it was felt.
    async fn bad_link(&mut self, trouble: Trouble, link: Link, time: (u64, u64), felt: Felt) {
        let which = self.dice.below(3);
        let time = self.dice.time(time.0, time.1);
        self.flows(HEALED).await;
        let flowed = self.view.flows();
        let (proxy, name) = self.link(which);
        let before = proxy.counts();
        proxy.set(link);
        tokio::time::sleep(time).await;
        proxy.heal();
        let felt = felt(&before, &proxy.counts());
        let took = self.heals().await;
        let detail = format!("{name} for {time:.1?}");
        self.done(trouble, flowed && felt, took, detail);
    }

    /// All connections of a link end at once.
    pub(crate) async fn link_closed(&mut self) {
        let which = self.dice.below(3);
        self.flows(HEALED).await;
        let flowed = self.view.flows();
        let (proxy, name) = self.link(which);
        let before = proxy.counts().closed;
        proxy.close_all();
        let closed = || self.link(which).0.counts().closed > before;
        let felt = self.until(HEALED, closed).await;
        let took = self.heals().await;
        self.done(Trouble::LinkClosed, flowed && felt, took, name);
    }

    /// Everything arrives later.
    pub(crate) async fn link_slow(&mut self) {
        let delay = self.dice.time(20, 300);
        let felt: Felt = |before, now| now.delayed > before.delayed;
        self.bad_link(
            Trouble::LinkSlow,
            Link::delayed(delay),
            (2_000, 6_000),
            felt,
        )
        .await;
    }

    /// Nothing arrives until the end of it, then all of it.
    pub(crate) async fn link_stalled(&mut self) {
        let felt: Felt = |before, now| now.stalled > before.stalled;
        self.bad_link(Trouble::LinkStalled, Link::stalled(), (1_000, 9_000), felt)
            .await;
    }

    /// Flights that Postgres refused because another owner had come, from its log.
    pub(crate) fn fences(&self) -> usize {
        let log = std::fs::read(self.stage.postgres.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.matches("the flight comes from").count()
    }

    /// A flight is held on its way to Postgres; its host dies, another process goes on where it stood; then the flight
    /// arrives.
    pub(crate) async fn late(&mut self) {
        self.flows(HEALED).await;
        let (flowed, fences) = (self.view.flows(), self.fences());
        let (postgres, _) = self.link(1);
        let hold = postgres.hold(|request| request.contains(b"wasmill.advance("));
        let caught = self.until(HEALED, || hold.is_caught()).await;
        // Nobody says whose flight it is.
        let hosts = self.fleet.up();
        for host in &hosts {
            self.fleet.kill(*host);
        }
        for host in &hosts {
            self.fleet.start(*host);
        }
        let took = self.heals().await;
        hold.let_go();
        let refused = self.until(HEALED, || self.fences() > fences).await;
        self.heals().await;
        self.done(Trouble::Late, flowed && caught && refused, took, "");
    }

    /// What is sent is gone, or only its answers are.
    pub(crate) async fn link_swallows(&mut self) {
        let (trouble, link) = match self.dice.once_in(2) {
            true => (Trouble::LinkDead, Link::black_hole()),
            false => (Trouble::LinkHalfOpen, Link::half_open()),
        };
        let felt: Felt = |before, now| {
            now.requests_swallowed + now.replies_swallowed
                > before.requests_swallowed + before.replies_swallowed
        };
        self.bad_link(trouble, link, (500, 9_000), felt).await;
    }
}

/// Whether the counts say so.
type Felt = fn(&Counts, &Counts) -> bool;
