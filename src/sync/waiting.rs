//! Looks for the contacts that rows wait for, in one list of changes for all rows together. The look also keeps the
//! contact index.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;

use super::{Context, contacts::index::known_by, failure::Failure, rules::timings::later};
use crate::inbox::{InboxError, Revival};

/// When the last look began.
const LAST_LOOK: &str = "last_look";
/// A look that would need more pages than this leaves the rest to the rows' own searches.
const PAGES: u32 = 20;

impl Context {
    /// When the next look is due; `None` when nothing waits.
    pub(super) async fn next_look(&self) -> Result<Option<Timestamp>, InboxError> {
        let Some((_, youngest)) = self.inbox.missing_since().await? else {
            return Ok(None);
        };
        let age = Duration::try_from(self.now().duration_since(youngest)).unwrap_or_default();
        let last: Timestamp = self.inbox.state(LAST_LOOK).await?.unwrap_or(youngest);
        let now = self.clock.now();
        Ok(Some(if last > now {
            // The last look was stored before the clock was put back.
            now
        } else {
            later(last, self.timings.look_every(age))
        }))
    }

    /// Wakes the entries whose contact is among those changed since the last look.
    pub(super) async fn look(&self) -> Result<(), Failure> {
        let began = self.now();
        let Some((longest, _)) = self.inbox.missing_since().await? else {
            return Ok(());
        };
        let awaited = self.inbox.awaited().await?;
        let last: Timestamp = self.inbox.state(LAST_LOOK).await?.unwrap_or(longest);
        let until = last
            .max(longest)
            .checked_sub(self.timings.look_overlap)
            .unwrap_or(Timestamp::MIN);
        let mut found = HashSet::new();
        let (mut since, mut is_learnt) = (None, true);
        for page in 1..=PAGES {
            let read = self.amocrm.changed_contacts(page).await?;
            let contacts = read.contacts.iter();
            let hashes = contacts.flat_map(|contact| known_by(self.inbox.hasher(), contact));
            found.extend(hashes.filter(|hash| awaited.contains(hash)));
            let since = *since.get_or_insert_with(|| read.date.unwrap_or(began));
            // A page with an unreadable contact is a gap: later pages do not make the index current.
            is_learnt &= read.unreadable.is_none();
            if is_learnt {
                self.learn(&read, since).await?;
            }
            if read.is_last
                || read
                    .contacts
                    .last()
                    .is_none_or(|oldest| oldest.updated_at < until)
            {
                break;
            }
        }
        let revived = if found.is_empty() {
            0
        } else {
            self.inbox
                .revive(Revival::Waiting(found.into_iter().collect()))
                .await?
        };
        // Last: a look that was broken off is made again.
        self.inbox.set_state(LAST_LOOK, &began).await?;
        tracing::info!(awaited = awaited.len(), revived, "look.done");
        Ok(())
    }
}
