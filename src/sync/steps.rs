//! The steps of a batch, in the order in which rows take them. Each is a function from rows of one stage to rows of the next.

pub(super) mod contacts;
pub(super) mod deals;
pub(super) mod note;
pub(super) mod people;
pub(super) mod place;
pub(super) mod recover;
pub(super) mod rows;
pub(super) mod undo;
pub(super) mod write_back;
