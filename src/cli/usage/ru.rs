//! In Russian.

use clap::Arg;

/// Subcommands, and with an empty name the program itself.
const ABOUT: &[(&str, &str)] = &[
    (
        "",
        "Переносит сделку каждого нового ученика из Supabase на нужный этап в amoCRM: один раз и без потерь",
    ),
    ("serve", "Запустить сервис"),
    (
        "demo",
        "Показать всю работу на этой машине: ничего не нужно ни устанавливать, ни настраивать",
    ),
    (
        "sandbox",
        "Запустить только песочницы amoCRM и PostgREST, чтобы попробовать своё",
    ),
    (
        "init",
        "Задать вопросы, сразу проверить каждый ответ и записать `.env`",
    ),
    (
        "check",
        "Проверить настройки, amoCRM и Supabase и пропустить проверочное событие по всему пути: по строке на каждую проверку, с советом",
    ),
    ("pipelines", "Показать воронки и этапы с их номерами"),
    (
        "backfill",
        "Обработать строки, созданные до `SYNC_SINCE`: сначала спрашивает, потом работает, пока не закончит",
    ),
    (
        "undo",
        "Вернуть перенесённые сервисом сделки на этап, с которого они пришли",
    ),
    ("entries", "Показать очередь"),
    ("explain", "Рассказать всю историю одного ученика"),
    ("retry", "Повторить сейчас: эти строки или все отложенные"),
    ("park", "Отложить строки до команды `retry`"),
    (
        "forget",
        "Удалить ученика из очереди и сказать, что остаётся в других местах",
    ),
    (
        "backup",
        "Скопировать очередь в новый файл, не останавливая сервис",
    ),
    (
        "pause",
        "Приостановить отправку в amoCRM на всех машинах; вебхуки по-прежнему принимаются",
    ),
    (
        "resume",
        "Продолжить отправку на всех машинах; снимает и остановку",
    ),
    ("secret", "Создать новый секрет вебхука"),
    (
        "setup-sql",
        "Вывести SQL, который готовит базу: его выполняют в SQL-редакторе панели",
    ),
    (
        "jwt",
        "Создать на этой машине токен для роли `tripwire_sync`",
    ),
];

const AS_JSON: &str = "Вывести JSON";

/// Arguments: the subcommand, the id, the text.
const HELP: &[(&str, &str, &str)] = &[
    (
        "demo",
        "rows",
        "Обработать сразу столько разных строк и показать ход",
    ),
    ("demo", "keep", "Оставить всё работать и вывести адреса"),
    (
        "sandbox",
        "rows",
        "Сколько строк создать в начале, всех видов",
    ),
    (
        "sandbox",
        "webhook_url",
        "Отправлять на этот адрес подписанный вебхук о каждой строке (вместе с `--secret`)",
    ),
    ("sandbox", "secret", "Секрет `whsec_…` для подписи"),
    (
        "init",
        "answers",
        "Взять ответы из файла со строками `ИМЯ=значение`, где имена — это имена настроек; `-` означает стандартный ввод. Вопросов не будет; если хоть один ответ неверен, ничего не записывается",
    ),
    (
        "check",
        "no_event",
        "Не отправлять проверочное событие из базы",
    ),
    (
        "check",
        "probe",
        "Только чтением, не больше десяти запросов, узнать о настоящем аккаунте то, чего нет в документации amoCRM",
    ),
    ("check", "json", AS_JSON),
    ("pipelines", "json", AS_JSON),
    (
        "backfill",
        "since",
        "Только строки, созданные с этого момента: дата или время, в поясе `TIME_ZONE`, если не указано смещение",
    ),
    (
        "backfill",
        "until",
        "Только строки, созданные до этого момента: дата, включая весь этот день, или время",
    ),
    (
        "backfill",
        "limit",
        "Не больше стольких строк; отложенные и ожидающие контакт не считаются",
    ),
    (
        "backfill",
        "dry_run",
        "Сказать по каждой строке и в сумме, что было бы сделано, и ничего нигде не записать",
    ),
    ("backfill", "yes", "Не спрашивать"),
    ("backfill", "json", "Вывести итоги в JSON"),
    ("undo", "whom", "Номера строк или адреса e-mail"),
    (
        "undo",
        "backfill",
        "Все строки этой команды `backfill`, по номеру, который она вывела",
    ),
    (
        "undo",
        "since",
        "Все сделки, перенесённые с этого момента: дата или время, в поясе `TIME_ZONE`, если не указано смещение",
    ),
    (
        "undo",
        "until",
        "Только сделки, перенесённые до этого момента: дата, включая весь этот день, или время",
    ),
    (
        "undo",
        "dry_run",
        "Сказать по каждой строке, что было бы сделано, и ничего нигде не записать",
    ),
    ("undo", "yes", "Не спрашивать"),
    ("undo", "json", "Вывести строки в JSON"),
    ("entries", "state", "Только записи в этом состоянии"),
    (
        "entries",
        "limit",
        "Сколько записей показать, начиная с изменённых последними",
    ),
    ("entries", "json", AS_JSON),
    ("explain", "whom", "Номер строки или адрес e-mail"),
    ("explain", "json", AS_JSON),
    ("retry", "rows", "Номера строк"),
    ("retry", "parked", "Все отложенные"),
    ("park", "rows", "Номера строк"),
    ("forget", "whom", "Номер строки или адрес e-mail"),
    ("backup", "file", "Новый файл, которого ещё нет"),
    (
        "setup-sql",
        "url",
        "Адрес, по которому сервис принимает события: `https://…/webhooks/supabase`. Нужен окончательный адрес: перенаправление теряет событие; если пути нет, добавляется обычный",
    ),
    (
        "setup-sql",
        "secret",
        "Вывести вместо всего SQL только команду, которая помещает `WEBHOOK_SECRET` в Vault, а с `--url` и ту, что помещает туда адрес",
    ),
    (
        "jwt",
        "key_file",
        "Файл с JWT-секретом проекта старого образца или с закрытым ключом ES256 (JWK или PKCS#8 в PEM). Без него ключ читается из стандартного ввода или запрашивается. В самой команде ключ не передаётся: её видят другие, и она остаётся в истории",
    ),
    (
        "jwt",
        "expires_in",
        "Сколько действует токен. Чем короче срок, тем меньше стоит украденный токен; до его конца нужно создать новый, иначе отправка остановится. `check` предупредит за 30 дней",
    ),
    (
        "jwt",
        "kid",
        "Номер ключа в панели, если в самом ключе его нет (PEM)",
    ),
];

/// The names of values: the English one, the Russian one, and what a wrong value is answered with.
const VALUES: &[(&str, &str, &str)] = &[
    (
        "DATE",
        "ДАТА",
        "нужна дата (2026-01-31) или время (2026-01-31T18:00, 2026-01-31T18:00:00+05:00)",
    ),
    (
        "TIME",
        "СРОК",
        "нужен срок от минуты до десяти лет, например 365d или 12h",
    ),
    ("N", "ЧИСЛО", "нужно целое число в допустимых пределах"),
    ("LIMIT", "ЧИСЛО", "нужно целое число в допустимых пределах"),
    (
        "ROW OR E-MAIL",
        "СТРОКА ИЛИ E-MAIL",
        "нужен номер строки или адрес e-mail",
    ),
    ("ROWS", "СТРОКА", "нужен номер строки (UUID)"),
    ("FILE", "ФАЙЛ", "нужен файл"),
    ("PATH", "ФАЙЛ", "нужен файл"),
    ("URL", "АДРЕС", "нужен адрес"),
    ("WEBHOOK_URL", "АДРЕС", "нужен адрес"),
    ("SECRET", "СЕКРЕТ", "нужен секрет"),
    ("ID", "НОМЕР", "нужен номер ключа"),
    ("STATE", "СОСТОЯНИЕ", "нужно состояние"),
];

/// What clap says by itself, the longer first.
const OF_CLAP: &[(&str, &str)] = &[
    (
        "Print this message or the help of the given subcommand(s)",
        "Показать эту справку или справку о команде",
    ),
    (
        "Print help (see more with '--help')",
        "Показать справку (подробнее — --help)",
    ),
    (
        "Print help (see a summary with '-h')",
        "Показать справку (кратко — -h)",
    ),
    ("Print help", "Показать справку"),
    ("Print version", "Показать версию"),
    ("Usage:", "Использование:"),
    ("Commands:", "Команды:"),
    ("Arguments:", "Аргументы:"),
    ("Options:", "Параметры:"),
    ("[OPTIONS]", "[ПАРАМЕТРЫ]"),
    ("<COMMAND>", "<КОМАНДА>"),
    ("[COMMAND]", "[КОМАНДА]"),
    ("[default: ", "[по умолчанию: "),
    ("[possible values: ", "[возможные значения: "),
];

pub(super) fn about(command: &str) -> Option<&'static str> {
    let found = ABOUT.iter().find(|(name, _)| *name == command);
    found.map(|(_, about)| *about)
}

pub(super) fn help(command: &str, arg: &str) -> Option<&'static str> {
    let found = HELP.iter().find(|(of, id, _)| (*of, *id) == (command, arg));
    found.map(|(_, _, help)| *help)
}

/// The name of the argument's value.
pub(super) fn value(arg: &Arg) -> Option<&'static str> {
    let id = arg.get_id().as_str().to_uppercase();
    let english = match arg.get_value_names() {
        Some([name, ..]) => name.to_string(),
        // A number, unless it takes several.
        _ if id == "ROWS" && !arg.is_positional() => "N".to_owned(),
        _ => id,
    };
    let found = VALUES.iter().find(|(name, ..)| *name == english);
    found.map(|(_, russian, _)| *russian)
}

/// What a value must be, by the argument as clap shows it: `--since <ДАТА>`.
pub(super) fn wanted(shown: &str) -> &'static str {
    let inner = shown.split(['<', '[', '>', ']']).nth(1).unwrap_or_default();
    let found = VALUES.iter().find(|(_, name, _)| *name == inner);
    found.map_or("неверный вид значения", |(_, _, wanted)| *wanted)
}

pub(super) fn words_of_clap(text: &str) -> String {
    OF_CLAP
        .iter()
        .fold(text.to_owned(), |text, (english, russian)| {
            text.replace(english, russian)
        })
}
