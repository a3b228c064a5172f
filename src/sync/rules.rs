//! The rules as pure functions.

pub mod contact;
pub mod deal;
pub mod eligibility;
pub mod note;
pub mod timings;
pub mod undo;
