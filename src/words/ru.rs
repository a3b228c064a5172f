//! In Russian.

use crate::inbox::{Fact, Outcome, Why};

pub(super) fn fact(fact: &Fact) -> String {
    let words = match fact {
        Fact::Delivery(delivery) => return format!("вебхук {delivery}"),
        Fact::Sweep => "замечена сверкой",
        Fact::Backfill => "взята командой backfill",
        Fact::CarriedOver => "перенесена из повреждённого файла очереди",
        Fact::Retry => "повтор по команде",
        Fact::ParkedByHand => "отложена вручную",
        Fact::WorksForAnother => "у другой строки то же удалось",
        Fact::ContactSeen => "контакт появился",
        Fact::ContactByPhone => "контакт найден по телефону",
        Fact::ContactByBeginning => "контакт найден по началу e-mail",
        Fact::DealChosen(deal, rule) => return format!("выбрана сделка {deal}: {}", why(*rule)),
        Fact::Moved => "сделка перенесена",
        Fact::MovedFrom { from, to } => {
            return format!("сделка перенесена с этапа {from} на этап {to}");
        }
        Fact::DealCreated(deal) => return format!("создана сделка {deal}"),
        Fact::Noted => "примечание добавлено",
        Fact::DealFound(deal) => return format!("нашлась сделка {deal} прежней попытки"),
        Fact::NoteFound => "нашлось примечание прежней попытки",
        Fact::NoteWasThere => "наше примечание уже было",
        Fact::SendingStopped => "отправка остановлена",
        Fact::OneAtATime => "одно из действий под сомнением: строки идут по одной",
        Fact::PersonUnknown => "неизвестно, чья это строка",
        Fact::PersonAtWork => "другая строка этого человека в работе",
        Fact::PersonUnfinished => "другая строка этого человека не закончена",
        Fact::ContactAtWork => "другая строка этого контакта в работе",
        Fact::ContactUnfinished => "другая строка этого контакта не закончена",
        Fact::IndexBehind => "указатель контактов отстал",
        Fact::TargetUnusable => "нужный этап недоступен",
        Fact::EmailChanged => "e-mail изменился по ходу дела",
        Fact::PersonChanged => "e-mail или телефон изменились, выбираем заново",
        Fact::DealGone => "выбранной сделки больше нет, выбираем заново",
        Fact::CreateNeverHappened => "прежнее создание не состоялось, выбираем заново",
        Fact::LateDeal(deal) => {
            return format!("прежнее создание всё же состоялось: сделка {deal}");
        }
        Fact::CreateInDoubt => "создана ли сделка, пока неизвестно",
        Fact::NoteInDoubt => "дошло ли примечание, пока неизвестно",
        Fact::BrokenOff => "попытка прервана",
        Fact::Done(Outcome::Synced) => "готово: всё сделано",
        Fact::Done(Outcome::AlreadyLinked) => "готово: номер сделки уже был в строке",
        Fact::Done(Outcome::Skipped) => "готово: пропущена",
        Fact::Done(Outcome::TooOld) => "готово: слишком старая",
        Fact::Done(Outcome::Gone) => "готово: строка удалена",
        Fact::Again(None) => "ещё раз",
        Fact::Again(Some(reason)) => return format!("ещё раз: {reason}"),
        Fact::Waiting(reason) => return format!("ждёт: {reason}"),
        Fact::Parked(reason) => return format!("отложена: {reason}"),
        Fact::Failed(told) | Fact::Earlier(told) => told,
    };
    words.to_owned()
}

pub(super) fn why(why: Why) -> &'static str {
    match why {
        Why::Recorded => "её сервис уже вёл для этого человека",
        Why::Open => "открыта",
        Why::ClosedOnTarget => "недавно закрыта, на нужном этапе",
        Why::ClosedWon => "недавно выиграна",
        Why::ClosedLost => "недавно проиграна",
        Why::NoDeal => "подходящей сделки не было",
        Why::NoContact => "контакта не было",
    }
}
