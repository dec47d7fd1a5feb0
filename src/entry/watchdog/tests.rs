//! What the watchdog tells, with a clock that the tests set.

use super::*;
use tokio::time::{advance, timeout};

const MINUTE: Duration = Duration::from_secs(60);

fn limits() -> Watch {
    Watch {
        interval: Some(10 * MINUTE),
        offline: 3 * MINUTE,
        job_offline: Some(15 * MINUTE),
        worker: MINUTE,
        max_idle: Some(55 * MINUTE),
        job_max: Some(120 * MINUTE),
    }
}

fn watchdog() -> Watchdog {
    Watchdog::new(limits(), true, true, || 0.5)
}

/// What is due within a time, and nothing that is due later.
async fn within(watchdog: &Watchdog, time: Duration) -> Option<Due> {
    timeout(time, watchdog.due()).await.ok()
}

fn replaced(due: Option<Due>, why: &str) {
    match due {
        Some(Due::Replace(reason)) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?} instead of {why:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_listener_is_asked_about_and_left_alone_while_it_is_online() {
    let mut dog = watchdog();
    dog.listening();
    for _ in 0..5 {
        assert_eq!(within(&dog, 9 * MINUTE).await, None);
        assert_eq!(within(&dog, 2 * MINUTE).await, Some(Due::Ask));
        dog.told(&Ok(Standing::Online));
    }
    assert_eq!(within(&dog, 11 * MINUTE).await, Some(Due::Idle));
}

#[tokio::test(start_paused = true)]
async fn questions_are_spread() {
    let first = |chance| Watchdog::new(limits(), true, true, chance).ask_at.map(|at| at - Instant::now());
    assert_eq!(first(|| 0.0), Some(8 * MINUTE));
    assert_eq!(first(|| 1.0), Some(12 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_listener_that_skipped_its_job_is_a_ghost_at_once() {
    let mut dog = watchdog();
    dog.listening();
    dog.heard(Sign::Acquiring);
    dog.heard(Sign::Skipped);
    replaced(within(&dog, Duration::ZERO).await, "used up");
    let mut kept = Watchdog::new(limits(), false, true, || 0.5);
    kept.listening();
    kept.heard(Sign::Acquiring);
    kept.heard(Sign::Skipped);
    assert_eq!(within(&kept, 5 * MINUTE).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_job_without_a_worker_is_given_up_after_a_minute() {
    for sign in [true, false] {
        let mut dog = watchdog();
        dog.listening();
        if sign {
            dog.heard(Sign::Acquiring)
        } else {
            dog.acquiring()
        }
        assert_eq!(within(&dog, MINUTE - Duration::from_millis(1)).await, None);
        replaced(within(&dog, Duration::from_millis(2)).await, "no worker");
    }
}

#[tokio::test(start_paused = true)]
async fn offline_for_three_minutes_while_listening_is_a_ghost_but_once_offline_is_not() {
    let mut dog = watchdog();
    dog.listening();
    dog.told(&Ok(Standing::Offline));
    assert_eq!(within(&dog, MINUTE).await, Some(Due::Ask), "it looks again soon");
    dog.told(&Ok(Standing::Online));
    assert_eq!(within(&dog, 5 * MINUTE).await, None, "a moment offline is forgotten");
    dog.told(&Ok(Standing::Offline));
    for _ in 0..3 {
        assert_eq!(within(&dog, MINUTE).await, Some(Due::Ask));
        dog.told(&Ok(Standing::Offline));
    }
    replaced(within(&dog, Duration::ZERO).await, "offline for 3m");
}

#[tokio::test(start_paused = true)]
async fn a_forge_that_does_not_answer_is_no_reason() {
    let mut dog = watchdog();
    dog.listening();
    for _ in 0..4 {
        dog.told(&Err(Fault::Unreachable("down".to_owned())));
        assert_eq!(within(&dog, 11 * MINUTE).await, Some(Due::Ask));
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_gone_is_believed_from_the_forge_at_once() {
    let mut dog = watchdog();
    dog.listening();
    dog.told(&Ok(Standing::Unknown));
    replaced(within(&dog, Duration::ZERO).await, "does not know");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_says_that_it_is_not_known_is_asked_about_and_believed_by_who_cannot_ask() {
    let mut dog = watchdog();
    // One answer of the forge is four lines.
    (0..4).for_each(|_| dog.heard(Sign::Unknown));
    assert_eq!(within(&dog, MINUTE / 2 - Duration::from_millis(1)).await, None);
    assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Ask));
    dog.told(&Ok(Standing::Unknown));
    replaced(within(&dog, Duration::ZERO).await, "does not know");

    let mut alone = Watchdog::new(limits(), true, false, || 0.5);
    (0..4).for_each(|_| alone.heard(Sign::Unknown));
    assert_eq!(within(&alone, Duration::from_secs(19)).await, None);
    alone.heard(Sign::Unknown);
    assert_eq!(within(&alone, Duration::from_secs(1)).await, None);
    alone.heard(Sign::Unknown);
    replaced(within(&alone, Duration::ZERO).await, "not known");
}

#[tokio::test(start_paused = true)]
async fn trouble_before_it_listens_makes_the_forge_be_asked_ever_later_until_it_listens() {
    let mut dog = watchdog();
    dog.heard(Sign::Disconnected);
    for minutes in [0.5, 1.0, 2.0] {
        assert_eq!(within(&dog, MINUTE.mul_f64(minutes)).await, Some(Due::Ask), "{minutes}");
        dog.told(&Err(Fault::Unreachable("down".to_owned())));
    }
    assert!(!dog.doubts(), "it never had a connection that it could lose");
    dog.listening();
    assert_eq!(within(&dog, 4 * MINUTE).await, None);
    // One that nobody can ask about is left alone.
    let mut alone = Watchdog::new(limits(), true, false, || 0.5);
    alone.heard(Sign::Disconnected);
    assert_eq!(within(&alone, 60 * MINUTE).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_session_conflict_that_lasts_ends_the_wait_and_one_that_passes_does_not() {
    let mut dog = watchdog();
    dog.heard(Sign::Conflict);
    // The agent asks each 30 s: after the fourth time.
    for _ in 0..3 {
        advance(MINUTE / 2).await;
        dog.heard(Sign::Conflict);
    }
    assert_eq!(within(&dog, Duration::from_secs(14)).await, None);
    replaced(within(&dog, Duration::from_secs(2)).await, "refuses a session");
    let mut dog = watchdog();
    dog.heard(Sign::Conflict);
    dog.listening();
    assert_eq!(within(&dog, 5 * MINUTE).await, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_stays_registered_is_not_replaced_for_a_session_of_its_own() {
    let mut dog = Watchdog::new(limits(), false, true, || 0.5);
    for _ in 0..30 {
        dog.heard(Sign::Conflict);
        match within(&dog, MINUTE / 2).await {
            None => {}
            Some(Due::Ask) => dog.told(&Ok(Standing::Online)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_neither_listens_nor_says_why_is_noted_once_and_asked_about() {
    for can_ask in [true, false] {
        let mut dog = Watchdog::new(limits(), true, can_ask, || 0.5);
        assert_eq!(within(&dog, 2 * MINUTE - Duration::from_millis(1)).await, None);
        assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Silent(2 * MINUTE)));
        dog.silent();
        assert_eq!(within(&dog, MINUTE).await, can_ask.then_some(Due::Ask));
    }
    // What it says, and that it listens, is told by itself.
    for sign in [Sign::Disconnected, Sign::Conflict, Sign::Unknown] {
        let mut dog = Watchdog::new(limits(), false, false, || 0.5);
        dog.heard(sign);
        assert_eq!(within(&dog, 60 * MINUTE).await, None, "{sign:?}");
    }
    let mut dog = watchdog();
    dog.listening();
    assert_eq!(within(&dog, 5 * MINUTE).await, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_ends_a_running_job_but_its_time_where_the_forge_is_not_to_be_asked() {
    let mut dog = Watchdog::new(Watch { job_offline: None, ..limits() }, true, true, || 0.5);
    dog.listening();
    dog.told(&Ok(Standing::Offline));
    dog.heard(Sign::Skipped);
    dog.acquiring();
    dog.running();
    dog.heard(Sign::Unknown);
    dog.heard(Sign::Unknown);
    dog.heard(Sign::Skipped);
    dog.heard(Sign::Conflict);
    for _ in 0..5 {
        dog.told(&Ok(Standing::Unknown));
        dog.told(&Ok(Standing::Offline));
    }
    assert_eq!(within(&dog, 119 * MINUTE).await, None);
    assert_eq!(within(&dog, 2 * MINUTE).await, Some(Due::Overdue));
    dog.done();
    assert_eq!(within(&dog, 600 * MINUTE).await, None);
}

/// A listener whose job runs.
fn with_job() -> Watchdog {
    let mut dog = Watchdog::new(Watch { job_max: None, ..limits() }, true, true, || 0.5);
    dog.listening();
    dog.acquiring();
    dog.running();
    dog
}

/// For so long, whenever the forge is asked, it says this.
async fn answers(dog: &mut Watchdog, mut time: Duration, standing: Result<Standing, Fault>) -> Option<Due> {
    loop {
        let before = Instant::now();
        match within(dog, time).await {
            Some(Due::Ask) => dog.told(&standing),
            other => return other,
        }
        time = time.saturating_sub(before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_runner_the_forge_calls_offline_and_idle_for_its_time_is_given_up() {
    let mut dog = with_job();
    assert_eq!(within(&dog, 9 * MINUTE).await, None, "asked by the interval");
    assert_eq!(within(&dog, 2 * MINUTE).await, Some(Due::Ask));
    dog.told(&Ok(Standing::Offline));
    assert_eq!(answers(&mut dog, 15 * MINUTE - Duration::from_millis(1), Ok(Standing::Offline)).await, None);
    let due = answers(&mut dog, Duration::from_secs(1), Ok(Standing::Offline)).await;
    assert_eq!(due, Some(Due::GivenUp(15 * MINUTE)));
}

#[tokio::test(start_paused = true)]
async fn no_other_answer_gives_a_job_up_and_each_starts_the_clock_anew() {
    let down = || Err(Fault::Unreachable("down".to_owned()));
    for standing in [Standing::Unknown, Standing::Busy, Standing::Online, Standing::OfflineBusy] {
        assert_eq!(answers(&mut with_job(), 600 * MINUTE, Ok(standing)).await, None, "{standing:?}");
    }
    assert_eq!(answers(&mut with_job(), 600 * MINUTE, down()).await, None);
    let other: [fn(&mut Watchdog); 4] = [
        |dog| dog.told(&Err(Fault::Unreachable("down".to_owned()))),
        |dog| dog.told(&Ok(Standing::Unknown)),
        |dog| dog.told(&Ok(Standing::OfflineBusy)),
        |dog| dog.not_asked(),
    ];
    for other in other {
        let mut dog = with_job();
        for _ in 0..10 {
            assert_eq!(answers(&mut dog, 20 * MINUTE, Ok(Standing::Offline)).await, None);
            other(&mut dog);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_ask_gives_no_job_up() {
    let mut dog = Watchdog::new(limits(), true, false, || 0.5);
    dog.running();
    assert_eq!(within(&dog, 119 * MINUTE).await, None);
}

/// A listener that listened and then said that it lost its connection.
fn cut_off(can_ask: bool, chance: fn() -> f64) -> Watchdog {
    let mut dog = Watchdog::new(limits(), true, can_ask, chance);
    dog.listening();
    dog.heard(Sign::Disconnected);
    dog
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_connection_the_forge_is_asked_ever_later_until_it_sees_the_runner() {
    let mut dog = cut_off(true, || 0.5);
    for minutes in [0.5, 1.0, 2.0, 4.0, 8.0, 8.0] {
        let wait = MINUTE.mul_f64(minutes);
        // The words come again for each failing poll, and put nothing off.
        dog.heard(Sign::Disconnected);
        assert_eq!(within(&dog, wait - Duration::from_millis(1)).await, None, "{minutes}");
        assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Ask), "{minutes}");
        dog.told(&Err(Fault::Unreachable("down".to_owned())));
        assert!(dog.doubts());
    }
    for standing in [Standing::Online, Standing::Busy] {
        let mut dog = cut_off(true, || 0.5);
        dog.told(&Ok(standing));
        assert!(!dog.doubts());
        assert_eq!(within(&dog, 9 * MINUTE).await, None, "and then as seldom as ever");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_lost_its_connection_together_does_not_ask_together() {
    let first = |chance| cut_off(true, chance).doubt.map(|doubt| doubt.asks_at() - Instant::now());
    assert_eq!(first(|| 0.0), Some(Duration::from_secs(20)));
    assert_eq!(first(|| 1.0), Some(Duration::from_secs(40)));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_says_that_it_is_cut_off_is_not_replaced_for_being_offline() {
    let mut dog = cut_off(true, || 0.5);
    for _ in 0..6 {
        assert_eq!(within(&dog, 11 * MINUTE).await, Some(Due::Ask));
        dog.told(&Ok(Standing::Offline));
    }
    assert!(dog.doubts());
    dog.told(&Ok(Standing::Unknown));
    replaced(within(&dog, Duration::ZERO).await, "does not know");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_put_off_is_asked_at_the_next_step() {
    let mut dog = cut_off(true, || 0.5);
    assert_eq!(within(&dog, MINUTE).await, Some(Due::Ask));
    dog.not_asked();
    assert_eq!(within(&dog, MINUTE - Duration::from_millis(1)).await, None);
    assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Ask));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_can_ask_the_doubt_lapses() {
    let mut dog = cut_off(false, || 0.5);
    assert_eq!(within(&dog, 5 * MINUTE - Duration::from_millis(1)).await, None);
    assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Lapse));
    dog.forget_doubt();
    assert_eq!(within(&dog, 30 * MINUTE).await, None);
    let mut never = Watchdog::new(Watch { interval: None, ..limits() }, true, true, || 0.5);
    never.listening();
    never.heard(Sign::Disconnected);
    assert_eq!(within(&never, 6 * MINUTE).await, Some(Due::Lapse));
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_all_doubt_and_a_listener_that_never_listened_has_none() {
    let mut dog = cut_off(true, || 0.5);
    dog.running();
    assert!(!dog.doubts());
    let mut starting = watchdog();
    starting.heard(Sign::Disconnected);
    assert!(!starting.doubts());
}
