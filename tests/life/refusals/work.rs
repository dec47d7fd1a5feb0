//! Work directories in which something must live.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{AS_BEFORE, Refusal, home_at, make, mounted, secret, set, walk_all};
use crate::harness::{Container, Forge, LIMIT, SECRET, each, outcome, write};

/// A work directory that is refused, at a place that is there.
fn work(what: &'static str, spoil: fn(&mut Container<'_>) -> String, words: &'static [&'static str]) -> Refusal {
    Refusal { what, spoil, told: &["RUNNER_WORKDIR"], words, follow: AS_BEFORE }
}

#[test]
fn a_work_directory_in_which_something_must_live() {
    const USE: &str = "such as ROOTwork";
    let system: [fn(&mut Container<'_>) -> String; 12] = [
        |c| (make(c, "etc"), set(c, "RUNNER_WORKDIR", "etc")).1,
        |c| (make(c, "etc/deep/er"), set(c, "RUNNER_WORKDIR", "etc/deep/er")).1,
        |c| set(c, "RUNNER_WORKDIR", "usr/local/bin"),
        |c| set(c, "RUNNER_WORKDIR", "usr/local/bin/"),
        |c| set(c, "RUNNER_WORKDIR", "usr/local/new"),
        |c| set(c, "RUNNER_WORKDIR", "opt"),
        |c| set(c, "RUNNER_WORKDIR", "opt/oscr/agent"),
        |c| (make(c, "var/lib"), set(c, "RUNNER_WORKDIR", "var/lib")).1,
        |c| (make(c, "var/lib/dpkg"), set(c, "RUNNER_WORKDIR", "var/lib/dpkg")).1,
        |c| set(c, "RUNNER_WORKDIR", "var/lib/oscr"),
        |c| set(c, "RUNNER_WORKDIR", "run/oscr"),
        |c| set(c, "RUNNER_WORKDIR", "run/secrets"),
    ];
    let mut refusals: Vec<Refusal> =
        system.into_iter().map(|spoil| work("a place of the system", spoil, &[USE])).collect();
    refusals.extend([
        work("the root", |c| set(c, "RUNNER_WORKDIR", ""), &[USE]),
        work("agents' directories", |c| set(c, "RUNNER_WORKDIR", "runner"), &["of OSCR's own", USE]),
        work("inside of them", |c| set(c, "RUNNER_WORKDIR", "runner/_work"), &["of OSCR's own", USE]),
        work("temporary files", |c| set(c, "RUNNER_WORKDIR", "tmp"), &["temporary files", USE]),
        work(
            "a link to the system",
            |c| {
                make(c, "etc");
                make(c, "data");
                symlink(c.path("etc"), c.path("data/link")).expect("a link");
                set(c, "RUNNER_WORKDIR", "data/link")
            },
            &["data/link (ROOTetc) is a place of the system", USE],
        ),
        work(
            "below a link",
            |c| {
                make(c, "data");
                symlink(c.path("opt"), c.path("data/link")).expect("a link");
                set(c, "RUNNER_WORKDIR", "data/link/oscr/work")
            },
            &["(ROOTopt/oscr/work) lies in", USE],
        ),
        work(
            "files of the image",
            |c| {
                write(&c.path("srv/site/index"), "precious", 0o644);
                set(c, "RUNNER_WORKDIR", "srv/site")
            },
            &["came with the image", "name an empty directory"],
        ),
        Refusal {
            follow: |c| {
                set(c, "RUNNER_WORKDIR", "work");
                home_at(c, "home/runner")
            },
            ..work(
                "the home",
                |c| {
                    set(c, "RUNNER_WORKDIR", "home/runner");
                    home_at(c, "home/runner")
                },
                &["the home of the jobs' user", USE],
            )
        },
        work(
            "what holds the secret",
            |c| {
                fs::create_dir_all(c.path("data/secrets")).expect("a directory");
                fs::rename(c.path(SECRET), c.path("data/secrets/pat")).expect("a file");
                set(c, secret(c), "data/secrets/pat");
                set(c, "RUNNER_WORKDIR", "data")
            },
            &["holds ROOTdata/secrets/pat, the secret of", USE],
        ),
        work(
            "the lock directory",
            |c| {
                make(c, "locks");
                c.set("RUNNER_RESOURCE_ID", "board-1");
                set(c, "RUNNER_LOCK_DIR", "locks");
                set(c, "RUNNER_WORKDIR", "locks")
            },
            &["is what RUNNER_LOCK_DIR names", USE],
        ),
        work(
            "what holds the agents' cache",
            |c| {
                set(c, "OSCR_AGENT_CACHE", "data/agents");
                set(c, "RUNNER_WORKDIR", "data")
            },
            &["what OSCR_AGENT_CACHE names", USE],
        ),
    ]);
    walk_all(&refusals);
}

#[test]
fn places_that_people_use_are_no_reason_not_to_start() {
    type Spoil = fn(&mut Container<'_>) -> String;
    let cases: [Spoil; 8] = [
        |c| set(c, "RUNNER_WORKDIR", "tmp/work"),
        |c| set(c, "RUNNER_WORKDIR", "_work"),
        |c| (make(c, "opt/runner"), set(c, "RUNNER_WORKDIR", "opt/runner")).1,
        |c| (make(c, "var/lib"), set(c, "RUNNER_WORKDIR", "var/lib/new")).1,
        |c| {
            set(c, "RUNNER_WORKDIR", "var/lib/volume");
            mounted(c, "var/lib/volume")
        },
        |c| {
            let script = home_at(c, "home/runner");
            write(&c.path("home/runner/.profile"), "", 0o644);
            set(c, "RUNNER_WORKDIR", "home/runner/_work");
            script
        },
        |c| set(c, "RUNNER_TOOL_CACHE", "opt/hostedtoolcache"),
        |c| {
            set(c, "OSCR_CACHE_DIRS", "usr/local/cargo/registry");
            mounted(c, "usr/local/cargo/registry")
        },
    ];
    each(&cases, |spoil| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        let script = spoil(&mut container);
        container.in_namespace(&script);
        let (code, _, error) = outcome(container.command_after(&script, &["check"]));
        assert_eq!(code, 0, "{error}");
        container.start();
        forge.listening();
        // In a later life too, with what a job left.
        let work = container.setting("RUNNER_WORKDIR").to_owned();
        forge.wait_job(forge.job(&format!("touch {work}/left")), LIMIT);
        container.restart();
        forge.listening();
        assert!(!Path::new(&work).join("left").exists());
    });
}
