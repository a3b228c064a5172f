//! Tests through the front doors: the database's, the service's and the program's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking; the helpers are not `#[test]` functions"
)]

mod postgres;
mod program;
mod support;

mod commands;
mod database;
mod end_to_end;
mod mixed;
mod process;
mod tls;
