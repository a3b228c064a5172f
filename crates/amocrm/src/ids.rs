//! amoCRM's ids: one type for each kind of record.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            #[must_use]
            pub const fn new(id: i64) -> Self {
                Self(id)
            }

            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A contact in amoCRM.
    ContactId
);
id!(
    /// A deal in amoCRM (its API calls it a lead).
    DealId
);
id!(
    /// A note on a deal.
    NoteId
);
id!(
    /// A pipeline of deals.
    PipelineId
);
id!(
    /// A stage of a pipeline. 142 and 143 exist in every pipeline, so a stage means nothing without its pipeline.
    StageId
);

impl StageId {
    /// Closed and won, the same id in every pipeline.
    pub const WON: Self = Self::new(142);
    /// Closed and lost, the same id in every pipeline.
    pub const LOST: Self = Self::new(143);

    #[must_use]
    pub fn is_closed(self) -> bool {
        self == Self::WON || self == Self::LOST
    }
}
