//! `pause` and `resume`: for this service at once, and through the database for all services on the project.

use super::{CommandError, Outcome, clock, entries::open, terminal::Terminal};
use crate::{
    app::supabase_settings,
    config::Config,
    inbox::Inbox,
    supabase::Supabase,
    sync::{
        lease::standby,
        pause::{Switch, pause_here, resume_here},
        rules::timings::Timings,
    },
};

pub(super) async fn pause(terminal: &mut Terminal) -> Outcome {
    let inbox = open(terminal).await?;
    pause_here(&inbox, clock().now()).await?;
    terminal.say(terminal.pick(
        "paused: webhooks are stored, nothing is sent to amoCRM; go on with `tripwire-sync resume`",
        "пауза: вебхуки принимаются, в amoCRM ничего не отправляется; продолжить — `tripwire-sync resume`",
    ))?;
    let shared = share(&inbox, true, terminal).await;
    inbox.close().await;
    shared
}

pub(super) async fn resume(terminal: &mut Terminal) -> Outcome {
    let inbox = open(terminal).await?;
    resume_here(&inbox, |_| true).await?;
    terminal.say(terminal.pick("sending goes on", "отправка продолжается"))?;
    let standby = standby(&inbox).await?;
    let shared = share(&inbox, false, terminal).await;
    inbox.close().await;
    if let Some(holder) = standby {
        let told = terminal.pick(
            "this service stands by. If amoCRM has forbidden access (403), that halt is ended only on the service that syncs:",
            "этот сервис в резерве. Если amoCRM запретила доступ (403), остановку снимает команда на машине сервиса, который синхронизирует:",
        );
        terminal.say(format!("{told} {holder}").trim_end())?;
    }
    shared
}

/// Tells the database, from which all services take a pause and its end.
async fn share(inbox: &Inbox, is_paused: bool, terminal: &mut Terminal) -> Outcome {
    let told = tell_database(inbox, is_paused).await;
    let here_only = terminal.pick(
        "this holds for this service alone",
        "это касается только этого сервиса",
    );
    match told {
        Ok(true) => terminal.say(terminal.pick(
            "this holds for all services on the project: they ask every 15 seconds",
            "это касается всех сервисов проекта: они узнают об этом в течение 15 секунд",
        ))?,
        Ok(false) => {
            let why = terminal.pick(
                "the database has no function tripwire_sync_pause (run the SQL of `tripwire-sync setup-sql`)",
                "в базе нет функции tripwire_sync_pause (выполните SQL из `tripwire-sync setup-sql`)",
            );
            terminal.say(&format!("{here_only}: {why}"))?;
        }
        Err(error) => {
            let again = terminal.pick(
                "the other services may not know of it; run the command again when the cause is gone",
                "другие сервисы могут об этом не знать; повторите команду, когда причина будет устранена",
            );
            terminal.complain(&format!("{here_only}: {again}"));
            return Err(error);
        }
    }
    Ok(())
}

/// `false`: the database has no such function.
async fn tell_database(inbox: &Inbox, is_paused: bool) -> Result<bool, CommandError> {
    let timings = Timings::default();
    let settings = supabase_settings(&Config::load_supabase()?, Vec::new(), &timings);
    let switch = Switch {
        inbox: inbox.clone(),
        supabase: Supabase::new(settings, clock())?,
        clock: clock(),
        timeout: timings.lease.timeout,
    };
    Ok(switch.share(is_paused).await?)
}
