//! From amoCRM's answers to findings: pure functions. A finding holds counts and times, and nothing of a person.

use std::collections::{BTreeMap, BTreeSet};

use amocrm::{AmoError, Contact, ContactId, Deal, DealId, Email, Note, PAGE, Peek};
use jiff::{SignedDuration, Timestamp};
use strum::IntoStaticStr;

use crate::{domain::RowId, sync::rules::note::is_ours, words::Lang};

/// An e-mail that was stored so short a time ago need not be in the search index yet.
const MAY_LAG: SignedDuration = SignedDuration::from_mins(2);
/// A difference of the clocks that is worth a word.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(30);

/// What came of one request.
#[derive(Debug, Default)]
pub(super) enum Answer<T> {
    #[default]
    NotAsked,
    Page(Peek<T>),
    Failed(AmoError),
}

impl<T> Answer<T> {
    pub(super) fn page(&self) -> Option<&Peek<T>> {
        match self {
            Self::Page(page) => Some(page),
            Self::NotAsked | Self::Failed(_) => None,
        }
    }

    pub(super) fn items(&self) -> &[T] {
        self.page().map_or(&[], |page| &page.items)
    }
}

/// A note of the service that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) deal: DealId,
    pub(super) row: RowId,
}

/// A contact whose e-mail is searched for.
#[derive(Debug, Clone)]
pub(super) struct Sought {
    pub(super) id: ContactId,
    pub(super) email: Email,
    created_at: Timestamp,
}

/// The questions that depend on earlier answers, and all answers.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Right after the first answer.
    pub(super) our_time: Timestamp,
    /// Contacts by `order[updated_at]=desc`.
    pub(super) changed: Answer<Contact>,
    /// By `order[id]=desc`.
    pub(super) newest: Answer<Contact>,
    /// By `order[id]=asc`, the first two pages.
    pub(super) oldest: Answer<Contact>,
    pub(super) second: Answer<Contact>,
    pub(super) since: Option<Timestamp>,
    /// Those of `changed`, filtered by their time of change.
    pub(super) filtered: Answer<Contact>,
    pub(super) sought: Option<Sought>,
    pub(super) found: Answer<Contact>,
    pub(super) contacts: BTreeSet<i64>,
    pub(super) by_id: Answer<Contact>,
    /// Deals that contacts name.
    pub(super) named: BTreeSet<DealId>,
    pub(super) deals: Answer<Deal>,
    /// Those of them that are not in `deals`, asked for by `only_deleted`.
    pub(super) deleted: Answer<Deal>,
    /// Deals whose notes were asked for.
    pub(super) noted: BTreeSet<DealId>,
    pub(super) notes: Answer<Note>,
    pub(super) known: Vec<Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Verdict {
    Confirmed,
    Contradicted,
    Unknown,
}

impl Verdict {
    pub(super) fn word(self, lang: Lang) -> &'static str {
        let russian = match self {
            Self::Confirmed => "подтверждено",
            Self::Contradicted => "опровергнуто",
            Self::Unknown => "неизвестно",
        };
        lang.pick(self.into_str(), russian)
    }
}

/// What the service takes for granted of amoCRM, or could make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Assumption {
    OrderByChange,
    NewestFirst,
    OldestFirst,
    FullPages,
    PagesJoin,
    NextLink,
    TimeFilter,
    Search,
    ManyIds,
    DeletedDeals,
    NotesByDeal,
    NotesAsWritten,
    ServerTime,
}

impl Assumption {
    /// Whether the service works wrongly, or badly, where it does not hold.
    pub(super) fn is_relied_on(self) -> bool {
        match self {
            Self::OrderByChange
            | Self::NewestFirst
            | Self::OldestFirst
            | Self::FullPages
            | Self::PagesJoin
            | Self::Search
            | Self::ManyIds
            | Self::NotesByDeal
            | Self::ServerTime => true,
            Self::NextLink | Self::TimeFilter | Self::DeletedDeals | Self::NotesAsWritten => false,
        }
    }

    fn claim(self, lang: Lang) -> &'static str {
        let (english, russian) = match self {
            Self::OrderByChange => (
                "contacts can be listed by their latest change",
                "контакты выдаются в порядке последнего изменения",
            ),
            Self::NewestFirst => (
                "contacts can be listed by descending id",
                "контакты выдаются по убыванию id",
            ),
            Self::OldestFirst => (
                "contacts can be listed by ascending id",
                "контакты выдаются по возрастанию id",
            ),
            Self::FullPages => (
                "a page that is not the last has 250 items",
                "на странице, кроме последней, 250 записей",
            ),
            Self::PagesJoin => (
                "the second page goes on where the first one ends",
                "вторая страница продолжает первую",
            ),
            Self::NextLink => ("a page names the next one", "страница называет следующую"),
            Self::TimeFilter => (
                "a filter by time of change is obeyed",
                "фильтр по времени изменения работает",
            ),
            Self::Search => (
                "a search finds a contact by its e-mail",
                "поиск находит контакт по e-mail",
            ),
            Self::ManyIds => (
                "many contacts can be read by their ids in one request",
                "за один запрос можно прочесть много контактов по id",
            ),
            Self::DeletedDeals => (
                "a contact may name a deleted deal, and a list of deals leaves it out",
                "контакт может называть удалённую сделку, а в списке сделок её нет",
            ),
            Self::NotesByDeal => (
                "notes can be read by the ids of their deals",
                "примечания можно прочесть по id сделок",
            ),
            Self::NotesAsWritten => (
                "a note is read back as it was written",
                "примечание читается таким, каким записано",
            ),
            Self::ServerTime => (
                "each answer tells amoCRM's time",
                "каждый ответ сообщает время amoCRM",
            ),
        };
        lang.pick(english, russian)
    }

    /// What it means for the service if it does not hold.
    fn if_wrong(self, lang: Lang) -> &'static str {
        let (english, russian) = match self {
            Self::OrderByChange => (
                "a contact that students wait for is noticed late; set AMOCRM_CONTACT_SCAN=false, so that each is searched for",
                "контакт, которого ждут ученики, замечается поздно; задайте AMOCRM_CONTACT_SCAN=false: тогда каждого ищут отдельно",
            ),
            Self::NewestFirst => (
                "a contact made a moment ago may be missed, and a second one created; keep AMOCRM_MISSING_CONTACT=wait",
                "только что созданный контакт можно не заметить и создать второй; оставьте AMOCRM_MISSING_CONTACT=wait",
            ),
            Self::OldestFirst | Self::PagesJoin => (
                "the index of contacts may have gaps; set AMOCRM_CONTACT_SCAN=false",
                "в индексе контактов возможны пропуски; задайте AMOCRM_CONTACT_SCAN=false",
            ),
            Self::FullPages => (
                "a list may be taken for complete too early; set AMOCRM_CONTACT_SCAN=false and tell the makers",
                "список можно счесть полным раньше времени; задайте AMOCRM_CONTACT_SCAN=false и сообщите разработчикам",
            ),
            Self::NextLink => (
                "nothing: the service reads on until a page is short",
                "ничего: сервис читает, пока страница не окажется неполной",
            ),
            Self::TimeFilter => (
                "nothing: the service lists by order and uses no filter by time",
                "ничего: сервис читает по порядку и фильтром по времени не пользуется",
            ),
            Self::Search => (
                "a student may wait although the contact is there; ask amoCRM's support why the search does not find it",
                "ученик может ждать, хотя контакт есть; спросите поддержку amoCRM, почему поиск его не находит",
            ),
            Self::ManyIds => (
                "imports fail or take long; tell the makers",
                "импорт не пройдёт или затянется; сообщите разработчикам",
            ),
            Self::DeletedDeals => (
                "nothing: the service drops deals that are marked as deleted",
                "ничего: сделки с пометкой «удалена» сервис отбрасывает",
            ),
            Self::NotesByDeal => (
                "a deal may get a second note after an interruption; tell the makers",
                "после сбоя сделка может получить второе примечание; сообщите разработчикам",
            ),
            Self::NotesAsWritten => (
                "nothing: the service knows its notes in either form; people see other line breaks or characters",
                "ничего: свои примечания сервис узнаёт и так; люди видят другие переносы строк или символы",
            ),
            Self::ServerTime => (
                "changes of contacts may be looked for by the wrong clock; see that this machine's clock is right",
                "изменения контактов могут отсчитываться по чужим часам; проверьте часы этой машины",
            ),
        };
        lang.pick(english, russian)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) assumption: Assumption,
    pub(super) verdict: Verdict,
    seen: String,
}

impl Finding {
    pub(super) fn text(&self, lang: Lang) -> String {
        format!("{}: {}", self.assumption.claim(lang), self.seen)
    }

    pub(super) fn means(&self, lang: Lang) -> Option<&'static str> {
        (self.verdict == Verdict::Contradicted).then(|| self.assumption.if_wrong(lang))
    }
}

/// A verdict and what it rests on.
type Told = (Verdict, String);

fn confirmed(seen: String) -> Told {
    (Verdict::Confirmed, seen)
}

fn contradicted(seen: String) -> Told {
    (Verdict::Contradicted, seen)
}

fn unknown(seen: impl Into<String>) -> Told {
    (Verdict::Unknown, seen.into())
}

pub(super) fn all(seen: &Seen, lang: Lang) -> Vec<Finding> {
    use Assumption as A;
    let told = [
        (
            A::OrderByChange,
            of(&seen.changed, lang, |page| order_by_change(page, lang)),
        ),
        (
            A::NewestFirst,
            of(&seen.newest, lang, |page| order_of_ids(page, true, lang)),
        ),
        (
            A::OldestFirst,
            of(&seen.oldest, lang, |page| order_of_ids(page, false, lang)),
        ),
        (A::FullPages, full_pages(seen, lang)),
        (
            A::PagesJoin,
            of(&seen.second, lang, |page| pages_join(seen, page, lang)),
        ),
        (
            A::NextLink,
            of(&seen.second, lang, |page| next_link(seen, page, lang)),
        ),
        (
            A::TimeFilter,
            of(&seen.filtered, lang, |page| time_filter(seen, page, lang)),
        ),
        (
            A::Search,
            of(&seen.found, lang, |page| search(seen, page, lang)),
        ),
        (
            A::ManyIds,
            of(&seen.by_id, lang, |page| many_ids(seen, page, lang)),
        ),
        (
            A::DeletedDeals,
            of(&seen.deals, lang, |page| deleted_deals(seen, page, lang)),
        ),
        (
            A::NotesByDeal,
            of(&seen.notes, lang, |page| notes_by_deal(seen, page, lang)),
        ),
        (
            A::NotesAsWritten,
            of(&seen.notes, lang, |page| notes_as_written(seen, page, lang)),
        ),
        (
            A::ServerTime,
            of(&seen.changed, lang, |page| server_time(seen, page, lang)),
        ),
    ];
    let finding = |(assumption, (verdict, seen))| Finding {
        assumption,
        verdict,
        seen,
    };
    told.into_iter().map(finding).collect()
}

/// A request that amoCRM rejects contradicts what the request was to show.
fn of<T>(answer: &Answer<T>, lang: Lang, judge: impl FnOnce(&Peek<T>) -> Told) -> Told {
    match answer {
        Answer::Page(page) => judge(page),
        Answer::NotAsked => unknown(lang.pick(
            "not asked: the account has too little for it, or an earlier request failed",
            "не спрошено: в аккаунте для этого мало данных или предыдущий запрос не удался",
        )),
        Answer::Failed(
            AmoError::Rejected { status, .. }
            | AmoError::Unexpected {
                status: status @ 400..500,
            },
        ) => contradicted(lang.pick(
            format!("amoCRM rejects the request ({status})"),
            format!("amoCRM отклонила запрос ({status})"),
        )),
        Answer::Failed(error) => unknown(failed(error, lang)),
    }
}

/// Without the account's host, which an error may name.
fn failed(error: &AmoError, lang: Lang) -> String {
    match error {
        AmoError::Throttled { .. } => lang
            .pick(
                "amoCRM asks to slow down (429)",
                "amoCRM ограничила частоту запросов (429)",
            )
            .to_owned(),
        AmoError::Server { status }
        | AmoError::Moved { status, .. }
        | AmoError::Unexpected { status } => lang.pick(
            format!("amoCRM failed ({status})"),
            format!("сбой amoCRM ({status})"),
        ),
        AmoError::Malformed { what } => lang.pick(
            format!("the answer could not be read ({what})"),
            format!("ответ не удалось прочесть ({what})"),
        ),
        AmoError::Refused(_) | AmoError::TurnedAway => {
            lang.pick("amoCRM refuses", "amoCRM отказала").to_owned()
        }
        AmoError::NotSent { .. }
        | AmoError::NoAnswer { .. }
        | AmoError::TooLate
        | AmoError::NotPermitted
        | AmoError::Rejected { .. } => lang.pick("no answer", "нет ответа").to_owned(),
    }
}

/// How many neighbours stand in the wrong order.
fn misplaced<T, K: PartialOrd>(items: &[T], key: impl Fn(&T) -> K, descending: bool) -> usize {
    items
        .windows(2)
        .filter(|pair| {
            let (a, b) = (key(&pair[0]), key(&pair[1]));
            if descending { a < b } else { a > b }
        })
        .count()
}

fn too_few(count: usize, lang: Lang) -> Told {
    unknown(lang.pick(
        format!("too few in the account ({count})"),
        format!("в аккаунте их слишком мало ({count})"),
    ))
}

fn order(count: usize, misplaced: usize, lang: Lang) -> Told {
    if misplaced == 0 {
        return confirmed(lang.pick(
            format!("{count} in a row, none out of order"),
            format!("{count} подряд, все по порядку"),
        ));
    }
    contradicted(lang.pick(
        format!("of {count} in a row, {misplaced} out of order"),
        format!("из {count} подряд не по порядку {misplaced}"),
    ))
}

fn order_by_change(page: &Peek<Contact>, lang: Lang) -> Told {
    let times: BTreeSet<Timestamp> = page.items.iter().map(|it| it.updated_at).collect();
    if times.len() < 2 {
        return too_few(page.items.len(), lang);
    }
    let misplaced = misplaced(&page.items, |it| it.updated_at, true);
    order(page.items.len(), misplaced, lang)
}

fn order_of_ids(page: &Peek<Contact>, descending: bool, lang: Lang) -> Told {
    if page.items.len() < 2 {
        return too_few(page.items.len(), lang);
    }
    let misplaced = misplaced(&page.items, |it| it.id, descending);
    order(page.items.len(), misplaced, lang)
}

fn full_pages(seen: &Seen, lang: Lang) -> Told {
    let pages = [&seen.changed, &seen.newest, &seen.oldest];
    let pages: Vec<&Peek<Contact>> = pages.into_iter().filter_map(Answer::page).collect();
    let wrong = pages
        .iter()
        .find(|page| page.length > PAGE || (page.names_next && page.length < PAGE));
    if let Some(page) = wrong {
        let length = page.length;
        return contradicted(lang.pick(
            format!("a page of {length} names a next one"),
            format!("страница из {length} называет следующую"),
        ));
    }
    match pages.iter().filter(|page| page.length == PAGE).count() {
        0 => too_few(
            pages
                .iter()
                .map(|page| page.length)
                .max()
                .unwrap_or_default(),
            lang,
        ),
        full => confirmed(lang.pick(
            format!("{full} pages of {PAGE}"),
            format!("страниц по {PAGE}: {full}"),
        )),
    }
}

fn pages_join(seen: &Seen, second: &Peek<Contact>, lang: Lang) -> Told {
    let Some(first) = seen.oldest.page() else {
        return too_few(0, lang);
    };
    let last = first.items.iter().map(|it| it.id).max();
    let again = second.items.iter().filter(|it| Some(it.id) <= last).count();
    match (second.items.len(), again) {
        (0, _) => too_few(first.length, lang),
        (count, 0) => confirmed(lang.pick(
            format!("{count} on the second page, none of them on the first"),
            format!("на второй странице {count}, ни одного с первой"),
        )),
        (count, again) => contradicted(lang.pick(
            format!("of {count} on the second page, {again} belong before it"),
            format!("из {count} на второй странице {again} должны быть раньше"),
        )),
    }
}

fn next_link(seen: &Seen, second: &Peek<Contact>, lang: Lang) -> Told {
    let Some(first) = seen.oldest.page() else {
        return too_few(0, lang);
    };
    if second.length == 0 {
        return too_few(first.length, lang);
    }
    if first.names_next {
        confirmed(
            lang.pick("the first page does", "первая называет")
                .to_owned(),
        )
    } else {
        contradicted(
            lang.pick(
                "the first page does not, and there is a second one",
                "первая не называет, а вторая есть",
            )
            .to_owned(),
        )
    }
}

/// A time that some of these were changed before, and others not.
pub(super) fn middle_change(changed: &[Contact]) -> Option<Timestamp> {
    let times: BTreeSet<Timestamp> = changed.iter().map(|it| it.updated_at).collect();
    (times.len() > 1).then(|| times.iter().nth(times.len() / 2).copied())?
}

fn time_filter(seen: &Seen, page: &Peek<Contact>, lang: Lang) -> Told {
    let (Some(since), Some(changed)) = (seen.since, seen.changed.page()) else {
        return too_few(0, lang);
    };
    let count = page.items.len();
    let older = page.items.iter().filter(|it| it.updated_at < since).count();
    if older > 0 {
        return contradicted(lang.pick(
            format!("of {count}, {older} are older than asked for"),
            format!("из {count} старше запрошенного {older}"),
        ));
    }
    let there: BTreeSet<ContactId> = page.items.iter().map(|it| it.id).collect();
    let wanted = changed.items.iter().filter(|it| it.updated_at >= since);
    let lacking = wanted.filter(|it| !there.contains(&it.id)).count();
    // Contacts that were changed meanwhile push others off a full page.
    if lacking > 0 && page.length < PAGE {
        return contradicted(lang.pick(
            format!("{lacking} that should be there are not"),
            format!("не хватает {lacking}"),
        ));
    }
    confirmed(lang.pick(
        format!("{count} as asked for, no older one"),
        format!("{count}, старше запрошенного нет"),
    ))
}

/// The one whose e-mail has been in the search index for the shortest time.
pub(super) fn newest_with_email(newest: &[Contact]) -> Option<Sought> {
    let with_email = newest.iter().filter_map(|contact| {
        Some(Sought {
            id: contact.id,
            email: contact.emails.first()?.clone(),
            created_at: contact.created_at.max(contact.updated_at),
        })
    });
    with_email.max_by_key(|sought| (sought.id, sought.created_at))
}

fn search(seen: &Seen, page: &Peek<Contact>, lang: Lang) -> Told {
    let Some(sought) = &seen.sought else {
        return too_few(0, lang);
    };
    let now = page.date.unwrap_or(seen.our_time);
    let age = now
        .duration_since(sought.created_at)
        .max(SignedDuration::ZERO);
    let ago = ago(age, lang);
    if page.items.iter().any(|it| it.id == sought.id) {
        let others = page.items.iter();
        let others = others
            .filter(|it| !it.emails.contains(&sought.email))
            .count();
        return confirmed(lang.pick(
            format!("the newest one is found, last changed {ago} ago; hits with another e-mail: {others}"),
            format!("новейший, изменённый {ago} назад, найден; лишних результатов: {others}"),
        ));
    }
    if age < MAY_LAG {
        return unknown(lang.pick(
            "the newest one is not found yet: it was changed less than two minutes ago",
            "новейший пока не найден: он изменён меньше двух минут назад",
        ));
    }
    contradicted(lang.pick(
        format!("the newest one is not found, last changed {ago} ago"),
        format!("новейший, изменённый {ago} назад, не найден"),
    ))
}

/// Rounded down, in the greatest unit that fits.
fn ago(age: SignedDuration, lang: Lang) -> String {
    match (age.as_mins(), age.as_hours()) {
        (_, hours @ 48..) => format!("{} {}", hours / 24, lang.pick("days", "дн.")),
        (minutes @ ..120, _) => format!("{minutes} {}", lang.pick("min", "мин")),
        (_, hours) => format!("{hours} {}", lang.pick("h", "ч")),
    }
}

fn many_ids(seen: &Seen, page: &Peek<Contact>, lang: Lang) -> Told {
    let there: BTreeSet<i64> = page.items.iter().map(|it| it.id.get()).collect();
    let asked = seen.contacts.len();
    let foreign = there.difference(&seen.contacts).count();
    let lacking = seen.contacts.difference(&there).count();
    by_ids(asked, foreign, lacking, lang)
}

fn by_ids(asked: usize, foreign: usize, lacking: usize, lang: Lang) -> Told {
    if foreign > 0 {
        return contradicted(lang.pick(
            format!("{foreign} came that were not asked for"),
            format!("пришло лишних: {foreign}"),
        ));
    }
    if lacking > 0 {
        return contradicted(lang.pick(
            format!("of {asked}, {lacking} did not come"),
            format!("из {asked} не пришло {lacking}"),
        ));
    }
    confirmed(lang.pick(format!("all {asked} came"), format!("пришли все {asked}")))
}

/// Deals that contacts name and a list does not have.
pub(super) fn absent(named: &BTreeSet<DealId>, deals: &[Deal]) -> BTreeSet<DealId> {
    let there: BTreeSet<DealId> = deals.iter().map(|deal| deal.id).collect();
    named.difference(&there).copied().collect()
}

fn deleted_deals(seen: &Seen, page: &Peek<Deal>, lang: Lang) -> Told {
    let asked = seen.named.len();
    let foreign = page
        .items
        .iter()
        .filter(|it| !seen.named.contains(&it.id))
        .count();
    if foreign > 0 {
        return by_ids(asked, foreign, 0, lang);
    }
    let marked = page.items.iter().filter(|it| it.is_deleted).count();
    if marked > 0 {
        return contradicted(lang.pick(
            format!("the list has {marked} that are marked as deleted"),
            format!("в списке есть удалённые: {marked}"),
        ));
    }
    let absent = absent(&seen.named, &page.items);
    if absent.is_empty() {
        return unknown(lang.pick(
            format!("of the {asked} deals that contacts name none is deleted"),
            format!("среди {asked} сделок, названных контактами, удалённых нет"),
        ));
    }
    let lacking = absent.len();
    let deleted = seen.deleted.items().iter();
    let deleted = deleted.filter(|it| absent.contains(&it.id)).count();
    if deleted == 0 {
        return unknown(lang.pick(
            format!("of {asked} deals that contacts name, {lacking} are neither in the list nor among the deleted: the token's user may not see them"),
            format!("из {asked} сделок, названных контактами, {lacking} нет ни в списке, ни среди удалённых: возможно, пользователю токена они не видны"),
        ));
    }
    confirmed(lang.pick(
        format!("of {asked} deals that contacts name, {lacking} are not in the list; {deleted} of these are deleted"),
        format!("из {asked} сделок, названных контактами, в списке нет {lacking}; из них удалены {deleted}"),
    ))
}

fn notes_by_deal(seen: &Seen, page: &Peek<Note>, lang: Lang) -> Told {
    let count = page.items.len();
    if count == 0 {
        return unknown(lang.pick("these deals have no notes", "у этих сделок нет примечаний"));
    }
    let foreign = page
        .items
        .iter()
        .filter(|it| !seen.noted.contains(&it.deal))
        .count();
    if foreign > 0 {
        return contradicted(lang.pick(
            format!("of {count} notes, {foreign} belong to other deals"),
            format!("из {count} примечаний {foreign} от других сделок"),
        ));
    }
    order(count, misplaced(&page.items, |it| it.id, false), lang)
}

fn notes_as_written(seen: &Seen, page: &Peek<Note>, lang: Lang) -> Told {
    let mut by_deal: BTreeMap<DealId, Vec<&str>> = BTreeMap::new();
    for note in &page.items {
        by_deal.entry(note.deal).or_default().push(&note.text);
    }
    let ours: Vec<(RowId, &str)> = seen
        .known
        .iter()
        .filter_map(|known| {
            let mut notes = by_deal.get(&known.deal)?.iter();
            notes
                .find(|text| is_ours(text, known.row))
                .map(|text| (known.row, *text))
        })
        .collect();
    if ours.is_empty() {
        return unknown(lang.pick(
            "no note of this service is among those read",
            "среди прочитанных нет примечаний этого сервиса",
        ));
    }
    let is_changed = |(row, text): &&(RowId, &str)| {
        let mark = format!("[{}]", row.reference());
        !text.lines().any(|line| line == mark)
    };
    let (count, changed) = (ours.len(), ours.iter().filter(is_changed).count());
    if changed > 0 {
        return contradicted(lang.pick(
            format!("of {count} notes of this service, {changed} come back with other line breaks or characters"),
            format!("из {count} примечаний этого сервиса {changed} читаются с другими переносами строк или символами"),
        ));
    }
    confirmed(lang.pick(
        format!("{count} notes of this service keep their lines"),
        format!("строки сохранились у всех примечаний этого сервиса ({count})"),
    ))
}

fn server_time(seen: &Seen, page: &Peek<Contact>, lang: Lang) -> Told {
    let Some(date) = page.date else {
        return contradicted(
            lang.pick("the first answer does not", "первый не сообщает")
                .to_owned(),
        );
    };
    let ahead = date.duration_since(seen.our_time);
    if ahead.abs() < CLOCKS_DIFFER {
        return confirmed(
            lang.pick(
                "and this machine's clock agrees",
                "часы этой машины совпадают",
            )
            .to_owned(),
        );
    }
    let seconds = ahead.as_secs();
    confirmed(lang.pick(
        format!("amoCRM's clock is {seconds:+} s off this machine's"),
        format!("часы amoCRM отличаются от часов этой машины на {seconds:+} с"),
    ))
}

#[cfg(test)]
mod tests;
