mod activity;
mod announcement;
mod bounds;
mod commands;
mod contact_index;
mod copying;
mod durability;
mod files;
mod given_up;
mod hourly;
mod model;
mod plans;
mod queries;
mod replacing;
mod space;
mod storing;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions,
};
use uuid::Uuid;

use super::*;
use crate::domain::{Clock, ContactId, DealId, KeyedHash, PipelineId, StageId, TestClock};

const MINUTE: Duration = Duration::from_mins(1);

impl Inbox {
    pub(crate) async fn claim(
        &self,
        limit: u32,
        only: Option<Lane>,
    ) -> Result<Option<Claim>, InboxError> {
        self.claim_but(limit, only, false, Vec::new()).await
    }
}

fn row(n: u128) -> RowId {
    RowId::new(Uuid::from_u128(n))
}

fn hash(n: u8) -> KeyedHash {
    KeyedHash::new([n; 16])
}

fn delivered(n: u128) -> Arrival {
    Arrival {
        row: row(n),
        source: Source::Webhook {
            delivery: format!("msg_{n}"),
        },
    }
}

fn swept(n: u128) -> Arrival {
    Arrival {
        row: row(n),
        source: Source::Sweep,
    }
}

fn backfilled(n: u128) -> Arrival {
    Arrival {
        row: row(n),
        source: Source::Backfill(BackfillId(1)),
    }
}

fn end(n: u128, settlement: Settlement) -> Settled {
    Settled {
        row: row(n),
        progress: Progress::default(),
        settlement,
        facts: vec![Fact::Noted],
    }
}

fn done(n: u128) -> Settled {
    end(n, Settlement::Done(Outcome::Synced))
}

fn parked(n: u128) -> Settled {
    let reason = "две сделки".to_owned();
    end(n, Settlement::Parked { reason })
}

fn waiting(n: u128, due_at: Timestamp) -> Settled {
    let reason = "нет контакта".to_owned();
    end(n, Settlement::Waiting { due_at, reason })
}

fn mark(n: u128, progress: Progress) -> Mark {
    Mark {
        row: row(n),
        progress,
        person: None,
    }
}

fn choice(contact: i64) -> Choice {
    Choice {
        fingerprint: hash(9),
        contact: Some(ContactId::new(contact)),
        deal: DealId::new(1),
        why: Why::Open,
    }
}

fn at(step: Step) -> Progress {
    Progress {
        step,
        ..Progress::default()
    }
}

fn chosen(contact: i64) -> Progress {
    at(Step::Chosen(choice(contact)))
}

fn placed(contact: i64, note_resolve_after: Option<Timestamp>) -> Progress {
    at(Step::Placed {
        choice: choice(contact),
        how: Placed::Moved,
        note_resolve_after,
    })
}

fn moved(from: i64) -> Move {
    Move {
        deal: DealId::new(1),
        pipeline: PipelineId::new(1),
        from: StageId::new(from),
        to: StageId::new(9),
        at: Timestamp::UNIX_EPOCH,
    }
}

fn noted(contact: i64) -> Progress {
    at(Step::Noted {
        choice: choice(contact),
        how: Placed::Moved,
    })
}

fn creating(contact: i64, resolve_after: Timestamp) -> Progress {
    at(Step::Creating(Create {
        fingerprint: hash(9),
        made_for: CreateFor::Contact {
            contact: ContactId::new(contact),
            after_deal: DealId::new(7),
        },
        name: hash(3),
        resolve_after,
    }))
}

fn creating_with_contact(resolve_after: Timestamp) -> Progress {
    at(Step::Creating(Create {
        fingerprint: hash(9),
        made_for: CreateFor::NewContact {
            after_contact: ContactId::new(8),
        },
        name: hash(3),
        resolve_after,
    }))
}

/// What is there without a process.
type Disk = (Arc<TestClock>, tempfile::TempDir);

/// An inbox in a folder of its own, under a clock that stands still.
struct Fixture {
    inbox: Inbox,
    clock: Arc<TestClock>,
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let clock = TestClock::at("2026-11-22T10:00:00Z".parse().unwrap());
        Self::on((clock, tempfile::tempdir().unwrap())).await
    }

    async fn on((clock, folder): Disk) -> Self {
        let path = folder.path().join("inbox.db");
        let inbox = Inbox::open(&path, Role::Owner, clock.clone())
            .await
            .unwrap();
        Self {
            inbox,
            clock,
            folder,
        }
    }

    /// Drops the handle without closing it.
    fn abandoned(self) -> Disk {
        (self.clock, self.folder)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("inbox.db")
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn in_a_minute(&self) -> Timestamp {
        self.now() + MINUTE
    }

    async fn open(&self, role: Role) -> Result<Inbox, InboxError> {
        Inbox::open(&self.path(), role, self.clock.clone()).await
    }

    async fn store(&self, arrivals: impl Into<Vec<Arrival>>) -> Vec<Stored> {
        self.inbox.store(arrivals.into()).await.unwrap()
    }

    async fn claim(&self) -> Claim {
        self.inbox.claim(1000, None).await.unwrap().unwrap()
    }

    /// Stores one delivery and ends its first attempt.
    async fn settled(&self, end: Settled) {
        let arrival = Arrival {
            row: end.row,
            source: Source::Webhook {
                delivery: "msg".to_owned(),
            },
        };
        self.store([arrival]).await;
        let claim = self.claim().await;
        self.inbox.settle(claim.token, vec![end]).await.unwrap();
    }

    async fn entry(&self, n: u128) -> Entry {
        self.inbox.entry(row(n)).await.unwrap().unwrap()
    }

    async fn state_of(&self, n: u128) -> State {
        self.entry(n).await.state
    }

    async fn story(&self, n: u128) -> Vec<Fact> {
        let lines = self.inbox.history(row(n)).await.unwrap();
        lines.into_iter().flat_map(|line| line.facts).collect()
    }

    /// A connection past the inbox.
    async fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path());
        options.connect().await.unwrap()
    }

    /// Changes the file in a way in which the service does not.
    /// As a full disk does it: an entry cannot be stored, and SQLite undoes the whole transaction.
    async fn fill_the_disk(&self) {
        self.tamper(
            "CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT RAISE(ROLLBACK, 'full'); END",
        )
        .await;
    }

    async fn tamper(&self, statement: &str) {
        let mut conn = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
    }
}

fn rows_of(entries: &[Entry]) -> Vec<RowId> {
    entries.iter().map(|entry| entry.row).collect()
}
