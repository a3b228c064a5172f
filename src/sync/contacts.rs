//! Which contacts have an e-mail: by the index of the account's contacts where there is one, by a search where not.
//!
//! | e-mails | the index is complete | else |
//! | --- | --- | --- |
//! | up to [`FEW`] | one search each: it brings the deals' ids too | the same |
//! | more | one look, and the hits are read by id | one search each, until the index is complete |
//!
//! A search is up to a minute behind the account's main store, and the index is as old as its last reading of changes.
//! So a contact that neither finds is missing for now: the row gets a second look, and a create is confirmed.

pub(super) mod index;
pub(super) mod search;

/// Up to this many e-mails are searched for one by one: each search costs one request and answers at once. While large
/// runs take all other places, up to this many rows may be claimed beside them.
pub(super) const FEW: u32 = 20;
