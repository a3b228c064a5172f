//! The binary: hands over to the command line.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tripwire_sync::cli::main().await
}
