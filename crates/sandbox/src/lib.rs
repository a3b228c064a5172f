//! Emulators of amoCRM and PostgREST on this machine, for tests, demo and benchmarks.
//!
//! ```text
//!             ┌ gate: token, rate limit, ban        ┌ amocrm/read   ┐
//!  request ─▶ server ─▶ recorder ─▶ faults ─▶ route ─┤ amocrm/write  ├─▶ world ─▶ answer
//!             └ one request at a time in the record └ postgrest     ┘
//! ```
//!
//! Both are real HTTP servers on 127.0.0.1. They are strict where the real ones are strict, record requests that the
//! documents forbid ([`AmoSandbox::protocol_errors`]), and fail on demand ([`Faults`]).

mod clock;
pub mod faults;
mod ids;
pub mod recorder;
mod server;

pub mod amocrm;
pub mod postgrest;
pub mod webhook;

pub mod scenario;

#[cfg(test)]
mod tests;

pub use self::{
    amocrm::{AmoQuirks, AmoSandbox, World},
    clock::Clock,
    faults::{Access, Fault, Faults, Item, Kind, Page, Point, RandomFaults, Spoilt, When},
    ids::{ContactId, DealId, NoteId, PipelineId, StageId},
    postgrest::{EventFate, PostgrestQuirks, PostgrestSandbox},
    recorder::{Recorded, Recorder},
    scenario::{Case, Expect, Missing, Scenario, Setting, Student},
    server::Server,
    webhook::WebhookTarget,
};

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Both emulators with one record of requests and one script of faults, so that the order of all requests is known.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub amo: AmoSandbox,
    pub postgrest: PostgrestSandbox,
}

impl Sandbox {
    pub fn start(amo: AmoQuirks, postgrest: PostgrestQuirks) -> io::Result<Self> {
        Self::start_with(amo, postgrest, Clock::Machine)
    }

    pub fn start_with(
        amo: AmoQuirks,
        postgrest: PostgrestQuirks,
        clock: Clock,
    ) -> io::Result<Self> {
        let joint = Joint {
            clock,
            recorder: Recorder::default(),
            faults: Faults::default(),
        };
        Ok(Self {
            amo: AmoSandbox::start_joined(any_port(), joint.clone(), amo)?,
            postgrest: PostgrestSandbox::start_joined(any_port(), joint, postgrest)?,
        })
    }

    /// Every request to either, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.amo.recorder().all()
    }

    /// Completes when so many requests to either are as wished.
    pub async fn until(&self, count: usize, wished: impl Fn(&Recorded) -> bool) {
        self.amo.recorder().until(count, wished).await;
    }

    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.amo.faults()
    }

    pub async fn stop(&self) {
        self.amo.stop().await;
        self.postgrest.stop().await;
    }
}

/// What two servers may share.
#[derive(Debug, Clone)]
pub(crate) struct Joint {
    pub(crate) clock: Clock,
    pub(crate) recorder: Recorder,
    pub(crate) faults: Faults,
}

impl Joint {
    pub(crate) fn alone(clock: Clock) -> Self {
        Self {
            clock,
            recorder: Recorder::default(),
            faults: Faults::default(),
        }
    }
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Locks, even if poisoned: else the panic of one test helper would be reported as that of the next.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
