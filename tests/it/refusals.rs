//! Neighbours that are not there at all, or that ask to be left alone for long, at every request of a sync.

use std::net::SocketAddr;

use sandbox::{
    Fault, Kind, Page, Point, Server, When,
    scenario::{Case, Scenario},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tripwire_sync::inbox::{Revival, State};

use crate::{
    faults::{points, prepare, settings, until_all_done},
    program::until,
    support::{World, any_port, metrics, rows_of, sending},
};

/// Stands before a neighbour. While it is shut, connections are refused.
struct Door {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Door {
    async fn before(neighbour: SocketAddr) -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_open = watch::Sender::new(true);
        tokio::spawn(keep(listener, neighbour, is_open.subscribe()));
        Self { address, is_open }
    }

    /// Also throws out whoever is in.
    async fn shut(&self) {
        self.is_open.send_replace(false);
        // The doorkeeper lets go of its end once nobody can come in any more.
        while TcpStream::connect(self.address).await.is_ok() {}
    }

    fn open(&self) {
        self.is_open.send_replace(true);
    }
}

async fn keep(first: TcpListener, neighbour: SocketAddr, mut is_open: watch::Receiver<bool>) {
    let address = first.local_addr().unwrap();
    let mut listener = Some(first);
    while is_open.wait_for(|open| *open).await.is_ok() {
        let door = listener.take().unwrap_or_else(|| listen(address));
        let mut inside = JoinSet::new();
        loop {
            tokio::select! {
                come = door.accept() => {
                    let Ok((mut guest, _)) = come else { continue };
                    inside.spawn(async move {
                        if let Ok(mut host) = TcpStream::connect(neighbour).await {
                            // How the talk ends is theirs to see.
                            let _ = copy_bidirectional(&mut guest, &mut host).await;
                        }
                    });
                }
                changed = is_open.wait_for(|open| !*open) => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

/// Requests of this process for which there was no connection.
fn refused() -> u64 {
    let page = metrics().render();
    let lines = page
        .lines()
        .filter(|line| line.contains("status=\"not_sent\""));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn recorded(cases: &[Case]) -> Vec<Point> {
    let (mut world, scenario) = prepare(cases);
    let settings = settings(&world);
    world.launch_with(settings).await;
    until_all_done(&world, &scenario, "no fault").await;
    let points = points(&world.sandbox.requests());
    world.stop().await;
    points
}

fn is_right(world: &World, scenario: &Scenario, what: &str) {
    let mut wrong = scenario.verify();
    wrong.extend(world.sandbox.amo.protocol_errors());
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

/// The connection is lost with the request, and refused when it is tried again.
async fn refuse_at(cases: &[Case], point: Point) {
    let what = format!("{cases:?}, refused at {point:?}");
    let (mut world, scenario) = prepare(cases);
    let mut settings = settings(&world);
    let (neighbour, url) = match point.server {
        Server::Amo => (
            world.sandbox.amo.address(),
            &mut sending(&mut settings).amocrm.base_url,
        ),
        Server::Postgrest => (
            world.sandbox.postgrest.address(),
            &mut settings.supabase.project_url,
        ),
    };
    let door = Door::before(neighbour).await;
    *url = format!("http://{}", door.address).parse().unwrap();
    world
        .sandbox
        .faults()
        .add(Fault::once(point, Kind::Reset(When::Before)));
    world.launch_with(settings).await;
    until(&what, || world.sandbox.faults().unmet().is_empty()).await;
    let before = refused();
    door.shut().await;
    until(&what, || refused() > before).await;
    door.open();
    until_all_done(&world, &scenario, &what).await;
    is_right(&world, &scenario, &what);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_at_any_request_is_survived() {
    for cases in [
        [Case::OpenBeforeTarget],
        [Case::NoDeal],
        [Case::MissingContact],
    ] {
        // One after the other: the count of refusals is the process's.
        for point in recorded(&cases).await {
            refuse_at(&cases, point).await;
        }
    }
}

/// amoCRM asks for five minutes; a person restarts the service and tries again.
async fn five_minutes_at(cases: &[Case], point: Point, page: Page) {
    let what = format!("{cases:?}, five minutes at {point:?}");
    let (mut world, scenario) = prepare(cases);
    let kind = Kind::Status {
        when: When::Before,
        code: 429,
        page,
        retry_after: Some(300),
    };
    world.sandbox.faults().add(Fault::once(point, kind));
    let launched = settings(&world);
    world.launch_with(launched.clone()).await;
    let row = rows_of(&scenario)[0];
    let put_off = world
        .until(row, "put off", |entry| {
            entry.state == State::Pending && entry.attempts > 0
        })
        .await;
    let wait = put_off.due_at.duration_since(put_off.updated_at).as_secs();
    assert!(wait >= 299, "{what}: comes back after {wait} s");
    let asked = world.sandbox.amo.requests().len();
    world.stop().await;
    assert_eq!(
        world.sandbox.amo.requests().len(),
        asked,
        "{what}: nobody is asked meanwhile"
    );

    world.launch_with(launched).await;
    world
        .inbox()
        .revive(Revival::Rows(vec![row]))
        .await
        .unwrap();
    until_all_done(&world, &scenario, &what).await;
    is_right(&world, &scenario, &what);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_minutes_asked_for_at_any_request_are_kept() {
    for cases in [[Case::OpenBeforeTarget], [Case::NoDeal]] {
        for point in recorded(&cases).await {
            if point.server == Server::Amo {
                five_minutes_at(&cases, point.clone(), Page::Html).await;
                five_minutes_at(&cases, point, Page::Json).await;
            }
        }
    }
}
