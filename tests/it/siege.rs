//! Strangers attack the real binary. `scripts/siege` does it with more of them, for longer, and in little memory.

#[path = "../siege/driver.rs"]
mod driver;

use std::path::Path;

use crate::{chaos::driver::service, support::PATIENCE};
use driver::{Attack, MOST_MEMORY, Siege};

const BINARY: &str = env!("CARGO_BIN_EXE_tripwire-sync");

/// Leaves the service 288 places: far fewer than there are strangers, and more than there are senders.
const DESCRIPTORS: usize = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cost_little_memory_and_no_sender_an_event() {
    for attack in Attack::ALL {
        let siege = Siege {
            attack,
            attackers: 400,
            senders: 100,
            deliveries: 5,
            pace: None,
            patience: PATIENCE,
            descriptors: Some(DESCRIPTORS),
            memory: None,
        };
        let report = driver::lay(Path::new(BINARY), &siege).await.unwrap();
        assert_eq!(report.died, None, "{report}");
        assert_eq!((report.accepted, report.forgotten), (500, 0), "{report}");
        assert!(report.memory <= MOST_MEMORY, "{report}");
    }
}
