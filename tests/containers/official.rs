//! The table of scenarios that official agents are tried with (`make test-official`), with the stand-in and in one posture.

use std::process::Command;

use crate::docker::command;
use crate::world::IMAGE;

pub fn every_scenario_of_the_table_is_green_with_the_stand_in(_: &str) {
    let programs = oscr_sim::agent::programs_dir().expect("the simulation's programs are built");
    // As whoever has Docker and this one file.
    let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
    let mut table = Command::new(programs.join("official"));
    table.current_dir(folder.path());
    table.args(["--image", IMAGE, "--docker-image", &format!("{IMAGE}-docker"), "--posture", "default"]);
    // What the stand-in cannot do, as in scripts/official.sh.
    table.args(["--without", "javascript"]);
    let output = table.output().expect("it can be run");
    let (said, seen) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{seen}");
    let green = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(green > 0 && said.ends_with(&format!("{green} passed, 0 failed\n")), "{said}");
    println!("{said}");
}

pub fn what_a_run_of_the_table_made_is_gone_when_it_is_interrupted(name: &str) {
    let programs = oscr_sim::agent::programs_dir().expect("the simulation's programs are built");
    let prefix = crate::world::project_name(name);
    let mut table = Command::new(programs.join("official"));
    table.env("OSCR_TEST_PREFIX", &prefix).args(["--image", IMAGE, "--posture", "default", "--only", "board"]);
    let mut table = table.stdout(std::process::Stdio::null()).spawn().expect("it can be run");
    let left = || {
        let all = [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]];
        all.map(|all| {
            let filter = format!("name={prefix}");
            crate::docker::run(&mut command(&[all, &["--quiet", "--filter", &filter]].concat())).lines().count()
        })
    };
    // A board's runners, its network and its volumes.
    let until = std::time::Instant::now() + oscr_sim::patience::patient(oscr_sim::patience::LIMIT);
    while left().contains(&0) {
        assert!(std::time::Instant::now() < until, "{:?}", left());
        std::thread::sleep(crate::docker::POLL);
    }
    let process = nix::unistd::Pid::from_raw(i32::try_from(table.id()).expect("a process id"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let code = table.wait().expect("it can be waited for").code();
    assert_eq!((code, left()), (Some(130), [0, 0, 0]));
}
