//! One healthy account, and each habit that differs.

use amocrm::{NoteId, PipelineId, Problem, StageId};
use uuid::Uuid;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + second).unwrap()
}

/// The higher the id, the later made and changed.
fn contact(id: i64) -> Contact {
    Contact {
        id: ContactId::new(id),
        emails: vec![Email::parse(&format!("student{id}@example.org")).unwrap()],
        has_email: true,
        phones: Vec::new(),
        deals: vec![DealId::new(9_000 + id)],
        created_at: at(id),
        updated_at: at(id),
    }
}

fn deal(id: i64) -> Deal {
    Deal {
        id: DealId::new(id),
        name: "Deal".to_owned(),
        pipeline: PipelineId::new(31),
        stage: StageId::new(311),
        created_at: at(0),
        updated_at: at(0),
        closed_at: None,
        is_deleted: false,
        contacts: Vec::new(),
        main_contact: None,
    }
}

fn row() -> RowId {
    RowId::new(Uuid::from_u128(0x0123_4567_89ab))
}

fn note(id: i64, deal: i64, text: &str) -> Note {
    Note {
        id: NoteId::new(id),
        deal: DealId::new(deal),
        text: text.to_owned(),
    }
}

fn page<T>(items: Vec<T>, names_next: bool) -> Answer<T> {
    let (length, date) = (items.len(), Some(at(1_000)));
    Answer::Page(Peek {
        items,
        length,
        names_next,
        date,
    })
}

fn contacts(ids: impl Iterator<Item = i64>) -> Answer<Contact> {
    let items: Vec<Contact> = ids.map(contact).collect();
    let is_full = items.len() == PAGE;
    page(items, is_full)
}

const OURS: &str = "✅ Доступ\nЛогин\n[0123456789ab]";

/// 300 contacts with a deal each; the newest one's deal is deleted.
fn healthy() -> Seen {
    let sought = newest_with_email(&[contact(299), contact(300), contact(298)]);
    Seen {
        our_time: at(1_001),
        changed: contacts((51..=300).rev()),
        newest: contacts((51..=300).rev()),
        oldest: contacts(1..=250),
        second: contacts(251..=300),
        since: Some(at(200)),
        filtered: contacts((200..=300).rev()),
        sought,
        found: contacts([300, 7].into_iter()),
        contacts: (52..=300).collect(),
        by_id: contacts(52..=300),
        named: (9_052..=9_300).map(DealId::new).collect(),
        deals: page((9_052..9_300).map(deal).collect(), false),
        deleted: page(
            vec![Deal {
                is_deleted: true,
                ..deal(9_300)
            }],
            false,
        ),
        noted: (9_052..9_300).map(DealId::new).collect(),
        notes: page(vec![note(1, 9_060, "called"), note(2, 9_060, OURS)], false),
        known: vec![Known {
            deal: DealId::new(9_060),
            row: row(),
        }],
    }
}

fn verdicts(seen: &Seen) -> Vec<(Assumption, Verdict)> {
    let findings = all(seen, Lang::English);
    findings
        .iter()
        .map(|it| (it.assumption, it.verdict))
        .collect()
}

#[test]
fn in_a_healthy_account_all_is_confirmed() {
    for (assumption, verdict) in verdicts(&healthy()) {
        assert_eq!(verdict, Verdict::Confirmed, "{assumption:?}");
    }
}

fn good<T>(answer: &mut Answer<T>) -> &mut Peek<T> {
    match answer {
        Answer::Page(page) => page,
        Answer::NotAsked | Answer::Failed(_) => panic!("no page"),
    }
}

/// What differs, and all findings that are turned by it.
type Case = (
    &'static str,
    fn(&mut Seen),
    &'static [(Assumption, Verdict)],
);

const CASES: &[Case] = &[
    (
        "by id instead of by change",
        |it| good(&mut it.changed).items[3].updated_at = at(999),
        &[(Assumption::OrderByChange, Verdict::Contradicted)],
    ),
    (
        "all changed in one second",
        |it| {
            good(&mut it.changed)
                .items
                .iter_mut()
                .for_each(|it| it.updated_at = at(1));
        },
        &[(Assumption::OrderByChange, Verdict::Unknown)],
    ),
    (
        "not by descending id",
        |it| good(&mut it.newest).items.reverse(),
        &[(Assumption::NewestFirst, Verdict::Contradicted)],
    ),
    (
        "not by ascending id",
        |it| good(&mut it.oldest).items.swap(0, 1),
        &[(Assumption::OldestFirst, Verdict::Contradicted)],
    ),
    (
        "the limit is cut",
        |it| good(&mut it.changed).length = 50,
        &[(Assumption::FullPages, Verdict::Contradicted)],
    ),
    (
        "pages overlap",
        |it| it.second = contacts(250..=300),
        &[(Assumption::PagesJoin, Verdict::Contradicted)],
    ),
    (
        "no link to the next page",
        |it| good(&mut it.oldest).names_next = false,
        &[(Assumption::NextLink, Verdict::Contradicted)],
    ),
    (
        "the filter by time is ignored",
        |it| it.filtered = contacts((51..=300).rev()),
        &[(Assumption::TimeFilter, Verdict::Contradicted)],
    ),
    (
        "the filter by time finds too little",
        |it| it.filtered = contacts(290..=300),
        &[(Assumption::TimeFilter, Verdict::Contradicted)],
    ),
    (
        "the filter by time is refused",
        |it| it.filtered = rejected(),
        &[(Assumption::TimeFilter, Verdict::Contradicted)],
    ),
    (
        "the search finds others only",
        |it| it.found = contacts([7].into_iter()),
        &[(Assumption::Search, Verdict::Contradicted)],
    ),
    (
        "the search finds nothing of just now",
        |it| {
            it.found = page(Vec::new(), false);
            good(&mut it.found).date = Some(at(310));
        },
        &[(Assumption::Search, Verdict::Unknown)],
    ),
    (
        "some ids are ignored",
        |it| it.by_id = contacts(52..=101),
        &[(Assumption::ManyIds, Verdict::Contradicted)],
    ),
    (
        "the filter by ids is ignored",
        |it| it.by_id = contacts(1..=250),
        &[(Assumption::ManyIds, Verdict::Contradicted)],
    ),
    (
        "the address is too long",
        |it| it.by_id = rejected(),
        &[(Assumption::ManyIds, Verdict::Contradicted)],
    ),
    (
        "a deleted deal is listed",
        |it| good(&mut it.deals).items[0].is_deleted = true,
        &[(Assumption::DeletedDeals, Verdict::Contradicted)],
    ),
    (
        "no deal is deleted",
        |it| {
            it.named.pop_last();
        },
        &[(Assumption::DeletedDeals, Verdict::Unknown)],
    ),
    (
        "a deal is hidden, not deleted",
        |it| it.deleted = page(Vec::new(), false),
        &[(Assumption::DeletedDeals, Verdict::Unknown)],
    ),
    (
        "notes of other deals",
        |it| good(&mut it.notes).items[0].deal = DealId::new(1),
        &[(Assumption::NotesByDeal, Verdict::Contradicted)],
    ),
    (
        "no notes at all",
        |it| it.notes = page(Vec::new(), false),
        &[
            (Assumption::NotesByDeal, Verdict::Unknown),
            (Assumption::NotesAsWritten, Verdict::Unknown),
        ],
    ),
    (
        "notes with tags",
        |it| good(&mut it.notes).items[1].text = OURS.replace('\n', "<br>"),
        &[(Assumption::NotesAsWritten, Verdict::Contradicted)],
    ),
    (
        "no note of ours",
        |it| it.known.clear(),
        &[(Assumption::NotesAsWritten, Verdict::Unknown)],
    ),
    (
        "answers without a time",
        |it| good(&mut it.changed).date = None,
        &[(Assumption::ServerTime, Verdict::Contradicted)],
    ),
    (
        "amoCRM failed",
        |it| it.newest = Answer::Failed(AmoError::Server { status: 502 }),
        &[(Assumption::NewestFirst, Verdict::Unknown)],
    ),
    (
        "a small account",
        |it| {
            it.second = Answer::NotAsked;
            for pages in [&mut it.changed, &mut it.newest, &mut it.oldest] {
                let page = good(pages);
                page.items.truncate(40);
                page.length = 40;
                page.names_next = false;
            }
        },
        &[
            (Assumption::FullPages, Verdict::Unknown),
            (Assumption::PagesJoin, Verdict::Unknown),
            (Assumption::NextLink, Verdict::Unknown),
        ],
    ),
];

fn rejected() -> Answer<Contact> {
    Answer::Failed(AmoError::Rejected {
        status: 414,
        problem: Problem::default(),
    })
}

#[test]
fn each_habit_turns_its_own_finding() {
    for (name, change, turned) in CASES {
        let mut seen = healthy();
        change(&mut seen);
        let told: Vec<_> = verdicts(&seen)
            .into_iter()
            .filter(|(_, verdict)| *verdict != Verdict::Confirmed)
            .collect();
        assert_eq!(told, *turned, "{name}");
    }
    let mut turned: Vec<_> = CASES
        .iter()
        .flat_map(|(_, _, turned)| *turned)
        .map(|it| it.0.into_str())
        .collect();
    turned.sort_unstable();
    turned.dedup();
    assert_eq!(
        turned.len(),
        verdicts(&healthy()).len(),
        "some finding is never turned"
    );
}

#[test]
fn a_report_names_nobody_and_is_told_in_both_languages() {
    for (name, change, _) in CASES {
        let mut seen = healthy();
        change(&mut seen);
        for (english, russian) in all(&seen, Lang::English)
            .iter()
            .zip(all(&seen, Lang::Russian))
        {
            let texts = [english.text(Lang::English), russian.text(Lang::Russian)];
            assert_ne!(texts[0], texts[1], "{name}");
            let is_russian = |text: &str| text.chars().any(|c| matches!(c, 'а'..='я'));
            assert!(
                is_russian(&texts[1]) && !is_russian(&texts[0]),
                "{name}: {texts:?}"
            );
            for text in texts {
                let numbers = text.split(|c: char| !c.is_ascii_digit());
                let has_id = numbers
                    .filter_map(|it| it.parse().ok())
                    .any(|it: i64| it >= 9_000);
                assert!(
                    !has_id && !text.contains(['@', '[']) && !text.contains("student"),
                    "{name}: {text}"
                );
            }
        }
    }
}

#[test]
fn a_time_is_chosen_that_parts_the_contacts() {
    let of = |seconds: &[i64]| {
        let contacts: Vec<Contact> = seconds
            .iter()
            .map(|second| Contact {
                updated_at: at(*second),
                ..contact(1)
            })
            .collect();
        middle_change(&contacts)
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[5, 5]), None);
    assert_eq!(of(&[9, 5]), Some(at(9)));
    assert_eq!(of(&[9, 8, 7, 7, 1]), Some(at(8)));
}

#[test]
fn an_age_is_told_in_a_unit_that_fits() {
    let told = |minutes| ago(SignedDuration::from_mins(minutes), Lang::English);
    let ages = [0, 119, 120, 2_879, 2_880, 288_000].map(told);
    assert_eq!(
        ages,
        ["0 min", "119 min", "2 h", "47 h", "2 days", "200 days"]
    );
}
