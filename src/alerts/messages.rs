//! The messages: plain text, since names and reasons hold characters that markup trips over.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use jiff::Timestamp;

use crate::{
    domain::{EventFailure, Halt, HaltCause, InboxFault, Refused, RowId, SyncState, TokenEnd},
    inbox::{DiskSpace, Doubled, Replaced, Stuck},
    words::{Lang, Reader},
};

/// With these a message stays below the 4,096 characters that Telegram takes.
const REASONS: usize = 6;
const ROWS_OF_A_REASON: usize = 5;
const REASON_LENGTH: usize = 160;
const DETAIL_LENGTH: usize = 600;

pub(super) fn halted(
    cause: HaltCause,
    since: Timestamp,
    halt: Option<&Halt>,
    again: bool,
    reader: &Reader,
) -> String {
    let still = if again { "всё ещё " } else { "" };
    let mut text = format!(
        "⛔ tripwire-sync: отправка {still}остановлена с {}\n\n{}.",
        reader.minute(since),
        cause.hint(Lang::Russian),
    );
    if let Some(halt) = halt {
        if !halt.detail.is_empty() {
            let detail: String = halt.detail.chars().take(DETAIL_LENGTH).collect();
            push(&mut text, format_args!("\n\nПодробности: {detail}"));
        }
        list_rows(&mut text, &halt.rows);
    }
    text + "\n\nНовые ученики принимаются и ждут, никто не потерян."
}

pub(super) fn inbox(fault: InboxFault, since: Timestamp, again: bool, reader: &Reader) -> String {
    let still = if again { "всё ещё " } else { "" };
    let what = match fault {
        InboxFault::Unwritable | InboxFault::FileLost => "приём и отправка",
        InboxFault::Full => "приём новых записей",
    };
    let stopped = match fault {
        InboxFault::Unwritable | InboxFault::FileLost => "остановлены",
        InboxFault::Full => "остановлен",
    };
    let end = match fault {
        InboxFault::Unwritable | InboxFault::FileLost => "файл снова будет записываться",
        InboxFault::Full => "в файле появится место",
    };
    format!(
        "⛔ tripwire-sync: {what} {still}{stopped} с {}\n\n{}.\n\n\
         События сейчас не принимаются. Их строки найдёт сверка, когда {end}.",
        reader.minute(since),
        fault.hint(Lang::Russian),
    )
}

pub(super) fn writable(since: Timestamp, reader: &Reader) -> String {
    format!(
        "✅ tripwire-sync: файл очереди снова записывается, события принимаются\n\nПерерыв был с {}.",
        reader.minute(since)
    )
}

pub(super) fn in_doubt(refused: &[&Refused]) -> String {
    let mut text = "❓ tripwire-sync: отказ, и пока неясно, одной записи или всем\n".to_owned();
    for it in refused.iter().take(REASONS) {
        let operation = it.operation.in_russian();
        let reason: String = it.reason.chars().take(REASON_LENGTH).collect();
        push(
            &mut text,
            format_args!("\n• {operation}: {reason}\n  {}", it.row),
        );
    }
    text + "\n\nПока это неясно, записи отправляются по одной. Если то же удастся для другой записи, эта будет отложена; \
            если отказ получат три разные, отправка остановится.\n\
            Отложить запись сразу: tripwire-sync park <строка>"
}

fn list_rows(text: &mut String, rows: &[RowId]) {
    if rows.is_empty() {
        return;
    }
    text.push_str("\nСтроки:");
    for row in rows.iter().take(ROWS_OF_A_REASON) {
        push(text, format_args!("\n  {row}"));
    }
    if let more @ 1.. = rows.len().saturating_sub(ROWS_OF_A_REASON) {
        push(text, format_args!("\n  и ещё {more}"));
    }
}

pub(super) fn recovered(
    cause: HaltCause,
    since: Timestamp,
    state: SyncState,
    reader: &Reader,
) -> String {
    let now = match state.hint(Lang::Russian) {
        None => "отправка снова работает".to_owned(),
        Some(hint) => format!("причина остановки устранена. {hint}"),
    };
    format!(
        "✅ tripwire-sync: {now}\n\nОстановка была с {} ({}).",
        reader.minute(since),
        cause.into_str()
    )
}

pub(super) fn parked(entries: &[&Stuck]) -> String {
    format!(
        "⚠️ tripwire-sync: нужно ваше решение, отложено записей: {}\n{}\n\n\
         Что было с записью: tripwire-sync explain <строка>\n\
         Когда исправлено: tripwire-sync retry --parked",
        entries.len(),
        by_reason(entries)
    )
}

pub(super) fn late(entries: &[Stuck], after: Duration, reader: &Reader) -> String {
    let oldest = entries.first().map_or(String::new(), |oldest| {
        format!(", самая старая с {}", reader.minute(oldest.since))
    });
    format!(
        "🕒 tripwire-sync: записи ждут обработки дольше {} мин: {}{oldest}\n{}\n\n\
         Попытки продолжаются. Проверить настройки, amoCRM и Supabase: tripwire-sync check",
        minutes(after),
        entries.len(),
        by_reason(&entries.iter().collect::<Vec<_>>())
    )
}

pub(super) fn moving() -> String {
    "✅ tripwire-sync: записей, которые долго ждут обработки, больше нет".to_owned()
}

pub(super) fn unresolved(rows: &[RowId], after: Duration) -> String {
    let mut text = format!(
        "❓ tripwire-sync: больше {} мин неизвестно, создана ли сделка или добавлено ли примечание, записей: {}\n",
        minutes(after),
        rows.len()
    );
    list_rows(&mut text, rows);
    text + "\n\nОтвет amoCRM потерян, и проверить результат пока не удаётся. До проверки запрос не повторяется, \
            дублей не будет. Что мешает: tripwire-sync explain <строка>"
}

pub(super) fn doubled(rows: &[Doubled]) -> String {
    let mut text = format!(
        "⚠️ tripwire-sync: возможно, две сделки у одного ученика, записей: {}\n",
        rows.len()
    );
    for Doubled {
        row, deal, late, ..
    } in rows.iter().take(REASONS)
    {
        let late: Vec<String> = late
            .iter()
            .take(ROWS_OF_A_REASON)
            .map(ToString::to_string)
            .collect();
        let late = late.join(", ");
        push(
            &mut text,
            format_args!("\n• {row}\n  сделка строки {deal}, лишняя {late}"),
        );
    }
    if let more @ 1.. = rows.len().saturating_sub(REASONS) {
        push(&mut text, format_args!("\n• и ещё {more}"));
    }
    text + "\n\namoCRM выполнила запрос, который считался потерянным. Откройте обе сделки и удалите лишнюю. \
            История: tripwire-sync explain <строка>"
}

pub(super) fn resolved() -> String {
    "✅ tripwire-sync: результат всех потерянных запросов к amoCRM выяснен".to_owned()
}

pub(super) fn disk(disk: DiskSpace) -> String {
    format!(
        "💾 tripwire-sync: на диске мало места\n\n\
         Свободно {} МБ, файл очереди занимает {} МБ. Когда место кончится, приём и отправка остановятся. \
         Освободите место или увеличьте диск.",
        megabytes(disk.free),
        megabytes(disk.size),
    )
}

pub(super) fn silent(failure: EventFailure, reader: &Reader) -> String {
    format!(
        "🔕 tripwire-sync: события из базы не доходят до сервиса, проверено с {}\n\n{}.\n\n\
         Новых учеников пока находит только сверка. Где обрыв и что сделать: tripwire-sync check",
        reader.minute(failure.since),
        failure.fault.hint(),
    )
}

pub(super) fn arriving() -> String {
    "✅ tripwire-sync: события из базы снова доходят до сервиса".to_owned()
}

pub(super) fn disk_freed(disk: DiskSpace) -> String {
    format!(
        "✅ tripwire-sync: места на диске снова достаточно, свободно {} МБ",
        megabytes(disk.free)
    )
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}

fn minutes(time: Duration) -> u64 {
    time.as_secs().div_ceil(60)
}

pub(super) fn expiring(end: TokenEnd, now: Timestamp, reader: &Reader) -> String {
    let how = match end.name {
        "SUPABASE_JWT" => "tripwire-sync jwt (docs/supabase.md, шаг 4)",
        "AMOCRM_ACCESS_TOKEN" => "amoCRM, настройки интеграции, долгосрочный токен",
        _ => "панель Supabase, Project Settings, API Keys",
    };
    let days = end.left(now).as_secs() / (24 * 3600);
    format!(
        "⏳ tripwire-sync: {} действует до {}, осталось дней: {days}\n\n\
         Создать новый: {how}. Затем заменить его в .env и перезапустить сервис. \
         Без этого отправка остановится; ученики будут приниматься и ждать.",
        end.name,
        reader.minute(end.expires_at),
    )
}

pub(super) fn replaced(replaced: &Replaced, reader: &Reader) -> String {
    let Replaced {
        at,
        is_whole,
        parked,
        others,
        kept_as,
    } = replaced;
    let state = if *is_whole {
        "Остановка и пауза, если они были, перенесены. Отправка начнётся не раньше чем через минуту после замены."
    } else {
        "Прочитать удалось не всё, поэтому отправка приостановлена. Если её остановил отказ amoCRM (403), сначала выясните \
         причину в поддержке amoCRM. Продолжить: tripwire-sync resume. Отложенные записи, которые не перенеслись, сверка \
         найдёт и обработает заново."
    };
    format!(
        "🛠 tripwire-sync: файл очереди повреждён и заменён новым {}\n\n{state}\n\n\
         Перенесено записей: отложенных {parked}, остальных незавершённых {others}. \
         Старый файл сохранён рядом: {kept_as}\n\n\
         Новые ученики принимаются. Проверьте диск.",
        reader.minute(*at)
    )
}

pub(super) fn held_back(room_at: Timestamp, reader: &Reader) -> String {
    format!(
        "\n\nСообщений за сутки было много. Следующее такое придёт не раньше {}, сразу обо всём.",
        reader.minute(room_at)
    )
}

/// The most frequent reason first, each with some of its rows.
fn by_reason(entries: &[&Stuck]) -> String {
    let mut groups: HashMap<String, Vec<&Stuck>> = HashMap::new();
    for entry in entries {
        groups.entry(reason(entry)).or_default().push(entry);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(a, of_a), (b, of_b)| of_b.len().cmp(&of_a.len()).then_with(|| a.cmp(b)));

    let mut text = String::new();
    for (reason, entries) in groups.iter().take(REASONS) {
        push(&mut text, format_args!("\n• {reason}: {}", entries.len()));
        for entry in entries.iter().take(ROWS_OF_A_REASON) {
            push(&mut text, format_args!("\n  {}", entry.row));
        }
        if entries.len() > ROWS_OF_A_REASON {
            let more = entries.len() - ROWS_OF_A_REASON;
            push(&mut text, format_args!("\n  и ещё {more}"));
        }
    }
    let others: usize = groups.iter().skip(REASONS).map(|(_, of)| of.len()).sum();
    if others > 0 {
        push(&mut text, format_args!("\n• другие причины: {others}"));
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(line);
}

/// The reason without ids, so that equal reasons are grouped. Status codes stay.
fn reason(entry: &Stuck) -> String {
    let reason = entry.reason.as_deref().unwrap_or("причина не указана");
    let mut told = String::new();
    let mut digits = String::new();
    for c in reason.chars().take(REASON_LENGTH).chain(['\0']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if digits.len() > 3 {
            told.push('…');
        } else {
            told.push_str(&digits);
        }
        digits.clear();
        if !c.is_control() {
            told.push(c);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Lang;

    fn stuck(n: u128, reason: &str) -> Stuck {
        Stuck {
            row: RowId::new(uuid::Uuid::from_u128(n)),
            reason: Some(reason.to_owned()),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn told(entries: &[Stuck]) -> String {
        by_reason(&entries.iter().collect::<Vec<_>>())
    }

    #[test]
    fn reasons_that_differ_in_ids_alone_are_one() {
        let entries = [
            stuck(1, "в строке сделка 12345, а сервис обработал сделку 67890"),
            stuck(2, "сбой amoCRM (502)"),
            stuck(
                3,
                "в строке сделка 777777, а сервис обработал сделку 888888",
            ),
        ];
        assert_eq!(
            told(&entries),
            "\n• в строке сделка …, а сервис обработал сделку …: 2\
             \n  00000000-0000-0000-0000-000000000001\
             \n  00000000-0000-0000-0000-000000000003\
             \n• сбой amoCRM (502): 1\
             \n  00000000-0000-0000-0000-000000000002"
        );
    }

    #[test]
    fn what_is_too_much_to_list_is_counted() {
        let same: Vec<_> = (0..7).map(|n| stuck(n, "нет e-mail")).collect();
        assert!(
            told(&same).ends_with("000000000004\n  и ещё 2"),
            "{}",
            told(&same)
        );
        let words = ["а", "б", "в", "г", "д", "е", "ж", "з"];
        let all_different: Vec<_> = words
            .iter()
            .zip(0..)
            .map(|(word, n)| stuck(n, word))
            .collect();
        assert!(
            told(&all_different).ends_with("\n• другие причины: 2"),
            "{}",
            told(&all_different)
        );
    }

    #[test]
    fn the_longest_message_is_one_that_telegram_takes() {
        let entries: Vec<_> = (0..5_000)
            .map(|n| {
                stuck(
                    n,
                    &char::from(b'a' + u8::try_from(n % 26).unwrap())
                        .to_string()
                        .repeat(1_000),
                )
            })
            .collect();
        let text = parked(&entries.iter().collect::<Vec<_>>())
            + &held_back(Timestamp::UNIX_EPOCH, &Reader::in_utc(Lang::Russian));
        assert!(text.chars().count() < 4_096, "{}", text.chars().count());
    }
}
