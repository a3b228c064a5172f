//! Who is known by which e-mail, or by which phone if they have no e-mail: of the contacts that were read. Ids only.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hash, RandomState},
};

use jiff::Timestamp;

use crate::{amocrm::Contact, domain::ContactId};

/// Sixteen bytes an e-mail or phone, so that an account of half a million fits. What has the same hash is told apart when the
/// contact itself is read.
#[derive(Debug)]
pub(super) struct Directory {
    hasher: RandomState,
    contacts: Vec<(u64, ContactId)>,
    /// What changed since, by our clock, is not in it.
    pub(super) as_of: Timestamp,
}

impl Directory {
    pub(super) fn new(as_of: Timestamp) -> Self {
        Self {
            hasher: RandomState::new(),
            contacts: Vec::new(),
            as_of,
        }
    }

    pub(super) fn key(&self, known_by: impl Hash) -> u64 {
        self.hasher.hash_one(known_by)
    }

    /// Takes a page over; answers whom of the sought it shows, and seeks them no more.
    pub(super) fn add(&mut self, page: &[Contact], sought: &mut HashSet<u64>) -> usize {
        let mut hits = 0;
        for contact in page {
            for email in &contact.emails {
                let key = self.key(email);
                hits += usize::from(sought.remove(&key));
                self.contacts.push((key, contact.id));
            }
            if !contact.has_email {
                for phone in &contact.phones {
                    self.contacts.push((self.key(phone), contact.id));
                }
            }
        }
        hits
    }

    pub(super) fn sort(&mut self) {
        self.contacts.sort_unstable();
        self.contacts.dedup();
    }

    /// After [`Directory::sort`].
    pub(super) fn find(&self, known_by: impl Hash) -> Vec<ContactId> {
        let key = self.key(known_by);
        let first = self.contacts.partition_point(|(other, _)| *other < key);
        let same = self.contacts[first..].iter();
        same.take_while(|(other, _)| *other == key)
            .map(|(_, contact)| *contact)
            .collect()
    }
}
