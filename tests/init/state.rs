//! The state that the child starts in.

use std::fs;

use crate::harness::cases;
use crate::inits::{Init, Options};
use crate::world::{Finished, Place, Running, World, content_of, field, scratch, until, words};

cases![
    the_mask_is_the_one_before,
    ignored_signals_are_the_ones_before,
    an_ignored_sigpipe_stays_ignored,
    ignored_real_time_signals_stay_ignored,
    only_the_standard_streams_are_inherited,
    the_child_is_told_when_the_init_dies,
    the_child_is_told_when_the_init_s_parent_dies,
    user_and_group_by_number,
    a_file_creation_mask,
    a_working_directory,
    a_wrong_working_directory_is_named,
    no_new_privileges,
    the_init_s_own_directory_is_not_kept_busy,
];

const STATUS: [&str; 2] = ["cat", "/proc/self/status"];

/// A field of the child's status equals what a program without an init would have there, after `before` has prepared it.
fn is_inherited(init: &Init, name: &str, before: &[&str], numbers: &[u32]) {
    let value = |text: &str| u64::from_str_radix(&field(text, name), 16).unwrap();
    let bare = Running::start(words(before.iter().chain(&STATUS)), Place::First, false).finish();
    let expected = value(&bare.out);
    for number in numbers {
        assert_ne!(expected & (1 << (number - 1)), 0, "{before:?} does not prepare {number}");
    }
    let child = World::new(init, STATUS).after(before).finish();
    assert_eq!(format!("{:016x}", value(&child.out)), format!("{expected:016x}"));
}

fn status_with(init: &Init, change: impl FnOnce(&mut Options)) -> Finished {
    World::new(init, STATUS).with(change).finish()
}

fn the_mask_is_the_one_before(init: &Init) {
    is_inherited(init, "SigBlk", &[], &[]);
    let before = ["env", "--block-signal=HUP", "--block-signal=USR1", "--block-signal=RTMIN+6"];
    is_inherited(init, "SigBlk", &before, &[1, 10, 40]);
}

fn ignored_signals_are_the_ones_before(init: &Init) {
    is_inherited(init, "SigIgn", &[], &[]);
    let before = ["env", "--ignore-signal=HUP", "--ignore-signal=USR2", "--ignore-signal=TTOU"];
    is_inherited(init, "SigIgn", &before, &[1, 12, 22]);
}

fn an_ignored_sigpipe_stays_ignored(init: &Init) {
    is_inherited(init, "SigIgn", &["env", "--ignore-signal=PIPE"], &[13]);
}

fn ignored_real_time_signals_stay_ignored(init: &Init) {
    is_inherited(init, "SigIgn", &["env", "--ignore-signal=RTMIN+6"], &[40]);
}

fn only_the_standard_streams_are_inherited(init: &Init) {
    let before = ["sh", "-c", "exec 3</dev/null 5</dev/null 9>/dev/null; exec \"$@\"", "sh"];
    let finished = World::new(init, ["ls", "/proc/self/fd"]).after(before).finish();
    // The fourth is the directory that is being listed.
    assert_eq!(finished.out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

fn the_child_is_told_when_the_init_dies(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("log");
    let mut line = words(["sh", "-c", "\"$@\"; read -r _", "sh"]);
    let world = World::helper(init, &["signals", "main", &file.to_string_lossy()])
        .with(|options| options.pdeathsig = Some("USR1"));
    line.extend(world.line());
    let running = Running::start(line, Place::Below, false);
    content_of(&file);
    running.signal(libc::SIGKILL);
    wait_for(&file, "main got 10\n");
}

fn the_child_is_told_when_the_init_s_parent_dies(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("log");
    let two_shells = r#"sh -c '"$@" & wait' sh "$@" & read -r _; kill -KILL $!; read -r _"#;
    let mut line = words(["sh", "-c", two_shells, "sh"]);
    let world = World::helper(init, &["signals", "main", &file.to_string_lossy()])
        .with(|options| options.pdeathsig = Some("USR1"));
    line.extend(world.line());
    let mut running = Running::start(line, Place::Below, false);
    content_of(&file);
    running.write("\n");
    wait_for(&file, "main got 10\n");
}

fn wait_for(file: &std::path::Path, text: &str) {
    until(text, || fs::read_to_string(file).unwrap_or_default().contains(text));
}

fn user_and_group_by_number(init: &Init) {
    let out = status_with(init, |options| options.user = Some("4711:4712".to_owned())).out;
    assert_eq!(field(&out, "Uid"), "4711\t4711\t4711\t4711");
    assert_eq!(field(&out, "Gid"), "4712\t4712\t4712\t4712");
    assert_eq!(field(&out, "Groups"), "4712");
}

fn a_file_creation_mask(init: &Init) {
    let out = status_with(init, |options| options.umask = Some("027")).out;
    assert_eq!(field(&out, "Umask"), "0027");
}

fn a_working_directory(init: &Init) {
    let world = World::script(init, "pwd -P").with(|options| options.workdir = Some("/usr"));
    assert_eq!(world.finish().out, "/usr\n");
}

fn a_wrong_working_directory_is_named(init: &Init) {
    for wrong in ["/no/such/directory", "/etc/passwd"] {
        let finished = World::script(init, "exit 0").with(|options| options.workdir = Some(wrong)).finish();
        assert!(
            finished.code == 125 && finished.err.contains(wrong) && finished.err.lines().count() == 1,
            "{finished:?}"
        );
    }
}

fn no_new_privileges(init: &Init) {
    assert_eq!(field(&World::new(init, STATUS).finish().out, "NoNewPrivs"), "0");
    let out = status_with(init, |options| options.no_new_privs = true).out;
    assert_eq!(field(&out, "NoNewPrivs"), "1");
}

fn the_init_s_own_directory_is_not_kept_busy(init: &Init) {
    let before = ["sh", "-c", "cd /usr && exec \"$@\"", "sh"];
    let mut running = World::script(init, "pwd; read -r _").after(before).start();
    running.expect("/usr\n");
    let link = format!("/proc/{}/cwd", running.init());
    until("the init is at /", || fs::read_link(&link).is_ok_and(|cwd| cwd.as_os_str() == "/"));
}
