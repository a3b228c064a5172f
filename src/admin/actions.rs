//! The buttons: what each does, and what it answers.

use jiff::Timestamp;
use strum::IntoStaticStr;

use super::{Failure, Shared, session::Role};
use crate::{
    domain::{Chain, Halt, HaltCause, RowId},
    inbox::Revival,
    sync::{
        lease::standby,
        pause::{pause_here, resume_here},
    },
};

/// What a person can order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Retry(RowId),
    Park(RowId),
    RetryParked,
    Pause,
    /// The person has seen the halt that began then. A halt by a 403 ends only if this is its time.
    Resume {
        seen: Option<Timestamp>,
    },
    Sweep,
}

impl Action {
    /// `None`: there is no such action, or it lacks its row.
    pub(super) fn read(name: &str, row: Option<RowId>, seen: Option<Timestamp>) -> Option<Self> {
        Some(match name {
            "retry" => Self::Retry(row?),
            "park" => Self::Park(row?),
            "retry-parked" => Self::RetryParked,
            "pause" => Self::Pause,
            "resume" => Self::Resume { seen },
            "sweep" => Self::Sweep,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retry(_) => "retry",
            Self::Park(_) => "park",
            Self::RetryParked => "retry-parked",
            Self::Pause => "pause",
            Self::Resume { .. } => "resume",
            Self::Sweep => "sweep",
        }
    }

    pub(super) fn row(self) -> Option<RowId> {
        match self {
            Self::Retry(row) | Self::Park(row) => Some(row),
            Self::RetryParked | Self::Pause | Self::Resume { .. } | Self::Sweep => None,
        }
    }

    /// Whether the page asks first: it starts or stops more than one row, or stops one.
    pub(super) fn is_asked(self) -> bool {
        match self {
            Self::Park(_) | Self::RetryParked | Self::Pause | Self::Resume { .. } => true,
            Self::Retry(_) | Self::Sweep => false,
        }
    }

    /// Whether a service that stands by may do it: the others must be asked of the service that syncs.
    pub(super) fn works_on_standby(self) -> bool {
        matches!(self, Self::Pause | Self::Resume { .. })
    }
}

/// What an action came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// So many rows were moved.
    Rows(u64),
    Sweeping,
    /// A pause or its end.
    Switched(Reach),
}

/// Which services a pause or its end has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Reach {
    All,
    /// The database has no function for it.
    Here,
    /// The database does not answer: the other services may not know of it.
    Unknown,
}

/// Carries an action out. The caller has proved its role.
pub(super) async fn carry_out(action: Action, role: Role, admin: &Shared) -> Result<Done, Failure> {
    if role != Role::Admin {
        return Err(Failure::Forbidden);
    }
    let inbox = admin.inbox();
    if !action.works_on_standby()
        && let Some(holder) = standby(inbox).await?
    {
        return Err(Failure::OnStandby(holder));
    }
    let done = match action {
        Action::Retry(row) => Done::Rows(inbox.retry(vec![row]).await?),
        Action::Park(row) => Done::Rows(inbox.park(vec![row]).await?),
        Action::RetryParked => Done::Rows(inbox.revive(Revival::AllParked).await?),
        Action::Pause => {
            pause_here(inbox, admin.clock().now()).await?;
            Done::Switched(share(admin, true).await)
        }
        Action::Resume { seen } => {
            let may_end = move |halt: &Halt| {
                halt.cause != HaltCause::AmocrmForbidden || Some(halt.since) == seen
            };
            if !resume_here(inbox, may_end).await? {
                return Err(Failure::Forbidding);
            }
            Done::Switched(share(admin, false).await)
        }
        Action::Sweep => {
            admin.service.sweep_now.notify_one();
            Done::Sweeping
        }
    };
    let rows = match done {
        Done::Rows(rows) => Some(rows),
        Done::Sweeping | Done::Switched(_) => None,
    };
    let row = action.row().map(tracing::field::display);
    tracing::info!(action = action.name(), row, rows, "admin.action");
    Ok(done)
}

async fn share(admin: &Shared, is_paused: bool) -> Reach {
    match admin.service.switch.share(is_paused).await {
        Ok(true) => Reach::All,
        Ok(false) => Reach::Here,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "admin.not_shared");
            Reach::Unknown
        }
    }
}
