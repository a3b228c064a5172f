//! What the neighbours say to the answers: three requests at most to each.

use std::path::PathBuf;

use amocrm::{AmoCrm, AmoError, Disposition, Refusal};
use secrecy::ExposeSecret;

use super::{
    ask::Ask,
    plan::{self, Neighbour, Seen, Values},
};
use crate::{
    alerts::{Telegram, TelegramError},
    app::supabase_settings,
    cli::{
        CommandError,
        check::{
            findings::{Findings, Mark},
            keys::{self, Key},
        },
        clock, failure, room,
        terminal::Terminal,
    },
    config::{Config, SupabaseConfig},
    domain::{Chain, NoteTemplate, TokenClaims},
    supabase::{Columns, Supabase, SupabaseError},
    sync::rules::timings::Timings,
    words::{Lang, Reader},
};

/// Asks the neighbours. amoCRM hears one request a second, however often its answers are given again.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) reader: Reader,
    pub(super) inbox_path: Option<PathBuf>,
    pub(super) has_asked_amocrm: bool,
}

impl Looks {
    pub(super) async fn look(
        &mut self,
        neighbour: Neighbour,
        values: &Values,
        ask: &mut impl Ask,
    ) -> Result<Seen, CommandError> {
        // A misspelt name in the file is told at the end, and is no reason not to ask.
        let mut values = values.clone();
        values.retain(|name, _| plan::is_setting(name));
        match neighbour {
            Neighbour::Amocrm => self.amocrm(&values, ask).await,
            Neighbour::Supabase => supabase(&values, &self.reader, ask).await,
            Neighbour::Telegram => telegram(&values, self.reader.lang, ask).await,
        }
    }

    async fn amocrm(&mut self, values: &Values, ask: &mut impl Ask) -> Result<Seen, CommandError> {
        let lang = self.reader.lang;
        // A note of its own: who waits for a room is told so.
        let mut terminal = Terminal::new(self.reader.clone());
        let mut client = room::client(Config::amocrm_from_vars(values)?);
        client.assume_full_window = std::mem::replace(&mut self.has_asked_amocrm, true);
        let path = self.inbox_path.as_deref();
        let seen = room::ask(path, client, &mut terminal, account_and_pipelines);
        let seen = seen.await?;
        match seen {
            Ok((account, pipelines)) => {
                let text = lang.pick("✓ amoCRM: account", "✓ amoCRM: аккаунт");
                ask.tell(&format!(
                    "{text} «{}» ({})",
                    account.name, account.subdomain
                ));
                Ok(Seen::Good { pipelines })
            }
            Err(AmoError::Refused(Refusal::Forbidden)) => {
                terminal.complain(lang.pick(
                    "amoCRM forbids access (403): the address of this machine is not on the account's list, or the account is blocked. \
                     Nothing was written; do not try again before that is mended.",
                    "amoCRM запретила доступ (403): адреса этой машины нет в списке разрешённых или аккаунт заблокирован. \
                     Файл не записан; не повторяйте, пока причина не устранена.",
                ));
                Err(CommandError::Told)
            }
            Err(error) => Ok(wrong_amocrm(&error, lang)),
        }
    }
}

async fn account_and_pipelines(
    amocrm: &AmoCrm,
) -> Result<(amocrm::Account, Vec<amocrm::Pipeline>), AmoError> {
    let account = amocrm.account().await?;
    let pipelines = amocrm.pipelines().await?;
    Ok((account, pipelines.items))
}

/// Which answers an error of amoCRM is about.
fn wrong_amocrm(error: &AmoError, lang: Lang) -> Seen {
    let is_token = matches!(
        error.disposition(),
        Disposition::Halt(Refusal::Unauthorized)
    );
    let names = if is_token {
        vec![plan::TOKEN]
    } else {
        vec![plan::SUBDOMAIN, plan::TOKEN]
    };
    Seen::Wrong {
        names,
        why: refused(error, lang),
    }
}

/// In Russian without the cause below, which only libraries tell.
fn refused(error: &(dyn std::error::Error + 'static), lang: Lang) -> String {
    lang.pick(
        format!("does not work: {}", Chain(error)),
        format!("не подходит: {}", failure::in_russian(error)),
    )
}

async fn supabase(
    values: &Values,
    reader: &Reader,
    ask: &mut impl Ask,
) -> Result<Seen, CommandError> {
    let lang = reader.lang;
    let project = Config::supabase_from_vars(values)?;
    let key = Key::of(project.key.expose_secret());
    let is_without_token = key == Key::Publishable && project.jwt.is_none();
    if !is_without_token {
        let mut findings = Findings::new(reader.clone());
        let token = project.jwt.as_ref();
        let token = token.map(|jwt| TokenClaims::read(jwt.expose_secret()).unwrap_or_default());
        keys::judge(
            &key,
            token.as_ref(),
            &project.url,
            clock().now(),
            &mut findings,
        );
        for line in &findings.lines {
            ask.tell(&line.text);
        }
        if let Some(line) = findings.lines.iter().find(|line| line.mark == Mark::Bad) {
            return Ok(Seen::Wrong {
                names: vec![plan::KEY, plan::JWT],
                why: lang.pick(format!("— {}", line.text), line.text.clone()),
            });
        }
    }
    let seen = probe(&project).await;
    Ok(match judge(seen.as_ref(), project.jwt.is_some(), lang) {
        Ok(told) => {
            ask.tell(&told);
            Seen::Good {
                pipelines: Vec::new(),
            }
        }
        Err(wrong) => wrong,
    })
}

async fn probe(project: &SupabaseConfig) -> Result<Columns, SupabaseError> {
    let columns = NoteTemplate::default().columns();
    let settings = supabase_settings(project, columns, &Timings::default());
    let supabase = Supabase::new(settings, clock()).map_err(|source| SupabaseError::NotSent {
        untrusted: false,
        source,
    })?;
    supabase.probe().await
}

/// What an answer of Supabase means before and after its SQL has been run.
fn judge(
    seen: Result<&Columns, &SupabaseError>,
    has_token: bool,
    lang: Lang,
) -> Result<String, Seen> {
    let error = match seen {
        Ok(columns) if columns.missing.is_empty() => {
            let text = lang.pick(
                "✓ Supabase: table tripwire_users, columns:",
                "✓ Supabase: таблица tripwire_users, колонки:",
            );
            return Ok(format!("{text} {}", columns.present.join(", ")));
        }
        Ok(columns) => {
            let text = lang.pick(
                "✓ Supabase: table tripwire_users; columns missing or not readable (the SQL of setup-sql adds those of amoCRM):",
                "✓ Supabase: таблица tripwire_users; нет колонок или прав на них (колонки amoCRM добавит SQL из setup-sql):",
            );
            return Ok(format!("{text} {}", columns.missing.join(", ")));
        }
        Err(error) => error,
    };
    let names = match (error, error.code()) {
        // The key is good, the role may not read (yet).
        (SupabaseError::Refused { .. }, Some("42501")) => {
            return Ok(lang
                .pick(
                    "✓ Supabase answers. This key may not read the table yet: run the SQL of setup-sql, and set SUPABASE_JWT.",
                    "✓ Supabase отвечает. Прочесть таблицу этот ключ пока не может: выполните SQL из setup-sql и задайте SUPABASE_JWT.",
                )
                .to_owned());
        }
        (_, Some("22023")) if has_token => {
            return Ok(lang
                .pick(
                    "✓ Supabase answers. The role of the token is not there yet: the SQL of setup-sql makes it.",
                    "✓ Supabase отвечает. Роли из токена пока нет: её создаст SQL из setup-sql.",
                )
                .to_owned());
        }
        (SupabaseError::Refused { .. }, Some(code)) if has_token && code.starts_with("PGRST30") => {
            vec![plan::JWT]
        }
        (SupabaseError::Refused { .. }, _) => vec![plan::KEY, plan::JWT],
        _ => vec![plan::URL],
    };
    Err(Seen::Wrong {
        names,
        why: refused(error, lang),
    })
}

async fn telegram(values: &Values, lang: Lang, ask: &mut impl Ask) -> Result<Seen, CommandError> {
    let good = Seen::Good {
        pipelines: Vec::new(),
    };
    let Some(bot) = Config::telegram_from_vars(values)? else {
        return Ok(good);
    };
    let error = match Telegram::new(&bot)?.look().await {
        Ok(bot) => {
            let text = lang.pick(
                "✓ Telegram: this bot knows the chat:",
                "✓ Telegram: бот знает чат:",
            );
            ask.tell(&format!("{text} @{bot}"));
            return Ok(good);
        }
        Err(error) => error,
    };
    let names = match error {
        TelegramError::Token { .. } => vec![plan::BOT],
        TelegramError::Chat { .. } | TelegramError::Moved { .. } => vec![plan::CHAT],
        TelegramError::NotSent(_)
        | TelegramError::NoAnswer(_)
        | TelegramError::Throttled { .. }
        | TelegramError::Unexpected { .. } => vec![plan::BOT, plan::CHAT],
    };
    let mut why = refused(&error, lang);
    if let TelegramError::Chat { .. } = error {
        why += lang.pick(
            ": add the bot to the group, or write to it first",
            ": добавьте бота в группу или напишите ему первым",
        );
    }
    Ok(Seen::Wrong { names, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(seen: Result<String, Seen>) -> Vec<&'static str> {
        match seen {
            Err(Seen::Wrong { names, .. }) => names,
            Err(Seen::Good { .. }) | Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn a_refusal_of_supabase_is_about_the_answer_that_caused_it() {
        let refused = |status, code: &str| SupabaseError::Refused {
            status,
            code: code.to_owned(),
        };
        let schema = SupabaseError::Schema {
            status: 404,
            code: "PGRST205".to_owned(),
        };
        let no_role = SupabaseError::Unexpected {
            status: 400,
            code: "22023".to_owned(),
        };
        let (jwt, both) = (vec![plan::JWT], vec![plan::KEY, plan::JWT]);
        for (error, has_token, expected) in [
            (refused(401, ""), false, both.clone()),
            (refused(401, ""), true, both.clone()),
            (refused(401, "PGRST301"), true, jwt.clone()),
            (refused(401, "PGRST303"), true, jwt),
            (refused(401, "PGRST301"), false, both),
            (refused(401, "42501"), false, vec![]),
            (refused(403, "42501"), true, vec![]),
            (no_role, true, vec![]),
            (schema, false, vec![plan::URL]),
            (
                SupabaseError::Malformed { what: "not JSON" },
                false,
                vec![plan::URL],
            ),
        ] {
            let told = judge(Err(&error), has_token, Lang::English);
            assert_eq!(names(told), expected, "{error}");
        }
        for missing in [vec![], vec!["amocrm_deal_id"]] {
            let columns = Columns {
                present: vec!["id"],
                missing,
            };
            assert!(judge(Ok(&columns), false, Lang::English).is_ok());
        }
    }

    #[test]
    fn a_refusal_of_amocrm_is_about_the_token_unless_the_account_is_not_there() {
        let both = vec![plan::SUBDOMAIN, plan::TOKEN];
        for (error, expected) in [
            (Refusal::Unauthorized.into(), vec![plan::TOKEN]),
            (
                AmoError::Moved {
                    status: 301,
                    host: None,
                },
                both.clone(),
            ),
            (AmoError::Server { status: 502 }, both),
        ] {
            assert_eq!(names(Err(wrong_amocrm(&error, Lang::English))), expected);
        }
    }
}
