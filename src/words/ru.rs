//! In Russian.

use super::{Lang, between, moved};
use crate::inbox::{Fact, Names, Outcome, UndoLeft, Why};

pub(super) fn fact(fact: &Fact, names: &Names) -> String {
    let words = match fact {
        Fact::Delivery(delivery) => return format!("вебхук {delivery}"),
        Fact::Sweep => "замечена сверкой",
        Fact::Backfill => "взята командой backfill",
        Fact::CarriedOver => "перенесена из повреждённого файла очереди",
        Fact::Retry => "повтор по команде",
        Fact::ParkedByHand => "отложена вручную",
        Fact::WorksForAnother => "для другой строки то же действие удалось",
        Fact::ContactSeen => "контакт появился",
        Fact::ContactByPhone => "контакт найден по телефону",
        Fact::ContactByBeginning => "контакт найден по началу e-mail",
        Fact::DealChosen(deal, rule) => return format!("выбрана сделка {deal}: {}", why(*rule)),
        Fact::Moved => "сделка перенесена",
        Fact::MovedFrom { from, to } => {
            return format!("сделка {}", moved(*from, *to, names, Lang::Russian));
        }
        Fact::Undo => "возврат сделки по команде",
        Fact::MovedBack { from, to } => {
            let stages = between(*from, *to, names, Lang::Russian);
            return format!("сделка возвращена {stages}");
        }
        Fact::UndoLeft(left) => return format!("не возвращена: {}", undo_left(*left)),
        Fact::DealCreated(deal) => return format!("создана сделка {deal}"),
        Fact::Noted => "примечание добавлено",
        Fact::DealFound(deal) => return format!("найдена сделка {deal} из прежней попытки"),
        Fact::NoteFound => "найдено примечание из прежней попытки",
        Fact::NoteWasThere => "примечание уже было добавлено",
        Fact::SendingStopped => "отправка остановлена",
        Fact::OneAtATime => "одно из действий под сомнением: строки обрабатываются по одной",
        Fact::PersonUnknown => "неизвестно, какому ученику принадлежит строка",
        Fact::PersonAtWork => "другая строка этого человека в работе",
        Fact::PersonUnfinished => "другая строка этого человека не закончена",
        Fact::ContactAtWork => "другая строка этого контакта в работе",
        Fact::ContactUnfinished => "другая строка этого контакта не закончена",
        Fact::IndexBehind => "указатель контактов не успевает за изменениями",
        Fact::TargetUnusable => "нужный этап недоступен",
        Fact::EmailChanged => "e-mail изменился во время обработки",
        Fact::PersonChanged => "e-mail или телефон изменились: сделка выбирается заново",
        Fact::DealGone => "выбранной сделки больше нет: сделка выбирается заново",
        Fact::CreateNeverHappened => "сделка в прежней попытке не создана и выбирается заново",
        Fact::MoveNeverHappened => "сделка в прежней попытке не перенесена и выбирается заново",
        Fact::LateDeal(deal) => {
            return format!("сделка {deal} из прежней попытки всё же создана");
        }
        Fact::MoveInDoubt => "перенесена ли сделка, пока неизвестно",
        Fact::CreateInDoubt => "создана ли сделка, пока неизвестно",
        Fact::NoteInDoubt => "дошло ли примечание, пока неизвестно",
        Fact::BrokenOff => "попытка прервана",
        Fact::Done(Outcome::Synced) => "готово: всё сделано",
        Fact::Done(Outcome::AlreadyLinked) => "готово: номер сделки уже был в строке",
        Fact::Done(Outcome::Skipped) => "готово: пропущена",
        Fact::Done(Outcome::TooOld) => "готово: слишком старая",
        Fact::Done(Outcome::Gone) => "готово: строка удалена",
        Fact::Done(Outcome::Undone) => "готово: сделка возвращена на исходный этап",
        Fact::Again(None) => "ещё раз",
        Fact::Again(Some(reason)) => return format!("ещё раз: {reason}"),
        Fact::Waiting(reason) => return format!("ожидает: {reason}"),
        Fact::Parked(reason) => return format!("отложена: {reason}"),
        Fact::Failed(told) | Fact::Earlier(told) => told,
    };
    words.to_owned()
}

pub(super) fn undo_left(left: UndoLeft) -> &'static str {
    match left {
        UndoLeft::Unknown => "строки нет в очереди, или её запись уже удалена",
        UndoLeft::NotFinished => "строка ещё не обработана",
        UndoLeft::NotSynced => "для этой строки сервис не переносил сделку",
        UndoLeft::NotMoved => "сделка уже стояла на нужном этапе или дальше",
        UndoLeft::Created => "сделку создал сервис, а удалить её через amoCRM нельзя",
        UndoLeft::OriginUnknown => {
            "сделку перенесла прежняя версия, которая не сохраняла исходный этап"
        }
        UndoLeft::AlreadyUndone => "сделка уже возвращена",
        UndoLeft::MovedSince => {
            "сделку с тех пор перенесли люди, или её использует более поздняя строка"
        }
        UndoLeft::DealGone => "сделка удалена",
        UndoLeft::StageGone => {
            "на исходный этап сделку вернуть нельзя: его нет или это «Неразобранное»"
        }
        UndoLeft::Refused => "в amoCRM возврат сделки отклонён",
        UndoLeft::Withdrawn => {
            "синхронизацией занята другая машина, поэтому запрос на возврат снят"
        }
    }
}

pub(super) fn why(why: Why) -> &'static str {
    match why {
        Why::Recorded => "сервис уже выбирал её для этого ученика",
        Why::Open => "открыта",
        Why::ClosedOnTarget => "недавно закрыта, на нужном этапе",
        Why::ClosedWon => "недавно выиграна",
        Why::ClosedLost => "недавно проиграна",
        Why::NoDeal => "подходящей сделки не было",
        Why::NoContact => "контакта не было",
    }
}
