//! Where logs go, set up once; the names of all metrics; events that programs look for, each with its fields.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

use crate::config::look_of_stderr;
use crate::toml_check::Look;

/// Target of the event that a plugin asked for a capability nobody granted.
pub const DENIED: &str = "wasmill::denied";

/// Target of what plugins log.
pub const GUEST: &str = "wasmill::guest";

/// Says that a plugin asked for a capability it was not granted, and which key of the config grants it.
pub fn denied(pipeline: &str, capability: &str, key: &str) {
    tracing::warn!(target: DENIED, pipeline, capability, key, "capability denied");
}

/// How much libraries say unless a filter names them. librdkafka's chatter is kept to warnings. The driver of
/// Cassandra says several times a second, as an error, that a node is away: that is told once, by us, and again when
/// it is back.
const LIBRARIES: &str = "librdkafka=warn,scylla=off";

/// Logs to standard error: text for people, or one JSON object a line. A filter that is not understood falls
/// back to `info`; what it says of a library goes before [`LIBRARIES`].
pub fn log_to_stderr(filter: &str, json: bool) {
    let filter = understood(filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (tests) leaves the first in place.
    if json {
        builder.json().flatten_event(true).try_init().ok();
    } else {
        let colour = look_of_stderr() == Look::Colour;
        let builder = builder.with_ansi(colour).with_target(false);
        builder.fmt_fields(PlainWords).try_init().ok();
    }
}

/// Fields as `name=value`. A text is in quotes only where it has more than a name has in it, so that a pipeline reads
/// `pipeline=quakes` in every line, whether its field is a text or something that is displayed.
#[derive(Clone, Copy, Debug)]
struct PlainWords;

impl<'w> FormatFields<'w> for PlainWords {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut words = Words(DefaultVisitor::new(writer, true));
        fields.record(&mut words);
        words.0.finish()
    }
}

struct Words<'w>(DefaultVisitor<'w>);

impl Visit for Words<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte);
        if !value.is_empty() && value.bytes().all(plain) {
            self.0.record_debug(field, &format_args!("{value}"));
        } else {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, value);
    }
}

/// Of two directives for one target the last counts.
fn understood(filter: &str) -> EnvFilter {
    EnvFilter::try_new(format!("{LIBRARIES},{filter}"))
        .unwrap_or_else(|_| EnvFilter::new(format!("{LIBRARIES},info")))
}

/// Every metric's name and help text. Counters get `_total` when they are written.
pub mod metric {
    /// A name and what it means.
    pub type Name = (&'static str, &'static str);

    /// The host's id and version, always 1.
    pub const HOST_INFO: Name = ("wasmill_host_info", "The host's id and version");
    /// 1 when the host does its work.
    pub const HOST_READY: Name = ("wasmill_host_ready", "Whether the host does its work");
    /// Since the start.
    pub const HOST_UPTIME: Name = ("wasmill_host_uptime_seconds", "Time since the start");
    /// Of the process.
    pub const HOST_MEMORY: Name = ("wasmill_host_memory_bytes", "Memory of the process");
    /// By route, method and status.
    pub const HTTP_REQUESTS: Name = ("wasmill_http_requests", "Requests to the API");
    /// By pipeline.
    pub const RECORDS_RECEIVED: Name = ("wasmill_records_received", "Records read and settled");
    /// By pipeline.
    pub const RECORDS_EMITTED: Name = ("wasmill_records_emitted", "Records that became rows");
    /// By pipeline.
    pub const RECORDS_FILTERED: Name = (
        "wasmill_records_filtered",
        "Records the plugin dropped on purpose",
    );
    /// By pipeline.
    pub const RECORDS_DEAD: Name = ("wasmill_records_dead_lettered", "Records set aside");
    /// By pipeline.
    pub const ROWS: Name = ("wasmill_rows", "Rows made by the plugin");
    /// By pipeline.
    pub const FLIGHTS: Name = ("wasmill_flights", "Commits of the anchor");
    /// By pipeline.
    pub const RETRIES: Name = ("wasmill_retries", "Flights that had to be sent again");
    /// By pipeline and server: 0 for each server that the pipeline depends on and does not wait for, so that an alert
    /// finds a series before anything is amiss, and sees it end.
    pub const WAITING: Name = (
        "wasmill_waiting_seconds",
        "How long the pipeline has waited for a server; 0 when it does not",
    );
    /// By pipeline.
    pub const GUEST_SECONDS: Name = (
        "wasmill_guest_seconds",
        "Processor time spent decoding, in the plugin and checking",
    );
    /// By pipeline and class.
    pub const ERRORS: Name = (
        "wasmill_errors",
        "Failures of pipelines by class; attempts at a server that are repeated are none",
    );
    /// By pipeline and code.
    pub const DEAD_LETTERS: Name = ("wasmill_dead_letters", "Dead letters by code");
    /// By pipeline.
    pub const LAG: Name = (
        "wasmill_lag_records",
        "Records between the positions and the ends of the partitions",
    );
    /// By pipeline and partition.
    pub const PARTITION_LAG: Name = (
        "wasmill_partition_lag_records",
        "Records between the position and the end of a partition",
    );
    /// By pipeline and partition: 1 from when the lane stood still until it commits again.
    pub const LANE_STALLED: Name = (
        "wasmill_lane_stalled",
        "Whether a lane took no turn for a minute although records waited",
    );
    /// By pipeline, partition and outcome: `emitted`, `filtered`, `dead`.
    pub const LEDGER: Name = (
        "wasmill_ledger_records",
        "What became of every record below the position of a partition this host owns, as stored with it; a retried \
         dead letter counts as what it became",
    );
    /// By pipeline and partition.
    pub const LEDGER_RETRIED: Name = (
        "wasmill_ledger_retried_records",
        "Of the emitted and filtered records of the ledger, those that were dead letters before",
    );
    /// By pipeline.
    pub const MEMORY: Name = (
        "wasmill_plugin_memory_bytes",
        "Linear memory of the plugin's instances",
    );
    /// By pipeline.
    pub const REVISION: Name = (
        "wasmill_deployment_revision",
        "Revision of the pipeline's deployment",
    );
    /// By pipeline and state: 1 in one state, 0 in the others.
    pub const STATE: Name = ("wasmill_pipeline_state", "What the pipeline does");
    /// By pipeline and quantile, over the last ten seconds.
    pub const LATENCY: Name = (
        "wasmill_flight_latency_seconds",
        "Time from the start of a flight to its commit",
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile.
    fn logged(filter: &str, say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(understood(filter))
            .with_writer(move || to.clone())
            .with_ansi(false)
            .fmt_fields(PlainWords)
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let text = lines.0.lock().clone();
        String::from_utf8(text).unwrap()
    }

    /// Which of the lines of a host and of its libraries are written.
    fn written(filter: &str) -> Vec<&'static str> {
        let text = logged(filter, || {
            tracing::info!(target: "wasmill::cassandra", "ours");
            tracing::error!(target: "scylla::network::connection_pool", "driver");
            tracing::info!(target: "librdkafka", "chatter");
            tracing::warn!(target: "librdkafka", "warning");
        });
        let all = ["ours", "driver", "chatter", "warning"];
        all.into_iter().filter(|word| text.contains(word)).collect()
    }

    #[test]
    fn a_name_reads_alike_in_every_line_and_other_texts_are_quoted() {
        let text = logged("info", || {
            let (pipeline, why) = ("quakes-2", "a limit\nERROR");
            let plugin = String::from("quakes@1.2.0");
            tracing::info!(pipeline, %plugin, why, empty = "", error = %"two words", "said");
            tracing::info!(%pipeline, plugin, number = 3, "said");
        });
        let wanted = [
            r#"said pipeline=quakes-2 plugin=quakes@1.2.0 why="a limit\nERROR" empty="" error=two words"#,
            "said pipeline=quakes-2 plugin=quakes@1.2.0 number=3",
        ];
        let found: Vec<_> = text.lines().collect();
        assert_eq!(found.len(), 2, "{text}");
        for (found, wanted) in found.into_iter().zip(wanted) {
            assert!(found.ends_with(wanted), "{found}");
        }
    }

    #[test]
    fn libraries_are_quiet_unless_the_filter_names_them() {
        assert_eq!(written("info"), ["ours", "warning"]);
        assert_eq!(written("warn"), ["warning"]);
        assert_eq!(written("info,scylla=error"), ["ours", "driver", "warning"]);
        assert_eq!(written("scylla::network=warn"), ["driver", "warning"]);
        assert_eq!(
            written("info,librdkafka=info"),
            ["ours", "chatter", "warning"]
        );
        assert_eq!(written("what is=this=filter"), ["ours", "warning"]);
    }
}
