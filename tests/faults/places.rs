//! Faults of the machine: disks that are full or read-only, damaged files, secrets that cannot be read, clocks, hardware.

use std::fs::{self, File};

use nix::sys::signal::Signal;
use oscr_sim::forge::Fault;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, until, write, write_program};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_denied, assert_said, correct, listens, story};

const STATE: &str = "var/lib/oscr/state.json";

/// The container does not start, and says why.
fn refuses(fault: &str, place: &'static str, mount: &'static str, words: &'static [&'static str]) -> Row {
    Row::new(Step::Start, fault, "exit 78 with the cure, before any request", move || {
        story(
            |_, _| (),
            |forge, container| {
                fs::create_dir_all(container.path(place)).expect("a directory");
                container.in_namespace(&mount.replace("PLACE", &container.text(place)));
                container.start();
                assert_eq!(container.exit_code(), 78, "{:#?}", container.lines());
                for word in words {
                    assert_eq!(container.lines_with(word).len(), 1, "{word}: {:#?}", container.lines());
                }
                assert!(forge.calls().is_empty(), "{:?}", forge.calls());
                container.in_namespace("");
            },
        );
    })
}

/// A state file that makes no sense is put aside, and the runner works.
fn damaged(fault: &str, content: fn() -> Vec<u8>) -> Row {
    Row::new(Step::Start, fault, "put aside and said in one line; the runner works", move || {
        story(
            |_, _| (),
            |_, container| {
                write(&container.path(STATE), "", 0o600);
                fs::write(container.path(STATE), content()).expect("our own file");
                container.start();
                assert_said(container, &["is damaged", "put aside"]);
                listens(container);
                assert!(container.path("var/lib/oscr/state.damaged.json").exists());
            },
        );
    })
}

/// The secret's file is of no use when the container starts.
fn no_secret(fault: &str, spoil: fn(&Container<'_>), words: &'static [&'static str]) -> Row {
    Row::new(Step::Start, fault, "exit 78 with the file and the cure, before any request", move || {
        story(
            |_, _| (),
            |forge, container| {
                spoil(container);
                container.start();
                assert_eq!(container.exit_code(), 78, "{:#?}", container.lines());
                for word in words {
                    assert_eq!(container.lines_with(word).len(), 1, "{word}: {:#?}", container.lines());
                }
                assert!(forge.calls().is_empty(), "{:?}", forge.calls());
                correct(forge, container);
            },
        );
    })
}

/// A full disk in the place of a directory: nothing of it is free.
const FULL: &str = "mount -t tmpfs -o size=16k tmpfs 'PLACE'; head -c 1M /dev/zero >'PLACE/full' 2>/dev/null || true";
const READ_ONLY: &str = "mount -t tmpfs -o ro tmpfs 'PLACE'";

/// A runner that needs a board, whose lock directory lies in the container.
fn needs_board(container: &mut Container<'_>) {
    fs::create_dir(container.path("boards")).expect("a directory");
    container.set("RUNNER_LOCK_DIR", &container.text("boards"));
    container.set("RUNNER_RESOURCE_ID", "board-1");
}

fn assert_free(container: &Container<'_>) {
    let lock = File::open(container.path("boards/board-1.lock")).expect("the lock");
    until("the lock is free", || lock.try_lock().is_ok());
}

fn job(forge: &Forge, container: &mut Container<'_>, result: JobResult) {
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(result), "{}", job.log);
    container.exit_code();
}

pub fn rows() -> Vec<Row> {
    vec![
        refuses("the state's disk is full", "var/lib/oscr", FULL, &["var/lib/oscr"]),
        refuses("the state's place is read-only", "var/lib/oscr", READ_ONLY, &["var/lib/oscr"]),
        refuses("/run/oscr is read-only", "run/oscr", READ_ONLY, &["run/oscr"]),
        damaged("the state file is truncated", || br#"{"version":1,"current":{"id":7,"na"#.to_vec()),
        damaged("the state file is empty", Vec::new),
        damaged("the state file is binary", || vec![0xff; 5000]),
        damaged("the state file is of another form", || br#"{"version":1,"leftovers":"many"}"#.to_vec()),
        damaged("the state file is huge", || vec![b'['; 50_000_000]),
        Row::new(
            Step::Start,
            "the state names ten thousand registrations",
            "a hundred of them are removed, no more are remembered; the runner works",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        let scope = format!("{}/api/v3/repos/o/r/actions", forge.url());
                        let one =
                            |id: u32| format!(r#"{{"id":{},"name":"old-{id}","scope":"{scope}"}}"#, 1_000_000 + id);
                        let many: Vec<String> = (0..10_000).map(one).collect();
                        let text =
                            format!(r#"{{"version":1,"current":null,"leftovers":[{}],"failures":0}}"#, many.join(","));
                        write(&container.path(STATE), &text, 0o600);
                        container.start();
                        listens(container);
                        let removed = forge.calls().iter().filter(|call| call.starts_with("DELETE")).count();
                        assert!(removed <= 100, "{removed}");
                        forge.clear_requests();
                    },
                );
            },
        ),
        no_secret(
            "the secret's file is missing",
            |container| {
                fs::remove_file(container.path(SECRET)).expect("our own file");
            },
            &["GITHUB_PAT_FILE", "cannot be read"],
        ),
        no_secret(
            "the secret's file is empty",
            |container| write(&container.path(SECRET), "\n", 0o400),
            &["there is no credential"],
        ),
        no_secret(
            "the secret's file is binary",
            |container| {
                fs::write(container.path(SECRET), [0xff; 300]).expect("root may");
            },
            &["not text"],
        ),
        Row::new(
            Step::Grant,
            "the secret has two lines",
            "`denied`: one line with the cure, no request; on within seconds of its correction",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        write(&container.path(SECRET), "ghp_one\nghp_two\n", 0o400);
                        container.start();
                        assert_denied(forge, container, &["characters that no HTTP header can carry"]);
                        assert!(forge.calls().is_empty(), "{:?}", forge.calls());
                        correct(forge, container);
                        listens(container);
                    },
                );
            },
        ),
        Row::new(
            Step::CleanSlate,
            "/tmp is read-only and not empty",
            "`dirty`: no job is taken, unhealthy, nothing is asked; a stop ends it",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        let place = container.text("tmp");
                        container.in_namespace(&format!(
                            "mount -t tmpfs tmpfs '{place}'; echo x >'{place}/left'; mount -o remount,ro '{place}'"
                        ));
                        container.start();
                        assert_said(container, &["no job is taken", "cannot be emptied"]);
                        assert_eq!(container.status()["phase"], "dirty");
                        assert_eq!(container.ask(&["health"]).0, 1);
                        container.signal(Signal::SIGTERM);
                        assert_eq!(container.exit_code_within(STOP), 0);
                        assert!(forge.calls().is_empty(), "{:?}", forge.calls());
                        container.in_namespace("");
                    },
                );
            },
        ),
        Row::new(
            Step::CleanSlate,
            "a mount lies in the work directory",
            "emptied like the rest, unless `OSCR_CACHE_DIRS` names it",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        let place = container.text("work/cache");
                        container.in_namespace(&format!(
                            "mkdir -p '{place}'; mount -t tmpfs tmpfs '{place}'; echo x >'{place}/kept'"
                        ));
                        container.start();
                        let job = forge.wait_job(forge.job("ls -A ../../cache; test ! -e ../../cache/kept"), LIMIT);
                        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                        assert_eq!(container.exit_code(), 0);
                        container.in_namespace("");
                    },
                );
            },
        ),
        Row::new(
            Step::Configure,
            "the agent's disk is full",
            "`denied` or `backing-off`: one line with the place; nothing stays",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        fs::create_dir_all(container.path("runner")).expect("a directory");
                        let place = container.text("runner");
                        container.in_namespace(&format!("mount -t tmpfs -o size=64k,nr_inodes=4 tmpfs '{place}'"));
                        container.start();
                        assert_said(container, &["trying again in", &place, "cannot be made"]);
                        container.signal(Signal::SIGTERM);
                        assert_eq!(container.exit_code_within(STOP), 0);
                        assert!(forge.runners().is_empty());
                        container.in_namespace("");
                    },
                );
            },
        ),
        Row::new(
            Step::Grant,
            "the state's disk fills up",
            "no registration is made that could not be remembered: `denied`, with the place and the cure",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        let place = container.text("var/lib/oscr");
                        fs::create_dir_all(&place).expect("a directory");
                        container.in_namespace(&format!("mount -t tmpfs -o size=64k tmpfs '{place}'"));
                        forge.fault(
                            "registration-token",
                            Fault { status: Some(503), times: Some(1), ..Fault::default() },
                        );
                        container.start();
                        container.wait_line("trying again in");
                        // As another process would fill it.
                        let inside = format!("/proc/{}/root{place}/full", container.pid());
                        let _ = fs::write(inside, vec![0; 1 << 20]);
                        container.wait_line("free some space");
                        let asked = forge.calls().iter().filter(|call| call.ends_with("201")).count();
                        assert_eq!(asked, 0, "{:?}", forge.calls());
                        container.signal(Signal::SIGTERM);
                        assert_eq!(container.exit_code_within(STOP), 0);
                        container.in_namespace("");
                    },
                );
            },
        ),
        Row::new(
            Step::Leave,
            "the state's disk fills up during a job",
            "the job finishes; the registration goes; exit 0; the log says that the state is not written",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        let place = container.text("var/lib/oscr");
                        fs::create_dir_all(&place).expect("a directory");
                        container.in_namespace(&format!("mount -t tmpfs -o size=64k tmpfs '{place}'"));
                        container.start();
                        forge.listening();
                        let _ = fs::write(format!("/proc/{}/root{place}/full", container.pid()), vec![0; 1 << 20]);
                        let job = forge.wait_job(forge.job("true"), LIMIT);
                        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                        assert_eq!(container.exit_code(), 0);
                        assert!(forge.runners().is_empty());
                        assert!(
                            !container.lines_with("state.json cannot be written").is_empty(),
                            "{:#?}",
                            container.lines()
                        );
                        container.in_namespace("");
                    },
                );
            },
        ),
        Row::new(
            Step::Leave,
            "the job left what cannot be removed",
            "exit 0, and said; the next incarnation takes no job before it is clean",
            || {
                story(
                    |_, _| (),
                    |forge, container| {
                        let place = container.text("tmp");
                        container.in_namespace(&format!("mount -t tmpfs tmpfs '{place}'"));
                        container.start();
                        forge.listening();
                        let pid = container.pid();
                        let spoil = format!("echo x >'{place}/left'; mount -o remount,ro '{place}'");
                        let inside = std::process::Command::new("nsenter")
                            .args(["-t", &pid.to_string(), "-m", "sh", "-ec", &spoil])
                            .status()
                            .expect("nsenter of util-linux");
                        assert!(inside.success());
                        job(forge, container, JobResult::Succeeded);
                        assert!(!container.lines_with("cannot be emptied").is_empty(), "{:#?}", container.lines());
                        container.in_namespace("");
                    },
                );
            },
        ),
        Row::new(Step::Grant, "the forge's clock is an hour ahead", "said once; jobs run", || clock(3600)),
        Row::new(Step::Grant, "the forge's clock is an hour behind", "said once; jobs run", || clock(-3600)),
        Row::new(
            Step::Grant,
            "a limit's reset by a clock that is an hour ahead",
            "waited for by the forge's clock, not by ours",
            || {
                story(
                    |forge, _| forge.order(|orders| orders.clock_offset_s = 3600),
                    |forge, container| {
                        let reset = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
                        let reset = reset.expect("after 1970").as_secs() + 3600 + 3;
                        let headers =
                            [("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", reset.to_string())];
                        let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
                        let limit = Fault { status: Some(403), headers, times: Some(1), ..Fault::default() };
                        forge.fault("registration-token", limit);
                        container.start();
                        container.wait_line("limits our requests");
                        listens(container);
                    },
                );
            },
        ),
        Row::new(Step::Hardware, "the lock directory is missing", "exit 78 with the cure, before any request", || {
            story(
                |_, _| (),
                |forge, container| {
                    container.set("RUNNER_RESOURCE_ID", "board-1");
                    container.set("RUNNER_LOCK_DIR", &container.text("nowhere"));
                    container.start();
                    assert_eq!(container.exit_code(), 78);
                    assert_eq!(container.lines_with("RUNNER_LOCK_DIR").len(), 1, "{:#?}", container.lines());
                    assert!(forge.calls().is_empty());
                    container.unset("RUNNER_RESOURCE_ID");
                },
            );
        }),
        Row::new(
            Step::Hardware,
            "the hook for a new holder fails",
            "the job fails and its log says why; the lock is free",
            || {
                story(
                    |_, container| needs_board(container),
                    |forge, container| {
                        let hook = container.path("etc/oscr/hooks.d/resource-acquired/10-power");
                        write_program(&hook, "#!/bin/sh\nexit 3\n");
                        container.start();
                        let failed = forge.wait_job(forge.job("true"), LIMIT);
                        assert!(
                            failed.result != Some(JobResult::Succeeded) && failed.log.contains("10-power"),
                            "{}",
                            failed.log
                        );
                        container.exit_code();
                        assert_free(container);
                        fs::remove_file(hook).expect("our own file");
                    },
                );
            },
        ),
        Row::new(
            Step::Hardware,
            "the hook for a new holder hangs",
            "ended after `OSCR_LOCK_HOOK_TIMEOUT`; the lock is free",
            || {
                story(
                    |_, container| {
                        needs_board(container);
                        container.set("OSCR_LOCK_HOOK_TIMEOUT", "1");
                    },
                    |forge, container| {
                        let hook = container.path("etc/oscr/hooks.d/resource-acquired/10-power");
                        write_program(&hook, "#!/bin/sh\nsleep 1000\n");
                        container.start();
                        let failed = forge.wait_job(forge.job("true"), LIMIT);
                        assert!(failed.log.contains("took longer than 1s"), "{}", failed.log);
                        container.exit_code();
                        assert_free(container);
                        fs::remove_file(hook).expect("our own file");
                    },
                );
            },
        ),
        Row::new(
            Step::Hardware,
            "it does not become free",
            "the job fails after `OSCR_LOCK_TIMEOUT` and its log says who has it",
            || {
                story(
                    |_, container| {
                        needs_board(container);
                        container.set("OSCR_LOCK_TIMEOUT", "1");
                    },
                    |forge, container| {
                        let lock = File::create(container.path("boards/board-1.lock")).expect("a file");
                        lock.lock().expect("flock");
                        container.start();
                        let failed = forge.wait_job(forge.job("true"), LIMIT);
                        assert!(failed.log.contains("did not become free within 1s"), "{}", failed.log);
                        container.exit_code();
                    },
                );
            },
        ),
        Row::new(Step::Hardware, "the holder's file is damaged", "it is only words: the job has its board", || {
            story(
                |_, container| needs_board(container),
                |forge, container| {
                    write(&container.path("boards/board-1.holder"), "\u{0}{\"who\":", 0o600);
                    container.start();
                    job(forge, container, JobResult::Succeeded);
                    assert_free(container);
                },
            );
        }),
        Row::new(
            Step::Hardware,
            "the process that waits is killed",
            "the job is failed, or waits again; the lock is free",
            || {
                story(
                    |_, container| needs_board(container),
                    |forge, container| {
                        let lock = File::create(container.path("boards/board-1.lock")).expect("a file");
                        lock.lock().expect("flock");
                        container.start();
                        let waiting = forge.job("true");
                        container.wait_line("the job is waiting");
                        let mut waiter = None;
                        until("the process that waits", || {
                            waiter = container.processes().into_iter().find(|pid| {
                                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                                String::from_utf8_lossy(&command).contains("lock-wait")
                            });
                            waiter.is_some()
                        });
                        nix::sys::signal::kill(waiter.expect("found"), Signal::SIGKILL).expect("it runs");
                        drop(lock);
                        forge.wait_job(waiting, LIMIT);
                        container.exit_code();
                        assert_free(container);
                    },
                );
            },
        ),
    ]
}

fn clock(offset: i64) {
    story(
        move |forge, _| forge.order(|orders| orders.clock_offset_s = offset),
        |forge, container| {
            container.start();
            forge.listening();
            assert_said(
                container,
                &["clock is", if offset > 0 { "behind the forge's" } else { "ahead of the forge's" }],
            );
            job(forge, container, JobResult::Succeeded);
        },
    );
}
