//! GitHub's stand-in when it is told to be another version.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use oscr_sim::forge::{JobSpec, Refresh};
use oscr_sim::patience::patient;
use oscr_sim::protocol::JobResult;

use crate::common::{Agent, LIMIT, Running, forge};

fn refresh(url: Option<&str>) -> Refresh {
    Refresh { version: "9.9.9".into(), url: url.map(str::to_owned), sha256: String::new() }
}

const BEGINS: [&str; 2] = ["Runner update in progress, do not shutdown runner.", "Downloading 9.9.9 runner"];

#[test]
fn in_a_root_of_its_own_it_ends_with_4_and_a_script_takes_the_version_into_use() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "updates");
    forge.order(|o| o.refresh = Some(refresh(None)));
    assert_eq!(running.code(), Some(4));
    for words in BEGINS.iter().chain(&[
        "Waiting for current job finish running.",
        "Generate and execute update script.",
        "Runner will exit shortly for update, should be back online within 10 seconds.",
    ]) {
        assert!(running.said(words), "{words}: {:#?}", running.seen);
    }
    let deadline = Instant::now() + patient(LIMIT);
    while !agent.root.join("update.finished").exists() {
        assert!(Instant::now() < deadline, "the script of the update did not end");
        thread::sleep(Duration::from_millis(10));
    }
    let said = agent.command(&["--version"]).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "9.9.9\n");
}

#[test]
fn a_job_that_runs_is_waited_for() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "busy");
    let gate = agent.root.join("gate");
    let script = format!("echo started; until test -e {}; do sleep 0.01; done", gate.display());
    let id = forge.submit(JobSpec::script("long", &script));
    forge.wait("the step runs", LIMIT, |s| s.jobs.iter().any(|j| j.live.contains("started\n")));
    forge.order(|o| o.refresh = Some(refresh(None)));
    running.expect_line("Waiting for current job finish running.");
    fs::write(gate, "").expect("the gate");
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(4));
    let at = |part: &str| running.seen.iter().position(|line| line.contains(part)).expect("it was said");
    assert!(at("completed with result: Succeeded") < at("Generate and execute update script."));
}

#[test]
fn a_package_that_cannot_be_had_is_tried_three_times_and_it_listens_on() {
    let forge = forge();
    let (_agent, mut running) = Agent::listening(&forge, "nothing");
    // Nobody listens there.
    let url = "http://127.0.0.1:9/none.tar.gz";
    forge.order(|o| o.refresh = Some(refresh(Some(url))));
    running.expect_line(&format!("Runner update failed: Runner package '{url}' failed after 3 download attempts"));
    running.expect_line("Runner update process finished.");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}

/// A user who may make entries in the root, and delete none of what was there.
const SOMEBODY: u32 = 1001;

#[test]
fn in_a_root_that_it_cannot_rewrite_the_update_fails_and_it_listens_on() {
    let forge = forge();
    let agent = Agent::new();
    assert!(agent.configure(&forge, "sticky", &["--ephemeral"]).status.success());
    let work = agent.root.join("_work");
    fs::create_dir_all(&work).expect("a folder");
    let mut command = agent.command(&["run"]);
    let mode = if Uid::effective().is_root() {
        let diag = agent.root.join("_diag");
        let logs = fs::read_dir(&diag).expect("a folder").flatten().map(|entry| entry.path());
        for path in logs.chain([work, diag.clone()]) {
            chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("root may");
        }
        for name in [".runner", ".credentials", ".credentials_rsaparams"] {
            chown(agent.root.join(name), Some(SOMEBODY), Some(SOMEBODY)).expect("root may");
        }
        let folder = agent.root.parent().expect("a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("its mode");
        command.uid(SOMEBODY).gid(SOMEBODY);
        0o1777
    } else {
        0o555
    };
    fs::set_permissions(&agent.root, fs::Permissions::from_mode(mode)).expect("its mode");
    let mut running = Running::start(command);
    running.expect_line("Listening for Jobs");
    forge.order(|o| o.refresh = Some(refresh(None)));
    let line = running.expect_line("Runner update failed: Access to the path '");
    assert!(line.ends_with("' is denied."), "{line}");
    running.expect_line("Runner update process finished.");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(0));
    fs::set_permissions(&agent.root, fs::Permissions::from_mode(0o755)).expect("its mode");
}
