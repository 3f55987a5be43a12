//! `wasmill promote | rollback | pause | resume | remove`: changes of a deployment that need no new version.
//! They differ in a word and a path; what each does is the host's.

use std::io::IsTerminal as _;

use super::client::{Client, Method, path};
use super::connection::Connection;
use super::deploy;
use super::follow::{self, Goal, Waiting};
use super::{Failure, Voice, report};
use crate::admin::types::{ChangeRequest, Deployed};
use crate::error::Error;

/// Which pipeline, and what is said about the change.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The pipeline.
    pipeline: String,
    /// Only from this revision; another one now is refused (exit code 5). `wasmill status` shows it.
    #[arg(long, value_name = "REVISION")]
    seen: Option<u64>,
    /// Kept in the history.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A change that swaps releases, and may be waited for.
#[derive(Debug, clap::Args)]
pub(super) struct Swap {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    waiting: Waiting,
}

/// Take a pipeline off every host.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    #[command(flatten)]
    target: Target,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Every partition gets the canary's or shadow's release.
    Promote,
    /// Back to the release before.
    Rollback,
    /// Stop processing.
    Pause,
    /// Go on.
    Resume,
    /// Off every host.
    Remove,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Remove => "remove",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Promote => "promoted",
            Self::Rollback => "rolled back",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Remove => "removed",
        }
    }
}

impl Swap {
    pub(super) fn execute(self, change: Change, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.target.connection)?;
        let waiting = Some(&self.waiting).filter(|waiting| !waiting.no_wait);
        self.target.execute(&client, change, waiting, voice)
    }
}

impl Remove {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.target.connection)?;
        let pipeline = &self.target.pipeline;
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                let error = Error::config(
                    format!("remove pipeline {pipeline:?}"),
                    "nobody can be asked: there is no terminal",
                );
                return Err(Failure::Refused(
                    error.hint("give --yes; positions and history stay either way"),
                ));
            }
            deploy::confirm(&format!("remove pipeline {pipeline} from every host?"))?;
        }
        self.target.execute(&client, Change::Remove, None, voice)
    }
}

impl Target {
    /// A change without a swap.
    pub(super) fn change(self, change: Change, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        self.execute(&client, change, None, voice)
    }

    fn execute(
        &self,
        client: &Client,
        change: Change,
        waiting: Option<&Waiting>,
        voice: Voice,
    ) -> Result<(), Failure> {
        let pipeline = &self.pipeline;
        let request = ChangeRequest {
            seen: self.seen,
            note: self.note.clone(),
        };
        let (method, path) = match change {
            Change::Remove => (Method::Delete, path::pipeline(pipeline)),
            _ => (Method::Post, path::of_pipeline(pipeline, change.word())),
        };
        let answer = client
            .send(
                method,
                &path,
                &request,
                &format!("{} pipeline {pipeline:?}", change.word()),
            )
            .map_err(|failure| match self.seen {
                Some(seen) => deploy::explained(client, pipeline, seen, failure),
                None => failure,
            })?;
        let deployed: Deployed = answer.read()?;
        if !voice.json {
            report::line(said(change, &deployed));
        }
        if let Some(waiting) = waiting {
            follow::until(client, &deployed, Goal::Everywhere, waiting, voice)?;
        }
        if voice.json {
            report::line(answer.text.trim_end());
        }
        Ok(())
    }
}

fn said(change: Change, deployed: &Deployed) -> String {
    let Deployed {
        pipeline,
        revision,
        changed,
    } = deployed;
    if *changed {
        format!("{} pipeline {pipeline}: revision {revision}", change.done())
    } else {
        format!(
            "nothing to {} in pipeline {pipeline}: revision {revision} stands",
            change.word()
        )
    }
}
