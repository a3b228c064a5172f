//! Which contacts have an e-mail: by the index of the account's contacts where there is one, by a search where not.
//!
//! | e-mails | the index is complete | else |
//! | --- | --- | --- |
//! | up to [`FEW`] | one search each: it brings the deals' ids too | the same |
//! | more | one look, and the hits are read by id | one search each, until the index is complete |
//!
//! A search is up to a minute behind the account's main store, the index as far as its last reading of changes. So a contact
//! that neither shows is missing for now: the row looks again, and a create is confirmed.

pub(super) mod index;
pub(super) mod search;

/// So many e-mails are searched for one by one: each search costs one request and answers at once. So many rows may be claimed
/// beside large runs in all other places.
pub(super) const FEW: u32 = 20;
