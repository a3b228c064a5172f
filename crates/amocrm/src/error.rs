//! What can go wrong with one request, and what that means for the work at hand.

use std::{fmt, time::Duration};

/// What went wrong with one request. No variant carries a URL, a body or a token.
#[derive(Debug, thiserror::Error)]
pub enum AmoError {
    /// The throttle had no room before the write's deadline; nothing was sent.
    #[error("amoCRM was not asked: its turn would have come too late")]
    TooLate,
    /// The permit is not there (any more); nothing was sent.
    #[error("amoCRM was not asked: this service may not send now")]
    NotPermitted,
    /// Another request was answered with 403; nothing was sent.
    #[error("amoCRM was not asked: it has forbidden another request (403)")]
    TurnedAway,
    /// No connection; nothing was sent. `untrusted` = the certificate was refused.
    #[error("amoCRM cannot be reached{}", if *.untrusted { ": its certificate is not trusted" } else { "" })]
    NotSent {
        untrusted: bool,
        source: reqwest::Error,
    },
    /// Sent, but no (whole) answer came: a write may have been applied, now or later.
    #[error("amoCRM did not answer")]
    NoAnswer { source: reqwest::Error },
    /// `retry_after` is what amoCRM named, if it did, cut to ten minutes.
    #[error("amoCRM asks to slow down (429)")]
    Throttled { retry_after: Option<Duration> },
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// 400 and other 4xx about what was sent.
    #[error("amoCRM rejects the request ({status}): {problem}")]
    Rejected { status: u16, problem: Problem },
    #[error("amoCRM failed ({status})")]
    Server { status: u16 },
    /// A redirect: the account is at another address. It is not followed.
    #[error("amoCRM redirects ({status}){}", host.as_ref().map(|host| format!(" to {host}")).unwrap_or_default())]
    Moved { status: u16, host: Option<String> },
    /// A status that the API does not name.
    #[error("amoCRM answered with an unexpected status ({status})")]
    Unexpected { status: u16 },
    /// A success whose body is not what the API promises: a write was probably applied.
    #[error("amoCRM answered something that is not its API ({what})")]
    Malformed { what: &'static str },
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It passes by itself: try again, not before `after` if amoCRM named a time.
    Retry { after: Option<Duration> },
    /// amoCRM refuses the same request again.
    Refused,
    /// amoCRM refuses every request: send none until a person has changed something.
    Halt(Refusal),
}

/// A refusal of every request. amoCRM bans an account that goes on sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("amoCRM refuses the token (401)")]
    Unauthorized,
    #[error("amoCRM says the subscription is not paid (402)")]
    PaymentRequired,
    #[error("amoCRM forbids the request (403)")]
    Forbidden,
}

impl From<outbound::Failure> for AmoError {
    fn from(failure: outbound::Failure) -> Self {
        match failure {
            outbound::Failure::NotSent { untrusted, source } => Self::NotSent { untrusted, source },
            outbound::Failure::NoAnswer { source } => Self::NoAnswer { source },
        }
    }
}

/// What amoCRM found wrong with a request: in its words, without values that name a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    pub items: Vec<ItemProblem>,
    /// Of the whole request.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemProblem {
    /// Position in the request, if amoCRM said which.
    pub index: Option<usize>,
    /// For example `NotSupportedChoice`, or a deal's id.
    pub code: String,
    /// For example `status_id`; empty if amoCRM named none.
    pub path: String,
    /// For example `Lead not found`; empty if amoCRM said nothing.
    pub detail: String,
}

impl fmt::Display for ItemProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.code)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

/// A batch of 250 may have 250 problems; a log line need not.
const SHOWN: usize = 5;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            let is_silent = self.detail.is_empty();
            return f.write_str(if is_silent {
                "no details"
            } else {
                &self.detail
            });
        }
        for (position, item) in self.items.iter().take(SHOWN).enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{item}")?;
        }
        match self.items.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl ItemProblem {
    /// Whether the account lacks the pipeline or the stage (or the stage is the unsorted one).
    fn is_about_stage(&self) -> bool {
        let field = self.path.rsplit('.').next().unwrap_or_default();
        self.code == "NotSupportedChoice" && matches!(field, "status_id" | "pipeline_id")
    }
}

impl AmoError {
    #[deny(clippy::wildcard_enum_match_arm)]
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::TooLate
            | Self::NotPermitted
            | Self::TurnedAway
            | Self::NotSent { .. }
            | Self::NoAnswer { .. }
            | Self::Server {
                status: 502..=504 | 520..,
            }
            | Self::Unexpected { status: 408 } => Disposition::Retry { after: None },
            // This includes a rejection about the stage: a new read of the pipelines shows whether the stage is missing.
            Self::Server { .. }
            | Self::Moved { .. }
            | Self::Rejected { .. }
            | Self::Unexpected { .. }
            | Self::Malformed { .. } => Disposition::Refused,
            Self::Throttled { retry_after } => Disposition::Retry {
                after: *retry_after,
            },
            Self::Refused(refusal) => Disposition::Halt(*refusal),
        }
    }

    /// Whether a gateway timed out: amoCRM answers so to a write with too many items.
    #[must_use]
    pub fn is_too_big(&self) -> bool {
        matches!(self, Self::Server { status: 504 })
    }

    /// The request was certainly not carried out: a write may be sent again without looking.
    #[deny(clippy::wildcard_enum_match_arm)]
    #[must_use]
    pub fn was_not_applied(&self) -> bool {
        match self {
            Self::TooLate
            | Self::NotPermitted
            | Self::TurnedAway
            | Self::NotSent { .. }
            | Self::Throttled { .. }
            | Self::Refused(_) => true,
            // amoCRM may have carried out the sound items of a rejected batch.
            Self::Rejected { .. }
            | Self::NoAnswer { .. }
            | Self::Server { .. }
            | Self::Moved { .. }
            | Self::Unexpected { .. }
            | Self::Malformed { .. } => false,
        }
    }

    /// What answers is not the account's API: another site, a page in HTML, a redirect.
    #[must_use]
    pub fn is_no_api(&self) -> bool {
        matches!(
            self,
            Self::Moved { .. } | Self::Unexpected { .. } | Self::Malformed { .. }
        )
    }

    /// The refusal is about pipeline or stage.
    #[must_use]
    pub fn is_about_stage(&self) -> bool {
        matches!(self, Self::Rejected { problem, .. } if problem.items.iter().any(ItemProblem::is_about_stage))
    }
}
