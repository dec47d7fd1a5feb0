//! GitHub's stand-in and the places that it works in: its files, their modes, and what it must be able to see.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use nix::unistd::Uid;
use oscr_sim::forge::JobSpec;
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::common::{Agent, LIMIT, api, forge};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}

#[test]
fn its_files_have_the_official_runners_modes() {
    let forge = forge();
    let agent = Agent::new();
    assert!(agent.configure(&forge, "files", &[]).status.success());
    for (name, wanted) in
        [(".runner", 0o644), (".credentials", 0o644), (".credentials_rsaparams", 0o600), ("svc.sh", 0o755)]
    {
        assert_eq!(mode(&agent.root.join(name)), wanted, "{name}");
    }
    assert!(agent.root.join("_diag").is_dir());
}

#[test]
fn a_start_by_token_makes_ten_requests_of_its_own_and_one_just_in_time_six() {
    let forge = forge();
    let (_agent, _running) = Agent::listening(&forge, "token");
    let made = |forge: &oscr_sim::forge::ForgeHandle| -> Vec<String> {
        let own = forge.requests().into_iter().filter(|r| r.agent);
        own.map(|r| format!("{} {}", r.method, r.path.trim_start_matches("/api/v3"))).collect()
    };
    let by_token = made(&forge);
    let listens = [
        "GET /_tenant/_apis/connectionData",
        "GET /_tenant/_apis/connectionData",
        "GET /_tenant/_apis/connectionData",
        "POST /_oauth/token",
        "POST /_broker/session",
        "GET /_broker/message",
    ];
    let registers = [
        "POST /actions/runner-registration",
        "GET /repos/o/r/actions/runner-groups",
        "GET /repos/o/r/actions/runners",
        "POST /actions/runners/register",
    ];
    assert_eq!(by_token, [&registers[..], &listens[..]].concat());
    let asks_for_updates = |wanted: &str| {
        let polls: Vec<String> =
            forge.requests().into_iter().filter(|r| r.path == "/_broker/message").filter_map(|r| r.query).collect();
        assert!(polls.iter().all(|query| query.contains(wanted)) && !polls.is_empty(), "{polls:?}");
    };
    asks_for_updates("disableUpdate=true");
    forge.clear_requests();
    let ask = json!({"name": "jit", "runner_group_id": 1, "labels": ["self-hosted"]});
    let (_, _, made_config) = api(&forge, "POST", "/repos/o/r/actions/runners/generate-jitconfig", Some(ask));
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_INPUT_JITCONFIG", made_config["encoded_jit_config"].as_str().expect("text"));
    let mut running = agent.run(&[]);
    running.expect_line("Listening for Jobs");
    forge.wait("it polls", LIMIT, |s| s.requests.iter().any(|r| r.path == "/_broker/message"));
    assert_eq!(made(&forge), listens);
    // Its configuration says nothing of updates, and so it asks for them.
    asks_for_updates("disableUpdate=false");
}

#[test]
fn where_the_services_are_is_kept_below_the_users_configuration() {
    let forge = forge();
    for (variable, folder) in [("HOME", "home/.config"), ("localappdata", "local")] {
        let mut agent = Agent::new();
        let base = agent.root.join(folder);
        fs::create_dir_all(&base).expect("a folder");
        let value = if variable == "HOME" { agent.root.join("home") } else { base.clone() };
        agent.set(variable, &value.to_string_lossy());
        let (_agent, _running) = agent.listen(&forge, folder.rsplit('/').next().expect("a name"), &["--ephemeral"]);
        assert!(base.join("GitHubActionsService").is_dir(), "{variable}");
    }
}

#[test]
fn the_worker_is_the_listeners_child_and_both_go_by_their_names() {
    let forge = forge();
    let (_agent, mut running) = Agent::listening(&forge, "names");
    let script = "w=$PPID; l=$(awk '{print $4}' /proc/$w/stat); cat /proc/$w/comm /proc/$l/comm; \
                  tr '\\0' ' ' </proc/$w/cmdline";
    let job = forge.wait_job(forge.submit(JobSpec::script("job", script)), LIMIT);
    assert!(job.log.contains("Runner.Worker\nRunner.Listener\n"), "{}", job.log);
    assert!(job.log.contains("spawnclient 139 142"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
}

/// A user who may not look everywhere, as root may.
const SOMEBODY: u32 = 1001;

#[test]
fn every_folder_above_root_and_work_must_be_listed() {
    let forge = forge();
    for which in ["root", "work"] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let hidden = folder.path().join("hidden");
        fs::create_dir(&hidden).expect("a folder");
        let mut agent = Agent::new();
        if which == "root" {
            agent.move_to(&hidden.join("agent"));
        }
        let work = if which == "work" { hidden.join("work") } else { agent.root.join("work") };
        fs::create_dir_all(&work).expect("a folder");
        let configured = agent.configure(&forge, which, &["--work", &work.to_string_lossy()]);
        assert!(configured.status.success(), "{configured:?}");
        let mut command = agent.command(&["run"]);
        if Uid::effective().is_root() {
            for path in [folder.path(), &hidden, &work] {
                chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("root may");
            }
            given_to(&agent.root, SOMEBODY);
            command.uid(SOMEBODY).gid(SOMEBODY);
        }
        // It can be passed through, and not looked into.
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o311)).expect("its mode");
        let done = command.output().expect("the listener starts");
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o755)).expect("its mode");
        assert_eq!(done.status.code(), Some(1), "{which}: {done:?}");
        let words = format!("Access to the path '{}' is denied.", hidden.display());
        assert!(String::from_utf8_lossy(&done.stderr).contains(&words), "{which}: {done:?}");
    }
}

fn given_to(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("root may");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder").flatten() {
            if !entry.path().is_symlink() {
                given_to(&entry.path(), uid);
            }
        }
    }
}

#[test]
fn a_job_fails_in_its_set_up_where_the_work_folder_cannot_be_used() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "spoilt");
    // What a list of no rights does for somebody who is not root.
    fs::write(agent.root.join("_work/_PipelineMapping"), "").expect("a file in its place");
    let mut hooked = forge.wait_job(forge.submit(JobSpec::script("job", "echo the step ran")), LIMIT);
    assert_eq!(hooked.result.take(), Some(JobResult::Failed));
    assert!(hooked.log.contains("_PipelineMapping") && !hooked.log.contains("\nthe step ran"), "{}", hooked.log);
    assert_eq!(running.code(), Some(0));
}
