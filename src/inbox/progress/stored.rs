//! The step as JSON: flat members that every version so far reads and writes, so that an update can be taken back.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Choice, Create, CreateFor, Placed, Step, Why};
use crate::domain::{ContactId, DealId, KeyedHash};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredStep {
    choice: Option<StoredChoice>,
    placed: Option<Placed>,
    noted: bool,
    intent: Option<Intent>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredChoice {
    fingerprint: KeyedHash,
    contact: Option<ContactId>,
    /// `None`: it is to be made.
    deal: Option<DealId>,
    #[serde(deserialize_with = "known_or_open")]
    why: Why,
}

/// A rule of a later version tells nothing: the deal is chosen all the same.
fn known_or_open<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Why, D::Error> {
    let words = Value::deserialize(deserializer)?;
    Ok(Why::deserialize(words).unwrap_or(Why::Open))
}

/// A write that may be in flight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "write")]
enum Intent {
    Create {
        decisive_from: Timestamp,
        name: KeyedHash,
        after_deal: DealId,
        after_contact: Option<ContactId>,
    },
    Note {
        decisive_from: Timestamp,
    },
}

impl From<StoredStep> for Step {
    fn from(stored: StoredStep) -> Self {
        // No deal and no create of one: nothing is chosen.
        step(stored).unwrap_or_default()
    }
}

fn step(stored: StoredStep) -> Option<Step> {
    let StoredStep {
        choice,
        placed,
        noted,
        intent,
    } = stored;
    let choice = choice?;
    let Some(deal) = choice.deal else {
        return create(&choice, &intent?).map(Step::Creating);
    };
    let choice = Choice {
        fingerprint: choice.fingerprint,
        contact: choice.contact,
        deal,
        why: choice.why,
    };
    Some(match (placed, noted) {
        (how, true) => Step::Noted {
            choice,
            how: how.unwrap_or(Placed::Left),
        },
        (Some(how), false) => Step::Placed {
            choice,
            how,
            note_resolve_after: match intent {
                Some(Intent::Note { decisive_from }) => Some(decisive_from),
                Some(Intent::Create { .. }) | None => None,
            },
        },
        (None, false) => Step::Chosen(choice),
    })
}

fn create(choice: &StoredChoice, intent: &Intent) -> Option<Create> {
    let &Intent::Create {
        decisive_from,
        name,
        after_deal,
        after_contact,
    } = intent
    else {
        return None;
    };
    let made_for = match (choice.contact, after_contact) {
        (Some(contact), _) => CreateFor::Contact {
            contact,
            after_deal,
        },
        (None, after_contact) => CreateFor::NewContact {
            after_contact: after_contact.unwrap_or(ContactId::new(0)),
        },
    };
    Some(Create {
        fingerprint: choice.fingerprint,
        made_for,
        name,
        resolve_after: decisive_from,
    })
}

impl From<Step> for StoredStep {
    fn from(step: Step) -> Self {
        let (placed, noted) = (step.placed(), step.is_noted());
        let (choice, intent) = match step {
            Step::Begun => (None, None),
            Step::Chosen(choice) | Step::Noted { choice, .. } => (Some(choice.into()), None),
            Step::Creating(create) => {
                let (choice, intent) = create.into();
                (Some(choice), Some(intent))
            }
            Step::Placed {
                choice,
                note_resolve_after,
                ..
            } => {
                let note = |decisive_from| Intent::Note { decisive_from };
                (Some(choice.into()), note_resolve_after.map(note))
            }
        };
        Self {
            choice,
            placed,
            noted,
            intent,
        }
    }
}

impl From<Choice> for StoredChoice {
    fn from(choice: Choice) -> Self {
        Self {
            fingerprint: choice.fingerprint,
            contact: choice.contact,
            deal: Some(choice.deal),
            why: choice.why,
        }
    }
}

impl From<Create> for (StoredChoice, Intent) {
    fn from(create: Create) -> Self {
        let why = create.why();
        let (contact, after_deal, after_contact) = match create.made_for {
            CreateFor::Contact {
                contact,
                after_deal,
            } => (Some(contact), after_deal, None),
            CreateFor::NewContact { after_contact } => (None, DealId::new(0), Some(after_contact)),
        };
        let choice = StoredChoice {
            fingerprint: create.fingerprint,
            contact,
            deal: None,
            why,
        };
        let intent = Intent::Create {
            decisive_from: create.resolve_after,
            name: create.name,
            after_deal,
            after_contact,
        };
        (choice, intent)
    }
}
