//! Logs and metrics: how they are written, and what each metric means.

use std::{
    fmt::{self, Debug},
    io, panic, thread,
    time::Duration,
};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    filter,
    fmt::{
        MakeWriter,
        format::{Writer, debug_fn},
        layer,
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::domain::harmless;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, fields beside the message.
    Json,
    /// For people; colours on a terminal.
    Pretty,
}

/// The default filter: warnings of libraries. `actix_http` logs an error for each request that is no HTTP, so any scanner
/// could fill the log.
const QUIET: &str = "info,actix_http=off,actix_server=warn,actix_web=warn,hyper=warn,hyper_util=warn,reqwest=warn,\
                     rustls=warn,sqlx=warn";

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("the log filter cannot be read, for example: info,tripwire_sync=debug")]
    Filter(#[from] filter::ParseError),
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Logs to standard error, standard output being for results. `filter` is `RUST_LOG`, and adds to what is usual.
pub fn init_logging(format: LogFormat, filter: Option<&str>) -> Result<(), LoggingError> {
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    subscriber(format, filter, colours, io::stderr)?.try_init()?;
    log_panics();
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    filter: Option<&str>,
    colours: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, filter::ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = match filter {
        Some(more) => EnvFilter::try_new(format!("{QUIET},{more}"))?,
        None => EnvFilter::try_new(QUIET)?,
    };
    let lines = layer().with_writer(writer);
    Ok(match format {
        LogFormat::Json => Box::new(
            tracing_subscriber::registry().with(filter).with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false),
            ),
        ),
        LogFormat::Pretty => Box::new(
            tracing_subscriber::registry().with(filter).with(
                lines
                    .with_ansi(colours)
                    .fmt_fields(debug_fn(write_field).delimited(" ")),
            ),
        ),
    })
}

/// Writes a field as the library does, but escapes control characters: a value may quote amoCRM or Supabase, and must not
/// move the cursor or begin a line.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = harmless(&value, &[]);
    match field.name() {
        "message" => writer.write_str(&value),
        name if writer.has_ansi_escapes() => {
            write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}")
        }
        name => write!(writer, "{name}={value}"),
    }
}

/// Logs a panic with its place. Its text is logged only if it is a literal: a formatted text may quote anything.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload().downcast_ref::<&'static str>();
        let thread = thread::current();
        tracing::error!(place, text, thread = thread.name(), "a task panicked");
    }));
}

/// Upper bounds in seconds, from a request on a good day to a student who waited for an hour.
const WAITS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 300.0, 900.0, 3600.0,
];

/// How often measurements are summed up, so that those between two reads of `/metrics` stay few.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Collects metrics from now on. Must run inside a Tokio runtime, which gets a task that limits their memory.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &WAITS)?
        .install_recorder()?;
    describe_metrics();
    metrics::gauge!("tripwire_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // So that the first alert that is dropped counts as an increase.
    for outcome in ["sent", "dropped"] {
        metrics::counter!("tripwire_alerts_total", "outcome" => outcome).increment(0);
    }

    let kept = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            kept.run_upkeep();
        }
    });
    Ok(handle)
}

/// Describes metrics of one kind, each with its unit, if it has one.
macro_rules! describe {
    ($describe:ident: $($name:literal $(in $unit:path)? => $text:literal,)*) => {
        $($describe!($name, $($unit,)? $text);)*
    };
}

/// The table of all metrics.
fn describe_metrics() {
    metrics_process::Collector::default().describe();
    describe! { describe_gauge:
        "tripwire_build_info" => "1, with the version of the program",
        "tripwire_start_timestamp_seconds" in Unit::Seconds => "When the service was started",
        "tripwire_last_event_timestamp_seconds" in Unit::Seconds => "When the last event was stored; 0 = never",
        "tripwire_last_sweep_timestamp_seconds" in Unit::Seconds => "When the last sweep since the start was completed, by kind; 0 = none",
        "tripwire_rows_in_doubt" => "Rows that were refused something, while other rows have yet to tell whether it concerns all",
        "tripwire_token_expiry_timestamp_seconds" in Unit::Seconds => "When a configured token ends",
        "tripwire_contact_index_hashes" => "Hashes of e-mails and phones in the contact index",
        "tripwire_contact_index_complete" => "1 when the contact index holds all contacts, else 0",
        "tripwire_contact_index_timestamp_seconds" in Unit::Seconds => "The contact index holds all changes up to this time; 0 = it is not complete",
        "tripwire_sync_state" => "1 for the state the engine is in, 0 for the others",
        "tripwire_inbox_entries" => "Entries of the inbox by state",
        "tripwire_inbox_accepts" => "1 while the last write to the inbox worked, else 0",
        "tripwire_inbox_oldest_pending_seconds" in Unit::Seconds => "Age of the oldest entry that still has work to do",
        "tripwire_inbox_size_bytes" in Unit::Bytes => "Size of the inbox with its log",
        "tripwire_inbox_disk_free_bytes" in Unit::Bytes => "Free space on the disk of the inbox",
    }
    describe! { describe_counter:
        "tripwire_rows_found_total" => "New rows by how they were first found",
        "tripwire_attempts_total" => "Attempts to sync a row by outcome",
        "tripwire_connections_cut_off_total" => "Connections that the service ended, by reason",
        "tripwire_webhooks_total" => "Deliveries by what became of them",
        "tripwire_alerts_total" => "Alerts by outcome",
        "tripwire_amocrm_requests_total" => "Requests to amoCRM by route and status",
        "tripwire_watcher_requests_total" => "Heartbeats to the outside watcher, by route and status",
        "tripwire_supabase_requests_total" => "Requests to Supabase by route and status",
    }
    describe! { describe_histogram:
        "tripwire_insert_to_write_back_seconds" in Unit::Seconds => "From the insert of a row to the deal's id in it",
        "tripwire_amocrm_throttle_wait_seconds" in Unit::Seconds => "How long requests to amoCRM waited for their turn",
        "tripwire_amocrm_request_seconds" in Unit::Seconds => "How long amoCRM took to answer",
    }
}

#[cfg(test)]
pub(crate) mod captured;
#[cfg(test)]
mod tests;
