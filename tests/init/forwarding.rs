//! Signals, from whoever sends them to the child.

use std::collections::BTreeSet;

use crate::harness::cases;
use crate::helper;
use crate::inits::Init;
use crate::world::{Running, World};

cases![
    ordinary_signals_are_forwarded,
    signals_of_faults_are_forwarded_when_somebody_sends_them,
    real_time_signals_are_forwarded,
    real_time_signals_that_the_c_library_hides_are_forwarded,
    real_time_signals_are_counted,
    signals_sent_all_at_once_all_arrive,
    the_whole_group_gets_them,
    the_child_alone_can_get_them,
    a_signal_can_be_rewritten,
    a_signal_can_be_rewritten_to_a_real_time_one,
    a_signal_can_be_dropped,
    a_signal_that_waited_before_the_start_reaches_the_child,
    a_signal_that_waited_before_the_start_reaches_the_group,
];

/// All but SIGKILL and SIGSTOP, which cannot be forwarded, SIGCHLD, which is the init's own, and the terminal's stops.
const ORDINARY: [i32; 18] = [1, 2, 3, 10, 12, 13, 14, 16, 18, 23, 24, 25, 26, 27, 28, 29, 30, 15];
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

fn receiver(init: &Init) -> Running {
    let mut running = World::helper(init, &["signals", "main"]).start();
    running.expect("main ready");
    running
}

fn forwards(init: &Init, numbers: impl IntoIterator<Item = i32>) {
    let mut running = receiver(init);
    for number in numbers {
        running.signal(number);
        running.expect(&format!("main got {number}\n"));
    }
}

fn ordinary_signals_are_forwarded(init: &Init) {
    forwards(init, ORDINARY);
}

fn signals_of_faults_are_forwarded_when_somebody_sends_them(init: &Init) {
    forwards(init, FAULTS);
}

fn real_time_signals_are_forwarded(init: &Init) {
    forwards(init, 35..=64);
}

fn real_time_signals_that_the_c_library_hides_are_forwarded(init: &Init) {
    forwards(init, [32, 33, 34]);
}

fn real_time_signals_are_counted(init: &Init) {
    let mut running = receiver(init);
    for _ in 0..50 {
        running.signal(40);
    }
    for _ in 0..50 {
        running.expect("main got 40\n");
    }
}

fn signals_sent_all_at_once_all_arrive(init: &Init) {
    let mut running = receiver(init);
    // SIGTERM ends the receiver.
    let sent: BTreeSet<i32> = ORDINARY.into_iter().filter(|number| *number != 15).chain(35..=64).collect();
    for number in &sent {
        running.signal(*number);
    }
    let got: BTreeSet<i32> = sent.iter().map(|_| running.expect_value("main got ").parse().unwrap()).collect();
    assert_eq!(got, sent);
}

fn the_whole_group_gets_them(init: &Init) {
    let mut running = World::helper(init, &["pair"]).start();
    running.expect("other ready");
    running.signal(10);
    let mut got = running.expect(" got 10");
    got += &running.expect(" got 10");
    assert!(got.contains("main got") && got.contains("other got"), "{got}");
}

fn the_child_alone_can_get_them(init: &Init) {
    let mut running = World::helper(init, &["pair"]).with(|options| options.single_child = true).start();
    running.expect("other ready");
    running.signal(10);
    running.signal(15);
    let finished = running.finish();
    assert!(finished.out.contains("main got 10") && !finished.out.contains("other got 10"), "{finished:?}");
}

fn rewrites(init: &Init, rules: &[(i32, i32)], sent: &[i32], expected: &str) {
    let mut running =
        World::helper(init, &["signals", "main"]).with(|options| options.rewrite = rules.to_vec()).start();
    running.expect("main ready\n");
    for number in sent {
        running.signal(*number);
    }
    let got = running.expect(expected);
    assert_eq!(got, expected);
}

fn a_signal_can_be_rewritten(init: &Init) {
    rewrites(init, &[(15, 10), (1, 3)], &[15], "main got 10\n");
    rewrites(init, &[(15, 10), (1, 3)], &[1], "main got 3\n");
    rewrites(init, &[(15, 10), (1, 3)], &[10], "main got 10\n");
}

fn a_signal_can_be_rewritten_to_a_real_time_one(init: &Init) {
    rewrites(init, &[(15, 40)], &[15], "main got 40\n");
}

fn a_signal_can_be_dropped(init: &Init) {
    rewrites(init, &[(1, 0)], &[1, 12], "main got 12\n");
}

fn waiting_before_the_start(init: &Init, single_child: bool) {
    for _ in 0..10 {
        let finished = World::helper(init, &["signals", "main"])
            .with(|options| options.single_child = single_child)
            .after(helper::line(["pending", "15"]))
            .finish();
        // It may be blocked in the child, as it was for the init, or end the child as it does by default.
        let arrived = finished.out.contains("main got 15") || finished.code == 143;
        assert!(arrived, "{finished:?}");
    }
}

fn a_signal_that_waited_before_the_start_reaches_the_child(init: &Init) {
    waiting_before_the_start(init, true);
}

fn a_signal_that_waited_before_the_start_reaches_the_group(init: &Init) {
    waiting_before_the_start(init, false);
}
