//! The pictures of the docs.

use std::{fs, path::Path};

use sandbox::{Case, scenario::Scenario};

use super::{ADMIN, Browser, Look, Office, log_in};
use crate::{
    program::until_drained,
    support::{Wishes, World, rows_of},
};

/// A picture that is larger makes each clone slow.
const LARGEST: usize = 150 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes into docs/images: scripts/screenshots"]
async fn the_pictures_of_the_docs() {
    let world = World::prepare(Wishes::default());
    let sandbox = &world.sandbox;
    let scenario = Scenario::mixed(11, 15, &sandbox.amo, &sandbox.postgrest, &world.setting);
    let office = Office::in_world(world).await;
    for row in rows_of(&scenario) {
        assert_eq!(office.service.deliver(&office.world, row).await, Some(202));
    }
    let inbox = office.world.guest().await;
    until_drained(&inbox).await;
    inbox.close().await;
    let moved = scenario.of(Case::OpenBeforeTarget).next().unwrap().row;

    for (look, name) in [
        (Look::ENGLISH, "light"),
        (Look::ENGLISH.dark(), "dark"),
        (Look::RUSSIAN, "russian"),
        (Look::RUSSIAN.on_a_phone(), "phone"),
    ] {
        let browser = Browser::open(look).await;
        log_in(&browser, &office, ADMIN).await;
        for (page, path) in [
            ("overview", String::new()),
            ("student", format!("/rows/{moved}")),
        ] {
            browser.go(&office.page(&path)).await;
            keep(&format!("{page}-{name}.png"), &browser.picture().await);
        }
        browser.close().await;
    }
    // A parked one, with what there is to do.
    let browser = Browser::open(Look::RUSSIAN).await;
    log_in(&browser, &office, ADMIN).await;
    browser.go(&office.story()).await;
    keep("parked-russian.png", &browser.picture().await);
    browser.close().await;
}

fn keep(name: &str, picture: &[u8]) {
    assert!(picture.len() <= LARGEST, "{name}: {} bytes", picture.len());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), picture).unwrap();
}
