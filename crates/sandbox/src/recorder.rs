//! Every request that reached a sandbox, so that a test can ask "how many" and "in which second".

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::{Kind, Server, lock};

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// From 1, in the order of arrival, over all servers that share the recorder.
    pub number: u64,
    pub server: Server,
    pub at: Instant,
    pub time: Timestamp,
    pub method: String,
    pub path: String,
    /// Decoded.
    pub query: Vec<(String, String)>,
    /// The route's name, for example `leads.update`.
    pub route: &'static str,
    pub is_write: bool,
    /// Of `Authorization: Bearer`.
    pub token: Option<String>,
    /// `Null` when there was none, or when it was not JSON.
    pub body: Value,
    /// `None` while there is no answer, and for ever when the fault was to give none.
    pub status: Option<u16>,
    pub fault: Option<Kind>,
}

impl Recorded {
    /// Items of a bulk write.
    #[must_use]
    pub fn items(&self) -> &[Value] {
        self.body.as_array().map_or(&[], Vec::as_slice)
    }

    /// The first value of a query parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A handle on the record; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    record: Arc<Mutex<Vec<Recorded>>>,
    /// Counts the changes of the record.
    changes: watch::Sender<u64>,
}

impl Recorder {
    /// The record gives the request its number.
    pub(crate) fn arrived(&self, mut request: Recorded) -> u64 {
        let mut record = lock(&self.record);
        request.number = record.len() as u64 + 1;
        let number = request.number;
        record.push(request);
        drop(record);
        self.changed();
        number
    }

    pub(crate) fn faulted(&self, number: u64, kind: Kind) {
        self.edit(number, |request| request.fault = Some(kind));
    }

    pub(crate) fn answered(&self, number: u64, status: u16) {
        self.edit(number, |request| request.status = Some(status));
    }

    fn edit(&self, number: u64, change: impl FnOnce(&mut Recorded)) {
        let mut record = lock(&self.record);
        let found = usize::try_from(number)
            .ok()
            .and_then(|number| record.get_mut(number.checked_sub(1)?));
        if let Some(request) = found {
            change(request);
        }
        drop(record);
        self.changed();
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Completes when so many requests are as wished.
    pub async fn until(&self, count: usize, wished: impl Fn(&Recorded) -> bool) {
        let mut changes = self.changes.subscribe();
        while lock(&self.record).iter().filter(|it| wished(it)).count() < count {
            // The sender lives in this handle.
            let _ = changes.changed().await;
        }
    }

    #[must_use]
    pub fn all(&self) -> Vec<Recorded> {
        lock(&self.record).clone()
    }

    #[must_use]
    pub fn of(&self, server: Server) -> Vec<Recorded> {
        lock(&self.record)
            .iter()
            .filter(|request| request.server == server)
            .cloned()
            .collect()
    }

    /// The most requests that arrived within any one second, wherever the second begins.
    #[must_use]
    pub fn max_in_any_second(&self, server: Server) -> usize {
        let arrivals: Vec<Instant> = lock(&self.record)
            .iter()
            .filter(|request| request.server == server)
            .map(|request| request.at)
            .collect();
        most_within(Duration::from_secs(1), arrivals)
    }
}

fn most_within(window: Duration, mut arrivals: Vec<Instant>) -> usize {
    arrivals.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, at) in arrivals.iter().enumerate() {
        while at.duration_since(arrivals[first]) >= window {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second_may_begin_anywhere() {
        let start = Instant::now();
        let at = |millis: &[u64]| {
            let arrivals = millis.iter().map(|ms| start + Duration::from_millis(*ms));
            most_within(Duration::from_secs(1), arrivals.collect())
        };
        assert_eq!(at(&[]), 0);
        assert_eq!(
            at(&[0, 1000, 2000]),
            1,
            "a full second apart is another second"
        );
        assert_eq!(at(&[0, 900, 1100, 1800, 1899, 5000]), 4);
        assert_eq!(at(&[1100, 0, 900]), 2, "threads may record out of order");
    }
}
