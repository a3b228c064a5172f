//! All that the full-text search compares with, in one piece: in a large account, a look at every contact would keep
//! the requests behind it waiting.

use memchr::memmem;

use super::records::IndexText;
use crate::domain::ContactId;

/// Texts are added and never taken out: who is found by one was a hit once, and has yet to be looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Haystack {
    text: String,
    /// Where a contact's text begins, in order.
    starts: Vec<(usize, ContactId)>,
}

impl Haystack {
    pub(super) fn add(&mut self, contact: ContactId, text: &IndexText) {
        self.starts.push((self.text.len(), contact));
        for value in text.values.iter().chain(&text.phones) {
            self.text.push_str(value);
            self.text.push('\n');
        }
    }

    /// Those among whose texts `needle` is; may name one of them more than once.
    pub(super) fn having(&self, needle: &str) -> impl Iterator<Item = ContactId> {
        memmem::find_iter(self.text.as_bytes(), needle.as_bytes()).map(|at| {
            let after = self.starts.partition_point(|(start, _)| *start <= at);
            self.starts[after.saturating_sub(1)].1
        })
    }
}
