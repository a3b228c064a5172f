//! The queue itself, in paused time, which only moves when all tasks wait.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, advance};

use super::{
    super::{
        Denied, Refusal, Throttle,
        pace::{BURST, WINDOW},
    },
    assert_within_window, ms, rate,
};

fn throttle(per_window: u32) -> Arc<Throttle> {
    Arc::new(Throttle::new(rate(per_window), false))
}

async fn send(throttle: &Throttle) -> Instant {
    throttle.acquire(false, None).await.unwrap().sent()
}

/// Uses up the burst, so that the next one has to wait for one interval.
async fn burst(throttle: &Throttle) {
    for _ in 0..BURST {
        send(throttle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_the_order_of_asking() {
    let throttle = throttle(6);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tasks = (0..20).map(|number| {
        let (throttle, order) = (throttle.clone(), order.clone());
        tokio::spawn(async move {
            send(&throttle).await;
            order.lock().unwrap().push(number);
        })
    });
    futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    let stamps = throttle.stamps();
    let sends: Vec<_> = stamps.iter().map(|at| *at - stamps[0]).collect();
    assert_eq!(sends.len(), 20);
    assert_within_window(&sends, 6);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_would_come_too_late_is_refused_at_once_and_not_used_up() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let now = Instant::now();
    let refused = throttle.acquire(false, Some(now + ms(174))).await;
    assert_eq!(refused.err(), Some(Denied::TooLate));
    assert_eq!(Instant::now(), now, "it did not wait to find out");
    assert_eq!(send(&throttle).await, now + ms(175));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_in_time_is_given() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let limit = Instant::now() + ms(175);
    let turn = throttle.acquire(false, Some(limit)).await.unwrap();
    assert_eq!(turn.sent(), limit);
}

#[tokio::test(start_paused = true)]
async fn of_all_in_the_background_one_at_most_is_ahead_of_the_others() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let began = Instant::now();
    let mut patient: Vec<_> = (0..3)
        .map(|_| Box::pin(throttle.acquire(true, None)))
        .collect();
    for waiter in &mut patient {
        assert!(futures::poll!(waiter.as_mut()).is_pending());
    }
    // Turns come at 175, 350, 1050 (the window) and 1225 ms.
    let (common, patient) = tokio::join!(
        send(&throttle),
        futures::future::join_all(
            patient
                .into_iter()
                .map(async |waiter| waiter.await.unwrap().sent())
        )
    );
    assert_eq!(common - began, ms(350));
    let waited: Vec<_> = patient.into_iter().map(|sent| sent - began).collect();
    assert_eq!(waited, [ms(175), ms(1050), ms(1225)]);
}

#[tokio::test(start_paused = true)]
async fn those_in_line_count_when_a_turn_is_foreseen() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let now = Instant::now();
    // Turns come at 175, 350, 1050 (the window) and 1225 ms.
    let mut line: Vec<_> = (0..3)
        .map(|_| Box::pin(throttle.acquire(false, None)))
        .collect();
    for waiter in &mut line {
        assert!(futures::poll!(waiter.as_mut()).is_pending());
    }
    let refused = throttle.acquire(false, Some(now + ms(1200))).await;
    assert_eq!(refused.err(), Some(Denied::TooLate));
    assert_eq!(Instant::now(), now);
    let ((), given) = tokio::join!(
        async {
            for waiter in line {
                waiter.await.unwrap().sent();
            }
        },
        throttle.acquire(false, Some(now + ms(1225)))
    );
    assert_eq!(given.unwrap().sent(), now + ms(1225));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_uses_up_nothing() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let now = Instant::now();
    let mut next = Box::pin(throttle.acquire(false, None));
    let mut behind = Box::pin(throttle.acquire(false, None));
    assert!(futures::poll!(next.as_mut()).is_pending());
    assert!(futures::poll!(behind.as_mut()).is_pending());
    drop(next);
    assert_eq!(behind.await.unwrap().sent(), now + ms(175));
    let turn = throttle.acquire(false, Some(now + ms(350))).await;
    assert_eq!(turn.unwrap().sent(), now + ms(350), "its place is free");
}

#[tokio::test(start_paused = true)]
async fn waiters_that_leave_let_no_two_go_at_once() {
    let throttle = throttle(6);
    burst(&throttle).await;
    for _ in 0..50 {
        let mut leaver = Box::pin(throttle.acquire(false, None));
        let _ = futures::poll!(leaver.as_mut());
        advance(ms(10)).await;
        drop(leaver);
        send(&throttle).await;
    }
    let stamps = throttle.stamps();
    let sends: Vec<_> = stamps.iter().map(|at| *at - stamps[0]).collect();
    assert_within_window(&sends, 6);
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_back_requests_that_wait_already() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let now = Instant::now();
    let mut waiter = Box::pin(throttle.acquire(false, None));
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    throttle.slow_down(now, Some(Duration::from_secs(7)));
    assert_eq!(waiter.await.unwrap().sent(), now + Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_429_turns_a_waiter_with_a_limit_away() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let limit = Instant::now() + Duration::from_secs(5);
    let mut waiter = Box::pin(throttle.acquire(false, Some(limit)));
    assert!(futures::poll!(waiter.as_mut()).is_pending());
    throttle.slow_down(Instant::now(), Some(Duration::from_secs(7)));
    assert_eq!(waiter.await.err(), Some(Denied::TooLate));
    assert!(
        Instant::now() < limit,
        "told when it was known, not at the limit"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_the_past_is_too_late() {
    let throttle = throttle(6);
    let past = Instant::now();
    advance(ms(1)).await;
    assert_eq!(
        throttle.acquire(false, Some(past)).await.err(),
        Some(Denied::TooLate)
    );
    assert!(throttle.stamps().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_turns_every_request_away_until_the_reset() {
    let throttle = throttle(6);
    burst(&throttle).await;
    let mut line: Vec<_> = (0..3)
        .map(|_| Box::pin(throttle.acquire(false, None)))
        .collect();
    for waiter in &mut line {
        assert!(futures::poll!(waiter.as_mut()).is_pending());
    }
    advance(ms(1)).await;
    throttle.turn_away(Refusal::Forbidden);
    for waiter in line {
        assert_eq!(
            waiter.await.err(),
            Some(Denied::Refused(Refusal::Forbidden))
        );
    }
    advance(WINDOW).await;
    assert_eq!(
        throttle.acquire(false, None).await.err(),
        Some(Denied::Refused(Refusal::Forbidden))
    );
    throttle.reset();
    assert!(throttle.acquire(false, None).await.is_ok());
}
