use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PAGE: usize = 250;

/// An account, as its list shows it: on each page so many contacts, and so many sought e-mails.
#[derive(Debug, Clone)]
struct Account {
    contacts: usize,
    /// Of the page with that index; none on those that follow.
    hits: Vec<usize>,
    /// The request with this number fails, and every so many after it; 0 = none.
    fails_every: usize,
    /// It shows nothing from this page on, whatever there is.
    tires_at: u32,
}

impl Account {
    fn of(contacts: usize, hits: Vec<usize>) -> Self {
        Self {
            contacts,
            hits,
            fails_every: 0,
            tires_at: u32::MAX,
        }
    }

    fn page(&self, number: u32) -> Seen {
        let index = number as usize - 1;
        let first = index * PAGE;
        let shown = if number >= self.tires_at {
            0
        } else {
            self.contacts.saturating_sub(first).min(PAGE)
        };
        let names_next = shown > 0 && self.contacts > first + PAGE;
        Seen {
            hits: if shown == 0 {
                0
            } else {
                self.hits.get(index).copied().unwrap_or(0)
            },
            is_empty: shown == 0,
            is_last: shown < PAGE && !names_next,
            names_next,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: usize,
    found: usize,
    extent: Extent,
}

/// Reads as told, for so many who come at once.
fn read(sought: usize, account: &Account, newest_first: bool) -> Outcome {
    let mut scan = Scan::default();
    scan.join(sought, 0, 0);
    go_on(&mut scan, account, newest_first)
}

/// Answers in the order of asking or the other way round.
fn go_on(scan: &mut Scan, account: &Account, newest_first: bool) -> Outcome {
    let mut on_their_way: Vec<u32> = Vec::new();
    let (mut requests, mut found) = (0, 0);
    let mut shown: BTreeSet<u32> = scan.read.keys().copied().collect();
    while scan.over().is_none() {
        if let Some(page) = scan.next() {
            requests += 1;
            on_their_way.push(page);
            continue;
        }
        assert!(!on_their_way.is_empty(), "awaits nothing");
        let next = if newest_first {
            on_their_way.len() - 1
        } else {
            0
        };
        let page = on_their_way.remove(next);
        if account.fails_every > 0 && requests % account.fails_every == 0 {
            scan.failed(page);
            continue;
        }
        let mut seen = account.page(page);
        if !shown.insert(page) {
            seen.hits = 0;
        }
        found += seen.hits;
        scan.read(page, seen);
    }
    assert!(on_their_way.is_empty(), "over with pages on their way");
    Outcome {
        requests,
        found,
        extent: scan.over().unwrap(),
    }
}

/// What it all costs when even those found in a part of the list are searched for.
fn worst_cost(sought: usize, outcome: &Outcome) -> usize {
    outcome.requests
        + match outcome.extent {
            Extent::Whole => 0,
            Extent::Part => sought,
        }
}

fn spread(sought: usize, pages: usize) -> Vec<usize> {
    (0..pages)
        .map(|page| sought * (page + 1) / pages - sought * page / pages)
        .collect()
}

/// Sought, contacts, where they are; what it takes.
#[test]
fn what_it_costs() {
    let newest = |sought: usize| vec![PAGE; sought.div_ceil(PAGE)];
    let table = [
        // An import day: everybody is found in forty pages, and one request tells that they are worth reading.
        (5_000, 10_000, newest(5_000), 42, Extent::Whole),
        (5_000, 10_001, newest(5_000), 42, Extent::Whole),
        (1_000, 2_000, newest(1_000), 10, Extent::Whole),
        // Forty times as many contacts, the sought ones anywhere.
        (5_000, 200_000, spread(5_000, 800), 802, Extent::Whole),
        // Smaller than a page: no probe.
        (100, 180, vec![90], 1, Extent::Whole),
        // Nobody there at all.
        (100, 0, vec![], 1, Extent::Whole),
        // Too large to be read to its end: the newest while they pay.
        (5_000, 1_000_000, newest(5_000), 20 + 4, Extent::Part),
        (5_000, 1_000_000, vec![], 1 + 1 + 5, Extent::Part),
        // Hits, then none.
        (5_000, 1_000_000, vec![200; 3], 1 + 1 + 8, Extent::Part),
    ];
    for (sought, contacts, hits, most, extent) in table {
        let outcome = read(sought, &Account::of(contacts, hits), false);
        assert_eq!(
            outcome.extent, extent,
            "{sought} of {contacts}: {outcome:?}"
        );
        assert!(
            outcome.requests <= most + 2,
            "{sought} of {contacts}: {outcome:?}, not {most}"
        );
    }
}

#[test]
fn all_hits_on_the_last_page_are_found_where_the_end_is_near() {
    let mut hits = vec![0; 99];
    hits.push(250);
    let outcome = read(5_000, &Account::of(25_000, hits.clone()), false);
    assert_eq!((outcome.found, outcome.extent), (250, Extent::Whole));

    // Out of reach they cost what little was read in vain.
    hits.splice(0..0, vec![0; 2_000]);
    let outcome = read(5_000, &Account::of(525_000, hits), false);
    assert_eq!((outcome.found, outcome.extent), (0, Extent::Part));
    assert!(outcome.requests < 12, "{outcome:?}");
}

#[test]
fn a_server_that_tires_of_long_lists_is_not_taken_for_their_end() {
    let mut account = Account::of(100_000, spread(5_000, 400));
    account.tires_at = 101;
    assert_eq!(read(5_000, &account, false).extent, Extent::Part);
}

#[test]
fn a_page_that_fails_is_asked_for_again_and_a_list_that_always_does_is_given_up() {
    let mut account = Account::of(10_000, spread(5_000, 40));
    account.fails_every = 7;
    let outcome = read(5_000, &account, false);
    assert_eq!((outcome.found, outcome.extent), (5_000, Extent::Whole));
    account.fails_every = 1;
    let outcome = read(5_000, &account, false);
    assert_eq!((outcome.found, outcome.extent), (0, Extent::Part));
    assert!(outcome.requests <= MOST_FAILURES as usize + AHEAD);
}

/// `pg_net` brings two hundred rows a second: the first of them alone could not afford the list.
#[test]
fn an_import_that_trickles_in_is_looked_up_as_one() {
    let account = Account::of(50_000, spread(5_000, 200));
    assert_eq!(read(200, &account, false).extent, Extent::Part);

    let mut scan = Scan::default();
    scan.join(0, 0, 400);
    let too_far = go_on(&mut scan, &account, false);
    assert_eq!((too_far.requests, too_far.extent), (2, Extent::Part));
    scan.join(0, 0, 440);
    assert_eq!(scan.next(), None, "the end is not looked for at every step");
    scan.join(0, 0, 1_200);
    let whole = go_on(&mut scan, &account, false);
    assert!(too_far.found + whole.found >= 5_000, "{whole:?}");
    assert_eq!(whole.extent, Extent::Whole);
    assert!(whole.requests < 205, "{whole:?}");

    scan.join(200, 200, 1_000);
    assert_eq!((scan.over(), scan.next()), (Some(Extent::Whole), None));
}

/// What the newest pages have shown of them tells whether the next ones pay.
#[test]
fn who_comes_later_reads_on_only_where_it_pays() {
    let huge = Account::of(1_000_000, vec![20; 4_000]);
    let first = |sought| {
        let mut scan = Scan::default();
        scan.join(sought, 0, 0);
        go_on(&mut scan, &huge, false);
        scan
    };
    let mut scan = first(100);
    let pages = scan.pages();
    scan.join(100, pages * PAYS, 0);
    assert!(scan.next().is_some());

    let mut scan = first(100);
    scan.join(100, pages * PAYS - 1, 0);
    // The end may lie within reach by now.
    let probe = scan.next().unwrap();
    assert!(probe > scan.asked, "page {probe}");
    scan.read(probe, huge.page(probe));
    assert_eq!((scan.next(), scan.over()), (None, Some(Extent::Part)));
}

#[test]
fn what_was_spent_in_advance_is_paid_for_by_who_comes() {
    let mut scan = Scan::default();
    scan.join(0, 0, 500);
    for _ in 0..100 {
        scan.spend();
    }
    assert_eq!(scan.credit(400, 0), 0);
    // They never came, and others read anew.
    let mut scan = scan.anew();
    scan.join(400, 0, 0);
    assert_eq!((scan.next(), scan.over()), (None, Some(Extent::Part)));
    assert_eq!(scan.credit(400, 0), 60);
    scan.join(400, 0, 0);
    assert_eq!(scan.next(), Some(1));
}

/// A few of this minute must not wait for as many pages as an import of yesterday could have afforded.
#[test]
fn what_others_left_unspent_is_not_spent_on_who_comes_later() {
    let mut scan = Scan::default();
    scan.join(5_000, 0, 0);
    assert_eq!(scan.credit(25, 0), 5);
    assert_eq!(scan.anew().credit(25, 0), 5);
    scan.join(25, 0, 0);
    let outcome = go_on(&mut scan, &Account::of(5_000, vec![]), false);
    assert_eq!((outcome.requests, outcome.extent), (5, Extent::Part));
}

#[test]
fn a_reading_that_was_broken_off_goes_on_with_the_pages_that_never_came() {
    let account = Account::of(5_000, spread(1_000, 20));
    let mut scan = Scan::default();
    scan.join(1_000, 0, 0);
    let first = scan.next().unwrap();
    scan.read(first, account.page(first));
    let lost: Vec<u32> = std::iter::from_fn(|| scan.next()).collect();
    assert_eq!((lost.len(), scan.over()), (AHEAD, None));
    scan.break_off();
    let rest = go_on(&mut scan, &account, false);
    assert_eq!((rest.found, rest.extent), (950, Extent::Whole));

    scan = scan.anew();
    scan.join(1_000, 0, 0);
    scan.next();
    scan.break_off();
    scan.give_up();
    assert_eq!((scan.next(), scan.over()), (None, Some(Extent::Part)));
}

fn account() -> impl Strategy<Value = Account> {
    let hits = proptest::collection::vec(prop_oneof![Just(0_usize), 0..=PAGE], 0..400);
    let fails_every = prop_oneof![3 => Just(0_usize), 1 => 1..30_usize];
    let tires_at = prop_oneof![3 => Just(u32::MAX), 1 => 2..300_u32];
    (0..2_000_000_usize, hits, fails_every, tires_at).prop_map(
        |(contacts, hits, fails_every, tires_at)| Account {
            contacts,
            hits,
            fails_every,
            tires_at,
        },
    )
}

/// Who comes one after the other: how many are sought, and whether the list is read anew for them.
fn comers() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let sought = prop_oneof![FEW + 1..200_usize, FEW + 1..5_000_usize];
    proptest::collection::vec((sought, proptest::bool::weighted(0.2)), 1..20)
}

proptest! {
    /// Whatever the account looks like, and in whatever order its pages come.
    #[test]
    fn it_never_costs_more_than_a_fifth_above_the_plain_searches(
        sought in FEW + 1..20_000,
        account in account(),
        newest_first: bool,
    ) {
        let outcome = read(sought, &account, newest_first);
        prop_assert!(outcome.requests * IN_VAIN <= sought, "{outcome:?}");
        prop_assert!(worst_cost(sought, &outcome) * IN_VAIN <= sought * (IN_VAIN + 1), "{outcome:?}");
    }

    /// Nor for all who come together, however much is read before they do.
    #[test]
    fn nor_do_many_runs(
        comers in comers(),
        account in account(),
        newest_first: bool,
    ) {
        let all: usize = comers.iter().map(|(sought, _)| sought).sum();
        let mut scan = Scan::default();
        scan.join(0, 0, all);
        let mut requests = go_on(&mut scan, &account, newest_first).requests;
        let mut coming = all;
        for (sought, is_anew) in comers {
            if is_anew {
                scan = scan.anew();
            }
            coming -= sought;
            scan.join(sought, 0, coming);
            requests += go_on(&mut scan, &account, newest_first).requests;
            if scan.credit(0, coming) > 0 {
                // As a look at what has changed.
                scan.spend();
                requests += 1;
            }
        }
        prop_assert!(requests * IN_VAIN <= all, "{requests} requests for {all}");
    }

    /// A list said to be read whole was: every hit of the account is among those found.
    #[test]
    fn whole_means_that_every_page_was_read(
        sought in FEW + 1..20_000,
        account in account(),
        newest_first: bool,
    ) {
        let outcome = read(sought, &account, newest_first);
        if outcome.extent == Extent::Whole {
            let pages = account.contacts.div_ceil(PAGE);
            let all: usize = account.hits.iter().take(pages).sum();
            prop_assert_eq!(outcome.found, all);
        }
    }
}

/// What could not be read may be anybody, however far the list is read.
#[test]
fn a_list_with_something_unreadable_is_never_whole() {
    let account = Account::of(300, vec![3, 2]);
    for spoilt_at in [1, 2] {
        let mut scan = Scan::default();
        scan.join(5_000, 0, 0);
        for page in [1, 2] {
            while scan.over().is_none() && scan.next().is_some_and(|asked| asked != page) {}
            scan.read(page, account.page(page));
            if page == spoilt_at {
                scan.spoil();
            }
        }
        scan.break_off();
        assert_eq!(scan.over(), Some(Extent::Part), "{spoilt_at}");
    }
}
