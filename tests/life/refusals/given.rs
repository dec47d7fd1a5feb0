//! Other settings that give something away, and what must live where all is emptied.

use std::fs;
use std::os::unix::fs::symlink;

use oscr_sim::agent::Kind;

use super::{Refusal, home_at, make, mounted, secret, set, walk, walk_all};
use crate::harness::{Container, SECRET, write};

#[test]
fn other_settings_that_give_something_away() {
    let named_so: fn(&mut Container<'_>) -> String = |c| set(c, "OSCR_CACHE_DIRS", "work/_tool");
    let cache = |what, spoil, words| Refusal { what, spoil, told: &["OSCR_CACHE_DIRS"], words, follow: named_so };
    let agents = |what, spoil, words| Refusal {
        what,
        spoil,
        told: &["OSCR_AGENT_CACHE"],
        words,
        follow: |c| set(c, "OSCR_AGENT_CACHE", "var/cache/oscr/shared"),
    };
    let home = |what, spoil, words| Refusal {
        what,
        spoil,
        told: &["OSCR_AGENT_USER"],
        words,
        follow: |c| home_at(c, "home/runner"),
    };
    walk_all(&[
        cache(
            "a cache in the system",
            |c| (make(c, "etc/x"), set(c, "OSCR_CACHE_DIRS", "etc/x")).1,
            &["such as ROOTwork/_tool"],
        ),
        cache("the secrets as a cache", |c| set(c, "OSCR_CACHE_DIRS", "run/secrets"), &["such as ROOTwork/_tool"]),
        cache(
            "the work directory as a cache",
            |c| set(c, "OSCR_CACHE_DIRS", "work"),
            &["nothing there would be wiped", "such as ROOTwork/_tool"],
        ),
        cache(
            "the lock directory as a cache",
            |c| {
                make(c, "locks");
                c.set("RUNNER_RESOURCE_ID", "board-1");
                set(c, "RUNNER_LOCK_DIR", "locks");
                set(c, "OSCR_CACHE_DIRS", "locks")
            },
            &["is what RUNNER_LOCK_DIR names"],
        ),
        cache(
            "a link to the system as a cache",
            |c| {
                symlink(c.path("opt/oscr"), c.path("tools")).expect("a link");
                set(c, "OSCR_CACHE_DIRS", "tools")
            },
            &["tools (ROOTopt/oscr) is a place of OSCR's own"],
        ),
        Refusal {
            what: "an agent's own variable for a cache",
            spoil: |c| set(c, "RUNNER_TOOL_CACHE", "opt"),
            told: &["RUNNER_TOOL_CACHE"],
            words: &["such as ROOTwork/_tool"],
            follow: |c| set(c, "RUNNER_TOOL_CACHE", "opt/hostedtoolcache"),
        },
        agents(
            "agents' archives in the system",
            |c| (make(c, "usr/share"), set(c, "OSCR_AGENT_CACHE", "usr/share")).1,
            &["such as ROOTvar/cache/oscr/shared"],
        ),
        agents(
            "the system, by way of an emptied place",
            |c| {
                make(c, "etc");
                set(c, "OSCR_AGENT_CACHE", "tmp/../etc")
            },
            &["(ROOTetc) is a place of the system"],
        ),
        agents("over what PID 1 fetches", |c| set(c, "OSCR_AGENT_CACHE", "var/cache/oscr/agents"), &["of OSCR's own"]),
        agents(
            "where all is emptied",
            |c| set(c, "OSCR_AGENT_CACHE", "work/agents"),
            &["is emptied before and after each job"],
        ),
        Refusal {
            what: "metrics over a file of the system",
            spoil: |c| {
                write(&c.path("etc/passwd.prom"), "precious", 0o644);
                set(c, "OSCR_METRICS_FILE", "etc/passwd.prom")
            },
            told: &["OSCR_METRICS_FILE"],
            words: &["such as ROOTvar/lib/oscr-metrics"],
            follow: |c| (make(c, "var/lib/oscr-metrics"), set(c, "OSCR_METRICS_FILE", "var/lib/oscr-metrics")).1,
        },
        home("a home in the system", |c| home_at(c, "usr/sbin"), &["such as ROOThome/runner"]),
        home("the home of all", |c| home_at(c, "home"), &["such as ROOThome/runner"]),
        home(
            "a home with files of the image",
            |c| {
                write(&c.path("var/www/index"), "precious", 0o644);
                home_at(c, "var/www")
            },
            &["came with the image"],
        ),
        Refusal {
            what: "a cap on tools of the image",
            spoil: |c| {
                write(&c.path("opt/tools/node/24"), "precious", 0o644);
                c.with_programs_of_its_own();
                c.set("OSCR_TAINT", "off");
                c.set("OSCR_CACHE_MAX", "1g");
                set(c, "OSCR_CACHE_DIRS", "opt/tools")
            },
            told: &["OSCR_CACHE_DIRS"],
            words: &["came with the image", "unset OSCR_CACHE_MAX"],
            follow: |c| (c.unset("OSCR_CACHE_MAX"), String::new()).1,
        },
        home(
            "a home in a mount that nobody named",
            |c| format!("{}; {}", home_at(c, "home/runner"), mounted(c, "home")),
            &["mount nothing on ROOThome,"],
        ),
    ]);
}

#[test]
fn what_must_live_where_all_is_emptied() {
    const ELSEWHERE: &str = "is emptied before and after each job";
    let refusals = [Refusal {
        what: "the secret in /tmp",
        spoil: |c| {
            fs::rename(c.path(SECRET), c.path("tmp/pat")).expect("a file");
            set(c, secret(c), "tmp/pat")
        },
        told: &["SECRET"],
        words: &[ELSEWHERE, "put it elsewhere"],
        follow: |c| {
            fs::rename(c.path("tmp/pat"), c.path(SECRET)).expect("a file");
            set(c, secret(c), SECRET)
        },
    }];
    for refusal in refusals {
        for (kind, told) in [(Kind::GitHub, &["GITHUB_PAT_FILE"]), (Kind::Azure, &["ADO_PAT_FILE"])] {
            walk(&Refusal { told, ..refusal }, kind);
        }
    }
    walk_all(&[
        Refusal {
            what: "locks in the work directory",
            spoil: |c| {
                make(c, "work/locks");
                c.set("RUNNER_RESOURCE_ID", "board-1");
                set(c, "RUNNER_LOCK_DIR", "work/locks")
            },
            told: &["RUNNER_LOCK_DIR"],
            words: &[ELSEWHERE],
            follow: |c| {
                fs::rename(c.path("work/locks"), c.path("locks")).expect("a directory");
                set(c, "RUNNER_LOCK_DIR", "locks")
            },
        },
        Refusal {
            what: "certificates in /tmp",
            spoil: |c| {
                let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/certificates/ca.pem");
                fs::copy(file, c.path("tmp/ca.pem")).expect("a file");
                set(c, "OSCR_CA_FILE", "tmp/ca.pem")
            },
            told: &["OSCR_CA_FILE"],
            words: &[ELSEWHERE],
            follow: |c| {
                fs::rename(c.path("tmp/ca.pem"), c.path("ca.pem")).expect("a file");
                set(c, "OSCR_CA_FILE", "ca.pem")
            },
        },
    ]);
}
