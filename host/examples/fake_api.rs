//! The HTTP API before a host in memory, for clients and fuzzers that want answers without brokers:
//! `fake_api run -c wasmill.toml`, with the arguments of `wasmill`. Ends with its standard input.
#![allow(clippy::unwrap_used, reason = "a tool of developers")]

use std::path::Path;

use wasmill::admin::serve;
use wasmill::assemble;

#[allow(dead_code, reason = "the tests look into it, this program does not")]
#[path = "../tests/admin/fake.rs"]
mod fake;

fn main() {
    let file = std::env::args().next_back().unwrap();
    wasmill::telemetry::log_to_stderr("warn", false);
    let config = assemble::load(Path::new(&file)).unwrap();
    let http = config.http.unwrap();
    let folder = config.host.cache.join("uploads");
    let server = serve(&http, &folder, fake::Fake::new()).unwrap();
    eprintln!("listens on {}", server.addr());
    std::thread::park();
}
