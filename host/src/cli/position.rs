//! `wasmill position raise`: the write times of a pipeline whose topic gained partitions, lifted through a host's API.

use super::client::{Client, Method, path};
use super::connection::Connection;
use super::{Failure, Voice, report, show};
use crate::admin::types::Raised;

/// The positions of a pipeline.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Positions {
    /// Lift the write times of all partitions to the greatest, after the topic gained some: then a row of a key that
    /// moved to another partition wins over those already in Cassandra. Records of the old partitions that were not
    /// read yet get times after that too: where they hold keys that moved, let them be read to their end before
    /// partitions are added. `wasmill resume` starts the pipeline again.
    #[command(after_help = "Example:\n  wasmill position raise quakes && wasmill resume quakes")]
    Raise(Raise),
}

/// Lift write times.
#[derive(Debug, clap::Args)]
pub(super) struct Raise {
    /// The pipeline.
    pipeline: String,
    #[command(flatten)]
    connection: Connection,
}

impl Positions {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let Self::Raise(Raise {
            pipeline,
            connection,
        }) = self;
        let client = Client::open(&connection)?;
        let what = format!("raise the write times of pipeline {pipeline:?}");
        let path = path::of_pipeline(&pipeline, "raise");
        let answer = client.send(Method::Post, &path, &serde_json::json!({}), &what)?;
        if voice.json {
            report::line(answer.text.trim_end());
            return Ok(());
        }
        report::line(said(&pipeline, &answer.read()?));
        Ok(())
    }
}

fn said(pipeline: &str, raised: &Raised) -> String {
    format!(
        "raised pipeline {pipeline}: write times of {} ({} new) lie after {} µs; `wasmill resume {pipeline}` goes on",
        show::number_of(raised.partitions.into(), "partition"),
        raised.added,
        raised.write_time
    )
}
