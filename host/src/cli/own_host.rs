//! A host in the process of a command, with its API on a free port of this machine, and the way to it: what `dev` and
//! `demo` run. Its servers are the command's.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::client::{Client, path};
use super::connection::Connection;
use crate::assemble::Host;
use crate::config::Config;
use crate::error::Error;

/// How long the host may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct OwnHost {
    pub(super) host: Host,
    /// Asks its API.
    pub(super) client: Client,
    /// What it runs on.
    pub(super) config: Config,
    port: u16,
}

impl OwnHost {
    /// Starts one with the connections and pipelines of `sections`; its cache is made in `scratch`.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub(super) fn start(id: &str, scratch: &Path, sections: &str) -> Result<Self, Failure> {
        let port = free_port()?;
        let cache = scratch.join("cache").display().to_string();
        let text = format!(
            "[host]\nid = {id:?}\ncache = {cache:?}\n\n[http]\nlisten = \"127.0.0.1:{port}\"\n\n{sections}"
        );
        let config = Config::check(&text, &|_| None)?;
        Ok(Self {
            host: Host::start(&config)?,
            client: Client::open(&Connection::local(port))?,
            config,
            port,
        })
    }

    /// Where its API is.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until it does its work.
    ///
    /// # Errors
    /// What it failed with, or why it does not answer.
    pub(super) fn wait_ready(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.client.get(path::READY, "wait for the host") {
                Ok(_) => return Ok(()),
                Err(failure) if Instant::now() > deadline => return Err(failure),
                Err(_) => {}
            }
            if let Some(error) = self.host.failure() {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A port nobody listens on now; the host takes it a moment later.
fn free_port() -> Result<u16, Error> {
    let failed = |error| Error::outside("find a free port", error);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}
