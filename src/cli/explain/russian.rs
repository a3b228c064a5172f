//! What the engine noted in a row's history, in the operator's language. Reasons are stored in Russian already.

const PHRASES: [(&str, &str); 39] = [
    (
        "carried over from a damaged inbox",
        "перенесена из повреждённого файла очереди",
    ),
    ("parked by hand", "отложена вручную"),
    ("works for another row", "у другой строки то же удалось"),
    (
        "an operation is in doubt: rows go one at a time",
        "одно из действий под сомнением: строки идут по одной",
    ),
    ("sweep", "замечена сверкой"),
    ("backfill", "взята командой backfill"),
    ("retry", "повтор по команде"),
    ("contact seen", "контакт появился"),
    ("contact found by phone", "контакт найден по телефону"),
    (
        "contact found by the beginning of its e-mail",
        "контакт найден по началу e-mail",
    ),
    ("moved", "сделка перенесена"),
    ("noted", "примечание добавлено"),
    ("our note was there already", "наше примечание уже было"),
    (
        "the note of an earlier attempt was found",
        "нашлось примечание прежней попытки",
    ),
    (
        "the fate of a note is open",
        "дошло ли примечание, пока неизвестно",
    ),
    (
        "the fate of a create is open",
        "создана ли сделка, пока неизвестно",
    ),
    (
        "an earlier create never happened, choosing anew",
        "прежнее создание не состоялось, выбираем заново",
    ),
    (
        "the chosen deal is gone, choosing anew",
        "выбранной сделки больше нет, выбираем заново",
    ),
    (
        "e-mail or phone changed, choosing anew",
        "e-mail или телефон изменились, выбираем заново",
    ),
    (
        "the e-mail changed on the way",
        "e-mail изменился по ходу дела",
    ),
    (
        "the contact is gone, searching anew",
        "контакта больше нет, ищем заново",
    ),
    ("the contact has appeared", "контакт появился"),
    ("the target stage is not usable", "нужный этап недоступен"),
    ("sending stopped", "отправка остановлена"),
    ("run broken off", "попытка прервана"),
    ("again", "ещё раз"),
    ("left", "оставлено"),
    ("no usable deal", "подходящей сделки не было"),
    ("no contact", "контакта не было"),
    (
        "recorded for this person",
        "её мы уже вели для этого человека",
    ),
    ("open", "открыта"),
    (
        "recently closed, on the target stage",
        "недавно закрыта, на нужном этапе",
    ),
    ("recently won", "недавно выиграна"),
    ("recently lost", "недавно проиграна"),
    ("done: synced", "готово: всё сделано"),
    (
        "done: alreadylinked",
        "готово: номер сделки уже был в строке",
    ),
    ("done: skipped", "готово: пропущена"),
    ("done: tooold", "готово: слишком старая"),
    ("done: gone", "готово: строка удалена"),
];

/// One line; what is not known is left as it is.
pub(super) fn history(line: &str) -> String {
    line.split("; ").map(phrase).collect::<Vec<_>>().join("; ")
}

fn phrase(text: &str) -> String {
    if let Some((_, russian)) = PHRASES.iter().find(|(english, _)| *english == text) {
        return (*russian).to_owned();
    }
    let begun = [
        ("delivery ", "вебхук "),
        ("again: ", "ещё раз: "),
        ("waiting: ", "ждёт: "),
        ("parked: ", "отложена: "),
    ];
    for (english, russian) in begun {
        if let Some(rest) = text.strip_prefix(english) {
            return format!("{russian}{rest}");
        }
    }
    with_deal(text).unwrap_or_else(|| text.to_owned())
}

fn with_deal(text: &str) -> Option<String> {
    if let Some(deal) = text
        .strip_prefix("the deal ")
        .and_then(|rest| rest.strip_suffix(" of an earlier attempt was found"))
    {
        return Some(format!("нашлась сделка {deal} прежней попытки"));
    }
    let rest = text.strip_prefix("deal ")?;
    if let Some(deal) = rest.strip_suffix(" created") {
        return Some(format!("создана сделка {deal}"));
    }
    let (deal, why) = rest.split_once(" chosen: ")?;
    Some(format!("выбрана сделка {deal}: {}", phrase(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::decide::Why;

    #[test]
    fn a_line_is_told_phrase_by_phrase() {
        assert_eq!(
            history(
                "deal 41 chosen: recently lost; moved; noted; again: нет соединения с amoCRM; whatever 7"
            ),
            "выбрана сделка 41: недавно проиграна; сделка перенесена; примечание добавлено; \
             ещё раз: нет соединения с amoCRM; whatever 7"
        );
        assert_eq!(
            history("the deal 5 of an earlier attempt was found"),
            "нашлась сделка 5 прежней попытки"
        );
        assert_eq!(history("deal 6 created"), "создана сделка 6");
        assert_eq!(
            history("contact found by phone; contact found by the beginning of its e-mail"),
            "контакт найден по телефону; контакт найден по началу e-mail"
        );
    }

    #[test]
    fn every_rule_that_picks_a_deal_has_russian_words() {
        for why in [
            Why::Recorded,
            Why::Open,
            Why::ClosedOnTarget,
            Why::ClosedWon,
            Why::ClosedLost,
        ] {
            let told = history(&why.to_string());
            assert!(!told.chars().any(|c| c.is_ascii_alphabetic()), "{told}");
        }
    }
}
