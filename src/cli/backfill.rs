//! `backfill`: rows older than the day of going live, because a person asks for them.
//!
//! These rows become entries in the inbox like any others. The owner of the inbox works them off: a service that runs beside
//! this command, else an engine of the command. So all share one rate, and the next owner continues an interrupted backfill.

use std::{
    collections::HashMap,
    io::{self, BufRead, IsTerminal},
    path::Path,
    time::Duration,
};

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};

use self::follow::Backfill;
use super::{
    CommandError, Outcome, clock,
    dates::{self, When},
    entries::{read_if_there, refuse_on_standby},
    terminal::Terminal,
    told_to_stop,
};
use crate::{
    app::Settings,
    config::Config,
    domain::{Backoff, Disposition, RowId},
    inbox::{Inbox, InboxError, Role, State},
    supabase::{Period, Supabase, SupabaseError},
    sync::Walk,
    telemetry,
};

pub(super) use self::{
    follow::{GLANCE, Hands, hands, is_undecided, open, patience_with_a_lease},
    progress::why,
    report::End,
};

mod dry_run;
mod follow;
mod progress;
mod report;

/// Tries of a request whose failure passes by itself.
const ATTEMPTS: u32 = 3;
const AGAIN: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only rows created since then: a date or a time, in `TIME_ZONE` unless it has an offset
    #[arg(long, value_name = "DATE")]
    since: Option<When>,
    /// Only rows created until then: a date, to the end of that day, or before a time
    #[arg(long, value_name = "DATE")]
    until: Option<When>,
    /// So many rows at most; those that are parked or wait for a contact already are not counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Say what would be done, for each row and in total, and write nothing anywhere
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print the totals as JSON
    #[arg(long)]
    json: bool,
}

impl Options {
    /// A row without a time counts as new.
    fn period(&self, now: Timestamp, zone: &TimeZone) -> Period {
        let since = self.since.map(|since| since.begins(zone));
        let until = self.until.map(|until| until.ends(zone));
        Period {
            since,
            until,
            with_undated: since.is_none_or(|since| since <= now)
                && until.is_none_or(|until| until > now),
        }
    }

    fn rows_at_most(&self, count: u64) -> u64 {
        self.limit.map_or(count, |limit| limit.min(count))
    }
}

pub(super) async fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    let (config, settings) = begin(terminal)?;
    let period = options.period(clock().now(), &terminal.reader().zone);
    if let (Some(since), Some(until)) = (period.since, period.until) {
        dates::in_order(since, until, terminal)?;
    }
    if settings.inbox_path.exists() {
        let inbox = Inbox::open(&settings.inbox_path, Role::Guest, clock()).await?;
        refuse_on_standby(&inbox, terminal).await?;
        inbox.close().await;
    }
    let supabase = Supabase::new(settings.supabase.clone(), clock())?;
    let count = patiently(SupabaseError::disposition, async || {
        supabase.count_unsynced(period).await
    })
    .await?;
    if count == 0 {
        return report::nothing_to_do(options.json, terminal);
    }
    let walk = Walk::new(supabase.clone(), period);
    if options.dry_run {
        return dry_run::run(options, (period, count), settings, walk, terminal).await;
    }
    tell_what_it_means(options, (period, count), &config, terminal).await?;
    if !options.yes {
        ask(terminal)?;
    }
    // From here on a signal stops the command in order. Up to the question it ends the process.
    let told_to_stop = told_to_stop()?;
    Backfill::new(settings, options, terminal, told_to_stop)
        .run(walk)
        .await
}

/// Prints how many rows the backfill will sync, in which account, and which automations that sets off.
async fn tell_what_it_means(
    options: &Options,
    (period, count): (Period, u64),
    config: &Config,
    terminal: &mut Terminal,
) -> Outcome {
    let rows = terminal.pick("rows without a deal", "строк без сделки");
    let period = dates::told(period.since, period.until, terminal);
    let limit = options.limit.map_or_else(String::new, |limit| {
        let at_most = terminal.pick("now at most", "сейчас не больше");
        format!("; {at_most} {limit}")
    });
    terminal.complain(&format!("{rows}: {count} ({period}){limit}"));
    if let Some(amocrm) = &config.amocrm {
        let (pipeline, stage) = terminal.pick(("pipeline", "stage"), ("воронка", "этап"));
        terminal.complain(&format!(
            "amoCRM: {}, {pipeline} {}, {stage} {}",
            amocrm.base_url, amocrm.pipeline, amocrm.stage
        ));
    }
    let open = open_entries(&config.inbox_path).await?;
    if open > 0 {
        let others = terminal.pick(
            "entries in the inbox that are still open, and worked on as well:",
            "незавершённых записей в очереди, они тоже будут обработаны:",
        );
        terminal.complain(&format!("{others} {open}"));
    }
    terminal.complain(terminal.pick(
        "Every deal that is moved or created sets off the account's own automations (messages, tasks, bots), as if a \
         manager had moved it. Look first with --dry-run, then try one row with --limit 1.",
        "Каждая перенесённая или созданная сделка запустит автоматизации аккаунта (сообщения, задачи, Salesbot), как \
         если бы её перенёс менеджер. Сначала посмотрите с --dry-run, затем попробуйте одну строку с --limit 1.",
    ));
    Ok(())
}

async fn open_entries(path: &Path) -> Result<u64, InboxError> {
    let counts = read_if_there(path, Inbox::counts).await?;
    let by_state = counts.map(|counts| counts.by_state).unwrap_or_default();
    let open = [State::Pending, State::Claimed];
    Ok(open.iter().filter_map(|state| by_state.get(state)).sum())
}

/// The settings of a command that has rows worked off, and its log. Fails if nothing would be sent.
pub(super) fn begin(terminal: &mut Terminal) -> Result<(Config, Settings), CommandError> {
    let is_terminal = io::stderr().is_terminal();
    let config = Config::load(is_terminal)?;
    if config.amocrm.is_none() {
        terminal.complain(terminal.pick(
            "AMOCRM_ENABLED=false: nothing would be sent",
            "AMOCRM_ENABLED=false: ничего не будет отправлено",
        ));
        return Err(CommandError::Misused);
    }
    // A log would tear what is printed: on a terminal, only errors are logged.
    let filter = if is_terminal {
        "error"
    } else {
        &config.log.filter
    };
    telemetry::init_logging(config.log.format, Some(filter))?;
    let settings = Settings::from_config(&config);
    Ok((config, settings))
}

/// Fails unless a person says yes.
pub(super) fn ask(terminal: &mut Terminal) -> Outcome {
    if !io::stdin().is_terminal() {
        terminal.complain(terminal.pick(
            "there is no terminal to confirm on: say --yes",
            "подтвердить некому (нет терминала): добавьте --yes",
        ));
        return Err(CommandError::Misused);
    }
    terminal.complain(terminal.pick("Go on? [y/N]", "Продолжить? [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if is_yes(&answer) {
        return Ok(());
    }
    terminal.complain(terminal.pick("nothing was done", "ничего не сделано"));
    Err(CommandError::Told)
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes", "д", "да"].contains(&answer.trim().to_lowercase().as_str())
}

/// Repeats a request whose failure passes by itself.
async fn patiently<T, E>(
    disposition: impl Fn(&E) -> Disposition,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    for attempt in 1..ATTEMPTS {
        match ask().await {
            Err(error) => match disposition(&error) {
                Disposition::Retry { after } => {
                    let pause = AGAIN.with_jitter(attempt - 1, after, 0.0);
                    tokio::time::sleep(pause).await;
                }
                Disposition::Refused | Disposition::Halt { .. } => return Err(error),
            },
            answered @ Ok(_) => return answered,
        }
    }
    ask().await
}

/// Picks the rows that need work.
#[derive(Debug, Clone, Copy, Default)]
struct Picker {
    /// `None`: no limit.
    left: Option<u64>,
    picked: u64,
    /// Not picked: a parked row needs a person first, a waiting one its contact.
    parked: u64,
    waiting: u64,
}

impl Picker {
    fn new(limit: Option<u64>) -> Self {
        Self {
            left: limit,
            ..Self::default()
        }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn pick(&mut self, page: Vec<RowId>, states: &HashMap<RowId, State>) -> Vec<RowId> {
        let mut picked = Vec::new();
        for row in page {
            if self.is_full() {
                break;
            }
            match states.get(&row) {
                Some(State::Parked) => self.parked += 1,
                Some(State::Waiting) => self.waiting += 1,
                Some(State::Pending | State::Claimed | State::Done) | None => {
                    self.left = self.left.map(|left| left - 1);
                    self.picked += 1;
                    picked.push(row);
                }
            }
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn row(n: u128) -> RowId {
        RowId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn an_entry_that_waits_for_a_person_or_a_contact_is_left_alone_and_uses_up_no_limit() {
        let states = HashMap::from([
            (row(1), State::Parked),
            (row(2), State::Waiting),
            (row(3), State::Done),
            (row(4), State::Pending),
        ]);
        let mut picker = Picker::new(Some(3));
        assert_eq!(picker.pick(vec![row(1), row(2), row(3)], &states), [row(3)]);
        assert!(!picker.is_full());
        let rest = picker.pick(vec![row(4), row(5), row(6)], &states);
        assert_eq!(rest, [row(4), row(5)]);
        assert!(picker.is_full());
        assert_eq!((picker.picked, picker.parked, picker.waiting), (3, 1, 1));

        let mut unlimited = Picker::new(None);
        assert_eq!(unlimited.pick((1..=6).map(row).collect(), &states).len(), 4);
        assert!(!unlimited.is_full());
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "YES", " да ", "Д"] {
            assert!(is_yes(yes), "{yes}");
        }
        for no in ["", "\n", "n", "нет", "yy", "1"] {
            assert!(!is_yes(no), "{no}");
        }
    }

    #[test]
    fn a_row_without_a_time_is_as_new_as_can_be() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let hour = jiff::SignedDuration::from_hours(1);
        let options = |since: Option<Timestamp>, until: Option<Timestamp>| Options {
            since: since.map(When::Exactly),
            until: until.map(When::Exactly),
            limit: None,
            dry_run: false,
            yes: false,
            json: false,
        };
        for (since, until, with_undated) in [
            (None, None, true),
            (Some(now), None, true),
            (Some(now + hour), None, false),
            (None, Some(now), false),
            (None, Some(now + hour), true),
            (Some(now - hour), Some(now), false),
        ] {
            let period = options(since, until).period(now, &TimeZone::UTC);
            assert_eq!(period.with_undated, with_undated, "{since:?} {until:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_in_passing_is_asked_again_and_nothing_else() {
        let busy = || SupabaseError::Busy {
            status: 503,
            code: String::new(),
            retry_after: Some(Duration::from_secs(9)),
        };
        let refused = || SupabaseError::Refused {
            status: 401,
            code: String::new(),
        };
        let asked = async |answers: Vec<Result<u8, SupabaseError>>| {
            let (began, mut answers, mut count) = (Instant::now(), answers.into_iter(), 0);
            let outcome = patiently(SupabaseError::disposition, async || {
                count += 1;
                answers.next().unwrap()
            })
            .await;
            (outcome.ok(), count, began.elapsed().as_secs())
        };
        assert_eq!(asked(vec![Ok(1)]).await, (Some(1), 1, 0));
        let late = vec![Err(busy()), Err(busy()), Ok(1)];
        assert_eq!(asked(late).await, (Some(1), 3, 18));
        let never = vec![Err(busy()), Err(busy()), Err(busy())];
        assert_eq!(asked(never).await, (None, 3, 18));
        assert_eq!(asked(vec![Err(refused())]).await, (None, 1, 0));
    }
}
