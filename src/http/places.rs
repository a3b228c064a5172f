//! How many connections there may be, and which one has to go when a new one needs its place.

use std::{cell::Cell, collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a connection may cost at the worst: both buffers of its socket, its head, its body, actix's own buffers.
const MEMORY_OF_ONE: u64 = 512 * 1024;

/// For the inbox, for outgoing requests and for connections that are being closed.
const OTHER_DESCRIPTORS: u64 = 128;

/// A round trip to the other side of the world. A connection whose request has not arrived keeps its place for so long.
const ROUND_TRIP: Duration = Duration::from_millis(200);

/// `pg_net` opens 200 at once.
const FEWEST: usize = 256;
const MOST: usize = 4096;

/// As many places as this machine has memory and file descriptors for.
pub(super) fn of_this_machine() -> usize {
    let read = |path: &Path| fs::read_to_string(path).ok();
    places(memory(&read), descriptors(&read))
}

fn places(memory: Option<u64>, descriptors: Option<u64>) -> usize {
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / MEMORY_OF_ONE);
    let by_descriptors = descriptors.map_or(u64::MAX, |limit| {
        limit.saturating_sub(OTHER_DESCRIPTORS) / 4 * 3
    });
    let places = usize::try_from(by_memory.min(by_descriptors)).unwrap_or(MOST);
    places.clamp(FEWEST, MOST)
}

/// Of the machine, or of the control group of this process or of one above it, whichever is less.
fn memory(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    });
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        // `0::/a/b` is version 2, `4:memory:/a/b` version 1.
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next(), parts.next());
        let place = match controllers {
            Some("") => Some(("/sys/fs/cgroup", "memory.max")),
            Some("memory") => Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes")),
            _ => None,
        };
        let limits: Vec<u64> = place
            .zip(path)
            .map(|((root, file), path)| {
                Path::new(path)
                    .ancestors()
                    .filter_map(|group| group.strip_prefix("/").ok())
                    .filter_map(|group| read(&Path::new(root).join(group).join(file)))
                    // Version 2 says `max` where there is no limit.
                    .filter_map(|limit| limit.trim().parse().ok())
                    .collect()
            })
            .unwrap_or_default();
        limits
    });
    limits.chain(machine).min()
}

/// The soft limit of open files.
fn descriptors(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = read(Path::new("/proc/self/limits"))?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The connections that are open, on all workers.
#[derive(Debug, Clone)]
pub(super) struct Places {
    shared: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    places: usize,
    next: u64,
    /// The first is the next to go.
    connections: BTreeMap<Rank, Guest>,
}

#[derive(Debug)]
struct Guest {
    must_go: CancellationToken,
    /// When it got its standing.
    since: Instant,
}

/// The order of closing: lowest standing first; among equals, the connection that got its standing first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    standing: Standing,
    turn: u64,
}

/// A client without a secret never becomes `Verified`, so such clients only take places from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It has had an answer, and never a verified request.
    Stranger,
    /// All bytes that the client sent were read, and are no whole request.
    Waiting,
    /// It has not been read to its end.
    New,
    /// The connection had a verified request. Its time counts from the last one.
    Verified,
}

impl Standing {
    /// A new connection may not be closed: under load it waits for the service, not the service for it.
    fn may_go(self, after: Duration) -> bool {
        match self {
            Self::Stranger | Self::Verified => true,
            Self::Waiting => after >= ROUND_TRIP,
            Self::New => false,
        }
    }
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        let open = Open {
            places,
            next: 0,
            connections: BTreeMap::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(open)),
        }
    }

    /// Takes a place. If none is free, another connection is closed. If none may be closed yet, there is one connection more
    /// than there are places: the server accepts a quarter more.
    pub(super) fn enter(&self) -> Place {
        let now = Instant::now();
        let mut open = self.shared.lock();
        open.make_room(1, now);
        let must_go = CancellationToken::new();
        let rank = open.rank(Standing::New);
        let guest = Guest {
            must_go: must_go.clone(),
            since: now,
        };
        open.connections.insert(rank, guest);
        Place {
            places: self.clone(),
            rank: Cell::new(rank),
            must_go,
        }
    }
}

impl Open {
    fn make_room(&mut self, newcomers: usize, now: Instant) {
        while self.connections.len() + newcomers > self.places
            && let Some(goes) = self.connections.first_entry()
            && goes.key().standing.may_go(now - goes.get().since)
        {
            goes.remove().must_go.cancel();
        }
    }

    fn rank(&mut self, standing: Standing) -> Rank {
        let turn = self.next;
        self.next += 1;
        Rank { standing, turn }
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    rank: Cell<Rank>,
    must_go: CancellationToken,
}

impl Place {
    /// A request on this connection has proved that its sender is genuine.
    pub(super) fn verified(&self) {
        self.stand(Standing::Verified);
    }

    /// Records an answer on this connection. Returns whether its place is needed: all are taken, and no request on it was
    /// verified.
    pub(super) fn answered(&self) -> bool {
        match self.rank.get().standing {
            Standing::Verified => return false,
            Standing::New | Standing::Waiting => self.stand(Standing::Stranger),
            Standing::Stranger => {}
        }
        let open = self.places.shared.lock();
        open.connections.len() >= open.places
    }

    /// Closes connections above the number of places, which could not be closed when they came. Without this, a server full
    /// of such connections would accept no other.
    pub(super) fn make_room(&self) {
        self.places.shared.lock().make_room(0, Instant::now());
    }

    /// It is the client's turn to send.
    pub(super) fn waits(&self) {
        if self.rank.get().standing == Standing::New {
            self.stand(Standing::Waiting);
        }
    }

    fn stand(&self, standing: Standing) {
        let mut open = self.places.shared.lock();
        // A connection that is being closed has no place any more.
        if let Some(guest) = open.connections.remove(&self.rank.get()) {
            let rank = open.rank(standing);
            self.rank.set(rank);
            let since = Instant::now();
            open.connections.insert(rank, Guest { since, ..guest });
        }
    }

    /// Ends when another connection has taken the place.
    pub(super) async fn taken(&self) {
        self.must_go.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places
            .shared
            .lock()
            .connections
            .remove(&self.rank.get());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::time::advance;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn there_are_as_many_places_as_memory_and_descriptors_allow() {
        for (memory, descriptors, expected) in [
            (Some(256 * MIB), Some(1 << 20), 512),
            // What Fly leaves of 256 MB.
            (Some(213 * MIB), Some(1 << 20), 426),
            (Some(16 * MIB), None, FEWEST),
            (Some(64 << 30), Some(1 << 20), MOST),
            (Some(64 << 30), Some(1024), 672),
            (Some(64 << 30), Some(100), FEWEST),
            (None, None, MOST),
            (None, Some(u64::MAX), MOST),
        ] {
            assert_eq!(
                places(memory, descriptors),
                expected,
                "{memory:?} {descriptors:?}"
            );
        }
    }

    #[test]
    fn the_least_of_all_memory_limits_counts() {
        let meminfo = ("/proc/meminfo", "MemTotal:   1000 kB\nMemFree:  1 kB\n");
        let whole = 1000 * 1024;
        let v2 = ("/proc/self/cgroup", "0::/system.slice/tripwire\n");
        let v1 = ("/proc/self/cgroup", "9:cpu:/x\n4:memory:/a/b\n0::/\n");
        for (files, expected) in [
            (vec![], None),
            (vec![meminfo], Some(whole)),
            (vec![meminfo, v2], Some(whole)),
            (
                vec![
                    meminfo,
                    v2,
                    ("/sys/fs/cgroup/system.slice/tripwire/memory.max", "500\n"),
                ],
                Some(500),
            ),
            (
                vec![
                    meminfo,
                    v2,
                    ("/sys/fs/cgroup/system.slice/tripwire/memory.max", "max\n"),
                    ("/sys/fs/cgroup/system.slice/memory.max", "400\n"),
                ],
                Some(400),
            ),
            // Inside a container the root is the group.
            (
                vec![
                    meminfo,
                    ("/proc/self/cgroup", "0::/\n"),
                    ("/sys/fs/cgroup/memory.max", "300"),
                ],
                Some(300),
            ),
            (
                vec![
                    meminfo,
                    v1,
                    ("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "200"),
                    (
                        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712",
                    ),
                ],
                Some(200),
            ),
        ] {
            let files: HashMap<&str, &str> = files.into_iter().collect();
            let read = |path: &Path| files.get(path.to_str()?).map(ToString::to_string);
            assert_eq!(memory(&read), expected, "{files:?}");
        }
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\n\
            Max processes 5 6 processes\n\
            Max open files            1024                 524288               files\n";
        assert_eq!(descriptors(&|_| Some(text.to_owned())), Some(1024));
        let unlimited = "Max open files unlimited unlimited files\n";
        assert_eq!(descriptors(&|_| Some(unlimited.to_owned())), None);
        assert_eq!(descriptors(&|_| None), None);
    }

    fn gone<const N: usize>(places: [&Place; N]) -> [bool; N] {
        places.map(|place| place.must_go.is_cancelled())
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_places_from_each_other_oldest_first() {
        let places = Places::new(3);
        let sender = places.enter();
        sender.verified();
        let [first, second] = [places.enter(), places.enter()];
        first.waits();
        second.waits();
        advance(ROUND_TRIP).await;
        let third = places.enter();
        third.waits();
        advance(ROUND_TRIP).await;
        assert_eq!(
            gone([&sender, &first, &second, &third]),
            [false, true, false, false]
        );
        // The first gives back a place that it no longer has.
        drop(first);
        let fourth = places.enter();
        assert_eq!(
            gone([&sender, &second, &third, &fourth]),
            [false, true, false, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_only_answered_goes_before_one_that_waits() {
        let places = Places::new(3);
        let [first, second, third] = [places.enter(), places.enter(), places.enter()];
        first.waits();
        assert!(second.answered());
        third.verified();
        assert!(!third.answered());
        third.waits();
        let fourth = places.enter();
        assert_eq!(
            gone([&first, &second, &third, &fourth]),
            [false, true, false, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn connections_beyond_the_places_go_although_no_other_comes() {
        let places = Places::new(4);
        let all: [Place; 5] = std::array::from_fn(|_| places.enter());
        for place in &all {
            place.waits();
        }
        all[4].make_room();
        assert_eq!(places.shared.lock().connections.len(), 5);
        advance(ROUND_TRIP).await;
        all[4].make_room();
        assert_eq!(places.shared.lock().connections.len(), 4);
        assert!(all[0].must_go.is_cancelled());
    }

    #[test]
    fn a_stranger_keeps_its_place_after_an_answer_only_while_there_are_others() {
        let places = Places::new(2);
        let one = places.enter();
        assert!(!one.answered());
        let _other = places.enter();
        assert!(one.answered());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_not_had_its_turn_does_not_go() {
        let places = Places::new(2);
        let [first, second] = [places.enter(), places.enter()];
        first.verified();
        let third = places.enter();
        assert_eq!(gone([&first, &second, &third]), [false; 3]);
        second.waits();
        let fourth = places.enter();
        assert_eq!(gone([&first, &second, &third, &fourth]), [false; 4]);
        advance(ROUND_TRIP).await;
        let _fifth = places.enter();
        assert_eq!(
            gone([&first, &second, &third, &fourth]),
            [false, true, false, false]
        );
    }

    #[test]
    fn of_verified_ones_the_one_goes_whose_request_is_longest_ago() {
        let places = Places::new(2);
        let [one, other] = [places.enter(), places.enter()];
        one.verified();
        other.verified();
        one.verified();
        let _new = places.enter();
        assert_eq!(gone([&one, &other]), [false, true]);
        // A request that is verified after its connection was closed wins no place back.
        other.verified();
        assert_eq!(places.shared.lock().connections.len(), 2);
    }

    #[test]
    fn a_place_that_is_given_back_costs_none() {
        let places = Places::new(2);
        let one = places.enter();
        drop(places.enter());
        let _other = places.enter();
        assert!(!one.must_go.is_cancelled());
    }
}
