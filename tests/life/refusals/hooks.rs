//! Hooks that cannot be run.

use std::fs;
use std::path::PathBuf;

use oscr_sim::agent::Kind;

use super::{Refusal, make, set, walk, walk_all};
use crate::harness::{Container, allow, each, write, write_program};

fn hook(container: &Container<'_>, name: &str) -> PathBuf {
    let path = container.path("etc/oscr/hooks.d").join(name);
    write_program(&path, "#!/bin/sh\n");
    path
}

#[test]
fn hooks_that_cannot_be_run() {
    let hooks = |what, spoil, words, follow| Refusal { what, spoil, told: &["hooks"], words, follow };
    let named = |what, spoil, words| Refusal {
        what,
        spoil,
        told: &["ACTIONS_RUNNER_HOOK_JOB_STARTED"],
        words,
        follow: |c| {
            c.unset("ACTIONS_RUNNER_HOOK_JOB_STARTED");
            String::new()
        },
    };
    let cases = [
        hooks(
            "not executable",
            |c| (allow(&hook(c, "job-started/10-guard"), 0o644), String::new()).1,
            &["chmod a+rx"],
            |c| (allow(&c.path("etc/oscr/hooks.d/job-started/10-guard"), 0o755), String::new()).1,
        ),
        hooks(
            "not executable, after a job",
            |c| (allow(&hook(c, "job-completed/10-guard.sh"), 0o644), String::new()).1,
            &["or take it away"],
            |c| {
                (fs::remove_file(c.path("etc/oscr/hooks.d/job-completed/10-guard.sh")).expect("a file"), String::new())
                    .1
            },
        ),
        hooks(
            "root's alone",
            |c| (allow(&hook(c, "job-started/10-guard"), 0o700), String::new()).1,
            &["the agent's user may not read or execute it", "chmod a+rx"],
            |c| (allow(&c.path("etc/oscr/hooks.d/job-started/10-guard"), 0o755), String::new()).1,
        ),
        hooks(
            "in a directory of root's alone",
            |c| {
                hook(c, "job-started/10-guard");
                (allow(&c.path("etc/oscr/hooks.d/job-started"), 0o700), String::new()).1
            },
            &["the agent's user cannot look up what is there", "chmod a+rx"],
            |c| (allow(&c.path("etc/oscr/hooks.d/job-started"), 0o755), String::new()).1,
        ),
        hooks(
            "in the place of their directory",
            |c| (hook(c, "job-started"), String::new()).1,
            &["or take it away"],
            |c| (fs::remove_file(c.path("etc/oscr/hooks.d/job-started")).expect("a file"), String::new()).1,
        ),
        hooks(
            "on a mount from which nothing is executed",
            |c| {
                let at = make(c, "etc/oscr/hooks.d/job-started");
                hook(c, "job-started/10-guard");
                format!("mount --bind '{at}' '{at}'; mount -o remount,noexec,bind '{at}'")
            },
            &["is mounted noexec", "with exec"],
            |_| String::new(),
        ),
        named(
            "named and missing",
            |c| set(c, "ACTIONS_RUNNER_HOOK_JOB_STARTED", "own.sh"),
            &["there is no file", "unset"],
        ),
        Refusal {
            what: "named by the image, and missing",
            spoil: |c| {
                let line = format!("ACTIONS_RUNNER_HOOK_JOB_STARTED=\"{}\"\n", c.text("own.sh"));
                write(&c.path("etc/environment"), &line, 0o644);
                String::new()
            },
            told: &["ACTIONS_RUNNER_HOOK_JOB_STARTED"],
            words: &["there is no file ROOTown.sh", "put the hook there, or take it out of ROOTetc/environment"],
            follow: |c| (write(&c.path("etc/environment"), "LANG=C.UTF-8\n", 0o644), String::new()).1,
        },
        Refusal {
            what: "named by the image where all is emptied",
            spoil: |c| {
                write(&c.path("tmp/own.sh"), "true\n", 0o755);
                let line = format!("ACTIONS_RUNNER_HOOK_JOB_COMPLETED={}\n", c.text("tmp/own.sh"));
                write(&c.path("etc/environment"), &line, 0o644);
                String::new()
            },
            told: &["ACTIONS_RUNNER_HOOK_JOB_COMPLETED"],
            words: &["is emptied before and after each job"],
            follow: |c| {
                fs::rename(c.path("tmp/own.sh"), c.path("own.sh")).expect("a file");
                let line = format!("ACTIONS_RUNNER_HOOK_JOB_COMPLETED={}\n", c.text("own.sh"));
                write(&c.path("etc/environment"), &line, 0o644);
                String::new()
            },
        },
        named(
            "named by half a path",
            |c| (c.set("ACTIONS_RUNNER_HOOK_JOB_STARTED", "own.sh"), String::new()).1,
            &["is not an absolute path"],
        ),
        named(
            "named where all is emptied",
            |c| {
                write(&c.path("tmp/own.sh"), "true\n", 0o755);
                set(c, "ACTIONS_RUNNER_HOOK_JOB_STARTED", "tmp/own.sh")
            },
            &["is emptied before and after each job"],
        ),
    ];
    for some in cases.chunks(6) {
        each(some, |refusal| walk(refusal, Kind::GitHub));
    }
}

#[test]
fn hardware_is_not_given_to_a_job_past_its_hook() {
    walk_all(&[Refusal {
        what: "the hook of a resource is not executable",
        spoil: |c| {
            make(c, "locks");
            c.set("RUNNER_RESOURCE_ID", "board-1");
            allow(&hook(c, "resource-acquired/10-power"), 0o644);
            set(c, "RUNNER_LOCK_DIR", "locks")
        },
        told: &["hooks"],
        words: &["chmod a+rx"],
        follow: |c| (allow(&c.path("etc/oscr/hooks.d/resource-acquired/10-power"), 0o755), String::new()).1,
    }]);
}
