//! All that the full-text search compares with, in one piece: in a large account, a look at every contact would keep
//! the requests behind it waiting.

use memchr::memmem;

use super::records::IndexText;
use crate::ContactId;

/// Texts are added and never removed: a contact that is found was a hit once, and must still be compared.
#[derive(Debug, Clone, Default)]
pub(super) struct SearchIndex {
    text: String,
    /// Where a contact's text begins, in order.
    starts: Vec<(usize, ContactId)>,
}

impl SearchIndex {
    pub(super) fn add(&mut self, contact: ContactId, text: &IndexText) {
        self.starts.push((self.text.len(), contact));
        for value in text.values.iter().chain(&text.phones) {
            self.text.push_str(value);
            self.text.push('\n');
        }
    }

    /// The contacts with a text that contains `needle`; a contact may come more than once.
    pub(super) fn find(&self, needle: &str) -> impl Iterator<Item = ContactId> {
        memmem::find_iter(self.text.as_bytes(), needle.as_bytes()).map(|at| {
            let after = self.starts.partition_point(|(start, _)| *start <= at);
            self.starts[after.saturating_sub(1)].1
        })
    }
}
