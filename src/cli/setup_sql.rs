//! `setup-sql`: prints SQL for the dashboard's SQL editor: the migration and the address, or the secret.

use std::io::{self, IsTerminal};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use self::endpoint::{Endpoint, Remark};
use super::{CommandError, Outcome, new_secret, terminal::Terminal};
use crate::{config::Config, domain::WebhookSecret};

mod endpoint;

/// The newest migration that is whole, and those after it. A test compares this with the folder.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "20261128000000_tripwire_sync.sql",
        include_str!("../../supabase/migrations/20261128000000_tripwire_sync.sql"),
    ),
    (
        "20261129000000_tripwire_sync_by_time.sql",
        include_str!("../../supabase/migrations/20261129000000_tripwire_sync_by_time.sql"),
    ),
    (
        "20261130000000_tripwire_sync_pause.sql",
        include_str!("../../supabase/migrations/20261130000000_tripwire_sync_pause.sql"),
    ),
];

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where the running service takes events, `https://…/webhooks/supabase`. The final address, for a redirect
    /// loses the event; without a path the usual one is added
    #[arg(long, required_unless_present = "secret")]
    url: Option<String>,
    /// Print, instead of the whole, the statement that puts `WEBHOOK_SECRET` into Vault, and with `--url` the one that
    /// puts the address there
    #[arg(long)]
    secret: bool,
}

pub(super) fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    let endpoint = match options.url.as_deref().map(Endpoint::parse).transpose() {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let told = terminal.pick(error.to_string(), error.in_russian());
            terminal.complain(&format!("--url: {told}"));
            return Err(CommandError::Misused);
        }
    };
    let mut lines = Vec::new();
    if let Some(endpoint) = &endpoint
        && let Some(remark) = endpoint.remark()
    {
        lines.push(about_address(endpoint, remark, terminal));
    }
    if options.secret {
        let known = Config::load_webhook_secrets()?;
        let secrets = Secrets::of(&known);
        terminal.say(&secret_sql(&secrets.text, endpoint.as_ref()))?;
        // A secret must not end in a log by surprise.
        let is_read_by_a_person = io::stderr().is_terminal();
        lines.extend(about_secrets(&secrets, is_read_by_a_person, terminal));
    } else if let Some(endpoint) = &endpoint {
        terminal.say(&sql(endpoint))?;
    }
    for line in lines {
        terminal.complain(&line);
    }
    Ok(())
}

/// What the database is going to sign with.
struct Secrets {
    /// The text for Vault: all secrets of `WEBHOOK_SECRET`, since a service may know any of them during a replacement.
    text: SecretString,
    count: usize,
    is_new: bool,
}

impl Secrets {
    fn of(known: &[WebhookSecret]) -> Self {
        if known.is_empty() {
            return Self {
                text: new_secret().into(),
                count: 1,
                is_new: true,
            };
        }
        let texts: Vec<SecretString> = known.iter().map(WebhookSecret::to_text).collect();
        let texts: Vec<&str> = texts.iter().map(ExposeSecret::expose_secret).collect();
        Self {
            text: texts.join(" ").into(),
            count: known.len(),
            is_new: false,
        }
    }
}

/// One of Vault's entries that are the service's.
struct VaultEntry {
    name: &'static str,
    description: &'static str,
    /// The column of the statement's answer.
    answer: &'static str,
}

const SECRET: VaultEntry = VaultEntry {
    name: "tripwire_webhook_secret",
    description: "tripwire-sync: signs the events; the service has it as WEBHOOK_SECRET",
    answer: "secret_in_vault",
};
const ADDRESS: VaultEntry = VaultEntry {
    name: "tripwire_webhook_url",
    description: "tripwire-sync: where the events go",
    answer: "address_in_vault",
};

/// All but the secret.
fn sql(endpoint: &Endpoint) -> String {
    let migrations: Vec<&str> = MIGRATIONS.iter().map(|(_, sql)| sql.trim_end()).collect();
    format!(
        "-- tripwire-sync {version}: paste all of it into the SQL editor of the dashboard and run it. It may be run again.\n\
         -- There is no secret in it.\n\
         \n\
         {migrations}\n\
         \n\
         do $tripwire_sync_setup$\n\
         begin\n  \
           if pg_catalog.to_regclass('vault.decrypted_secrets') is null then\n    \
             raise exception 'Supabase Vault is not switched on: switch on Database, Extensions, supabase_vault, and run this SQL again; nothing was changed';\n  \
           end if;\n\
         end\n\
         $tripwire_sync_setup$;\n\
         \n\
         -- The address.\n\
         {address}\n\
         \n\
         select case\n         \
           when exists (select from vault.secrets where name = 'tripwire_webhook_secret')\n         \
           then 'tripwire-sync is set up; what is left to do is told by: tripwire-sync check'\n         \
           else 'all but the secret is set up; print the SQL for it with: tripwire-sync setup-sql --secret'\n       \
         end as result;",
        version = env!("CARGO_PKG_VERSION"),
        migrations = migrations.join("\n\n"),
        address = put(&ADDRESS, endpoint.as_str()),
    )
}

fn secret_sql(secrets: &SecretString, endpoint: Option<&Endpoint>) -> String {
    let mut sql = format!(
        "-- tripwire-sync {version}: run this by itself in the SQL editor of the dashboard, after the SQL of setup-sql.\n\
         -- The secret that signs the events is in it: delete the query afterwards (the editor saves it), and any file of it.\n\
         \n\
         {secret}",
        version = env!("CARGO_PKG_VERSION"),
        secret = put(&SECRET, secrets.expose_secret()),
    );
    if let Some(endpoint) = endpoint {
        sql.push_str("\n\n");
        sql.push_str(&put(&ADDRESS, endpoint.as_str()));
    }
    sql
}

/// The statement that makes or replaces a Vault entry. It is a plain SELECT, of which `pg_stat_statements` keeps no
/// constants; of a block it would keep them. It calls Vault's functions, since Vault's tables cannot be written to.
fn put(entry: &VaultEntry, content: &str) -> String {
    let VaultEntry {
        name,
        description,
        answer,
    } = entry;
    let content = literal(content);
    format!(
        "select case when known.id is null
            then 'made ' || vault.create_secret(wanted.content, '{name}', '{description}')
            else concat('replaced', vault.update_secret(known.id, wanted.content, '{name}', '{description}'))
       end as {answer}
  from (select {content} as content) as wanted
  left join vault.secrets as known on known.name = '{name}';"
    )
}

/// A text as an SQL literal. Neither secret nor address can hold a dollar sign, a quote or a backslash (see `Endpoint`), so
/// neither can end the literal early. Quotes are doubled all the same.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn about_address(endpoint: &Endpoint, remark: Remark, terminal: &Terminal) -> String {
    match remark {
        Remark::PathAdded => terminal.pick(
            format!("The path was added: events go to {}", endpoint.as_str()),
            format!("Путь добавлен: события пойдут на {}", endpoint.as_str()),
        ),
        Remark::OtherPath => terminal.pick(
            format!("Warning: the service takes events at {}, and this address has another path: it must be one that your proxy leads there.", endpoint::PATH),
            format!("Внимание: сервис принимает события на {}, а у этого адреса другой путь: ваш прокси должен вести его туда.", endpoint::PATH),
        ),
    }
}

fn about_secrets(secrets: &Secrets, is_read_by_a_person: bool, terminal: &Terminal) -> Vec<String> {
    let mut lines = vec![
        terminal
            .pick(
                "The SQL holds the secret that signs the events: run it by itself in the SQL editor, and keep neither the query nor a file of it.",
                "В этом SQL секрет, которым подписываются события: выполните его отдельно в SQL editor и не храните ни запрос, ни файл.",
            )
            .to_owned(),
    ];
    if secrets.is_new {
        lines.push(
            terminal
                .pick(
                    "WEBHOOK_SECRET is not set, so a new one was made. First give it to the service (.env) and restart it; then run the SQL:",
                    "WEBHOOK_SECRET не задан, поэтому создан новый. Сначала передайте его сервису (.env) и перезапустите; затем выполните SQL:",
                )
                .to_owned(),
        );
        lines.push(if is_read_by_a_person {
            format!("WEBHOOK_SECRET={}", secrets.text.expose_secret())
        } else {
            let text = terminal.pick(
                "WEBHOOK_SECRET=… (the whsec_… in the SQL; it is not repeated here, since this is not a terminal)",
                "WEBHOOK_SECRET=… (это whsec_… в самом SQL; здесь он не повторяется: это не терминал)",
            );
            text.to_owned()
        });
    } else if secrets.count > 1 {
        let count = secrets.count;
        lines.push(terminal.pick(
            format!("WEBHOOK_SECRET holds {count} secrets: events are signed with each of them, until it holds one and this is run again."),
            format!("В WEBHOOK_SECRET {count} секрета: события подписываются каждым, пока там не останется один и команда не будет выполнена снова."),
        ));
    }
    lines
}

#[cfg(test)]
mod tests;
