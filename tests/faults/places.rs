//! Faults of the machine: disks that are full or read-only, damaged files, secrets that cannot be read, clocks, hardware.

use std::fs;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::Fault;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, allow, write};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_said, correct, first_request, listens};

const STATE: &str = "var/lib/oscr/state.json";

/// Asserts that the container does not start, and says each of these words once.
#[track_caller]
fn assert_refuses(forge: &Forge, container: &mut Container<'_>, words: &[&str]) {
    container.start();
    assert_refused(forge, container, words);
}

/// The same of one that was started.
#[track_caller]
fn assert_refused(forge: &Forge, container: &mut Container<'_>, words: &[&str]) {
    assert_eq!(container.exit_code(), 78, "{:#?}", container.lines());
    for word in words {
        assert_eq!(container.lines_with(word).len(), 1, "{word}: {:#?}", container.lines());
    }
    assert!(forge.calls().is_empty(), "{:?}", forge.calls());
}

/// A place is such that the container does not start.
fn refuses(fault: &str, place: &'static str, mount: &'static str) -> Row {
    let must = "exit 78 with the cure, before any request";
    Row::new(Kind::GitHub, Step::Start, fault, must, move |forge, container| {
        fs::create_dir_all(container.path(place)).expect("a directory");
        container.in_namespace(&mount.replace("PLACE", &container.text(place)));
        assert_refuses(forge, container, &[place]);
        container.in_namespace("");
    })
}

/// A state file that makes no sense is put aside, and the runner works.
fn damaged(fault: &str, content: fn() -> Vec<u8>) -> Row {
    Row::new(
        Kind::GitHub,
        Step::Start,
        fault,
        "the runner works; the file is put aside, and one line says so",
        move |_, container| {
            write(&container.path(STATE), "", 0o600);
            fs::write(container.path(STATE), content()).expect("our own file");
            container.start();
            assert_said(container, &["is damaged", "put aside"]);
            listens(container);
            assert!(container.path("var/lib/oscr/state.damaged.json").exists());
        },
    )
}

/// The secret's file is of no use when the container starts.
fn no_secret(kind: Kind, fault: &str, spoil: fn(&Container<'_>), words: &'static [&'static str]) -> Row {
    let must = "exit 78 with the file and the cure, before any request";
    Row::new(kind, Step::Start, fault, must, move |forge, container| {
        spoil(container);
        assert_refuses(forge, container, words);
        correct(forge, container);
    })
}

/// The forge's clock differs from ours.
fn clock(kind: Kind, fault: &str, offset: i64) -> Row {
    Row::new(kind, first_request(kind).step, fault, "the runner works; it is said once", move |forge, container| {
        forge.order(|orders| orders.clock_offset_s = offset);
        container.start();
        forge.listening();
        let said = if offset > 0 { "behind the forge's" } else { "ahead of the forge's" };
        assert_said(container, &["clock is", said]);
        job(forge, container, JobResult::Succeeded);
    })
}

/// Mounts a small file system of its own at a place, in the container's namespace alone.
fn small_disk(container: &mut Container<'_>, place: &str) -> String {
    fs::create_dir_all(container.path(place)).expect("a directory");
    let place = container.text(place);
    container.in_namespace(&format!("mount -t tmpfs -o size=64k tmpfs '{place}'"));
    place
}

/// Fills it, as another process would.
fn fill(container: &Container<'_>, place: &str) {
    let _ = fs::write(format!("/proc/{}/root{place}/full", container.pid()), vec![0; 1 << 20]);
}

/// A full disk in the place of a directory: nothing of it is free.
const FULL: &str = "mount -t tmpfs -o size=16k tmpfs 'PLACE'; head -c 1M /dev/zero >'PLACE/full' 2>/dev/null || true";
const READ_ONLY: &str = "mount -t tmpfs -o ro tmpfs 'PLACE'";

fn job(forge: &Forge, container: &mut Container<'_>, result: JobResult) {
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(result), "{}", job.log);
    container.exit_code();
}

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = vec![
        Row::new(
            kind,
            Step::Start,
            "the state names ten thousand registrations",
            "the runner works; a hundred of them are removed, no more are remembered",
            |forge, container| {
                let scope = match container.kind {
                    Kind::GitHub => format!("{}/api/v3/repos/o/r/actions", forge.url()),
                    Kind::Azure => format!("{}/acme/_apis/distributedtask/pools?poolName=Default", forge.url()),
                };
                let one = |id: u32| format!(r#"{{"id":{},"name":"old-{id}","scope":"{scope}"}}"#, 1_000_000 + id);
                let many: Vec<String> = (0..10_000).map(one).collect();
                let text = format!(r#"{{"version":1,"current":null,"leftovers":[{}],"failures":0}}"#, many.join(","));
                write(&container.path(STATE), &text, 0o600);
                container.start();
                listens(container);
                let calls = forge.calls();
                let removed = calls.iter().filter(|call| call.starts_with("DELETE")).count();
                // What else there is does not grow with their number.
                assert!(removed <= 100 && calls.len() <= removed + 4, "{removed} of {}", calls.len());
                forge.clear_requests();
            },
        ),
        Row::new(
            kind,
            Step::Start,
            "the work directory is below one that the agent cannot list",
            "exit 78 with the directory and the cure, before any request",
            |forge, container| {
                let (closed, work) = (container.text("data"), container.text("work"));
                fs::create_dir(container.path("data")).expect("a directory");
                allow(&container.path("data"), 0o711);
                container.set("RUNNER_WORKDIR", &format!("{closed}/work"));
                assert_refuses(forge, container, &[&closed, "chmod o+rx"]);
                container.set("RUNNER_WORKDIR", &work);
            },
        ),
        Row::new(
            kind,
            Step::Start,
            "the work directory is a place of the system",
            "exit 78 with the place and the cure, before any request; nothing is emptied",
            |forge, container| {
                let (system, work) = (container.text("etc/ssl"), container.text("work"));
                write(&container.path("etc/ssl/openssl.cnf"), "precious", 0o644);
                container.set("RUNNER_WORKDIR", &system);
                assert_refuses(forge, container, &[&system, "a place of the system"]);
                assert!(container.path("etc/ssl/openssl.cnf").exists());
                container.set("RUNNER_WORKDIR", &work);
            },
        ),
        Row::new(
            kind,
            Step::Start,
            "the work directory lies in a mount that nobody named",
            "exit 78 with the mount and the cure, before any request; nothing is emptied",
            |forge, container| {
                let (mount, work) = (container.text("tmp/runner"), container.text("work"));
                write(&container.path("volume/work/file"), "precious", 0o644);
                fs::create_dir(container.path("tmp/runner")).expect("a directory");
                container.in_namespace(&format!("mount --bind '{}' '{mount}'", container.text("volume")));
                container.set("RUNNER_WORKDIR", &format!("{mount}/work"));
                assert_refuses(forge, container, &[&format!("-v DIRECTORY:{mount}/work")]);
                assert!(container.path("volume/work/file").exists());
                container.set("RUNNER_WORKDIR", &work);
                container.in_namespace("");
            },
        ),
        Row::new(
            kind,
            Step::Start,
            "the secret's file lies where all is emptied",
            "exit 78 with the file and the cure, before any request; the file stays",
            |forge, container| {
                let setting = if container.kind == Kind::GitHub { "GITHUB_PAT_FILE" } else { "ADO_PAT_FILE" };
                let (lost, secret) = (container.text("tmp/pat"), container.text(SECRET));
                fs::rename(&secret, &lost).expect("our own file");
                container.set(setting, &lost);
                assert_refuses(forge, container, &[setting, "is emptied before and after each job"]);
                fs::rename(&lost, &secret).expect("it is there");
                container.set(setting, &secret);
            },
        ),
        Row::new(
            kind,
            Step::Start,
            "the agent's place is mounted noexec",
            "exit 78 with the mount and the cure, before any request",
            |forge, container| {
                fs::create_dir_all(container.path("runner")).expect("a directory");
                let place = container.text("runner");
                container.in_namespace(&format!("mount -t tmpfs -o noexec,mode=755 tmpfs '{place}'"));
                assert_refuses(forge, container, &["is mounted noexec", &format!("{place}:exec")]);
                container.in_namespace("");
            },
        ),
        Row::new(
            kind,
            Step::Start,
            "the work directory is mounted noexec",
            "the runner works; one line has the cure",
            |_, container| {
                fs::create_dir_all(container.path("work")).expect("a directory");
                let place = container.text("work");
                container.in_namespace(&format!("mount -t tmpfs -o noexec,mode=755 tmpfs '{place}'"));
                container.start();
                assert_said(container, &["is mounted noexec", &format!("{place}:exec")]);
                listens(container);
                container.in_namespace("");
            },
        ),
        no_secret(
            kind,
            "the secret's file is missing",
            |container| {
                fs::remove_file(container.path(SECRET)).expect("our own file");
            },
            &["_PAT_FILE", "cannot be read"],
        ),
        no_secret(
            kind,
            "the secret's file is empty",
            |container| write(&container.path(SECRET), "\n", 0o400),
            &["there is no credential"],
        ),
        no_secret(
            kind,
            "the secret's file is binary",
            |container| {
                fs::write(container.path(SECRET), [0xff; 300]).expect("root may");
            },
            &["not text"],
        ),
        no_secret(
            kind,
            "the secret has two lines",
            |container| write(&container.path(SECRET), "ghp_one\nghp_two\n", 0o400),
            &["holds several lines"],
        ),
        Row::new(
            kind,
            first_request(kind).step,
            "the state's disk fills up",
            "`denied`, with the place and the cure: no registration is made that could not be remembered",
            |forge, container| {
                let place = small_disk(container, "var/lib/oscr");
                forge.fault(
                    first_request(container.kind).path,
                    Fault { status: Some(503), times: Some(1), ..Fault::default() },
                );
                container.start();
                container.wait_line("trying again in");
                fill(container, &place);
                container.wait_line("free some space");
                assert!(!forge.kinds().contains(&"runner_registered".to_owned()), "{:?}", forge.calls());
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(STOP), 0);
                container.in_namespace("");
            },
        ),
        Row::new(
            kind,
            Step::Leave,
            "the state's disk fills up during a job",
            "the job finishes; the registration goes; exit 0; the log says that the state is not written",
            |forge, container| {
                let place = small_disk(container, "var/lib/oscr");
                container.start();
                forge.listening();
                fill(container, &place);
                let job = forge.wait_job(forge.job("true"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                assert_eq!(container.exit_code(), 0);
                assert!(forge.runners().is_empty());
                assert!(!container.lines_with("state.json cannot be written").is_empty(), "{:#?}", container.lines());
                container.in_namespace("");
            },
        ),
        clock(kind, "the forge's clock is an hour ahead", 3600),
        clock(kind, "the forge's clock is an hour behind", -3600),
    ];
    if kind == Kind::GitHub {
        rows.extend(at_any_forge());
    }
    rows
}

/// What the forge has no part in.
fn at_any_forge() -> Vec<Row> {
    vec![
        Row::new(
            Kind::GitHub,
            Step::Start,
            "a hook is not executable",
            "exit 78 with the hook and the cure, before any request",
            |forge, container| {
                let hook = container.path("etc/oscr/hooks.d/job-started/10-guard");
                write(&hook, "#!/bin/sh\n", 0o644);
                assert_refuses(forge, container, &["10-guard cannot be run", "chmod a+rx"]);
                fs::remove_file(hook).expect("our own file");
            },
        ),
        refuses("the state's disk is full", "var/lib/oscr", FULL),
        refuses("the state's place is read-only", "var/lib/oscr", READ_ONLY),
        refuses("/run/oscr is read-only", "run/oscr", READ_ONLY),
        Row::new(
            Kind::GitHub,
            Step::Start,
            "a mount that settings name places on does not answer",
            "exit 78 with each setting and its place after 5 s, unhealthy until then, before any request",
            |forge, container| {
                fs::create_dir(container.path("mounted")).expect("a directory");
                let place = container.text("mounted");
                let named = [
                    ("OSCR_METRICS_FILE", "", place.clone()),
                    ("OSCR_CA_FILE", "/ca.pem", format!("{place}/ca.pem")),
                    ("RUNNER_LOCK_DIR", "/locks", format!("{place}/locks")),
                    ("RUNNER_TOKEN_FILE", "/token", format!("{place}/token")),
                    ("OSCR_CACHE_DIRS", "/b", format!("{},{place}/b", container.text("work/a"))),
                ];
                for (setting, _, value) in &named {
                    container.set(setting, value);
                }
                // PID 1 inherits the server's end, and does not serve.
                container.in_namespace(&format!(
                    "exec 9<>/dev/fuse; mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 dead '{place}'"
                ));
                container.start();
                assert_eq!(container.ask(&["health"]).0, 1);
                let words = named
                    .each_ref()
                    .map(|(setting, at, _)| format!("{setting}: {place}{at} does not answer within 5s"));
                assert_refused(forge, container, &words.each_ref().map(String::as_str));
                assert_eq!(container.lines_with("does not answer").len(), named.len(), "{:#?}", container.lines());
                for (setting, ..) in named {
                    container.unset(setting);
                }
                container.in_namespace("");
            },
        ),
        damaged("the state file is truncated", || br#"{"version":1,"current":{"id":7,"na"#.to_vec()),
        damaged("the state file is empty", Vec::new),
        damaged("the state file is binary", || vec![0xff; 5000]),
        damaged("the state file is of another form", || br#"{"version":1,"leftovers":"many"}"#.to_vec()),
        damaged("the state file is huge", || vec![b'['; 50_000_000]),
        Row::new(
            Kind::GitHub,
            Step::CleanSlate,
            "/tmp is read-only and not empty",
            "`dirty`: no job is taken, unhealthy, nothing is asked; a stop ends it",
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
        ),
        Row::new(
            Kind::GitHub,
            Step::CleanSlate,
            "a mount lies in the work directory",
            "emptied like the rest, unless `OSCR_CACHE_DIRS` names it",
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
        ),
        Row::new(
            Kind::GitHub,
            Step::Configure,
            "the agent's disk is full",
            "`denied` or `backing-off`: one line with the place; nothing stays",
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
        ),
        Row::new(
            Kind::GitHub,
            Step::Leave,
            "the job left what cannot be removed",
            "exit 0, and said; the next incarnation takes no job before it is clean",
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
        ),
        Row::new(
            Kind::GitHub,
            Step::Grant,
            "a limit's reset by a clock that is an hour ahead",
            "it is waited for, by the forge's clock and not by ours",
            |forge, container| {
                forge.order(|orders| orders.clock_offset_s = 3600);
                let reset = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
                let reset = reset.expect("after 1970").as_secs() + 3600 + 3;
                let headers = [("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", reset.to_string())];
                let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
                let limit = Fault { status: Some(403), headers, times: Some(1), ..Fault::default() };
                forge.fault("registration-token", limit);
                container.start();
                container.wait_line("limits our requests");
                listens(container);
            },
        ),
    ]
}
