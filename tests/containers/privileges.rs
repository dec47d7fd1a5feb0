//! What PID 1 and a job may do, as the kernel says.

use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::{Container, docker};
use crate::world::{IMAGE, World, project_name};

/// CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID.
const SIX: &str = "00000000000000eb";
const NONE: &str = "0000000000000000";

/// What a job sees of PID 1 and of itself.
const LOOK: &str = r#"
sed -n 's/^\(Cap[A-Z][a-z]*\|NoNewPrivs\|Seccomp\):\s*/pid1 \1 /p' /proc/1/status
sed -n 's/^\(Cap[A-Z][a-z]*\|NoNewPrivs\|Seccomp\):\s*/job \1 /p' /proc/self/status
echo "user $(id -u) $(id -G)"
if command -v sudo >/dev/null; then sudo --non-interactive id 2>&1 || true; fi
"#;

/// Runs [`LOOK`] as a job; its log.
fn look(world: &World, container: &Container) -> String {
    world.forge.wait_runner(container.host(), 0);
    let job = world.forge.finished(world.forge.script_on(container.host(), "look", LOOK));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    job.log
}

#[track_caller]
fn says(log: &str, lines: &[String]) {
    for line in lines {
        assert!(log.contains(line), "«{line}» is not in:\n{log}");
    }
}

fn sets(who: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("{who} {name} {value}")).collect()
}

pub fn compose_gives_pid_1_six_capabilities_and_its_jobs_none(world: &World) {
    let log = look(world, &world.up_one());
    says(&log, &sets("pid1", &[("CapEff", SIX), ("CapPrm", SIX), ("CapInh", NONE), ("CapAmb", NONE)]));
    // Without SETPCAP nobody can change the bounding set; with no_new_privs nobody can draw on it.
    says(
        &log,
        &sets("job", &[("CapInh", NONE), ("CapPrm", NONE), ("CapEff", NONE), ("CapBnd", SIX), ("CapAmb", NONE)]),
    );
    says(&log, &sets("job", &[("NoNewPrivs", "1"), ("Seccomp", "2")]));
    says(&log, &["user 1001 1001\n".to_owned()]);
}

pub fn dockers_default_capabilities_are_given_up(world: &World) {
    let log = look(world, &world.docker_run(&[]));
    says(&log, &sets("pid1", &[("CapEff", SIX), ("CapPrm", SIX), ("CapInh", NONE), ("CapBnd", NONE)]));
    says(
        &log,
        &sets("job", &[("CapPrm", NONE), ("CapEff", NONE), ("CapBnd", NONE), ("NoNewPrivs", "1"), ("Seccomp", "2")]),
    );
}

pub fn sudo_works_only_in_the_image_for_it_and_the_log_says_what_it_costs(world: &World) {
    let image = format!("{IMAGE}-sudo");
    let container = world.docker_run_image(&image, &[]);
    let log = look(world, &container);
    says(&log, &["user 1001".to_owned(), "uid=0(root)".to_owned(), "job NoNewPrivs 0".to_owned()]);
    says(&log, &sets("job", &[("CapPrm", NONE), ("CapEff", NONE)]));
    says(&log, &sets("pid1", &[("CapEff", SIX)]));
    container.wait_log("OSCR_SUDO is on", LIMIT);
    let logs = container.logs();
    assert!(!logs.contains("this image has none"), "{logs}");

    // The same image, told not to: then sudo is of no use.
    let container = world.docker_run_image(&image, &["--env", "OSCR_SUDO=false"]);
    let log = look(world, &container);
    assert!(log.contains("prevents sudo from running as root") && !log.contains("uid=0"), "{log}");
    says(&log, &sets("job", &[("NoNewPrivs", "1")]));
}

pub fn check_prints_the_posture_of_the_container_that_it_is_in(test: &str) {
    let name = project_name(test);
    let check = |arguments: &[&str]| {
        let mut all = vec!["run", "--rm", "--name", &name, "--network", "none"];
        all.extend(["--env", "GITHUB_PAT=x", "--env", "GITHUB_OWNER=acme"]);
        all.extend(arguments.iter().copied().chain([IMAGE, "check"]));
        docker(&all)
    };
    let has = |text: &str, name: &str, value: &str| {
        let row = text.lines().find(|line| line.trim_start().starts_with(name));
        assert!(row.is_some_and(|row| row.contains(value)), "{name} {value} is not in:\n{text}");
    };
    // Root without DAC_OVERRIDE writes only in what is its own.
    let places = ["--read-only", "--tmpfs", "/run/oscr", "--tmpfs", "/var/lib/oscr"];
    let rights = ["--cap-drop", "ALL", "--cap-add", "KILL", "--security-opt", "no-new-privileges"];
    let text = check(&[&rights[..], &places[..]].concat());
    has(&text, "user ", "0");
    has(&text, "capabilities", "KILL");
    has(&text, "read-only root", "yes");
    has(&text, "no new privileges", "yes");
    has(&text, "system calls filtered", "yes");
    has(&text, "user namespaces for jobs", "no");
    has(&text, "runtime", "runc");
    has(&text, "sudo", "no");
    has(&text, "Docker's socket", "no");
    has(&text, "secret", "docker inspect");
    assert!(text.contains("the capability CHOWN is missing"), "{text}");

    let text = check(&["--user", "1001", "--volume", "/cache", "--env", "OSCR_SUDO=true"]);
    has(&text, "user ", "1001");
    has(&text, "capabilities", "none");
    has(&text, "read-only root", "no");
    has(&text, "outlives a restart         /cache", "not for jobs");
    assert!(text.contains("does not run as root"), "{text}");
    assert!(text.contains("jobs are to have sudo, and this image has none"), "{text}");
}

/// Tries to write wherever files of the image are, and says where it could.
const WRITE_EVERYWHERE: &str = r#"
for folder in / /bin /etc /etc/oscr /opt /opt/oscr /opt/oscr/agent /usr /usr/local/bin /var /var/lib /var/lib/oscr /run /run/oscr; do
    if touch "$folder/oscr-litter" 2>/dev/null; then echo "wrote to $folder"; fi
done
for folder in /work /home/runner /tmp /var/tmp /run/lock; do
    if touch "$folder/oscr-litter"; then echo "may write to $folder"; fi
done
sed -n 's/^\(Cap[A-Z][a-z]*\|NoNewPrivs\):\s*/job \1 /p' /proc/self/status
"#;

pub fn nothing_but_the_record_outlives_a_restart_of_a_hardened_runner(world: &World) {
    let container = world.up_one();
    let before = world.forge.wait_runner(container.host(), 0);
    let mut places: Vec<String> = Vec::new();
    let check = container.must_exec("0", "oscr-entry check");
    for line in check.lines().filter_map(|line| line.trim_start().strip_prefix("outlives a restart")) {
        places.extend(line.split_whitespace().next().map(str::to_owned));
        assert!(line.contains("not for jobs"), "{check}");
    }
    // Docker's own three are bind mounts that only root can write.
    let known = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/var/lib/oscr"];
    assert!(places.iter().all(|place| known.contains(&place.as_str())), "{check}");
    assert!(places.iter().any(|place| place == "/var/lib/oscr"), "{check}");
    assert!(check.lines().any(|line| line.contains("read-only root") && line.ends_with("yes")), "{check}");
    // Not even root in the container changes the image.
    let (changed, _) = container.exec("0", "touch /usr/local/bin/x || touch /opt/oscr/agent/x || touch /etc/x");
    assert!(!changed);

    let job = world.forge.finished(world.forge.script_on(container.host(), "write everywhere", WRITE_EVERYWHERE));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(!job.log.contains("wrote to"), "{}", job.log);
    assert_eq!(job.log.matches("may write to").count(), 5, "{}", job.log);
    says(&job.log, &sets("job", &[("CapEff", NONE), ("NoNewPrivs", "1")]));
    world.forge.wait_runner(container.host(), before.id);
    let left = container
        .must_exec("0", "find / -xdev -name oscr-litter; find /work /home /tmp /var/tmp /run -name oscr-litter");
    assert_eq!(left, "");
}
