//! Which contacts are a row's person, and what becomes of a row that has none.

use amocrm::{Contact, Search};
use jiff::Timestamp;

use crate::domain::{Email, MissingContact, Phone};

/// What a search says of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These contacts are the person; at least one.
    Found(Vec<Contact>),
    Missing,
    /// The search was cut off at its page cap: the contact may be among the rest.
    CutOff,
    /// A hit cannot be read, and may be the contact.
    Unreadable,
}

/// The hits that have this e-mail: a search finds similar ones too.
pub fn with_email(email: &Email, hits: impl IntoIterator<Item = Contact>) -> Vec<Contact> {
    let mut same: Vec<Contact> = Vec::new();
    for hit in hits {
        if hit.emails.contains(email) && same.iter().all(|known| known.id != hit.id) {
            same.push(hit);
        }
    }
    same
}

/// By e-mail. `recorded`: the contact that was used for this person before; it counts beside the hits.
#[must_use]
pub fn by_email(email: &Email, search: Search, recorded: Vec<Contact>) -> Answer {
    let mut contacts = with_email(email, search.hits);
    for known in recorded {
        if contacts.iter().all(|contact| contact.id != known.id) {
            contacts.push(known);
        }
    }
    if !contacts.is_empty() {
        Answer::Found(contacts)
    } else if !search.complete {
        Answer::CutOff
    } else if search.unreadable.is_none() {
        Answer::Missing
    } else {
        Answer::Unreadable
    }
}

/// By phone: the person is the one contact without any e-mail that has this phone. If several have it, the person is
/// unclear.
#[must_use]
pub fn by_phone(phone: &Phone, search: Search) -> Answer {
    let mut same = search.hits;
    same.retain(|hit| !hit.has_email && hit.phones.contains(phone));
    if !search.unreadable.is_none() {
        Answer::Unreadable
    } else if !search.complete {
        Answer::CutOff
    } else if same.len() == 1 {
        Answer::Found(same)
    } else {
        Answer::Missing
    }
}

/// By the beginning of the e-mail, before a contact is made. However many hits there are, one that matches is the person.
#[must_use]
pub fn by_beginning(email: &Email, search: Search) -> Answer {
    let whole = Search {
        complete: true,
        ..search
    };
    by_email(email, whole, Vec::new())
}

/// A row whose e-mail no contact has.
#[derive(Debug, Clone, Copy)]
pub struct Miss<'a> {
    pub policy: MissingContact,
    pub phone: Option<&'a Phone>,
    /// By the index no contact without an e-mail has this phone.
    pub phone_is_unknown: bool,
    /// From then on a miss counts as the second one.
    pub second_look_at: Timestamp,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterMiss {
    /// Contact and deal are to be made.
    Create,
    SecondLook,
    SearchPhone,
    /// For a contact to appear.
    Wait,
}

impl Miss<'_> {
    #[must_use]
    pub fn then(&self) -> AfterMiss {
        let is_created = self.policy == MissingContact::Create;
        if is_created && self.phone.is_none() {
            AfterMiss::Create
        } else if self.now < self.second_look_at {
            AfterMiss::SecondLook
        } else if self.phone.is_some() && (is_created || !self.phone_is_unknown) {
            AfterMiss::SearchPhone
        } else {
            AfterMiss::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use amocrm::Unreadable;

    use super::*;
    use crate::domain::ContactId;

    fn email() -> Email {
        Email::parse("anna@example.kz").unwrap()
    }

    fn phone() -> Phone {
        Phone::parse("+7 701 000 00 01").unwrap()
    }

    fn contact(id: i64, email: Option<&str>, phone: Option<&str>) -> Contact {
        Contact {
            id: ContactId::new(id),
            emails: email
                .map(|it| Email::parse(it).unwrap())
                .into_iter()
                .collect(),
            has_email: email.is_some(),
            phones: phone
                .map(|it| Phone::parse(it).unwrap())
                .into_iter()
                .collect(),
            deals: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn search(hits: &[Contact]) -> Search {
        Search {
            hits: hits.to_vec(),
            complete: true,
            unreadable: Unreadable::default(),
        }
    }

    fn cut_off(hits: &[Contact]) -> Search {
        Search {
            complete: false,
            ..search(hits)
        }
    }

    fn unreadable(hits: &[Contact]) -> Search {
        let unreadable = Unreadable {
            ids: [7].into(),
            without_id: false,
        };
        Search {
            unreadable,
            ..search(hits)
        }
    }

    #[test]
    fn an_e_mail_is_found_missing_or_unknown() {
        let anna = contact(1, Some("anna@example.kz"), None);
        let again = contact(2, Some("ANNA@example.kz"), None);
        let other = contact(3, Some("anna@example.kz.ru"), None);
        let recorded = contact(4, None, Some("+7 701 000 00 01"));
        let hits = [anna.clone(), other.clone(), again.clone(), anna.clone()];
        let table = [
            (
                search(&hits),
                vec![],
                Answer::Found(vec![anna.clone(), again]),
            ),
            (search(&hits[1..2]), vec![], Answer::Missing),
            (
                search(&[]),
                vec![recorded.clone()],
                Answer::Found(vec![recorded]),
            ),
            (
                search(&hits[..1]),
                vec![anna.clone()],
                Answer::Found(vec![anna.clone()]),
            ),
            (cut_off(&[other]), vec![], Answer::CutOff),
            (
                cut_off(&hits[..1]),
                vec![],
                Answer::Found(vec![anna.clone()]),
            ),
            (unreadable(&[]), vec![], Answer::Unreadable),
            (unreadable(&hits[..1]), vec![], Answer::Found(vec![anna])),
        ];
        for (search, recorded, answer) in table {
            assert_eq!(
                by_email(&email(), search.clone(), recorded),
                answer,
                "{search:?}"
            );
        }
    }

    #[test]
    fn a_phone_tells_a_person_only_if_one_contact_without_an_e_mail_has_it() {
        let one = contact(1, None, Some("8 (701) 000-00-01"));
        let two = contact(2, None, Some("+7 701 000 00 01"));
        let with_email = contact(3, Some("boris@example.kz"), Some("+7 701 000 00 01"));
        let other = contact(4, None, Some("+7 701 000 00 02"));
        let table = [
            (
                search(&[one.clone(), with_email.clone(), other]),
                Answer::Found(vec![one.clone()]),
            ),
            (search(&[one.clone(), two]), Answer::Missing),
            (search(&[with_email]), Answer::Missing),
            (search(&[]), Answer::Missing),
            (cut_off(std::slice::from_ref(&one)), Answer::CutOff),
            (unreadable(&[one]), Answer::Unreadable),
        ];
        for (search, answer) in table {
            assert_eq!(by_phone(&phone(), search.clone()), answer, "{search:?}");
        }
    }

    #[test]
    fn the_beginning_of_an_e_mail_shows_the_person_however_many_hits_there_are() {
        let anna = contact(1, Some("anna@example.kz"), None);
        let other = contact(2, Some("anna@example.org"), None);
        let table = [
            (
                cut_off(&[other.clone(), anna.clone()]),
                Answer::Found(vec![anna]),
            ),
            (cut_off(std::slice::from_ref(&other)), Answer::Missing),
            (unreadable(&[other]), Answer::Unreadable),
        ];
        for (search, answer) in table {
            assert_eq!(by_beginning(&email(), search.clone()), answer, "{search:?}");
        }
    }

    #[test]
    fn a_row_without_a_contact_looks_again_then_tries_the_phone_then_waits_or_creates() {
        use AfterMiss::{Create as Creates, SearchPhone, SecondLook, Wait as Waits};
        use MissingContact::{Create, Wait};
        let second = Timestamp::from_second(60).unwrap();
        let (early, late) = (Timestamp::from_second(59).unwrap(), second);
        let phone = phone();
        let table = [
            (Wait, None, false, early, SecondLook),
            (Wait, None, false, late, Waits),
            (Wait, Some(&phone), false, early, SecondLook),
            (Wait, Some(&phone), false, late, SearchPhone),
            (Wait, Some(&phone), true, late, Waits),
            (Create, None, false, early, Creates),
            (Create, Some(&phone), false, early, SecondLook),
            (Create, Some(&phone), false, late, SearchPhone),
            // The index may lack a contact, so a search confirms a create.
            (Create, Some(&phone), true, late, SearchPhone),
        ];
        for (policy, phone, phone_is_unknown, now, then) in table {
            let miss = Miss {
                policy,
                phone,
                phone_is_unknown,
                second_look_at: second,
                now,
            };
            assert_eq!(miss.then(), then, "{miss:?}");
        }
    }
}
