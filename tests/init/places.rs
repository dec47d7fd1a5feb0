//! Surroundings that containers have.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use crate::harness::cases;
use crate::helper;
use crate::inits::Init;
use crate::world::{World, scratch};

cases![
    below_docker_s_own_init,
    an_image_with_nothing_in_it,
    leftovers_in_an_image_without_proc,
    a_read_only_root,
    an_unprivileged_user,
    closed_standard_streams,
    a_standard_error_that_cannot_be_written_to,
    a_limit_of_1024_descriptors,
    a_limit_of_six_descriptors,
    a_filter_that_forbids_newer_system_calls,
    no_descriptor_is_inherited_below_such_a_filter,
];

/// A root directory that holds the init as `/init`, the helper as `/helper`, and nothing else.
pub fn bare_root(init: &Init) -> (tempfile::TempDir, PathBuf) {
    let program = init.static_program.unwrap_or_else(|| panic!("{} needs libraries", init.name));
    let (directory, root) = scratch();
    fs::copy(program, root.join("init")).unwrap();
    fs::copy(&helper::line([""; 0])[0], root.join("helper")).unwrap();
    (directory, root)
}

/// It starts a child, reaps, and hands a code on.
fn works(world: World<'_>) {
    let mut running = world.start();
    running.expect("ready");
    running.write("\n");
    let finished = running.finish();
    assert_eq!(finished.code, 7, "{finished:?}");
}

const SCRIPT: &str = "(: &); (: &); echo ready; read -r _; exit 7";

fn below_docker_s_own_init(init: &Init) {
    works(World::script(init, SCRIPT).after(["tini", "--"]));
}

fn an_image_with_nothing_in_it(init: &Init) {
    let (_directory, root) = bare_root(init);
    let finished = World::new(init, ["/helper", helper::FLAG, "state"])
        .at("/init")
        .after(["chroot".as_ref(), root.as_os_str()])
        .finish();
    assert!(finished.code == 7 && finished.out.contains("uid=0"), "{finished:?}");
}

fn leftovers_in_an_image_without_proc(init: &Init) {
    let (_directory, root) = bare_root(init);
    let finished = World::new(init, ["/helper", helper::FLAG, "leave"])
        .at("/init")
        .after(["chroot".as_ref(), root.as_os_str()])
        .finish();
    // It says so when it has to give up.
    assert!(finished.code == 7 && finished.err.is_empty(), "{finished:?}");
}

fn a_read_only_root(init: &Init) {
    let before = ["sh", "-c", "mount -o remount,bind,ro / && exec \"$@\"", "sh"];
    works(World::script(init, &format!("! touch /here 2>&1 || exit 1; {SCRIPT}")).after(before));
}

fn an_unprivileged_user(init: &Init) {
    let (_directory, path) = scratch();
    let program = path.join("init");
    fs::copy(init.program, &program).unwrap();
    let before = ["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "--inh-caps=-all"];
    works(World::script(init, &format!("[ $(id -u) = 1001 ] || exit 1; {SCRIPT}")).at(&program).after(before));
}

fn closed_standard_streams(init: &Init) {
    let before = ["sh", "-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh"];
    let finished = World::script(init, "(: &); exit 7").after(before).finish();
    assert_eq!(finished.code, 7);
}

fn a_standard_error_that_cannot_be_written_to(init: &Init) {
    let code = |command: &str, before: &[&str]| World::new(init, [command]).after(before).finish().code;
    let full = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"];
    for command in ["true", "no-such-program"] {
        assert_eq!(code(command, &full), code(command, &[]));
    }
}

fn a_limit_of_1024_descriptors(init: &Init) {
    works(World::script(init, SCRIPT).after(["prlimit", "--nofile=1024:1024"]));
}

fn a_limit_of_six_descriptors(init: &Init) {
    // The shell that runs the script needs more itself.
    let finished = World::new(init, ["sleep", "0"]).after(["prlimit", "--nofile=6:6"]).finish();
    assert_eq!(finished.code, 0, "{finished:?}");
}

/// What a filter from before the system call, and one that forbids it, answer.
fn without_close_range(error: i32) -> Vec<OsString> {
    let call = libc::SYS_close_range.to_string();
    helper::line(["deny", &call, "any", &error.to_string()])
}

fn a_filter_that_forbids_newer_system_calls(init: &Init) {
    for error in [libc::EPERM, libc::ENOSYS] {
        works(World::script(init, SCRIPT).after(without_close_range(error)));
    }
}

fn no_descriptor_is_inherited_below_such_a_filter(init: &Init) {
    for error in [libc::EPERM, libc::ENOSYS] {
        let open = ["sh", "-c", "exec 5</dev/null; exec \"$@\"", "sh"];
        let script = format!("[ ! -e /proc/self/fd/5 ] || exit 1; {SCRIPT}");
        works(World::script(init, &script).after(without_close_range(error)).after(open));
    }
}
