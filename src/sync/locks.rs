//! One row at a time for each person: the second row finds what the first has made.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use crate::domain::{ContactId, KeyedHash};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LockKey {
    Person(KeyedHash),
    Contact(ContactId),
}

/// People and contacts that rows of this process work on.
#[derive(Debug, Clone, Default)]
pub(super) struct PersonLocks(Arc<Mutex<HashSet<LockKey>>>);

/// Releases the person or contact when dropped.
#[derive(Debug)]
pub(super) struct PersonLock {
    locks: PersonLocks,
    key: LockKey,
}

impl PersonLocks {
    /// `None`: it is taken.
    pub(super) fn take(&self, key: LockKey) -> Option<PersonLock> {
        self.0.lock().insert(key).then(|| PersonLock {
            locks: self.clone(),
            key,
        })
    }
}

impl PersonLock {
    pub(super) fn key(&self) -> LockKey {
        self.key
    }
}

impl Drop for PersonLock {
    fn drop(&mut self) {
        self.locks.0.lock().remove(&self.key);
    }
}
