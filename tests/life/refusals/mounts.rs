//! Mounts that do not fit.

use std::fs;

use oscr_sim::agent::Kind;

use super::{Refusal, assert_lasting, make, mounted, secret, set, walk_all};
use crate::harness::{Container, Forge, SECRET, outcome, write};

#[test]
fn a_mount_of_another_container() {
    walk_all(&[
        Refusal {
            what: "a mount around the work directory, in /tmp",
            spoil: |c| {
                set(c, "RUNNER_WORKDIR", "tmp/runner/work");
                mounted(c, "tmp/runner")
            },
            told: &["RUNNER_WORKDIR"],
            words: &["-v DIRECTORY:ROOTtmp/runner/work", "RUNNER_WORKDIR=ROOTtmp/runner,"],
            follow: |c| {
                assert_lasting(c);
                mounted(c, "tmp/runner/work")
            },
        },
        Refusal {
            what: "the same, and the mount is named",
            spoil: |c| {
                set(c, "RUNNER_WORKDIR", "tmp/runner/work");
                mounted(c, "tmp/runner")
            },
            told: &["RUNNER_WORKDIR"],
            words: &["all that is mounted there may be removed"],
            follow: |c| {
                set(c, "RUNNER_WORKDIR", "tmp/runner");
                mounted(c, "tmp/runner")
            },
        },
        Refusal {
            what: "a mount around the work directory, elsewhere",
            spoil: |c| {
                set(c, "RUNNER_WORKDIR", "data/work");
                mounted(c, "data")
            },
            told: &["RUNNER_WORKDIR"],
            words: &["lies in the mount ROOTdata, which nobody named"],
            follow: |c| {
                assert_lasting(c);
                mounted(c, "data/work")
            },
        },
        Refusal {
            what: "a mount where agents are made",
            spoil: |c| mounted(c, "runner/data"),
            told: &["mounts"],
            words: &["take that mount away"],
            follow: |c| {
                assert_lasting(c);
                fs::remove_dir(c.path("runner/data")).expect("an empty directory");
                String::new()
            },
        },
        Refusal {
            what: "a mount in the work directory",
            spoil: |c| mounted(c, "work/_tool"),
            told: &["OSCR_CACHE_DIRS"],
            words: &["OSCR_CACHE_DIRS=ROOTwork/_tool"],
            follow: |c| {
                set(c, "OSCR_CACHE_DIRS", "work/_tool");
                mounted(c, "work/_tool")
            },
        },
        Refusal {
            what: "a mount with the secret in it",
            spoil: |c| {
                write(&c.path("volume/pat"), &fs::read_to_string(c.path(SECRET)).expect("a file"), 0o400);
                set(c, secret(c), "tmp/volume/pat");
                mounted(c, "tmp/volume")
            },
            told: &["mounts"],
            words: &["mount it elsewhere, or read-only"],
            follow: |c| format!("{}; mount -o remount,ro,bind '{}'", mounted(c, "tmp/volume"), c.text("tmp/volume")),
        },
        Refusal {
            what: "a file that jobs can write",
            spoil: |c| {
                let at = c.text("tmp/settings");
                write(&c.path("settings"), "", 0o666);
                write(&c.path("tmp/settings"), "", 0o644);
                format!("mount --bind '{}' '{at}'", c.text("settings"))
            },
            told: &["mounts"],
            words: &["mount it elsewhere, or read-only"],
            follow: |c| {
                let at = c.text("tmp/settings");
                format!("mount --bind '{}' '{at}'; mount -o remount,ro,bind '{at}'", c.text("settings"))
            },
        },
        Refusal {
            what: "the agent cannot be executed",
            spoil: |c| format!("mount -t tmpfs -o noexec,mode=755 tmpfs '{}'", c.text("runner")),
            told: &["mounts"],
            words: &["runner is mounted noexec", "--tmpfs ROOTrunner:exec"],
            follow: |c| format!("mount -t tmpfs -o mode=755 tmpfs '{}'", c.text("runner")),
        },
    ]);
}

#[test]
fn what_jobs_cannot_execute_is_said_and_is_no_reason_not_to_start() {
    for kind in [Kind::GitHub, Kind::Azure] {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        let (cache, places) = (make(&container, "cache"), ["work", "tmp"].map(|place| make(&container, place)));
        make(&container, "runner");
        container.set("OSCR_CACHE_DIRS", &cache);
        let mut script: String =
            places.iter().map(|place| format!("mount -t tmpfs -o noexec tmpfs '{place}'\n")).collect();
        script.push_str(&format!("mount --bind '{cache}' '{cache}'; mount -o remount,noexec,bind '{cache}'"));
        container.in_namespace(&script);
        let [_, out, report] = [
            String::new(),
            outcome(container.command_after(&script, &["check"])).1,
            outcome(container.command_after(&script, &["doctor"])).1,
        ];
        container.start();
        forge.listening();
        for (setting, place) in [("RUNNER_WORKDIR", &places[0]), ("mounts", &places[1]), ("OSCR_CACHE_DIRS", &cache)] {
            let what = format!("{setting}: {place} is mounted noexec");
            assert_eq!(container.lines_with(&what).len(), 1, "{what}: {:#?}", container.lines());
            assert!(container.lines_with(&what)[0].contains(" WARN "), "{:#?}", container.lines());
            assert!(out.contains(&what) && report.contains(&what), "{what}: {out} {report}");
        }
        for place in &places {
            assert!(report.contains(&format!("--tmpfs {place}:exec")), "{report}");
        }
    }
}

#[test]
fn nobody_says_that_a_mount_was_left_alone_that_is_emptied() {
    for kind in [Kind::GitHub, Kind::Azure] {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        let script = mounted(&container, "tmp/runner");
        container.in_namespace(&script);
        set(&mut container, "RUNNER_WORKDIR", "tmp/runner");
        let kept = container.path("tmp/kept");
        fs::create_dir(&kept).expect("a directory");
        container.in_namespace(&format!("{script}; mount -t tmpfs -o ro tmpfs '{}'", kept.display()));
        container.start();
        forge.listening();
        assert_eq!(container.names("volume").len(), 0, "it is the work directory");
        let alone = container.lines_with("was left alone");
        assert!(alone.len() == 1 && alone[0].contains("tmp/kept is a mount"), "{alone:#?}");
    }
}
