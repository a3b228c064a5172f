//! The texts for stored facts, in both languages. The inbox stores names, so these texts may be changed freely.

use super::terminal::Lang;
use crate::inbox::{Fact, Why};

mod en;
mod ru;

/// A line of a row's history.
pub(super) fn history(facts: &[Fact], lang: Lang) -> String {
    let fact = lang.pick::<fn(&Fact) -> String>(en::fact, ru::fact);
    facts.iter().map(fact).collect::<Vec<_>>().join("; ")
}

/// Why this deal.
pub(super) fn why(why: Why, lang: Lang) -> &'static str {
    lang.pick(en::why(why), ru::why(why))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{domain::DealId, inbox::Outcome};

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
            PersonChanged DealGone CreateNeverHappened CreateInDoubt NoteInDoubt BrokenOff;
            Fact::Delivery(_) => Fact::Delivery("7".to_owned());
            Fact::DealChosen(..) => Fact::DealChosen(deal, Why::Open);
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
        facts.extend(every_outcome().into_iter().skip(1).map(Fact::Done));
        facts
    }

    fn every_outcome() -> Vec<Outcome> {
        every! { Outcome: Synced AlreadyLinked Skipped TooOld Gone; }
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
                .map(|fact| history(std::slice::from_ref(fact), lang));
            let whys = every_why().into_iter().map(|it| why(it, lang).to_owned());
            let mut seen = HashSet::new();
            for words in facts.chain(whys) {
                let foreign = words.replace("e-mail", "").replace("backfill", "");
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
            history(&line, Lang::English),
            "deal 41 chosen: recently lost; moved; noted; again: нет соединения с amoCRM"
        );
        assert_eq!(
            history(&line, Lang::Russian),
            "выбрана сделка 41: недавно проиграна; сделка перенесена; примечание добавлено; \
             ещё раз: нет соединения с amoCRM"
        );
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
            assert_eq!(serde_json::json!(outcome), outcome.as_str());
        }
    }
}
