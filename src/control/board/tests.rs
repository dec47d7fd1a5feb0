//! What the board makes of what happens.

use super::super::health::TOLERATED_BACKOFF;
use super::*;

fn listening() -> Board {
    let board = Board::new("github", "o/r");
    board.enter(Phase::Listening);
    board.connected();
    board
}

fn long_ago() -> Option<SystemTime> {
    Some(SystemTime::now() - TOLERATED_BACKOFF - Duration::from_secs(1))
}

#[test]
fn a_lost_connection_is_told_at_once_and_counts_as_ill_only_when_it_lasts() {
    let board = listening();
    board.disconnected();
    let status = board.status();
    assert!(status.healthy && status.last_error.is_some_and(|error| error.contains("lost its connection")));
    assert_eq!(status.connection, Some(Connection::Lost));

    board.times.cut_off_since.set(long_ago());
    board.disconnected();
    let status = board.status();
    assert!(!status.healthy && status.reason.is_some_and(|why| why.contains("lost its connection")));

    board.well();
    assert!(!board.status().healthy, "time makes no connection");
    board.connected();
    assert!(board.status().healthy);
}

#[test]
fn what_nobody_can_say_is_no_illness() {
    let board = listening();
    board.disconnected();
    board.times.cut_off_since.set(long_ago());
    board.connection_unknown();
    let status = board.status();
    assert!(status.healthy);
    assert!(status.to_string().contains("not known"), "{status}");
}

#[test]
fn a_listener_that_ended_while_it_was_cut_off_makes_nothing_well() {
    let board = listening();
    board.times.cut_off_since.set(long_ago());
    board.listener_gone();
    board.fault("the listener ended", Duration::from_secs(1));
    for phase in [Phase::BackingOff, Phase::Cleaning, Phase::Registering, Phase::Listening] {
        board.enter(phase);
        assert!(!board.status().healthy, "{phase}");
    }
    board.connected();
    assert!(!board.status().healthy, "a new listener has proved nothing yet");
    board.well();
    assert!(board.status().healthy);
}

#[test]
fn three_listeners_that_ended_soon_are_ill_until_one_has_proved_itself() {
    let board = listening();
    for ends in 1..=4 {
        board.ended_early();
        board.fault("it crashed", Duration::from_secs(1));
        for phase in [Phase::BackingOff, Phase::Registering, Phase::Listening] {
            board.enter(phase);
            assert_eq!(board.status().healthy, ends < 3, "{ends} {phase}");
        }
    }
    let reason = board.status().reason.unwrap_or_default();
    assert!(reason.contains("4 listeners in a row") && reason.contains("it crashed"), "{reason}");
    board.enter(Phase::Running);
    assert!(board.status().healthy, "a job runs");
    board.well();
    board.enter(Phase::Listening);
    assert!(board.status().healthy);
}

/// Asserts that it is ill for this reason, whatever it does but run a job.
#[track_caller]
fn ill(board: &Board, why: &str) {
    use Phase::{BackingOff, Cleaning, Listening, Registering, Starting, Unregistering, Waiting};
    for phase in [BackingOff, Starting, Cleaning, Waiting, Registering, Listening, Unregistering] {
        board.enter(phase);
        let reason = board.status().reason;
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(why)), "{phase}: {reason:?}");
    }
}

#[test]
fn why_the_forge_refuses_us_stays_the_reason_until_all_is_well() {
    for phase in [Phase::Denied, Phase::Outdated] {
        let board = listening();
        board.fault("refused", Duration::from_secs(1));
        board.keep_reason(phase, "refused");
        ill(&board, "refused");
        board.fault("something else", Duration::from_secs(1));
        ill(&board, "refused");
        assert!(board.has_faults());
        board.enter(Phase::Running);
        assert!(board.status().healthy, "a job runs");
        board.well();
        board.enter(Phase::Listening);
        assert!(board.status().healthy && !board.has_faults());
    }
}

#[test]
fn why_a_place_cannot_be_used_stays_the_reason_until_it_can() {
    for phase in [Phase::Dirty, Phase::Full] {
        let board = listening();
        board.keep_reason(phase, "a place");
        board.well();
        ill(&board, "a place");
        board.drop_reason(phase);
        assert!(board.status().healthy, "{phase}");
    }
}

#[test]
fn trouble_to_begin_is_told_at_once_and_lasts_over_each_listener_that_is_replaced() {
    let board = Board::new("github", "o/r");
    board.enter(Phase::Registering);
    board.cannot_listen("Runner connect error: no session", Duration::ZERO);
    let status = board.status();
    assert_eq!((status.healthy, status.connection), (true, Some(Connection::Lost)));
    assert!(status.last_error.is_some_and(|error| error.contains("Runner connect error: no session")));
    board.times.faulty_since.set(long_ago());
    for _ in 0..2 {
        board.listener_gone();
        board.fault("the forge does not know it", Duration::from_secs(1));
        ill(&board, "does not know it");
        board.enter(Phase::Registering);
        board.cannot_listen("no session", Duration::ZERO);
        ill(&board, "no session");
    }
    board.connected();
    assert!(!board.status().healthy, "a new listener has proved nothing yet");
    board.well();
    assert!(board.status().healthy);
    // What was found late had begun before.
    board.cannot_listen("not a word", TOLERATED_BACKOFF + Duration::from_secs(1));
    ill(&board, "not a word");
}
