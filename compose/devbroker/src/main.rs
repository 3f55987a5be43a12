//! `wasmill-devbroker --port N`: the development broker by itself, until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Parser;
use wasmill_devbroker::{Broker, Options};

/// An in-memory Kafka-protocol broker for development, on loopback only.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// TCP port; 0 takes a free one.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// Loopback address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Create unknown topics with this many partitions when a producer names them.
    #[arg(long, value_name = "PARTITIONS")]
    auto_create: Option<i32>,
    /// Create a topic at the start; may be repeated.
    #[arg(long, value_name = "NAME:PARTITIONS", value_parser = topic)]
    topic: Vec<(String, i32)>,
}

fn topic(text: &str) -> Result<(String, i32), String> {
    let (name, partitions) = text
        .rsplit_once(':')
        .ok_or("expected NAME:PARTITIONS, such as orders:4")?;
    let partitions = partitions
        .parse()
        .map_err(|error| format!("number of partitions '{partitions}': {error}"))?;
    Ok((name.to_owned(), partitions))
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match serve(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "development broker ended");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let Arguments {
        port,
        address,
        auto_create,
        topic,
    } = arguments;
    let broker = Broker::start(Options {
        address,
        port,
        auto_create,
        advertised: None,
    })?;
    for (name, partitions) in topic {
        broker.create_topic(&name, partitions)?;
    }
    tracing::warn!("{}", broker.notice());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tokio::signal::ctrl_c())?;
    broker.stop();
    Ok(())
}
