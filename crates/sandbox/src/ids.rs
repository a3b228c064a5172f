use std::fmt;

use serde::Serialize;

macro_rules! amocrm_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

amocrm_id!(
    /// A contact of the account.
    ContactId
);
amocrm_id!(
    /// A deal of the account; amoCRM's API calls it a lead.
    DealId
);
amocrm_id!(
    /// A note on a deal.
    NoteId
);
amocrm_id!(
    /// A pipeline of deals.
    PipelineId
);
amocrm_id!(
    /// A stage of a pipeline.
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
