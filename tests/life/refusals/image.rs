//! What is wrong with the container.

use std::fs;
use std::os::unix::fs::chown;

use super::{AS_BEFORE, Refusal, make, set, walk_all};
use crate::harness::{allow, write};

#[test]
fn what_is_wrong_with_the_container() {
    let image = |what, spoil, words, follow| Refusal { what, spoil, told: &["image"], words, follow };
    walk_all(&[
        image(
            "the state's place is read-only",
            |c| format!("mount -t tmpfs -o ro tmpfs '{}'", make(c, "var/lib/oscr")),
            &["make that place writable"],
            |_| String::new(),
        ),
        image(
            "the state's disk is full",
            |c| format!("mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs '{0}'; touch '{0}/x'", make(c, "var/lib/oscr")),
            &["var/lib/oscr cannot be written"],
            |_| String::new(),
        ),
        image(
            "the place of sockets is read-only",
            |c| format!("mount -t tmpfs -o ro tmpfs '{}'", make(c, "run/oscr")),
            &["make that place writable"],
            |_| String::new(),
        ),
        image(
            "there is no agent",
            |c| {
                fs::rename(c.path("opt/oscr/agent"), c.path("opt/oscr/gone")).expect("a directory");
                String::new()
            },
            &["add the agent"],
            |c| {
                fs::rename(c.path("opt/oscr/gone"), c.path("opt/oscr/agent")).expect("a directory");
                String::new()
            },
        ),
        Refusal {
            what: "the locks' directory is missing",
            spoil: |c| {
                c.set("RUNNER_RESOURCE_ID", "board-1");
                set(c, "RUNNER_LOCK_DIR", "locks")
            },
            told: &["RUNNER_LOCK_DIR"],
            words: &["mount a directory of the host there"],
            follow: |c| (make(c, "locks"), String::new()).1,
        },
        Refusal {
            what: "jobs could take the locks",
            spoil: |c| {
                make(c, "locks");
                allow(&c.path("locks"), 0o777);
                c.set("RUNNER_RESOURCE_ID", "board-1");
                set(c, "RUNNER_LOCK_DIR", "locks")
            },
            told: &["RUNNER_LOCK_DIR"],
            words: &["give it to root"],
            follow: |c| {
                allow(&c.path("locks"), 0o755);
                String::new()
            },
        },
        Refusal {
            what: "jobs could write metrics",
            spoil: |c| {
                make(c, "metrics");
                allow(&c.path("metrics"), 0o777);
                set(c, "OSCR_METRICS_FILE", "metrics")
            },
            told: &["OSCR_METRICS_FILE"],
            words: &["with mode 0755"],
            follow: |c| {
                allow(&c.path("metrics"), 0o755);
                String::new()
            },
        },
        Refusal {
            what: "an agents' cache of somebody else's",
            spoil: |c| {
                make(c, "shared");
                chown(c.path("shared"), Some(54321), None).expect("root may");
                set(c, "OSCR_AGENT_CACHE", "shared")
            },
            told: &["OSCR_AGENT_CACHE"],
            words: &["mount a volume of root's there"],
            follow: |c| {
                chown(c.path("shared"), Some(0), None).expect("root may");
                String::new()
            },
        },
        Refusal {
            what: "the work directory is a file",
            spoil: |c| {
                write(&c.path("data/work"), "precious", 0o644);
                set(c, "RUNNER_WORKDIR", "data/work")
            },
            told: &["RUNNER_WORKDIR"],
            words: &["best none at all"],
            follow: AS_BEFORE,
        },
        Refusal {
            what: "temporary files that stay",
            spoil: |c| set(c, "TMPDIR", "data"),
            told: &["TMPDIR"],
            words: &["name a place that is, such as /tmp, ROOTwork"],
            follow: |c| set(c, "TMPDIR", "work"),
        },
    ]);
}
