//! The command line: one file a command; this one parses and dispatches.
//!
//! Every command returns an exit code of the published list (see [`exit_code`]); every error is shown with
//! what failed, the detail and what to do. Data goes to standard output, everything else to standard error.

mod audit;
mod change;
mod client;
mod compile;
mod connection;
mod deadletter;
mod demo;
mod deploy;
mod dev;
mod explain;
mod feed;
mod follow;
mod history;
mod list;
mod local;
mod openapi;
mod own_host;
mod plan;
mod plugin;
mod position;
mod report;
mod run;
mod show;
mod signals;
mod signing;
mod status;
mod token;
mod upload;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::error::{Blame, Error};
use change::Change;

/// Over the options that every command has, so that they do not stand among its own.
const OUTPUT: &str = "Output and log";

/// A stream processor: Kafka records through WebAssembly plugins into Postgres and Cassandra tables, exactly once, and
/// into topics.
#[derive(Debug, Parser)]
#[command(
    name = "wasmill",
    version,
    propagate_version = true,
    after_help = "Examples:\n  wasmill demo                            see it work on this machine, nothing to configure\n  wasmill plugin new orders               start a plugin\n  wasmill plugin build                    build it into one .wasm\n  wasmill dev                             rebuild, deploy and compare on every save\n  wasmill run -c wasmill.toml             run a host\n  wasmill upload orders.wasm              send a plugin to a running host\n  wasmill deploy orders@0.1.0             run it\n\nExit codes: 0 done, 1 failed (outside), 2 usage, 3 config or manifest, 4 plugin, 5 refused, 6 what was compared differs, 70 a bug in Wasmill"
)]
struct Arguments {
    /// Print one JSON document on standard output instead of text.
    #[arg(long, global = true, help_heading = OUTPUT)]
    json: bool,
    /// What is logged on standard error: error, warn, info, debug, or a filter such as wasmill=debug.
    #[arg(
        long,
        global = true,
        env = "WASMILL_LOG",
        value_name = "FILTER",
        help_heading = OUTPUT
    )]
    log: Option<String>,
    /// Log one JSON object a line.
    #[arg(long, global = true, help_heading = OUTPUT)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on this machine: real records through real plugins into real tables.
    Demo(demo::Demo),
    /// Run a host.
    Run(run::Run),
    /// What is guaranteed at each sink of a pipeline, and why.
    Explain(explain::Explain),
    /// A broker and a database on this machine until Ctrl-C, for writing and trying plugins.
    Local(local::Local),
    /// Send the lines of a file as records of a topic.
    Feed(feed::Feed),
    /// Write a plugin with everything around it running: rebuilt, deployed and compared on every save.
    Dev(dev::Dev),
    /// Send a plugin to a running host, which checks and keeps it.
    Upload(upload::Upload),
    /// Run an uploaded version in a pipeline: shows what would change, asks, applies exactly that.
    Deploy(deploy::Deploy),
    /// Give every partition the version of the canary or shadow under way.
    #[command(after_help = "Example:\n  wasmill promote quakes --note \"looked at the rows\"")]
    Promote(change::Swap),
    /// Go back to the version before, or end a canary or shadow with the old one.
    #[command(after_help = "Example:\n  wasmill rollback quakes")]
    Rollback(change::Swap),
    /// Stop processing a pipeline on every host; positions stay.
    #[command(after_help = "Example:\n  wasmill pause quakes --note \"table is being vacuumed\"")]
    Pause(change::Target),
    /// Go on after a pause, or after the pipeline was parked.
    #[command(after_help = "Example:\n  wasmill resume quakes")]
    Resume(change::Target),
    /// The positions of a pipeline.
    #[command(subcommand)]
    Position(position::Positions),
    /// Take a pipeline off every host; positions and history stay.
    #[command(after_help = "Example:\n  wasmill remove quakes --yes")]
    Remove(change::Remove),
    /// The uploaded versions, and where each is deployed.
    List(list::List),
    /// What a host and its pipelines do: lag, rates, dead letters, memory, errors, canaries.
    Status(status::Status),
    /// What a pipeline went through, and which version wrote which offsets.
    History(history::History),
    /// Who changed or was denied what, newest first.
    Audit(audit::Audit),
    /// Prove that a pipeline's tables are what its records make of them.
    Verify(verify::Verify),
    /// Records that were set aside: look at them, run them once more, forget them.
    #[command(subcommand, name = "deadletter")]
    DeadLetter(deadletter::DeadLetters),
    /// Write, build, test and look at plugins.
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Check one component within limits, for a host.
    #[command(hide = true)]
    CompilePlugin(compile::CompilePlugin),
    /// Tokens of the HTTP API.
    #[command(subcommand)]
    Token(token::Token),
    /// Print the OpenAPI document of the HTTP API.
    Openapi(openapi::Openapi),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  wasmill completions bash > /etc/bash_completion.d/wasmill")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// How a command speaks.
#[derive(Clone, Copy, Debug)]
struct Voice {
    json: bool,
}

/// Parses the arguments, runs the command and returns the process's exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap knows the difference and prints to the right place.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let voice = Voice {
        json: arguments.json,
    };
    let default = match arguments.command {
        Command::Run(_) => "info",
        // It runs every record again, also those that were logged about when they were processed.
        Command::Verify(_) => "error,wasmill::guest=off",
        // It says itself why the plugin failed, and what a panic said is in there.
        Command::Plugin(plugin::Plugin::Test { .. }) => "warn,wasmill::guest=off",
        _ => "warn",
    };
    crate::telemetry::log_to_stderr(
        arguments.log.as_deref().unwrap_or(default),
        arguments.log_json,
    );
    let outcome = match arguments.command {
        Command::Demo(command) => command.execute(voice),
        Command::Run(command) => command.execute(voice),
        Command::Explain(command) => command.execute(voice),
        Command::Local(command) => command.execute(voice),
        Command::Feed(command) => command.execute(voice),
        Command::Dev(command) => command.execute(voice),
        Command::Upload(command) => command.execute(voice),
        Command::Deploy(command) => command.execute(voice),
        Command::Promote(command) => command.execute(Change::Promote, voice),
        Command::Rollback(command) => command.execute(Change::Rollback, voice),
        Command::Pause(command) => command.change(Change::Pause, voice),
        Command::Resume(command) => command.change(Change::Resume, voice),
        Command::Position(command) => command.execute(voice),
        Command::Remove(command) => command.execute(voice),
        Command::List(command) => command.execute(voice),
        Command::Status(command) => command.execute(voice),
        Command::History(command) => command.execute(voice),
        Command::Audit(command) => command.execute(voice),
        Command::Verify(command) => command.execute(voice),
        Command::DeadLetter(command) => command.execute(voice),
        Command::Plugin(command) => command.execute(voice),
        Command::CompilePlugin(command) => command.execute(),
        Command::Token(command) => command.execute(voice),
        Command::Openapi(command) => command.execute(),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "wasmill", &mut script);
            report::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::failure(&failure, voice);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What a command can end with.
#[derive(Debug)]
enum Failure {
    /// One error with its three parts.
    Error(Error),
    /// Problems of a TOML file, already rendered with lines and carets.
    Problems(crate::toml_check::Problems),
    /// Something was compared and differs: shown already.
    Mismatch(String),
    /// What a pipeline wrote is not what it should be: shown already.
    Differs(String),
    /// What is live does not fit what would run: shown already.
    Unfit(String),
    /// One error about what was shown already, whole.
    Shown(Error),
    /// An argument that parses and means nothing.
    Usage(Error),
    /// Not done because it must not be: not allowed, not confirmed, somebody else was first.
    Refused(Error),
    /// A host's HTTP API said no.
    Remote(Remote),
}

/// What a host's HTTP API answered instead of doing it.
#[derive(Clone, Debug)]
struct Remote {
    /// The problem document's title, detail and hint.
    error: Error,
    /// The exit code it has by the published list.
    exit: u8,
    /// The HTTP status.
    status: u16,
    /// The problem's code.
    code: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<crate::toml_check::Problems> for Failure {
    fn from(problems: crate::toml_check::Problems) -> Self {
        Self::Problems(problems)
    }
}

impl From<crate::config::LoadError> for Failure {
    fn from(error: crate::config::LoadError) -> Self {
        match error {
            crate::config::LoadError::Unreadable(error) => Self::Error(error),
            crate::config::LoadError::Wrong(problems) => Self::Problems(problems),
        }
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Error(error) | Self::Shown(error) => exit_code(error.blame()),
            Self::Problems(_) | Self::Unfit(_) => exit_code(Blame::Config),
            Self::Mismatch(_) => 1,
            Self::Differs(_) => 6,
            Self::Usage(_) => 2,
            Self::Refused(_) => 5,
            Self::Remote(remote) => remote.exit,
        }
    }
}

/// The published exit codes: 0 done, 1 failed (outside), 2 usage, 3 the config or manifest is wrong, 4 the
/// plugin is at fault, 5 refused, 6 what was compared differs (`verify`), 70 a bug in Wasmill.
fn exit_code(blame: Blame) -> u8 {
    match blame {
        Blame::Outside | Blame::Data => 1,
        Blame::Config => 3,
        Blame::Plugin => 4,
        Blame::Bug => 70,
    }
}

/// A path given by a person, or the default.
fn or_default(path: Option<PathBuf>, default: &str) -> PathBuf {
    path.unwrap_or_else(|| PathBuf::from(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
