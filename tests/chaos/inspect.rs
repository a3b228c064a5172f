//! What is not as it must be after a round: in the requests, the inbox and the logs. (The rows are the scenario's.)

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs, io,
    path::Path,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use sandbox::{Kind, Recorded, Sandbox, Server};
use serde_json::Value;
use tripwire_sync::{
    domain::RowId,
    inbox::{Inbox, State},
};

use super::{Figures, Posted};

const MOST_IN_A_SECOND: usize = 7;
const ALL: u32 = 1_000_000;

pub(super) fn requests(sandbox: &Sandbox, figures: &mut Figures) -> Vec<String> {
    let mut violations = sandbox.amo.protocol_errors();
    violations.extend(sandbox.postgrest.protocol_errors());
    for request in sandbox.requests() {
        let server = match request.server {
            Server::Amo => {
                figures.amo_requests += 1;
                "amoCRM"
            }
            Server::Postgrest => {
                figures.postgrest_requests += 1;
                "PostgREST"
            }
        };
        if let Some(kind) = &request.fault {
            figures.count_fault(server, kind);
        }
        if request.status == Some(429) && !is_meant(&request) {
            figures.crowded += 1;
        }
    }
    figures.most_in_a_second = sandbox.amo.max_in_any_second();
    if sandbox.amo.is_banned() {
        violations.push("amoCRM has banned us".to_owned());
    }
    violations
}

fn is_meant(request: &Recorded) -> bool {
    matches!(request.fault, Some(Kind::Status { code: 429, .. }))
}

/// Every row has its entry, none is parked, and what was acknowledged was stored by then.
pub(super) async fn inbox(inbox: &Inbox, posts: &[Posted], figures: &mut Figures) -> Vec<String> {
    let mut violations = Vec::new();
    let mut acknowledged: HashMap<RowId, Timestamp> = HashMap::new();
    for post in posts {
        match post.status {
            Some(202) => {
                let first = acknowledged.entry(post.row).or_insert(post.at);
                *first = post.at.min(*first);
            }
            None | Some(503) => {}
            Some(status) => violations.push(format!(
                "row {}: its webhook is answered with {status}",
                post.row
            )),
        }
    }
    let told: HashSet<RowId> = posts.iter().map(|post| post.row).collect();
    figures.untold = figures.rows - told.len();
    figures.swept = figures.rows - acknowledged.len();

    let entries = match inbox.entries(None, ALL).await {
        Ok(entries) => entries,
        Err(error) => return vec![format!("the inbox cannot be read: {error}")],
    };
    for entry in &entries {
        let row = entry.row;
        if entry.state == State::Parked {
            violations.push(format!("row {row} is parked: {:?}", entry.reason));
        }
        if let Some(at) = acknowledged.remove(&row)
            && entry.stored_at > at
        {
            violations.push(format!(
                "row {row} was acknowledged at {at} and stored at {}",
                entry.stored_at
            ));
        }
    }
    let forgotten = acknowledged.into_keys();
    violations.extend(forgotten.map(|row| format!("row {row} was acknowledged and has no entry")));
    violations
}

/// Nothing in a log may say that we were wrong about ourselves.
pub(crate) fn logs(logs: &str) -> Vec<String> {
    let never = [
        "a task panicked",
        "sync.claim_lost",
        "sync.run_broken_off",
        "sync.inbox",
    ];
    let mut violations = Vec::new();
    for line in logs.lines() {
        // The last line of a killed process may be cut.
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let message = line["message"].as_str().unwrap_or_default();
        if never.contains(&message) {
            violations.push(format!("logged: {line}"));
        }
    }
    violations
}

/// The service must not send more than amoCRM allows. What counts is when it sent, by its own log: on a machine that
/// stalls, requests sent evenly may arrive in a crowd.
pub(super) fn pace(logs: &str, figures: &mut Figures) -> Vec<String> {
    let mut sends: Vec<Timestamp> = logs.lines().filter_map(sent_at).collect();
    sends.sort_unstable();
    let within_a_second = |first: usize| {
        let later = &sends[first..];
        later.partition_point(|at| at.duration_since(sends[first]) < SignedDuration::from_secs(1))
    };
    figures.most_sent_in_a_second = (0..sends.len()).map(within_a_second).max().unwrap_or(0);
    if figures.most_sent_in_a_second <= MOST_IN_A_SECOND {
        return Vec::new();
    }
    let (most, crowded) = (figures.most_sent_in_a_second, figures.crowded);
    vec![format!(
        "{most} requests were sent within a second, {crowded} were answered with 429"
    )]
}

fn sent_at(line: &str) -> Option<Timestamp> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "asked amoCRM" {
        return None;
    }
    let answered: Timestamp = line["timestamp"].as_str()?.parse().ok()?;
    let took = Duration::from_millis(line["duration_ms"].as_u64()?);
    answered.checked_sub(took).ok()
}

/// One line a request, for whoever looks for a cause.
pub(super) fn write_requests(requests: &[Recorded], path: &Path) -> io::Result<()> {
    let mut text = String::new();
    for request in requests {
        let Recorded {
            number,
            time,
            server,
            route,
            status,
            fault,
            body,
            ..
        } = request;
        let query: Vec<String> = request
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = query.join("&");
        writeln!(
            text,
            "{number} {time} {server:?} {route} [{query}] -> {status:?} {fault:?} {body}"
        )
        .map_err(io::Error::other)?;
    }
    fs::write(path, text)
}
