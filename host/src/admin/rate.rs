//! How often a client may ask: a token bucket each. Time is given, never read. It bounds its own memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients remembered at once. A full bucket says nothing, so those are forgotten first.
const CLIENTS: usize = 10_000;

/// A client, as far as it can be told from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// By its token's name.
    Token(String),
    /// By its IPv4 address, or the /64 network of its IPv6 address, which is what one customer gets.
    Address(IpAddr),
}

impl Client {
    /// The client at an address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << 64);
                IpAddr::V6(network.into())
            }
            address => address,
        })
    }
}

/// Buckets that hold two seconds' worth of requests.
#[derive(Debug)]
pub(super) struct Rates {
    per_second: f64,
    most: f64,
    clients: HashMap<Client, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(super) fn new(per_second: f64) -> Self {
        Self {
            per_second,
            most: (per_second * 2.0).max(1.0),
            clients: HashMap::new(),
        }
    }

    /// Takes one request from a client's bucket.
    ///
    /// # Errors
    /// How long until there is one again.
    pub(super) fn take(&mut self, client: Client, now: Instant) -> Result<(), Duration> {
        let (most, per_second) = (self.most, self.per_second);
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * per_second).min(most)
        };
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            self.clients.retain(|_, bucket| filled(bucket) < most);
            // Ten thousand busy clients: forgetting them only gives each a new bucket.
            if self.clients.len() >= CLIENTS {
                self.clients.clear();
            }
        }
        let bucket = self.clients.entry(client).or_insert(Bucket {
            left: most,
            at: now,
        });
        bucket.left = filled(bucket);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / per_second));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_client_is_slowed_down_and_others_are_not() {
        let start = Instant::now();
        let mut rates = Rates::new(10.0);
        let ci = || Client::Token("ci".to_owned());
        for _ in 0..20 {
            rates.take(ci(), start).unwrap();
        }
        let wait = rates.take(ci(), start).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        rates.take(Client::at([10, 0, 0, 1].into()), start).unwrap();
        rates
            .take(ci(), start + Duration::from_millis(101))
            .unwrap();
        rates
            .take(ci(), start + Duration::from_millis(102))
            .unwrap_err();
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_than_its_share_of_memory() {
        let start = Instant::now();
        let mut rates = Rates::new(1.0);
        for n in 0..50_000_u32 {
            rates.take(Client::at(IpAddr::V4(n.into())), start).unwrap();
            assert!(rates.clients.len() <= CLIENTS);
        }
    }
}
