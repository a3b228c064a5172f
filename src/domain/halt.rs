use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HaltCause, Operation, RowId};

/// A stored halt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    pub cause: HaltCause,
    pub since: Timestamp,
    pub probes: u32,
    /// `None`: only a person ends it.
    pub next_probe: Option<Timestamp>,
    /// What was refused, for the operator. Russian, no personal data.
    pub detail: String,
    /// The operation that is refused for all rows; `None`: the neighbour as a whole.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// The rows for which it was refused.
    #[serde(default)]
    pub rows: Vec<RowId>,
}

impl Halt {
    /// Whether only a success of the operation, for one of the rows, ends the halt.
    #[must_use]
    pub fn is_tried_by_a_row(&self) -> bool {
        let is_write = self.operation.is_some_and(|it| it != Operation::Read);
        is_write && !self.rows.is_empty()
    }
}
