//! A loopback port that stays ours while the server on it is down.
//!
//! Owns the choice. Ports lie below the range from which systems take the local port of an outgoing
//! connection (32768 up on Linux): there a client that keeps trying a dead server's port can be given
//! that very port and connect to itself. A lock file a port keeps other Wasmill processes away while
//! a server restarts. Never binds for longer than it takes to see that nobody else has.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use crate::{cache::Cache, error::StartError};

const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A reserved port on 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A port nobody listens on.
    pub(crate) fn free(cache: &Cache) -> Result<Port, StartError> {
        Port::free_for(cache, 1)
    }

    /// A port nobody listens on at any of the addresses 127.0.0.1 to 127.0.0.`nodes`.
    pub(crate) fn free_for(cache: &Cache, nodes: u8) -> Result<Port, StartError> {
        let folder = cache.folder("ports")?;
        let start = RandomState::new().hash_one(()) % u64::from(COUNT);
        let start = u16::try_from(start).expect("below COUNT");
        for step in 0..COUNT {
            let number = FIRST + (start + step) % COUNT;
            let path = folder.join(number.to_string());
            let lock = File::create(&path).map_err(StartError::io("opening the lock", &path))?;
            let is_free =
                |last| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), number)).is_ok();
            if lock.try_lock().is_ok() && (1..=nodes).all(is_free) {
                return Ok(Port {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(StartError::Folder {
            path: folder,
            why: format!("no port from {FIRST} on is free"),
        })
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// The address a client connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ports_held_differ_and_are_below_the_outgoing_range() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().to_owned()).unwrap();
        let held: Vec<Port> = (0..50).map(|_| Port::free(&cache).unwrap()).collect();
        let mut numbers: Vec<u16> = held.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.iter().all(|n| (20_000..30_000).contains(n)));
    }
}
