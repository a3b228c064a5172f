//! Puts the rows into the inbox, and follows the engine that works them off.

use std::{path::Path, pin::Pin, time::Duration};

use tokio::time::Instant;

use super::{
    Options, Picker, patiently,
    progress::{self, Progress, Standing},
    report::{self, End, Totals},
};
use crate::{
    app::{Died, Settings, Worker},
    cli::{CommandError, Outcome, clock, terminal::Terminal},
    domain::{Refusals, SyncState},
    inbox::{Arrival, BackfillId, Entry, HALT, Inbox, InboxError, PAUSED, REFUSALS, Role, Source},
    supabase::SupabaseError,
    sync::{
        Walk,
        lease::{self, LeaseStatus},
        rules::timings::{Timings, later},
        sending::{Blocked, state_of},
    },
};

/// So many attempts of a row that is in doubt are no passing trouble.
const TRIED_OFTEN: u32 = 3;
/// How often the progress is read.
pub(in crate::cli) const GLANCE: Duration = Duration::from_millis(200);

pub(super) struct Backfill<'t> {
    settings: Settings,
    limit: Option<u64>,
    as_json: bool,
    terminal: &'t mut Terminal,
    told_to_stop: Pin<Box<dyn Future<Output = ()>>>,
}

/// The engine that works the entries off.
pub(in crate::cli) enum Hands {
    Ours(Worker),
    /// A service that owns the inbox.
    Others(Watched),
}

impl<'t> Backfill<'t> {
    pub(super) fn new(
        settings: Settings,
        options: &Options,
        terminal: &'t mut Terminal,
        told_to_stop: impl Future<Output = ()> + 'static,
    ) -> Self {
        Self {
            settings,
            limit: options.limit,
            as_json: options.json,
            terminal,
            told_to_stop: Box::pin(told_to_stop),
        }
    }

    pub(super) async fn run(mut self, walk: Walk) -> Outcome {
        let began = Instant::now();
        let path = self.settings.inbox_path.clone();
        let (mut inbox, mut is_ours) = open(&path).await?;
        let id = inbox.begin_backfill().await?;
        self.say_its_number(id);
        let (picker, is_whole) = self.enqueue(walk, &inbox, id).await?;

        let mut progress = Progress::new(picker.picked, self.as_json);
        let mut end = (!is_whole).then_some(End::Interrupted);
        let end = loop {
            if let Some(end) = end {
                break end;
            }
            let hands = hands(&self.settings, &inbox, is_ours, self.terminal)?;
            end = self.follow(hands, &inbox, id, &mut progress).await?;
            if end.is_none() {
                inbox.close().await;
                (inbox, is_ours) = open(&path).await?;
            }
        };
        progress.finish();
        let standing = standing(&inbox, id, picker.picked, &self.settings.timings).await?;
        inbox.close().await;
        let totals = Totals {
            backfill: Some(id),
            standing,
            parked_before: picker.parked,
            waiting_before: picker.waiting,
            took: began.elapsed(),
            end,
        };
        report::tell(&totals, self.as_json, self.terminal)
    }

    fn say_its_number(&mut self, id: BackfillId) {
        let told = self.terminal.pick(
            "its number, and the command that moves its deals back:",
            "номер и команда, которая вернёт сделки:",
        );
        self.terminal.complain(&format!(
            "{told} {id}, `tripwire-sync undo --backfill {id}`"
        ));
    }

    /// `false`: interrupted. Entries that were stored by then stay.
    async fn enqueue(
        &mut self,
        mut walk: Walk,
        inbox: &Inbox,
        id: BackfillId,
    ) -> Result<(Picker, bool), CommandError> {
        let mut picker = Picker::new(self.limit);
        while !picker.is_full() {
            let page = patiently(SupabaseError::disposition, async || walk.next_page().await);
            let page = tokio::select! {
                page = page => page?,
                () = &mut self.told_to_stop => return Ok((picker, false)),
            };
            if page.is_empty() {
                break;
            }
            let states = inbox.states_of(page.clone()).await?;
            let arrivals = picker.pick(page, &states).into_iter().map(|row| Arrival {
                row,
                source: Source::Backfill(id),
            });
            inbox.store(arrivals.collect()).await?;
        }
        Ok((picker, true))
    }

    /// Waits until all rows are done or none can go on. `None`: the service that did the work is gone.
    async fn follow(
        &mut self,
        mut hands: Hands,
        inbox: &Inbox,
        id: BackfillId,
        progress: &mut Progress,
    ) -> Result<Option<End>, CommandError> {
        let timings = self.settings.timings;
        let mut standby_since: Option<Instant> = None;
        let end = loop {
            let standing = standing(inbox, id, progress.total(), &timings).await?;
            if standing.is_drained() {
                progress.show(&standing, None, self.terminal)?;
                break Some(End::Drained);
            }
            let Some(state) = hands.state(inbox).await? else {
                break None;
            };
            let undecided = undecided(inbox, id).await?;
            if state == SyncState::Working && standing.is_open_for(undecided) {
                break Some(End::InDoubt);
            }
            let mut why = progress::why(state, self.terminal);
            if let Hands::Others(watched) = &mut hands {
                let patience = patience_with_a_service(&timings);
                let gone_for = watched.gone_for(standing.ended(), &self.settings)?;
                if gone_for.is_some_and(|gone_for| gone_for > patience) {
                    break None;
                }
                if gone_for.is_some() {
                    why = Some(progress::service_is_gone(self.terminal));
                } else if watched.moved_at.elapsed() > patience && standing.due_in().is_none() {
                    why = why.or_else(|| Some(progress::nobody_knows(self.terminal)));
                }
            }
            standby_since = match state {
                SyncState::Standby {
                    held_by_another: true,
                } => standby_since.or_else(|| Some(Instant::now())),
                _ => None,
            };
            if standby_since.is_some_and(|since| since.elapsed() > patience_with_a_lease(&timings))
            {
                break Some(End::Standby);
            }
            progress.show(&standing, why, self.terminal)?;
            tokio::select! {
                () = tokio::time::sleep(GLANCE) => {}
                () = &mut self.told_to_stop => break Some(End::Interrupted),
            }
        };
        hands.let_go().await?;
        Ok(end)
    }
}

/// An engine of this command if it owns the inbox; else the service that does.
pub(in crate::cli) fn hands(
    settings: &Settings,
    inbox: &Inbox,
    is_ours: bool,
    terminal: &mut Terminal,
) -> Result<Hands, CommandError> {
    if !is_ours {
        terminal.complain(terminal.pick(
            "a service is running on this inbox: it does the work, this command watches",
            "с этой очередью работает запущенный сервис: строки обработает он, команда показывает ход",
        ));
        return Ok(Hands::Others(Watched::new()));
    }
    terminal.complain(terminal.pick(
        "no service is running on this inbox: this command does the work; until it ends, none can be started",
        "с этой очередью не работает ни один сервис: строки обработает сама команда; до её конца сервис не запустится",
    ));
    // No sweep: rows since `SYNC_SINCE` were not asked for, and `--limit 1` must mean one row.
    let settings = settings.clone().without_periodic_jobs();
    Ok(Hands::Ours(Worker::start(settings, inbox, &clock(), None)?))
}

impl Hands {
    /// `None`: our engine has ended.
    pub(in crate::cli) async fn state(
        &self,
        inbox: &Inbox,
    ) -> Result<Option<SyncState>, CommandError> {
        Ok(Some(match self {
            Self::Ours(worker) if worker.is_dead() => return Ok(None),
            Self::Ours(worker) => {
                let writing = *inbox.writing().borrow();
                writing.over(*worker.status.borrow())
            }
            Self::Others(_) if inbox.is_lost() => return Err(Died::InboxLost.into()),
            Self::Others(_) => stored_state(inbox).await?,
        }))
    }

    /// Whether the service has been gone for longer than a restart takes. `ended`: how many rows have come to their end.
    pub(in crate::cli) fn is_gone(
        &mut self,
        ended: u64,
        settings: &Settings,
    ) -> Result<bool, InboxError> {
        let Self::Others(watched) = self else {
            return Ok(false);
        };
        let gone_for = watched.gone_for(ended, settings)?;
        Ok(gone_for.is_some_and(|gone_for| gone_for > patience_with_a_service(&settings.timings)))
    }

    /// Lets what is in flight end.
    pub(in crate::cli) async fn let_go(self) -> Result<(), Died> {
        match self {
            Self::Ours(worker) => worker.stop().await,
            Self::Others(_) => Ok(()),
        }
    }
}

/// Opens the inbox as its owner, or as a guest if it has an owner. `true`: as its owner.
pub(in crate::cli) async fn open(path: &Path) -> Result<(Inbox, bool), InboxError> {
    match Inbox::open(path, Role::Owner, clock()).await {
        Err(InboxError::AlreadyOwned { .. }) => {
            let inbox = Inbox::open(path, Role::Guest, clock()).await?;
            Ok((inbox, false))
        }
        inbox => Ok((inbox?, true)),
    }
}

async fn standing(
    inbox: &Inbox,
    id: BackfillId,
    total: u64,
    timings: &Timings,
) -> Result<Standing, InboxError> {
    // A waiting row that is due by then is between the two looks after which its contact counts as missing.
    let soon = later(clock().now(), timings.second_look_within());
    Ok(Standing::new(total, &inbox.tally(id, soon).await?))
}

/// Counts rows of the backfill that only another row can resolve.
async fn undecided(inbox: &Inbox, id: BackfillId) -> Result<u64, InboxError> {
    let refusals: Refusals = inbox.state(REFUSALS).await?.unwrap_or_default();
    let mut undecided = 0;
    for row in refusals.rows() {
        let Some(entry) = inbox.entry(row).await? else {
            continue;
        };
        undecided += u64::from(entry.backfill == Some(id) && is_undecided(&refusals, &entry));
    }
    Ok(undecided)
}

/// Whether the row was refused again and again, or is held after a 403. Only another row can resolve it.
pub(in crate::cli) fn is_undecided(refusals: &Refusals, entry: &Entry) -> bool {
    let is_held = refusals.held().contains(&entry.row) && !refusals.held_may_go();
    let is_named = refusals.rows().contains(&entry.row);
    is_held || is_named && entry.attempts >= TRIED_OFTEN
}

/// The state that a service on this inbox has stored, or that commands have stored for it.
async fn stored_state(inbox: &Inbox) -> Result<SyncState, InboxError> {
    let stored = Blocked::stored(inbox.state(HALT).await?, inbox.state(PAUSED).await?);
    let record: Option<lease::Record> = inbox.state(lease::LEASE).await?;
    // Without a record, no other service is known to hold the lease.
    let standing = record.map_or(LeaseStatus::Alone, |record| match record.status {
        LeaseStatus::Unknown => LeaseStatus::Alone,
        standing => standing,
    });
    Ok(state_of(stored.as_ref(), standing))
}

/// How long a service may be gone. A restart takes less, and must find the inbox free: else no process would take
/// deliveries.
fn patience_with_a_service(timings: &Timings) -> Duration {
    2 * timings.second_look
}

/// Longer than a lease that was not given back lasts.
pub(in crate::cli) fn patience_with_a_lease(timings: &Timings) -> Duration {
    2 * timings.second_look
}

/// A service that is only seen through its inbox.
#[derive(Debug)]
pub(in crate::cli) struct Watched {
    ended: u64,
    moved_at: Instant,
    gone_since: Option<Instant>,
}

impl Watched {
    fn new() -> Self {
        Self {
            ended: 0,
            moved_at: Instant::now(),
            gone_since: None,
        }
    }

    /// For how long the inbox has had no owner; `None`: it has one. The lock is not tested while rows come to their end,
    /// since the test holds it for a moment.
    fn gone_for(
        &mut self,
        ended: u64,
        settings: &Settings,
    ) -> Result<Option<Duration>, InboxError> {
        if ended != self.ended {
            (self.ended, self.moved_at) = (ended, Instant::now());
        }
        let is_still = self.moved_at.elapsed() > settings.timings.second_look / 6;
        if !is_still || Inbox::is_owned(&settings.inbox_path)? {
            self.gone_since = None;
            return Ok(None);
        }
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        Ok(Some(since.elapsed()))
    }
}
