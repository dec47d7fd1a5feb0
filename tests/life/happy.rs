//! A job comes, runs and ends, and nothing of it stays.

use std::fs;
use std::time::Duration;

use oscr_sim::forge::JobSpec;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, WIPED, allow, write};

/// Leaves files, a process that nobody waits for and that the agent cannot find, and a zombie below it.
fn messy(root: &str) -> String {
    format!(
        "for place in tmp var/tmp dev/shm; do mkdir -p {root}/$place/deep; echo x >{root}/$place/deep/file; done\n\
         mkdir -p a/b; echo x >a/b/c; ln -s / a/root; mkfifo a/pipe\n\
         env -u RUNNER_TRACKING_ID setsid sh -c 'true & exec sleep 1000' </dev/null >/dev/null 2>&1 &\n\
         ls -l /proc/[0-9]*/exe >/dev/null 2>&1 || true\n\
         echo ran in $PWD"
    )
}

/// One whole life, in the way of registering that `mode` names.
pub fn a_whole_life(mode: &str) -> Vec<String> {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_REGISTRATION", mode);
    container.set("OSCR_MIN_UPTIME", "3");
    container.start();
    let (id, name) = forge.listening();
    let runner = forge.runners().remove(0);
    assert!(runner.ephemeral && runner.name.starts_with("oscr-"));
    for label in ["linux", "docker", "self-hosted"] {
        let has = |own: &String| own.eq_ignore_ascii_case(label);
        assert!(runner.labels.iter().any(has), "{:?}", runner.labels);
    }
    assert_eq!(container.state()["current"]["id"], id);
    assert_eq!(container.status()["runner"]["name"], name);

    let job = forge.wait_job(forge.job(&messy(&container.text(""))), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains(&container.text("work/r/r")), "{}", job.log);
    container.wait_line("the registration is gone");
    assert_eq!(container.processes(), [container.pid()], "a process stays");
    container.wait_line("leaving");
    assert!(container.uptime() >= Duration::from_secs(3), "shorter than OSCR_MIN_UPTIME");
    assert_eq!(container.exit_code(), 0);

    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    for place in WIPED {
        assert_eq!(container.names(place), Vec::<std::ffi::OsString>::new());
    }
    forge.calls()
}

#[test]
fn a_job_runs_and_nothing_of_it_remains_and_two_requests_are_all_it_costs() {
    assert_eq!(a_whole_life("token"), ["POST registration-token 201", "DELETE ID 404"]);
}

#[test]
fn a_restart_makes_a_new_runner_from_the_same_layer() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let mut names = Vec::new();
    for round in 0..3 {
        container.restart();
        names.push(forge.listening().1);
        let job = forge.wait_job(forge.job("ls -A; touch mine"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded));
        assert!(!job.log.contains("\nmine\n"), "round {round}: {}", job.log);
    }
    assert_eq!(container.exit_code(), 0);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "{names:?}");
    container.assert_state_empty();
}

#[test]
fn the_state_file_holds_the_id_before_the_listener_runs() {
    let forge = Forge::start();
    // The session is the first thing that a listener asks for.
    let first = oscr_sim::forge::Match { path_contains: Some("/_broker/session".to_owned()), ..Default::default() };
    forge.add_fault(oscr_sim::forge::Fault { matching: first, delay_ms: 500, ..Default::default() });
    let mut container = Container::new(&forge);
    container.start();
    forge.wait_requests("/_broker/session", 1);
    let state = container.state();
    assert_eq!(state["current"]["id"], forge.runners()[0].id, "{state}");
    assert_eq!(state["current"]["name"], forge.runners()[0].name.as_str());
}

#[test]
fn a_failed_job_is_a_job_that_ran() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let job = forge.wait_job(forge.job("exit 3"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn a_job_that_the_forge_cancels_ends_the_life_as_any_other() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    assert!(forge.cancel_job(job));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Canceled));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn the_home_is_what_the_image_had_for_every_job() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.with_accounts();
    let home = container.path("opt/oscr/home");
    write(&home.join(".profile"), "pristine", 0o644);
    for path in [&home, &home.join(".profile")] {
        std::os::unix::fs::chown(path, Some(container.uid), Some(container.uid)).expect("root may");
    }
    fs::create_dir_all(container.path("home/runner")).expect("a home");
    write(&container.path("home/runner/.from-the-build"), "not in the copy", 0o644);
    allow(&container.path("home/runner"), 0o755);
    for _ in 0..2 {
        container.restart();
        let spec = JobSpec::script(
            "home",
            "id -un; cat ~/.profile; ls -A ~; echo evil >~/.profile; mkdir ~/.cache; echo \"$HOME $USER\"",
        );
        let job = forge.wait_job(forge.submit(spec), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert!(job.log.contains("pristine"), "{}", job.log);
        assert!(!job.log.contains(".cache\n"), "{}", job.log);
        assert!(!job.log.contains(".from-the-build"), "{}", job.log);
        let expected = format!("{} runner", container.text("home/runner"));
        assert!(job.log.contains(&expected), "{}", job.log);
    }
    assert_eq!(container.exit_code(), 0);
    let mut names = container.names("home/runner");
    names.sort();
    assert_eq!(names, [".config", ".profile"]);
}

/// What a listener keeps in the home shows that it could write there from its start on.
const KEEPS_AND_LEAVES: &str = "stat -c 'configuration %a %u' ~/.config; find ~/.config -mindepth 1 -maxdepth 1; \
                                touch ~/.config/left; mkdir -p ~/.config/deep; chmod 0 ~/.config";

#[test]
fn every_listener_finds_a_configuration_that_it_can_write_and_nothing_of_an_earlier_jobs() {
    let forge = Forge::start();
    for posture in ["named", "without a home", "gone"] {
        let mut container = Container::new(&forge);
        if posture != "without a home" {
            container.with_accounts();
        }
        if posture == "named" {
            fs::create_dir_all(container.path("home/runner")).expect("a home");
        }
        for _ in 0..2 {
            container.restart();
            let job = forge.wait_job(forge.job(KEEPS_AND_LEAVES), LIMIT);
            assert_eq!(job.result, Some(JobResult::Succeeded), "{posture}: {}", job.log);
            assert!(job.log.contains(&format!("configuration 700 {}\n", container.uid)), "{posture}: {}", job.log);
            assert!(job.log.contains("/.config/GitHubActionsService\n"), "{posture}: {}", job.log);
            assert!(!job.log.contains("/left\n") && !job.log.contains("/deep\n"), "{posture}: {}", job.log);
            assert_eq!(container.exit_code(), 0, "{posture}");
        }
    }
}

#[test]
fn a_configuration_of_the_image_comes_back_as_it_was() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.with_accounts();
    let pristine = container.path("opt/oscr/home");
    fs::create_dir_all(pristine.join(".config/tool")).expect("a directory");
    write(&pristine.join(".config/tool/settings"), "the image's", 0o644);
    for _ in 0..2 {
        container.restart();
        let job = forge.wait_job(forge.job("cat ~/.config/tool/settings; echo evil >~/.config/tool/settings"), LIMIT);
        assert!(job.log.contains("the image's") && !job.log.contains("evil\n"), "{}", job.log);
        assert_eq!(container.exit_code(), 0);
    }
}

#[test]
fn a_named_mount_in_a_wiped_place_survives_and_an_unnamed_one_is_refused() {
    let forge = Forge::start();
    let cache = tempfile::tempdir_in("/tmp").expect("a directory");
    std::fs::write(cache.path().join("precious"), "x").expect("a file");
    let mut container = Container::new(&forge);
    let (work, temporary) = (container.path("work/_tool"), container.path("tmp/cache"));
    for place in [&work, &temporary] {
        std::fs::create_dir_all(place).expect("a directory");
        container.mount(cache.path(), place);
    }
    container.set("OSCR_CACHE_DIRS", &work.display().to_string());
    container.start();
    assert_eq!(container.exit_code(), 78);
    let said = container.lines_with("OSCR_CACHE_DIRS: ");
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("tmp/cache is mounted where everything is wiped"), "{said:#?}");
    assert_eq!(forge.api_requests().len(), 0);

    container.set("OSCR_CACHE_DIRS", &format!("{},{}", work.display(), temporary.display()));
    container.start();
    let job = forge.wait_job(forge.job(&format!("cd {}; echo more >left; ls _tool", container.text("work"))), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("precious"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(std::fs::read_to_string(cache.path().join("precious")).expect("it is there"), "x");
    assert_eq!(container.names("work"), ["_tool"]);
}

#[test]
fn a_directory_that_is_named_is_the_jobs_to_keep_things_in() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_CACHE_DIRS", &container.text("opt/cache"));
    container.set("RUNNER_TOOL_CACHE", &container.text("work/tools/all"));
    for round in 1..=2 {
        container.restart();
        let script = format!(
            "for cache in {} {}; do echo {round} >>$cache/file; cat $cache/file; done; touch {}/x",
            container.text("opt/cache"),
            container.text("work/tools/all"),
            container.text("work/tools")
        );
        let job = forge.wait_job(forge.job(&script), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert_eq!(job.log.contains("1\n2\n1\n2"), round == 2, "{}", job.log);
    }
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.names("work/tools"), ["all"]);
    container.set("OSCR_CACHE_DIRS", &container.text("work"));
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line("nothing there would be wiped");
}

#[test]
fn system_v_objects_do_not_outlive_their_job() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let job = forge.wait_job(forge.job("ipcmk -M 4096 -S 3 -Q && ipcs"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0, "{:#?}", container.lines());
    for kind in ["shm", "sem", "msg"] {
        let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).expect("the kernel has them");
        let uid = container.uid.to_string();
        assert!(!table.split_whitespace().any(|word| word == uid), "{kind}: {table}");
    }
}
