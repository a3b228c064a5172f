//! Tests through the front doors: the database's, the service's and the program's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking; the helpers are not `#[test]` functions"
)]

mod delivery_worker;
mod postgres;
mod program;
mod support;

mod admin_api;
mod alerts;
mod backfill;
mod browser;
mod bulk;
mod chaos;
mod check;
mod clocks;
mod commands;
mod database;
mod deaths;
mod end_to_end;
mod explain;
mod failures_amocrm;
mod failures_supabase;
mod faults;
mod inbox_faults;
mod init;
mod lease;
mod mixed;
mod ops;
mod outside_watcher;
mod pause;
mod privacy;
mod probe;
mod process;
mod prose;
mod real_parts;
mod receiver;
mod refusals;
mod row_life;
mod rules_contacts;
mod rules_deals;
mod rules_halts;
mod rules_lanes;
mod rules_refusals;
mod rules_restart;
mod rules_rows;
mod rules_sweep;
mod rules_write_back;
mod rules_writes;
mod setup;
mod siege;
mod structure;
mod systemd;
mod tls;
mod undo;
mod unreadable;
mod version;
mod wording;
