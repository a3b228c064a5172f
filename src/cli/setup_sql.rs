//! `setup-sql`: everything that the database needs, as one text for the dashboard's SQL editor.

use std::io::{self, IsTerminal};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use self::endpoint::{Endpoint, Remark};
use super::{CommandError, Outcome, new_secret, terminal::Terminal};
use crate::{config::Config, domain::WebhookSecret};

mod endpoint;

/// In the order of their names, as the Supabase CLI applies them. A test compares this with the folder.
const MIGRATIONS: &[(&str, &str)] = &[(
    "20261122000000_tripwire_sync.sql",
    include_str!("../../supabase/migrations/20261122000000_tripwire_sync.sql"),
)];

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where the running service takes events, `https://…/webhooks/supabase`. The final address, for a redirect
    /// loses the event; without a path the usual one is added
    #[arg(long)]
    url: String,
}

pub(super) fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    let endpoint = match Endpoint::parse(&options.url) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let told = terminal.pick(error.to_string(), error.in_russian());
            terminal.complain(&format!("--url: {told}"));
            return Err(CommandError::Misused);
        }
    };
    let known = Config::load_webhook_secrets()?;
    let secrets = Secrets::of(&known);

    terminal.say(&sql(&endpoint, &secrets.text))?;
    // A log is no place for a secret that nobody expects there.
    let is_read_by_a_person = io::stderr().is_terminal();
    for line in about(&endpoint, &secrets, is_read_by_a_person, terminal) {
        terminal.complain(&line);
    }
    Ok(())
}

/// What the database is going to sign with.
struct Secrets {
    /// As Vault keeps it: all of `WEBHOOK_SECRET`, since a service may know any of them while one is being replaced.
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

fn sql(endpoint: &Endpoint, secrets: &SecretString) -> String {
    let migrations: Vec<&str> = MIGRATIONS.iter().map(|(_, sql)| sql.trim_end()).collect();
    format!(
        "-- tripwire-sync {version}: paste all of it into the SQL editor of the dashboard and run it. It may be run again.\n\
         -- Do not save this query: the secret that signs the events is in its last lines.\n\
         \n\
         {migrations}\n\
         \n\
         {vault}\n\
         \n\
         select 'tripwire-sync is set up; what is left to do is told by: tripwire-sync check' as result;",
        version = env!("CARGO_PKG_VERSION"),
        migrations = migrations.join("\n\n"),
        vault = vault(endpoint, secrets),
    )
}

/// Through Vault's functions: its tables cannot be written to. The secret first, for with the address the sending begins.
fn vault(endpoint: &Endpoint, secrets: &SecretString) -> String {
    let secret = literal(secrets.expose_secret());
    let url = literal(endpoint.as_str());
    format!(
        "-- Secret and address, made or replaced.
do $tripwire_sync_setup$
declare
  wanted record;
  known uuid;
begin
  for wanted in
    select *
      from (values
        (1, 'tripwire_webhook_secret', {secret}, 'tripwire-sync: signs the events; the service has it as WEBHOOK_SECRET'),
        (2, 'tripwire_webhook_url', {url}, 'tripwire-sync: where the events go')
      ) as entries (place, name, content, description)
     order by place
  loop
    select id into known from vault.secrets where name = wanted.name;
    if known is null then
      perform vault.create_secret(wanted.content, wanted.name, wanted.description);
    else
      perform vault.update_secret(known, wanted.content, wanted.name, wanted.description);
    end if;
  end loop;
end
$tripwire_sync_setup$;"
    )
}

/// Neither secret nor address may hold a dollar sign, a quote or a backslash (see `Endpoint`), so nothing can end the
/// block or the literal early; doubling quotes keeps this true of the literal by itself.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn about(
    endpoint: &Endpoint,
    secrets: &Secrets,
    is_read_by_a_person: bool,
    terminal: &Terminal,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(remark) = endpoint.remark() {
        lines.push(match remark {
            Remark::PathAdded => terminal.pick(
                format!("The path was added: events go to {}", endpoint.as_str()),
                format!("Путь добавлен: события пойдут на {}", endpoint.as_str()),
            ),
            Remark::OtherPath => terminal.pick(
                format!("Warning: the service takes events at {}, and this address has another path: it must be one that your proxy leads there.", endpoint::PATH),
                format!("Внимание: сервис принимает события на {}, а у этого адреса другой путь: ваш прокси должен вести его туда.", endpoint::PATH),
            ),
        });
    }
    lines.push(
        terminal
            .pick(
                "The SQL holds the secret that signs the events: paste it into the SQL editor and do not save the query, nor a file of it.",
                "В этом SQL секрет, которым подписываются события: вставьте его в SQL editor и не сохраняйте ни запрос, ни файл.",
            )
            .to_owned(),
    );
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
                "WEBHOOK_SECRET=… (the whsec_… in the last lines of the SQL; it is not repeated here, since this is not a terminal)",
                "WEBHOOK_SECRET=… (это whsec_… в последних строках SQL; здесь он не повторяется: это не терминал)",
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
