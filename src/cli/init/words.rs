//! What `init` says, in both languages.

use super::plan::{
    ADMIN, BOT, CHAT, Choice, JWT, KEY, PIPELINE, SINCE, STAGE, SUBDOMAIN, TOKEN, URL, ZONE,
};
use crate::{config::Problem, words::Lang};

/// What a question is about, and where its answer is found.
pub(super) fn about(name: &str, lang: Lang) -> (&'static str, &'static str) {
    match name {
        SUBDOMAIN => lang.pick(
            (
                "amoCRM account",
                "The first word of the account's address: school of https://school.amocrm.ru. The whole address will do, also of another domain.",
            ),
            (
                "Аккаунт amoCRM",
                "Первое слово адреса аккаунта: school из https://school.amocrm.ru. Можно вставить адрес целиком, в том числе на другом домене.",
            ),
        ),
        TOKEN => lang.pick(
            (
                "amoCRM token",
                "amoMarket, three dots, Create integration, External; then the tab Keys and scopes, Generate a long-lived token. Only an administrator can do this.",
            ),
            (
                "Токен amoCRM",
                "amoМаркет, три точки, «Создать интеграцию», внешняя; затем вкладка «Ключи и доступы», «Сгенерировать токен» (долгосрочный). Это может только администратор.",
            ),
        ),
        PIPELINE => lang.pick(
            ("Pipeline", "Deals of other pipelines are not touched."),
            ("Воронка", "Сделки в других воронках остаются как есть."),
        ),
        STAGE => lang.pick(
            ("Stage \"bought\"", "The deal of each new student is moved to this stage."),
            ("Этап «купил»", "На этот этап переносится сделка каждого нового ученика."),
        ),
        URL => lang.pick(
            ("Supabase address", "The button Connect, or Project Settings, Data API: https://….supabase.co"),
            ("Адрес Supabase", "Кнопка Connect или Project Settings, Data API: https://….supabase.co"),
        ),
        KEY => lang.pick(
            (
                "Supabase key",
                "Project Settings, API Keys. Recommended: the publishable key (sb_publishable_…), with a token for the role tripwire_sync (the next question). \
                 Quicker, and with more power than is needed: a secret key (sb_secret_…) alone.",
            ),
            (
                "Ключ Supabase",
                "Project Settings, API Keys. Лучше публичный ключ (sb_publishable_…) вместе с токеном роли tripwire_sync (следующий вопрос). \
                 Быстрее, но прав больше, чем нужно: один секретный ключ (sb_secret_…).",
            ),
        ),
        JWT => lang.pick(
            (
                "Token of the role tripwire_sync",
                "With it the service may read what a deal needs and write two columns, and nothing else. `tripwire-sync jwt` makes it, after the SQL has been run. \
                 Enter leaves it out: it can be added later, and a secret key needs none.",
            ),
            (
                "Токен роли tripwire_sync",
                "С ним сервису можно прочесть нужное для сделки и записать две колонки, и больше ничего. Его создаёт `tripwire-sync jwt` после выполнения SQL. \
                 Enter — пропустить: токен можно добавить позже, а секретному ключу он не нужен.",
            ),
        ),
        SINCE => lang.pick(
            ("Sync rows created since", "The day of going live (UTC). Older rows are left alone, until `tripwire-sync backfill`."),
            ("Обрабатывать строки, созданные с", "День запуска (UTC). Более старые строки остаются как есть, пока не выполнена `tripwire-sync backfill`."),
        ),
        ZONE => lang.pick(
            ("Time zone", "Of the people who read the times: Asia/Almaty, Europe/Moscow. Log and JSON stay in UTC."),
            ("Часовой пояс", "По нему показывается время: Asia/Almaty, Europe/Moscow. В логе и JSON остаётся UTC."),
        ),
        BOT => lang.pick(
            ("Telegram bot", "For alerts: the token that @BotFather gives. Enter leaves alerts out."),
            ("Бот Telegram", "Для оповещений: токен, который выдаёт @BotFather. Enter — без оповещений."),
        ),
        CHAT => lang.pick(
            ("Telegram chat", "A number, or @name of a channel. Add the bot to the group, or write to it first."),
            ("Чат Telegram", "Число или @имя канала. Добавьте бота в группу или сначала напишите ему."),
        ),
        ADMIN => lang.pick(
            ("Operator page at /admin: y or n", "Shows where each student is. Two tokens are made: one with buttons (ADMIN_TOKEN), one that only looks (VIEWER_TOKEN)."),
            ("Страница оператора /admin: д или н", "Показывает, где каждый ученик. Создаются два токена: с кнопками (ADMIN_TOKEN) и только для просмотра (VIEWER_TOKEN)."),
        ),
        _ => ("", ""),
    }
}

pub(super) fn is_needed(lang: Lang) -> &'static str {
    lang.pick("is needed", "обязательная настройка")
}

pub(super) fn yes_or_no(lang: Lang) -> &'static str {
    lang.pick("is neither y nor n", "ответьте д или н")
}

/// A sentence about a setting. In English `why` continues its name, in Russian it follows a colon.
pub(super) fn about_setting(name: &str, why: &str, lang: Lang) -> String {
    let colon = lang.pick("", ":");
    format!("{name}{colon} {why}")
}

pub(super) fn wrong_form(problem: &Problem, lang: Lang) -> String {
    let wrong = problem.wrong.in_lang(lang);
    let Some(example) = &problem.example else {
        return wrong.to_owned();
    };
    let for_example = lang.pick("for example", "например");
    format!("{wrong}; {for_example}: {}", example.in_lang(lang))
}

pub(super) fn no_choice(choices: &[Choice], lang: Lang) -> String {
    let list: Vec<String> = choices
        .iter()
        .map(|choice| format!("{} «{}»", choice.id, choice.name))
        .collect();
    let list = list.join(", ");
    lang.pick(
        format!("is none of these: {list}"),
        format!("такого нет; есть: {list}"),
    )
}
