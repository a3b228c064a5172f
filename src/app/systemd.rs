//! Tells systemd (`Type=notify`) that the service is ready, in which state it is, that its loops come round, and that it stops.
//!
//! The crate `sd-notify` finds systemd by `NOTIFY_SOCKET` and `WATCHDOG_USEC`, which are no settings of ours. Without them
//! nothing is sent.

use sd_notify::NotifyState;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{SyncState, SyncStatus},
    inbox::Writing,
};

/// In a thread of its own, since a systemd that hangs reads nothing.
async fn send(state: NotifyState<'static>) {
    let sending = tokio::task::spawn_blocking(move || notify(state));
    // The thread of a runtime that ends.
    let _ = sending.await;
}

/// The loops have come round. To be called by the watchdog's thread.
pub(super) fn loops_came_round() {
    notify(NotifyState::Watchdog);
}

/// Whether systemd expects [`loops_came_round`].
pub(super) fn is_watching() -> bool {
    sd_notify::watchdog_enabled().is_some()
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd.not_told");
    }
}

/// Works in a task of its own until the stop: says that the service is ready, and then each state.
pub(super) fn start(
    status: SyncStatus,
    writing: watch::Receiver<Writing>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        send(NotifyState::Ready).await;
        tokio::select! {
            () = tell_states(status, writing) => {}
            () = stop.cancelled() => {}
        }
        send(NotifyState::Stopping).await;
    })
}

async fn tell_states(mut status: SyncStatus, mut writing: watch::Receiver<Writing>) {
    let mut told = None;
    loop {
        let engine: SyncState = *status.borrow_and_update();
        let state = writing.borrow_and_update().over(engine).into_str();
        if told != Some(state) {
            send(NotifyState::Status(state)).await;
            told = Some(state);
        }
        tokio::select! {
            Ok(()) = status.changed() => {}
            Ok(()) = writing.changed() => {}
            // Both have ended: the service stops.
            else => std::future::pending().await,
        }
    }
}
