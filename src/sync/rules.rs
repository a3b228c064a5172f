//! The rules as pure functions.

pub mod contact;
