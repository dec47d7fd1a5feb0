//! `docker run`, without Compose.

use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::{Container, GRACE};
use crate::world::{World, root};

/// What a job finds out about itself.
const SELF: &str = r#"
echo "user $(id -u):$(id -g)"
grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status | tr '\t' ' '
touch "$workspace/f" "$HOME/f" "$temp/f" /tmp/f /var/tmp/f
printf '#!/bin/sh\necho "scripts run"\n' >"$workspace/script"
chmod +x "$workspace/script"
"$workspace/script"
"#;

/// The container takes a job as an ordinary user, then leaves with 0 and nothing remains.
fn does_one_job(world: &World, container: &Container) {
    world.forge.wait_runner(container.host(), 0);
    let job = world.forge.finished(world.forge.script_on(container.host(), "self", &world.provider().script(SELF)));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    for line in ["user 1001:1001", "CapEff: 0000000000000000", "NoNewPrivs: 1", "scripts run"] {
        assert!(job.log.contains(line), "{line} is not in:\n{}", job.log);
    }
    assert_eq!(container.wait_exit(LIMIT), 0);
    assert!(world.forge.runners().is_empty());
}

/// A stop of the idle container is clean.
fn stops_cleanly(world: &World, container: &Container) {
    world.forge.wait_runner(container.host(), 0);
    let stop = container.stop(GRACE);
    world.forge.wait_empty();
    stop.join().expect("docker stop succeeds");
    assert_eq!(container.inspect()["State"]["ExitCode"], 0);
}

pub fn the_readmes_docker_run_works_with_default_capabilities(world: &World) {
    does_one_job(world, &world.docker_run(&[]));
    stops_cleanly(world, &world.docker_run(&[]));
}

/// A tool that was used last week, and another one of today.
const TOOLS: &str = r#"
mkdir "$RUNNER_TOOL_CACHE/old" "$RUNNER_TOOL_CACHE/new"
head -c 700000 /dev/zero | tee "$RUNNER_TOOL_CACHE/old/tool" >"$RUNNER_TOOL_CACHE/new/tool"
touch -d "7 days ago" "$RUNNER_TOOL_CACHE/old/tool" "$RUNNER_TOOL_CACHE/old"
"#;

pub fn the_readmes_tool_cache_survives_its_container_up_to_the_cap(world: &World) {
    let given = "-e RUNNER_TOOL_CACHE=/opt/hostedtoolcache -v tools:/opt/hostedtoolcache -e OSCR_CACHE_MAX=20g";
    for page in ["README.md", "docs/getting-started.md"] {
        let text = std::fs::read_to_string(root().join(page)).expect("the page is there");
        assert!(text.contains(given), "{page} has other arguments");
    }
    // Empty and root's, as a new volume is.
    let tools = world.folder.path().join("tools");
    std::fs::create_dir(&tools).expect("a folder can be made");
    let given = given.replace("-v tools:", &format!("-v {}:", tools.display())).replace("=20g", "=1m");
    let given: Vec<&str> = given.split(' ').collect();
    let mut found = Vec::new();
    for script in [TOOLS, "ls \"$RUNNER_TOOL_CACHE\"\n"] {
        let container = world.docker_run(&given);
        world.forge.wait_runner(container.host(), 0);
        let job = world.forge.finished(world.forge.script_on(container.host(), "tools", script));
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert_eq!(container.wait_exit(LIMIT), 0);
        found = job.log.lines().filter(|line| ["old", "new"].contains(line)).map(str::to_owned).collect();
    }
    assert_eq!(found, ["new"], "the cap has room for one");
}

pub fn a_container_that_is_not_root_works_and_says_what_that_weakens(world: &World) {
    let container = world.docker_run(&["--user", "1001"]);
    does_one_job(world, &container);
    let log = container.logs();
    assert!(
        log.lines().any(|line| line.contains(" WARN ") && line.contains("this container does not run as root")),
        "{log}"
    );
    stops_cleanly(world, &world.docker_run(&["--user", "1001", "--cap-drop", "ALL"]));
}

/// As an engine whose filter is older than these calls, whichever way it refuses what it does not know.
pub fn a_container_under_a_filter_that_knows_no_newer_system_calls_works(world: &World) {
    for (error, refusal) in [("EPERM", 1), ("ENOSYS", 38)] {
        let file = tempfile::NamedTempFile::new().expect("a file in /tmp");
        let rule = serde_json::json!({
            "names": ["pidfd_open", "openat2", "close_range", "faccessat2"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": refusal,
        });
        let profile = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        std::fs::write(file.path(), profile.to_string()).expect("room in /tmp");
        let option = format!("seccomp={}", file.path().display());
        let container = world.docker_run(&["--security-opt", &option]);
        world.forge.wait_runner(container.host(), 0);
        assert_eq!(container.status()["posture"]["watch"], "looked", "{error}");
        does_one_job(world, &container);
    }
}

/// Of each service, and of what `docker run` started.
pub fn what_a_failing_test_prints_has_the_log_of_every_container(world: &World) {
    let all = [world.container_of("forge"), world.up_one(), world.docker_run(&[])];
    for runner in &all[1..] {
        runner.wait_log("a new phase: listening", LIMIT);
    }
    let seen = world.seen();
    for container in all {
        let name = container.inspect()["Name"].as_str().expect("a name").trim_start_matches('/').to_owned();
        let (_, after) = seen.split_once(&format!("-- {name}\n")).unwrap_or_else(|| panic!("no {name}: {seen}"));
        assert!(after.starts_with(container.logs().lines().next().unwrap_or_default()), "{name}: {seen}");
    }
}

pub fn a_container_with_dockers_init_works(world: &World) {
    let container = world.docker_run(&["--init"]);
    does_one_job(world, &container);
    stops_cleanly(world, &world.docker_run(&["--init"]));
}

/// Where a runner writes. What jobs work in must let them execute; the state must outlive a restart, which tmpfs does not.
const WRITABLE: &[&str] = &[
    "--read-only",
    "--tmpfs=/tmp:exec",
    "--tmpfs=/var/tmp:exec",
    "--tmpfs=/run",
    "--tmpfs=/runner:exec",
    "--tmpfs=/work:exec",
    "--tmpfs=/home/runner:exec",
    "--volume=/var/lib/oscr",
];

pub fn a_read_only_container_works_and_cleans_up_after_a_killed_predecessor(world: &World) {
    does_one_job(world, &world.docker_run(WRITABLE));
    let container = world.docker_run(WRITABLE);
    let old = world.forge.wait_runner(container.host(), 0);
    container.kill("KILL");
    assert_eq!(container.wait_exit(LIMIT), 137);
    container.start();
    world.forge.wait_runner(container.host(), old.id);
    assert_eq!(world.forge.runners().len(), 1);
}

pub fn a_wrong_configuration_ends_with_78_before_any_request(world: &World) {
    let needed = world.provider().settings[0].0;
    world.set(needed, None);
    let container = world.docker_run(&["--env", "RUNNER_PERSISTENT=perhaps"]);
    assert_eq!(container.wait_exit(LIMIT), 78);
    let log = container.logs();
    assert!(log.contains(needed) && log.contains("RUNNER_PERSISTENT"), "{log}");
    assert!(world.forge.requests().is_empty());
}
