//! Exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::cases;
use crate::inits::Init;
use crate::world::{World, scratch};

cases![
    the_child_s_code_is_its_own,
    a_signal_n_gives_128_plus_n,
    a_real_time_signal_n_gives_128_plus_n,
    a_code_can_be_remapped,
    what_cannot_be_found_gives_127,
    what_cannot_be_executed_gives_126,
    a_missing_interpreter_is_named,
    a_script_that_names_no_shell_is_run_by_sh,
    a_program_of_another_machine_gives_126,
    a_failed_start_is_one_clear_line,
];

fn code(init: &Init, script: &str) -> i32 {
    World::script(init, script).finish().code
}

fn the_child_s_code_is_its_own(init: &Init) {
    for expected in [0, 1, 42, 255] {
        assert_eq!(code(init, &format!("exit {expected}")), expected);
    }
}

fn a_signal_n_gives_128_plus_n(init: &Init) {
    for number in [1, 9, 11, 15] {
        assert_eq!(code(init, &format!("kill -{number} $$")), 128 + number);
    }
}

fn a_real_time_signal_n_gives_128_plus_n(init: &Init) {
    for number in [34, 40, 64] {
        assert_eq!(code(init, &format!("kill -{number} $$")), 128 + number);
    }
}

fn a_code_can_be_remapped(init: &Init) {
    let remapped = |script| World::script(init, script).with(|options| options.remap = Some(143)).finish().code;
    assert_eq!(remapped("kill -TERM $$"), 0);
    assert_eq!(remapped("exit 143"), 0);
    assert_eq!(remapped("exit 3"), 3);
}

fn what_cannot_be_found_gives_127(init: &Init) {
    assert_eq!(World::new(init, ["no-such-program"]).finish().code, 127);
    assert_eq!(World::new(init, ["/no/such/program"]).finish().code, 127);
}

fn what_cannot_be_executed_gives_126(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("not-executable");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    assert_eq!(World::new(init, [&file]).finish().code, 126);
    assert_eq!(World::new(init, ["/usr"]).finish().code, 126);
}

fn a_missing_interpreter_is_named(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("script");
    fs::write(&file, "#!/no/such/shell\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let finished = World::new(init, [&file]).finish();
    assert!(finished.code == 126 && finished.err.contains("interpreter"), "{finished:?}");
}

fn a_script_that_names_no_shell_is_run_by_sh(init: &Init) {
    let (_directory, path) = scratch();
    let (file, other) = (path.join("script"), path.join("earlier/script"));
    fs::write(&file, "echo \"$0 $# $2\"\nexit 3\n").unwrap();
    fs::create_dir(path.join("earlier")).unwrap();
    fs::write(&other, "echo not ours to execute\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let name = file.to_str().unwrap();
    let search = format!("PATH={}:{}:/no/such:/usr/bin:/bin", other.parent().unwrap().display(), path.display());
    let here = ["env", "--chdir", path.to_str().unwrap()];
    let ways = [("script", vec!["env", &search]), (name, vec![]), ("./script", here.to_vec())];
    for (way, before) in ways {
        let finished = World::new(init, [way, "a", "b  c"]).after(before).finish();
        let shown = if way == "script" { name } else { way };
        assert_eq!((finished.code, finished.out), (3, format!("{shown} 2 b  c\n")), "{way}: {}", finished.err);
    }
}

fn a_program_of_another_machine_gives_126(init: &Init) {
    let (_directory, path) = scratch();
    let file = path.join("program");
    fs::write(&file, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let finished = World::new(init, [&file]).finish();
    assert!(finished.code == 126 && finished.err.contains("program"), "{finished:?}");
}

fn a_failed_start_is_one_clear_line(init: &Init) {
    for program in ["no-such-program", "/usr"] {
        let err = World::new(init, [program]).finish().err;
        assert!(err.lines().count() == 1 && err.contains(program), "{err:?}");
    }
}
