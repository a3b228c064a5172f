//! The words for people, in Russian and English: which language, when something was, and the texts for stored facts. The inbox
//! stores the names of facts, so these texts may be changed freely.

use jiff::{Timestamp, tz::TimeZone};

pub use crate::domain::Lang;
use crate::{
    domain::StageId,
    inbox::{Fact, Names, State, UndoLeft, Why},
};

mod en;
mod ru;

/// The person that a text is for.
#[derive(Debug, Clone)]
pub struct Reader {
    pub lang: Lang,
    pub zone: TimeZone,
}

impl Reader {
    #[must_use]
    pub fn in_utc(lang: Lang) -> Self {
        Self {
            lang,
            zone: TimeZone::UTC,
        }
    }

    /// The text in the reader's language.
    pub fn pick<T>(&self, english: T, russian: T) -> T {
        self.lang.pick(english, russian)
    }

    /// A time to the second, with its zone: `2026-11-30 14:05:07 UTC+5`, in Russian `30.11.2026 14:05:07 UTC+5`.
    #[must_use]
    pub fn time(&self, at: Timestamp) -> String {
        self.form(at, self.pick("%F %T", "%d.%m.%Y %T"))
    }

    /// As [`Reader::time`], for a text about these days: day and month, hour and minute.
    #[must_use]
    pub fn minute(&self, at: Timestamp) -> String {
        self.form(at, self.pick("%m-%d %H:%M", "%d.%m %H:%M"))
    }

    /// The day, without its zone.
    #[must_use]
    pub fn day(&self, at: Timestamp) -> String {
        let at = at.to_zoned(self.zone.clone());
        at.strftime(self.pick("%F", "%d.%m.%Y")).to_string()
    }

    fn form(&self, at: Timestamp, form: &str) -> String {
        let at = at.to_zoned(self.zone.clone());
        format!("{} {}", at.strftime(form), offset(at.offset().seconds()))
    }
}

/// `UTC`, `UTC+5`, `UTC-3:30`.
fn offset(seconds: i32) -> String {
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    match (minutes / 60, minutes % 60) {
        (0, 0) => "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    }
}

/// A line of a row's history.
#[must_use]
pub fn history(facts: &[Fact], names: &Names, lang: Lang) -> String {
    let fact = lang.pick::<fn(&Fact, &Names) -> String>(en::fact, ru::fact);
    let facts = facts.iter().map(|it| fact(it, names));
    facts.collect::<Vec<_>>().join("; ")
}

/// Between stages of the configured pipeline: by their names, where they are known.
#[must_use]
pub fn moved(from: StageId, to: StageId, names: &Names, lang: Lang) -> String {
    let stages = between(from, to, names, lang);
    match lang {
        Lang::English => format!("moved {stages}"),
        Lang::Russian => format!("перенесена {stages}"),
    }
}

/// From which stage to which.
fn between(from: StageId, to: StageId, names: &Names, lang: Lang) -> String {
    let name = |stage, before: &str| match names.stage(stage) {
        Some(name) => format!("{before}«{name}»"),
        None => format!("{}{stage}", lang.pick("stage ", before)),
    };
    match lang {
        Lang::English => format!("from {} to {}", name(from, ""), name(to, "")),
        Lang::Russian => format!("{} {}", name(from, "с этапа "), name(to, "на этап ")),
    }
}

/// What is going on with an entry.
#[must_use]
pub fn state(state: State, lang: Lang) -> &'static str {
    match state {
        State::Pending => lang.pick("pending", "в очереди"),
        State::Claimed => lang.pick("at work", "в работе"),
        State::Waiting => lang.pick("waiting for a contact", "ожидает контакт"),
        State::Parked => lang.pick("parked", "отложена"),
        State::Done => lang.pick("done", "готово"),
    }
}

/// Why this deal.
#[must_use]
pub fn why(why: Why, lang: Lang) -> &'static str {
    lang.pick(en::why(why), ru::why(why))
}

/// Why a move is not undone.
#[must_use]
pub fn undo_left(left: UndoLeft, lang: Lang) -> &'static str {
    lang.pick(en::undo_left(left), ru::undo_left(left))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        domain::{DealId, PipelineId},
        inbox::Outcome,
    };

    /// Each variant once: one that is not listed does not compile.
    macro_rules! every {
        ($of:ident: $($plain:ident)*; $($pattern:pat => $fact:expr;)*) => {{
            let _is_listed = |it: $of| match it {
                $($of::$plain => {})*
                $($pattern => {})*
            };
            vec![$($of::$plain,)* $($fact,)*]
        }};
    }

    fn every_fact() -> Vec<Fact> {
        let (deal, reason) = (DealId::new(41), "сбой".to_owned());
        let mut facts = every! { Fact:
            Sweep Backfill CarriedOver Retry ParkedByHand WorksForAnother ContactSeen
            ContactByPhone ContactByBeginning Moved Noted NoteFound NoteWasThere
            SendingStopped OneAtATime PersonUnknown PersonAtWork PersonUnfinished
            ContactAtWork ContactUnfinished IndexBehind TargetUnusable EmailChanged
            PersonChanged DealGone CreateNeverHappened MoveNeverHappened MoveInDoubt CreateInDoubt NoteInDoubt BrokenOff Undo;
            Fact::Delivery(_) => Fact::Delivery("7".to_owned());
            Fact::DealChosen(..) => Fact::DealChosen(deal, Why::Open);
            Fact::MovedFrom { .. } => Fact::MovedFrom {
                from: StageId::new(1),
                to: StageId::new(2),
            };
            Fact::MovedBack { .. } => Fact::MovedBack {
                from: StageId::new(2),
                to: StageId::new(1),
            };
            Fact::UndoLeft(_) => Fact::UndoLeft(UndoLeft::Unknown);
            Fact::DealCreated(_) => Fact::DealCreated(deal);
            Fact::DealFound(_) => Fact::DealFound(deal);
            Fact::LateDeal(_) => Fact::LateDeal(deal);
            Fact::Failed(_) => Fact::Failed(reason.clone());
            Fact::Done(_) => Fact::Done(Outcome::Synced);
            Fact::Again(_) => Fact::Again(None);
            Fact::Waiting(_) => Fact::Waiting(reason.clone());
            Fact::Parked(_) => Fact::Parked(reason.clone());
            Fact::Earlier(_) => Fact::Earlier("1".to_owned());
        };
        facts.push(Fact::Again(Some(reason)));
        facts.extend(every_left().into_iter().skip(1).map(Fact::UndoLeft));
        facts.extend(every_outcome().into_iter().skip(1).map(Fact::Done));
        facts
    }

    fn every_left() -> Vec<UndoLeft> {
        every! { UndoLeft:
            Unknown NotFinished NotSynced NotMoved Created OriginUnknown AlreadyUndone
            MovedSince DealGone StageGone Refused Withdrawn;
        }
    }

    fn every_outcome() -> Vec<Outcome> {
        every! { Outcome: Synced AlreadyLinked Skipped TooOld Gone Undone; }
    }

    fn every_why() -> Vec<Why> {
        every! { Why: Recorded Open ClosedOnTarget ClosedWon ClosedLost NoDeal NoContact; }
    }

    #[test]
    fn every_fact_and_rule_has_words_of_its_own_in_both_languages() {
        let facts = every_fact();
        for lang in [Lang::English, Lang::Russian] {
            let facts = facts
                .iter()
                .map(|fact| history(std::slice::from_ref(fact), &Names::default(), lang));
            let whys = every_why().into_iter().map(|it| why(it, lang).to_owned());
            let mut seen = HashSet::new();
            for words in facts.chain(whys) {
                let ours = ["e-mail", "backfill", "amoCRM"];
                let foreign = ours
                    .iter()
                    .fold(words.clone(), |text, it| text.replace(it, ""));
                let is_foreign = foreign.chars().any(|c| c.is_ascii_alphabetic());
                assert!(
                    !(words.is_empty() || lang == Lang::Russian && is_foreign),
                    "{words}"
                );
                assert!(seen.insert(words.clone()), "{words}");
            }
        }
    }

    #[test]
    fn a_line_is_told_fact_by_fact() {
        let chosen = Fact::DealChosen(DealId::new(41), Why::ClosedLost);
        let again = Fact::Again(Some("нет соединения с amoCRM".to_owned()));
        let line = [chosen, Fact::Moved, Fact::Noted, again];
        assert_eq!(
            history(&line, &Names::default(), Lang::English),
            "deal 41 chosen: recently lost; moved; noted; again: нет соединения с amoCRM"
        );
        assert_eq!(
            history(&line, &Names::default(), Lang::Russian),
            "выбрана сделка 41: недавно проиграна; сделка перенесена; примечание добавлено; \
             ещё раз: нет соединения с amoCRM"
        );
    }

    #[test]
    fn a_move_is_told_by_the_names_of_its_stages_or_their_ids() {
        let [new, bought] = [61, StageId::WON.get()].map(StageId::new);
        let [tripwire, other] = [7, 8].map(PipelineId::new);
        let mut names = Names::default().in_pipeline(tripwire);
        let both = |names: &Names| {
            [Lang::English, Lang::Russian].map(|lang| moved(new, bought, names, lang))
        };
        assert_eq!(
            both(&names),
            [
                "moved from stage 61 to stage 142",
                "перенесена с этапа 61 на этап 142"
            ]
        );
        // The closed stages have the same ids in all pipelines.
        names.learn(other, "Другая", [(bought, "Оплачено".to_owned())]);
        names.learn(tripwire, "Tripwire", [(bought, "Купил продукт".to_owned())]);
        assert_eq!(
            both(&names),
            [
                "moved from stage 61 to «Купил продукт»",
                "перенесена с этапа 61 на этап «Купил продукт»"
            ]
        );
        names.learn(tripwire, "Tripwire", [(new, "Новый лид".to_owned())]);
        assert_eq!(
            both(&names),
            [
                "moved from «Новый лид» to «Купил продукт»",
                "перенесена с этапа «Новый лид» на этап «Купил продукт»"
            ]
        );
    }

    #[test]
    fn a_time_is_told_in_the_readers_zone_and_names_it() {
        let at = "2026-11-30T20:05:07.9Z".parse::<Timestamp>().unwrap();
        let summer = "2026-07-01T20:05:07Z".parse::<Timestamp>().unwrap();
        let table = [
            (
                at,
                Lang::English,
                "Asia/Almaty",
                "2026-12-01 01:05:07 UTC+5",
            ),
            (
                at,
                Lang::Russian,
                "Asia/Almaty",
                "01.12.2026 01:05:07 UTC+5",
            ),
            (at, Lang::English, "UTC", "2026-11-30 20:05:07 UTC"),
            (
                at,
                Lang::English,
                "Asia/Kolkata",
                "2026-12-01 01:35:07 UTC+5:30",
            ),
            (
                at,
                Lang::English,
                "America/St_Johns",
                "2026-11-30 16:35:07 UTC-3:30",
            ),
            (
                summer,
                Lang::Russian,
                "Europe/Berlin",
                "01.07.2026 22:05:07 UTC+2",
            ),
        ];
        for (at, lang, zone, told) in table {
            let zone = TimeZone::get(zone).unwrap();
            assert_eq!(Reader { lang, zone }.time(at), told);
        }
        let zone = TimeZone::get("Asia/Almaty").unwrap();
        let lang = Lang::Russian;
        let reader = Reader { lang, zone };
        assert_eq!(reader.minute(at), "01.12 01:05 UTC+5");
        assert_eq!(reader.day(at), "01.12.2026");
    }

    #[test]
    fn russian_is_for_russian_locales() {
        assert_eq!(Lang::of_locale(Some("ru_RU.UTF-8")), Lang::Russian);
        assert_eq!(Lang::of_locale(Some("en_US.UTF-8")), Lang::English);
        assert_eq!(Lang::of_locale(None), Lang::English);
    }

    /// All but the words of an earlier version, which is read and never written.
    #[test]
    fn what_is_stored_is_read_back() {
        for fact in every_fact() {
            if !matches!(fact, Fact::Earlier(_)) {
                let stored = serde_json::to_string(&fact).unwrap();
                assert_eq!(
                    serde_json::from_str::<Fact>(&stored).unwrap(),
                    fact,
                    "{stored}"
                );
            }
        }
        for outcome in every_outcome() {
            assert_eq!(serde_json::json!(outcome), outcome.into_str());
        }
    }
}
