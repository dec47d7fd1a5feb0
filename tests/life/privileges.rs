//! PID 1 keeps the capabilities that it needs, and no others; the agent has none and can get none.

use std::fs;

use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT};

/// CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID; these tests start PID 1 with everything, so LINUX_IMMUTABLE stays too.
const KEPT: u64 = 0xeb | 1 << 9;

/// A line of `/proc/<pid>/status`, as a number.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel writes it");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a set")
}

/// What a job sees of its own privileges, while PID 1's are looked at from outside.
fn privileges(settings: &[(&str, &str)]) -> (String, String) {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, settings);
    let mut gate = container.gate();
    let job = forge.job(&format!("cat /proc/self/status\n{}", gate.wait()));
    forge.wait_log(job, "at the gate");
    let of_pid_1 = fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("PID 1 runs");
    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    (of_pid_1, job.log)
}

#[test]
fn pid_1_keeps_what_it_needs_and_the_job_has_nothing_and_gets_nothing() {
    let (of_pid_1, of_job) = privileges(&[]);
    for name in ["CapPrm", "CapEff"] {
        assert_eq!(set(&of_pid_1, name), KEPT, "{name}");
    }
    for name in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(set(&of_pid_1, name), 0, "{name}");
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(set(&of_job, name), 0, "{name}");
    }
    assert_eq!(set(&of_job, "NoNewPrivs"), 1);
}

#[test]
fn where_the_image_has_sudo_a_job_starts_with_nothing_and_may_get_what_the_container_has() {
    let (of_pid_1, of_job) = privileges(&[("OSCR_SUDO", "true")]);
    assert_eq!(set(&of_pid_1, "CapEff"), KEPT);
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(set(&of_job, name), 0, "{name}");
    }
    assert_eq!(set(&of_job, "NoNewPrivs"), 0);
    assert_ne!(set(&of_job, "CapBnd"), 0);
}

#[test]
fn check_prints_the_posture_and_who_can_read_the_secret() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let row = |said: &str, name: &str| {
        let row = said.lines().find(|line| line.trim_start().starts_with(name));
        row.unwrap_or_else(|| panic!("no row {name}: {said}")).trim_start()[name.len()..].trim().to_owned()
    };
    let (code, said, _) = container.ask(&["check"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(row(&said, "user "), "0");
    assert_eq!(row(&said, "read-only root"), "no");
    assert_eq!(row(&said, "Docker's socket"), "no");
    assert!(row(&said, "secret ").ends_with("readable for root"), "{said}");
    assert!(row(&said, "outlives a restart").starts_with("/ ("), "{said}");
    for name in ["capabilities", "user namespaces for jobs", "runtime", "sudo", "no new privileges"] {
        row(&said, name);
    }
    assert_eq!(forge.requests().len(), 0);

    container.unset("GITHUB_PAT_FILE");
    container.set("GITHUB_PAT", &forge.pat());
    container.set("OSCR_SUDO", "true");
    let (_, said, _) = container.ask(&["check"]);
    assert!(row(&said, "secret ").contains("docker inspect"), "{said}");
    assert!(said.contains("OSCR_SUDO is on"), "{said}");
    assert!(!said.contains(&forge.pat()));
}
