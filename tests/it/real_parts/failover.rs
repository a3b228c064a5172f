//! Three services with an inbox each, behind one address. The one that syncs dies, stands still or loses its inbox.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::select_all;
use sandbox::{
    AmoQuirks, Recorded, Server,
    scenario::{Case, Missing, Scenario},
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tripwire_sync::{
    domain::SystemClock,
    inbox::{Inbox, Role, State},
};
use url::Url;

use super::{pushed, stack::Stack};
use crate::{
    chaos::driver::inspect,
    delivery_worker::{DeliveryWorker, Line, Manners, ServerGone},
    lease::requests_of,
    postgres::WEBHOOK_URL,
    program::{Service, until_drained},
    support::{PATIENCE, SECRET, Wishes},
};

const ROWS: usize = 1_000;
/// Of so many rows one has no contact. Each costs seven requests at this scale of time, since most of them are made twice.
const WITHOUT_CONTACT: usize = 250;
const MACHINES: usize = 3;
/// What amoCRM allows in any second, to all services together.
const MOST_IN_A_SECOND: usize = 7;
/// The default of the setting.
const REQUESTS_PER_SECOND: u32 = 6;
/// Between two requests that wait for their turn.
const SPACING: Duration = Duration::from_millis(1_050 / REQUESTS_PER_SECOND as u64);

/// What happens while the holder of the lease is at work.
#[derive(Debug, Clone, Copy)]
enum Upset {
    /// The holder is killed and started again at once, with the lease still its own.
    KillForAMoment,
    /// The holder is killed, and started again after another machine has taken over.
    Kill,
    /// As [`Upset::Kill`]; the inbox is deleted meanwhile. If the holder's was deleted before, another machine's is.
    LoseInbox,
    /// The holder stands still until another machine has taken over.
    StandStill,
    CrashPostgres,
}

/// Each with the count of rows that come just before it. As many come while the machine is down.
const UPSETS: [(Upset, usize); 8] = [
    (Upset::Kill, 220),
    (Upset::StandStill, 40),
    (Upset::CrashPostgres, 40),
    (Upset::LoseInbox, 40),
    (Upset::KillForAMoment, 40),
    (Upset::StandStill, 40),
    (Upset::CrashPostgres, 40),
    (Upset::LoseInbox, 40),
];

/// A service as on a machine of its own.
struct Machine {
    /// The token for amoCRM. The sandbox tells the machines apart by it.
    token: String,
    /// Of the inbox.
    folder: PathBuf,
    /// Of its latest process.
    address: String,
    /// `None`: the machine is down.
    service: Option<Service>,
    /// Of its earlier processes.
    log: String,
}

impl Machine {
    fn new(stack: &Stack, name: &str) -> Self {
        let token = format!("token-of-{name}");
        stack.world.sandbox.amo.add_token(&token);
        Self {
            token,
            folder: stack.world.folder().join(name),
            address: String::new(),
            service: None,
            log: String::new(),
        }
    }

    async fn start(&mut self, stack: &Stack) {
        let serve = stack
            .launch(&["serve"])
            .with("AMOCRM_ACCESS_TOKEN", &self.token)
            .with("AMOCRM_MISSING_CONTACT", "create")
            .with(
                "DATABASE_URL",
                format!("sqlite://{}", self.inbox().display()),
            );
        let service = Service::launch(serve).await;
        self.address.clone_from(&service.url);
        self.service = Some(service);
    }

    /// Where events go, whether or not it is up.
    fn url(&self) -> Url {
        let url = format!("{}/webhooks/supabase", self.address);
        url.parse().unwrap()
    }

    fn inbox(&self) -> PathBuf {
        self.folder.join("inbox.db")
    }

    async fn guest(&self) -> Inbox {
        let opened = Inbox::open(&self.inbox(), Role::Guest, Arc::new(SystemClock)).await;
        opened.unwrap()
    }

    fn service(&self) -> &Service {
        self.service.as_ref().expect("the machine is down")
    }

    async fn kill(&mut self) {
        let ended = self.service.take().unwrap().kill().await;
        self.log += &ended.err;
    }

    async fn stop(&mut self) {
        let ended = self.service.take().unwrap().stop().await;
        ended.assert_code(0);
        self.log += &ended.err;
    }
}

/// All machines, and the database's deliveries to each in turn.
struct Fleet {
    stack: Stack,
    scenario: Scenario,
    /// Rows of the scenario that are in the table.
    inserted: usize,
    machines: [Machine; MACHINES],
    /// Machines whose inbox was deleted.
    lost: Vec<usize>,
    line: Line,
    worker: JoinHandle<ServerGone>,
}

impl Fleet {
    async fn start(wishes: Wishes, cases: Vec<Case>) -> Self {
        let stack = Stack::on(pushed(), wishes).await;
        let scenario = stack.scenario(cases);
        // Deliveries go to the machines instead.
        stack.cluster.configure(WEBHOOK_URL, SECRET);
        let mut machines = ["first", "second", "third"].map(|name| Machine::new(&stack, name));
        for machine in &mut machines {
            machine.start(&stack).await;
        }
        let line = Line::new(Manners::default());
        let worker = deliver(&stack, &line);
        let fleet = Self {
            stack,
            scenario,
            inserted: 0,
            machines,
            lost: Vec::new(),
            line,
            worker,
        };
        fleet.balance();
        fleet
    }

    fn balance(&self) {
        self.line.balance(self.machines.iter().map(Machine::url));
    }

    async fn start_again(&mut self, machine: usize) {
        self.machines[machine].start(&self.stack).await;
        self.balance();
    }

    /// The next rows of the scenario, in one statement.
    fn insert(&mut self, rows: usize) {
        let first = self.inserted;
        self.inserted += rows;
        self.stack.insert(&self.scenario, first..self.inserted);
    }

    /// The machine that has the lease, by its own word.
    async fn holder(&self) -> usize {
        let up = self.machines.iter().enumerate();
        let up: Vec<_> = up.filter(|(_, it)| it.service.is_some()).collect();
        let working = up.into_iter().map(|(number, machine)| {
            let working = machine.service().until_sync_is("working");
            Box::pin(async move {
                working.await;
                number
            })
        });
        select_all(working).await.0
    }

    fn requests_of(&self, machine: usize) -> Vec<Recorded> {
        let token = &self.machines[machine].token;
        requests_of(&self.stack.world, token, Server::Amo)
    }

    /// Waits until so many more requests have come to amoCRM that are as wished.
    async fn until_sent(&self, more: usize, wished: impl Fn(&Recorded) -> bool) {
        let sandbox = &self.stack.world.sandbox;
        let before = sandbox.requests().iter().filter(|it| wished(it)).count();
        let look = sandbox.until(before + more, wished);
        let sent = tokio::time::timeout(PATIENCE, look).await;
        assert!(sent.is_ok(), "after {before} there are no {more} more");
    }

    async fn until_it_writes(&self, machine: usize, writes: usize) {
        let token = self.machines[machine].token.as_str();
        let is_its = |it: &Recorded| it.is_write && it.token.as_deref() == Some(token);
        self.until_sent(writes, is_its).await;
    }

    async fn until_another_sends(&self, machine: usize, requests: usize) {
        let token = self.machines[machine].token.as_str();
        let is_anothers = |it: &Recorded| it.token.as_deref() != Some(token);
        self.until_sent(requests, is_anothers).await;
    }

    async fn upset(&mut self, upset: Upset, holder: usize, rows: usize) {
        match upset {
            Upset::KillForAMoment => {
                self.machines[holder].kill().await;
                self.start_again(holder).await;
                self.insert(rows);
            }
            Upset::Kill => {
                self.machines[holder].kill().await;
                self.insert(rows);
                self.until_another_sends(holder, 1).await;
                self.start_again(holder).await;
            }
            Upset::LoseInbox => {
                let machines = [holder].into_iter().chain(0..MACHINES);
                let mut not_lost = machines.filter(|it| !self.lost.contains(it));
                let machine = not_lost.next().unwrap();
                self.lost.push(machine);
                self.machines[machine].kill().await;
                self.insert(rows);
                fs::remove_dir_all(&self.machines[machine].folder).unwrap();
                self.until_another_sends(machine, 1).await;
                self.start_again(machine).await;
            }
            Upset::StandStill => {
                self.stop_between_requests(holder).await;
                let sent = self.requests_of(holder).len();
                self.insert(rows);
                self.until_another_sends(holder, 5).await;
                let service = self.machines[holder].service();
                service.program.signal("CONT");
                service.until_sync_is("standby").await;
                let late = &self.requests_of(holder)[sent..];
                assert!(late.is_empty(), "{late:#?}");
            }
            Upset::CrashPostgres => {
                self.stack.cluster.crash();
                self.worker.abort();
                self.stack.cluster.recover();
                self.worker = deliver(&self.stack, &self.line);
                self.insert(rows);
            }
        }
    }

    /// Stops a machine right after a request of a series that the throttle spaces. Then no request is between its last check
    /// of the lease and the sending: the next one is due 175 ms after this one.
    async fn stop_between_requests(&self, machine: usize) {
        let Machine { token, .. } = &self.machines[machine];
        let program = &self.machines[machine].service().program;
        loop {
            self.until_sent(1, |it| it.token.as_deref() == Some(token))
                .await;
            let requests = self.requests_of(machine);
            if !is_spaced(&requests) {
                continue;
            }
            program.signal("STOP");
            let last = requests.last().unwrap();
            let is_the_last = self.requests_of(machine).len() == requests.len();
            if is_the_last && last.at.elapsed() < SPACING / 2 {
                return;
            }
            program.signal("CONT");
        }
    }
}

/// Whether the last requests came as fast as the throttle lets them, so that the next one cannot come sooner.
fn is_spaced(requests: &[Recorded]) -> bool {
    let [.., first, _, _, last] = requests else {
        return false;
    };
    let gap = last.at.duration_since(first.at) / 3;
    gap.abs_diff(SPACING) < SPACING / 10
}

/// The defaults of the settings, at this scale of time.
fn wishes(time_scale: f64) -> Wishes {
    Wishes {
        amo: AmoQuirks {
            index_lag: Duration::ZERO,
            ..AmoQuirks::default()
        },
        time_scale,
        missing: Missing::Create,
        settle_delay: Duration::from_secs(5).mul_f64(time_scale),
        sweep_every: Some(Duration::from_mins(5).mul_f64(time_scale)),
        requests_per_second: REQUESTS_PER_SECOND,
        ..Wishes::default()
    }
}

fn deliver(stack: &Stack, line: &Line) -> JoinHandle<ServerGone> {
    let batches = Arc::new(Semaphore::new(ROWS));
    DeliveryWorker::start(&stack.cluster, line).work(batches)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_machines_any_may_fail_at_work_and_every_row_gets_its_deal_once() {
    // A lease is 4 s long, and the short sweep comes each 0.75 s.
    let wishes = wishes(0.05);
    let with_contact = |case: &Case| *case != Case::MissingContact;
    let cases = Case::ALL.into_iter().filter(with_contact).cycle();
    let mut cases: Vec<Case> = cases.take(ROWS).collect();
    for case in cases.iter_mut().step_by(WITHOUT_CONTACT) {
        *case = Case::MissingContact;
    }
    let mut fleet = Fleet::start(wishes, cases).await;
    for (number, (upset, rows)) in UPSETS.into_iter().enumerate() {
        let holder = fleet.holder().await;
        fleet.insert(rows);
        fleet.until_it_writes(holder, 1 + number % 2).await;
        fleet.upset(upset, holder, rows).await;
    }
    assert_eq!((fleet.inserted, fleet.lost.len()), (ROWS, 2));
    fleet.stack.until_written_back(ROWS).await;
    fleet.worker.abort();

    // Each machine has the lease once more, and works off what its inbox still holds.
    for _ in 0..MACHINES {
        let holder = fleet.holder().await;
        let inbox = fleet.machines[holder].guest().await;
        until_drained(&inbox).await;
        let parked = inbox.entries(Some(State::Parked), 10).await.unwrap();
        assert!(parked.is_empty(), "{parked:?}");
        inbox.close().await;
        fleet.machines[holder].stop().await;
    }
    let Fleet {
        stack,
        scenario,
        machines,
        line,
        ..
    } = &fleet;
    stack.assert_synced(scenario);
    for machine in machines {
        assert_eq!(inspect::logs(&machine.log), Vec::<String>::new());
    }
    let amo = &stack.world.sandbox.amo;
    let most = amo.max_in_any_second();
    assert!(most <= MOST_IN_A_SECOND, "{most} requests in one second");
    let refused = amo.requests().into_iter();
    let refused = refused.filter(|it| it.status == Some(429)).count();
    assert_eq!(refused, 0, "answered with 429");
    assert!(line.events(202) < ROWS, "each event has arrived");
}

/// Where an event arrives decides only how a row is heard of: a row whose event went to a standby is found by the next short
/// sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_machine_gets_its_event_a_row_is_synced_within_a_short_sweep() {
    let wishes = wishes(0.1);
    let rows_each = 3;
    let cases = vec![Case::OpenBeforeTarget; MACHINES * rows_each];
    let mut fleet = Fleet::start(wishes, cases).await;
    let holder = fleet.holder().await;
    let mut slowest = [Duration::ZERO; MACHINES];
    for _ in 0..rows_each {
        for (number, slowest) in slowest.iter_mut().enumerate() {
            fleet.line.balance([fleet.machines[number].url()]);
            let began = Instant::now();
            fleet.insert(1);
            fleet.stack.until_written_back(fleet.inserted).await;
            *slowest = began.elapsed().max(*slowest);
        }
    }
    fleet.worker.abort();
    assert_eq!(fleet.line.events(202), fleet.inserted);
    for machine in &mut fleet.machines {
        machine.stop().await;
    }
    let short_sweep = fleet.stack.world.settings().timings.short_sweep_every;
    let most = slowest[holder] + short_sweep + fleet.stack.world.wishes.settle_delay;
    assert!(slowest.iter().all(|took| *took <= most), "{slowest:?}");
    fleet.stack.assert_synced(&fleet.scenario);
}
