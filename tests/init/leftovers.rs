//! What the main child leaves behind.

use std::time::Instant;

use crate::harness::cases;
use crate::helper;
use crate::inits::Init;
use crate::world::{Place, Running, World, content_of, scratch, state, until, words};

cases![
    nothing_outlives_it_where_it_is_not_pid_1,
    what_is_left_gets_sigterm_and_a_grace,
    what_ignores_sigterm_gets_sigkill_after_the_grace,
    the_grace_ends_when_nothing_is_left,
    a_signal_during_the_grace_reaches_what_is_left,
];

/// Leaves processes behind that are hard to find: in another session, without a parent, stopped. All are so when it ends.
const MESS: &str = "
    up=$(setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo up')
    (sleep 1001 >/dev/null 2>&1 &)
    sleep 1002 & kill -STOP $!
    exit 7";

/// Starts the init below a shell that lists what there is when the init is gone.
fn then_list(world: World<'_>) -> Running {
    let list = r#"
        "$@"
        echo "code=$?"
        for process in /proc/[0-9]*; do
            read -r stat <"$process/stat" && echo "left=$stat"
        done
        echo end"#;
    let mut line = words(["sh", "-c", list, "sh"]);
    line.extend(world.line());
    Running::start(line, Place::Below, false)
}

fn assert_nothing_is_left(listed: &str) {
    let left: Vec<&str> = listed.lines().filter(|line| line.starts_with("left=")).collect();
    assert!(left.len() == 1 && left[0].starts_with("left=1 (sh)"), "{listed}");
}

fn nothing_outlives_it_where_it_is_not_pid_1(init: &Init) {
    let finished = then_list(World::script(init, MESS)).finish();
    assert!(finished.out.contains("code=7"), "{finished:?}");
    assert_nothing_is_left(&finished.out);
}

fn what_is_left_gets_sigterm_and_a_grace(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("log");
    // The one left ends by itself once it has SIGTERM.
    let left = helper::line(["signals", "left"]);
    let script = format!(
        "{} {} signals left {file} & until [ -s {file} ]; do sleep 0.01; done; exit 7",
        left[0].display(),
        helper::FLAG,
        file = file.display(),
    );
    let world = World::script(init, &script).with(|options| options.grace = Some("600"));
    let finished = then_list(world).finish();
    assert!(finished.out.contains("code=7"), "{finished:?}");
    assert!(content_of(&file).contains("left got 15\n"));
    assert_nothing_is_left(&finished.out);
}

fn what_ignores_sigterm_gets_sigkill_after_the_grace(init: &Init) {
    let begun = Instant::now();
    let script = "(trap '' TERM; sleep 1000 >/dev/null 2>&1 &); exit 7";
    let world = World::script(init, script).with(|options| options.grace = Some("1"));
    let finished = then_list(world).finish();
    assert!(finished.out.contains("code=7"), "{finished:?}");
    assert_nothing_is_left(&finished.out);
    assert!(begun.elapsed().as_secs() >= 1, "{:?}", begun.elapsed());
}

fn the_grace_ends_when_nothing_is_left(init: &Init) {
    let world = World::script(init, MESS).with(|options| options.grace = Some("600"));
    let finished = then_list(world).finish();
    assert!(finished.out.contains("code=7"), "{finished:?}");
    assert_nothing_is_left(&finished.out);
}

fn a_signal_during_the_grace_reaches_what_is_left(init: &Init) {
    let script = "(trap '' TERM; sleep 1000 >/dev/null 2>&1 &); exit 7";
    let world =
        World::script(init, &format!("echo ready; read -r _; {script}")).with(|options| options.grace = Some("600"));
    let mut running = then_list(world);
    running.expect("ready");
    let (init, main) = (running.init(), running.main());
    running.write("\n");
    until("the main child is gone", || state(main) == '-');
    oscr::os::signal::kill(init.as_raw(), libc::SIGUSR1).unwrap();
    let finished = running.finish();
    assert!(finished.out.contains("code=7"), "{finished:?}");
    assert_nothing_is_left(&finished.out);
}
