//! Orphans.

use crate::harness::cases;
use crate::helper;
use crate::inits::Init;
use crate::world::{World, children, until, words};

cases![
    orphans_are_reaped_in_any_order,
    two_hundred_that_die_at_once_are_all_reaped,
    orphans_come_to_it_where_it_is_not_pid_1,
    it_says_so_when_it_is_neither_pid_1_nor_a_subreaper,
    the_end_of_another_child_does_not_end_it,
    children_are_reaped_even_if_sigchld_was_ignored,
];

fn orphans_are_reaped_in_any_order(init: &Init) {
    let storm = r#"
        i=0
        while [ $i -lt 150 ]; do
            (sleep 0.0$((i * 7 % 10)) &)
            (: &)
            (sh -c 'kill -KILL $$' &)
            (sh -c 'kill -40 $$' &)
            i=$((i + 1))
        done
        echo done
        read -r _
        exit 7"#;
    let mut running = World::script(init, storm).start();
    running.expect("done");
    let init = running.init();
    until("only the main child is left", || children(init).len() == 1);
    running.write("\n");
    assert_eq!(running.finish().code, 7);
}

fn two_hundred_that_die_at_once_are_all_reaped(init: &Init) {
    let storm = r#"
        pids=$(i=0; while [ $i -lt 200 ]; do (sleep 1000 >/dev/null & echo $!); i=$((i + 1)); done)
        echo ready
        read -r _
        kill -KILL $pids
        echo killed
        read -r _
        exit 7"#;
    let mut running = World::script(init, storm).start();
    running.expect("ready");
    let init = running.init();
    until("all are its own", || children(init).len() == 201);
    running.write("\n");
    running.expect("killed");
    until("only the main child is left", || children(init).len() == 1);
    running.write("\n");
    assert_eq!(running.finish().code, 7);
}

fn orphans_come_to_it_where_it_is_not_pid_1(init: &Init) {
    let mut running = World::script(
        init,
        "orphan=$(sleep 1000 >/dev/null & echo $!); echo orphan=$orphan; read -r _; kill -KILL $orphan; read -r _; exit 7",
    )
    .below()
    .start();
    running.expect("orphan=");
    let init = running.init();
    until("the orphan is its own", || children(init).len() == 2);
    running.write("\n");
    until("the orphan is reaped", || children(init).len() == 1);
    running.write("\n");
    assert_eq!(running.finish().code, 7);
}

fn it_says_so_when_it_is_neither_pid_1_nor_a_subreaper(init: &Init) {
    let deny = helper::line([
        "deny",
        &libc::SYS_prctl.to_string(),
        &libc::PR_SET_CHILD_SUBREAPER.to_string(),
        &libc::EPERM.to_string(),
    ]);
    let finished = World::script(init, "exit 0").below().after(deny).finish();
    assert!(finished.err.contains("reap"), "{finished:?}");
}

fn the_end_of_another_child_does_not_end_it(init: &Init) {
    // A child that the init got with its process, from before it was an init.
    let before = words(["sh", "-c", "sleep 0.1 & exec \"$@\"", "sh"]);
    let mut running = World::script(init, "echo ready; read -r _; exit 7").after(before).start();
    running.expect("ready");
    let init = running.init();
    until("the other one is reaped", || children(init).len() == 1);
    running.write("\n");
    assert_eq!(running.finish().code, 7);
}

fn children_are_reaped_even_if_sigchld_was_ignored(init: &Init) {
    let finished = World::script(init, "(: &); exit 7").after(["env", "--ignore-signal=CHLD"]).finish();
    assert_eq!(finished.code, 7);
}
