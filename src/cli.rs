//! The command line: what a person or a supervisor can ask of the service.

use std::{
    io::{IsTerminal, Write as _},
    process::ExitCode,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use jiff::tz::TimeZone;
use strum::VariantArray;

use crate::{
    app::{self, App, Settings},
    config::{self, Config, ConfigErrors},
    domain::{RowId, SharedClock, SystemClock, VERSION},
    inbox::State,
    telemetry,
    words::{Lang, Reader},
};

mod backfill;
mod backup;
mod check;
mod dates;
#[cfg(feature = "sandbox")]
mod demo;
mod entries;
mod explain;
mod failure;
mod forget;
mod init;
mod jwt;
mod pause;
mod pipelines;
mod room;
#[cfg(feature = "sandbox")]
mod sandbox;
mod setup_sql;
mod terminal;
mod undo;
mod usage;

use terminal::Terminal;

/// Carries every new student from Supabase to the right deal in amoCRM: once, and never forgotten.
#[derive(Debug, Parser)]
#[command(name = "tripwire-sync", version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve,
    /// Show the whole main job on this machine: nothing to install, nothing to set
    #[cfg(feature = "sandbox")]
    Demo(demo::Options),
    /// Run the amoCRM and PostgREST sandboxes alone, for trying things
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Options),
    /// Ask what is needed, check each answer at once, and write `.env`
    Init(init::Options),
    /// Check every setting and both neighbours, and send a test event the whole way: one line each, with what to do
    Check(check::Options),
    /// Print pipelines and stages with their ids
    Pipelines {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Sync rows older than `SYNC_SINCE`: asks first, works until all is done
    Backfill(backfill::Options),
    /// Move deals back to the stages that they came from: these students, a backfill, or a time; asks first
    Undo(undo::Options),
    /// Print the inbox
    Entries {
        /// Only entries in this state
        #[arg(long, value_parser = state())]
        state: Option<State>,
        /// How many at most, latest change first
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell the whole story of one student
    Explain {
        /// The id of a row, or an e-mail address
        #[arg(value_name = "ROW OR E-MAIL")]
        whom: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try entries again now: these rows, or all that are parked
    Retry {
        /// Ids of rows
        rows: Vec<RowId>,
        /// All that are parked
        #[arg(long, conflicts_with = "rows")]
        parked: bool,
    },
    /// Set rows aside until a person says `retry`
    Park {
        /// Ids of rows
        #[arg(required = true)]
        rows: Vec<RowId>,
    },
    /// Remove a student from the inbox, and say what remains elsewhere
    Forget {
        /// The id of a row, or an e-mail address
        #[arg(value_name = "ROW OR E-MAIL")]
        whom: String,
    },
    /// Copy the inbox to a new file, while the service runs
    Backup {
        /// The new file, which must not exist
        file: std::path::PathBuf,
    },
    /// Stop sending to amoCRM, on all machines; webhooks are still accepted
    Pause,
    /// Send again, on all machines; also ends a halt
    Resume,
    /// Make a new webhook secret
    Secret,
    /// Print the SQL that sets up the database, to be pasted into the dashboard's SQL editor
    SetupSql(setup_sql::Options),
    /// Make a token for the database role `tripwire_sync`, on this machine
    Jwt(jwt::Options),
}

/// The states by their names.
fn state() -> impl TypedValueParser<Value = State> {
    let names = State::VARIANTS.iter().map(State::into_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<State>())
}

/// Why a command did not succeed. The exit code is 2 for usage and settings, else 1.
#[derive(Debug)]
enum CommandError {
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The command has reported the failure already.
    Told,
    /// As `Told`: the arguments make no sense together.
    Misused,
}

/// Allowed beside the conversion of a type into itself, since `CommandError` is no [`std::error::Error`].
impl<E: std::error::Error + Send + Sync + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

type Outcome = Result<(), CommandError>;

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let lang = Lang::of_locale(config::locale().as_deref());
    let cli = match parse(lang) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            print_usage(&error, lang);
            return ExitCode::from(code);
        }
    };
    let reader = Reader {
        lang,
        zone: zone_for(&cli.command),
    };
    let mut terminal = Terminal::new(reader);
    match run(cli.command, &mut terminal).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Told) => ExitCode::FAILURE,
        Err(CommandError::Misused) => ExitCode::from(2),
        // `… | head`: the reader has closed the pipe.
        Err(CommandError::Failed(error)) if is_broken_pipe(error.as_ref()) => ExitCode::FAILURE,
        Err(CommandError::Failed(error)) => {
            if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
                terminal.complain(&errors.told(lang));
                return ExitCode::from(2);
            }
            terminal.complain(&failure::told(error.as_ref(), lang));
            ExitCode::FAILURE
        }
    }
}

/// The demo and the sandbox read no settings.
fn zone_for(command: &Command) -> TimeZone {
    match command {
        #[cfg(feature = "sandbox")]
        Command::Demo(_) | Command::Sandbox(_) => config::machine_zone(),
        _ => config::time_zone(),
    }
}

fn parse(lang: Lang) -> Result<Cli, clap::Error> {
    let command = usage::in_lang(Cli::command(), lang);
    Cli::from_arg_matches(&command.try_get_matches()?)
}

/// Help, the version, or a mistake in the use of the command line.
fn print_usage(error: &clap::Error, lang: Lang) {
    // A failure to print has no other place to be reported.
    let _ = match lang {
        // In colour on a terminal.
        Lang::English => error.print(),
        Lang::Russian if error.use_stderr() => {
            std::io::stderr().write_all(usage::told(error, lang).as_bytes())
        }
        Lang::Russian => std::io::stdout().write_all(usage::told(error, lang).as_bytes()),
    };
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn run(command: Command, terminal: &mut Terminal) -> Outcome {
    match command {
        Command::Serve => serve().await,
        #[cfg(feature = "sandbox")]
        Command::Demo(options) => demo::run(&options, terminal).await,
        #[cfg(feature = "sandbox")]
        Command::Sandbox(options) => sandbox::run(&options, terminal).await,
        Command::Init(options) => init::run(&options, terminal).await,
        Command::Check(options) => check::run(&options, terminal).await,
        Command::Pipelines { json } => pipelines::run(json, terminal).await,
        Command::Backfill(options) => backfill::run(&options, terminal).await,
        Command::Undo(options) => undo::run(&options, terminal).await,
        Command::Entries { state, limit, json } => {
            entries::list(state, limit, json, terminal).await
        }
        Command::Explain { whom, json } => explain::run(&whom, json, terminal).await,
        Command::Retry { rows, parked } => entries::retry(rows, parked, terminal).await,
        Command::Park { rows } => entries::park(rows, terminal).await,
        Command::Forget { whom } => forget::run(&whom, terminal).await,
        Command::Backup { file } => backup::run(&file, terminal).await,
        Command::Pause => pause::pause(terminal).await,
        Command::Resume => pause::resume(terminal).await,
        Command::Secret => secret(terminal),
        Command::SetupSql(options) => setup_sql::run(&options, terminal),
        Command::Jwt(options) => jwt::run(&options, terminal),
    }
}

/// The service, until SIGTERM or SIGINT.
async fn serve() -> Outcome {
    // First: a signal that comes during the start is not lost, and stops the service in order.
    let told_to_stop = told_to_stop()?;
    let config = Config::load(std::io::stderr().is_terminal())?;
    telemetry::init_logging(config.log.format, Some(&config.log.filter))?;
    for warning in &config.warnings {
        tracing::warn!(%warning, "settings.warning");
    }
    for end in app::token_ends(&config) {
        if end.is_soon(clock().now()) {
            tracing::warn!(token = end.name, expires_at = %end.expires_at, "settings.token_ends");
        }
    }
    let metrics = telemetry::install_metrics()?;
    let app = App::start(Settings::from_config(&config), clock(), metrics).await?;
    app.run_until(told_to_stop).await?;
    Ok(())
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// Completes at the first signal to stop.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A new secret: 32 random bytes, in the form that both the trigger and the service take.
fn secret(terminal: &mut Terminal) -> Outcome {
    terminal.say(&new_secret())?;
    Ok(())
}

fn new_secret() -> String {
    format!("whsec_{}", STANDARD.encode(rand::random::<[u8; 32]>()))
}
