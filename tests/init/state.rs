//! The state that the child starts in.

use std::fs;
use std::path::Path;

use crate::harness::cases;
use crate::helper;
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
    its_own_directory_is_left_before_the_child_begins,
    listening_sockets_are_handed_on,
    listening_sockets_of_another_process_are_not,
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

fn wait_for(file: &Path, text: &str) {
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
    let before = ["sh", "-c", "cd /usr && exec \"$@\"", "sh"];
    let relative = World::script(init, "pwd -P").after(before).with(|options| options.workdir = Some("bin"));
    assert_eq!(relative.finish().out, "/usr/bin\n");
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

/// The processor that the init and its child share is the child's until it waits for something, so that what the init has yet to
/// do comes after the child's look.
fn its_own_directory_is_left_before_the_child_begins(init: &Init) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = field(&status, "Cpus_allowed_list");
    let processor = allowed.split([',', '-']).next().unwrap();
    let before = ["chrt", "--batch", "0", "taskset", "--cpu-list", processor, "env", "--chdir", "/usr"];
    for _ in 0..10 {
        assert_eq!(World::helper(init, &["directories"]).after(before).finish().out, "parent in /, child in /usr\n");
    }
    // A program that is named from there is found there, too.
    let mut line = helper::line(["directories"]);
    let program = Path::new(&line[0]).to_owned();
    let (directory, name) = (program.parent().unwrap(), program.file_name().unwrap());
    line[0] = Path::new("..").join(directory.file_name().unwrap()).join(name).into();
    let finished = World::new(init, &line).after(["env", "--chdir", directory.to_str().unwrap()]).finish();
    assert_eq!(finished.out, format!("parent in /, child in {}\n", directory.display()), "{finished:?}");
}

/// What the child sees of sockets that were opened before the init.
fn sockets(init: &Init, whose: &str) -> String {
    let given = format!("export LISTEN_PID={whose} LISTEN_FDS=2 LISTEN_FDNAMES=a:b");
    let before = format!("exec 3</dev/null 4</dev/zero; {given}; exec \"$@\"");
    let seen = "echo \"${LISTEN_PID-none} $$ ${LISTEN_FDS-none} ${LISTEN_FDNAMES-none}\"";
    let open = "$(readlink /proc/$$/fd/3 /proc/$$/fd/4)";
    World::script(init, &format!("{seen} {open}")).after(["sh", "-c", &before, "sh"]).finish().out
}

fn listening_sockets_are_handed_on(init: &Init) {
    let out = sockets(init, "$$");
    let (whose, rest) = out.trim().split_once(' ').unwrap();
    assert_eq!(rest, format!("{whose} 2 a:b /dev/null /dev/zero"));
}

fn listening_sockets_of_another_process_are_not(init: &Init) {
    let out = sockets(init, "4711");
    assert!(out.starts_with("none ") && out.contains(" none none") && !out.contains("/dev/"), "{out:?}");
}
