//! Faults of the agent, of the forge behind its back, and of jobs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{JobStatus, ListenerExit, LostAssignments, Removal, Snapshot};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, allow, until, write, write_program};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_denied, assert_said, believes_busy, correct, listens, registrations, restart};

/// More than PID 1 should ever need, in kB: most of it is the debug build itself.
const MEMORY: u64 = 64 * 1024;

/// Makes the agent do `what` the first time that it is called with `command`, in place of what it should.
fn once(container: &mut Container<'_>, command: &str, what: &str) {
    let marks = container.path("marks");
    // What is not named goes before the next try.
    container.set("OSCR_CACHE_DIRS", &container.text("marks"));
    fs::create_dir(&marks).expect("a directory");
    allow(&marks, 0o777);
    let script = format!("[ \"$1\" = {command} ] && mkdir '{}/done' 2>/dev/null && {{ {what}; }}", marks.display());
    container.replace_listener(&script);
}

/// The agent as the image has it.
fn repair(container: &Container<'_>) {
    if container.real_listener().exists() {
        fs::rename(container.real_listener(), container.listener_program()).expect("a file");
    }
}

/// The agent's first try fails, and another one is made.
fn another_try(kind: Kind, step: Step, fault: &str, what: &'static str, words: &'static [&'static str]) -> Row {
    let command = if step == Step::Configure { "configure" } else { "run" };
    Row::new(
        kind,
        step,
        fault,
        "`backing-off`: one line with the cause, then another try under the same rules",
        move |_, container| {
            once(container, command, what);
            container.start();
            assert_said(container, &[&["trying again in"], words].concat());
            listens(container);
            assert_small(container);
        },
    )
}

/// The agent does nothing, until a stop.
fn hangs(kind: Kind, step: Step, fault: &str, must: &str) -> Row {
    let command = if step == Step::Configure { "configure" } else { "run" };
    Row::new(kind, step, fault, must, move |forge, container| {
        once(container, command, "echo hanging; exec sleep 1000");
        container.start();
        container.wait_line("hanging");
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code_within(STOP), 0);
        assert!(forge.runners().is_empty());
        if step == Step::Listen {
            container.assert_state_empty();
        }
    })
}

/// The agent cannot run at all, until somebody corrects the image.
fn cannot_run(kind: Kind, fault: &str, spoil: fn(&Container<'_>), words: &'static [&'static str]) -> Row {
    let must = "`denied`: one line with the cause, unhealthy, slow";
    Row::new(kind, Step::Configure, fault, must, move |forge, container| {
        container.replace_listener("");
        spoil(container);
        container.start();
        assert_denied(forge, container, words);
        repair(container);
        correct(forge, container);
        listens(container);
    })
}

/// The agent says its version and cannot do more, until somebody corrects the image.
fn cannot_configure(kind: Kind) -> Row {
    let must = "`denied`: one line with the cause, unhealthy, slow";
    Row::new(
        kind,
        Step::Configure,
        "misses a library that its version does not need (127)",
        must,
        |forge, container| {
            container.replace_listener("[ \"$1\" = configure ] && exit 127");
            container.start();
            assert_denied(forge, container, &["127", "libraries"]);
            repair(container);
            correct(forge, container);
            listens(container);
        },
    )
}

/// Asserts that PID 1 never took much memory, whatever it was told.
fn assert_small(container: &Container<'_>) {
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let most: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("kB");
    assert!(most < MEMORY, "PID 1 took {most} kB");
}

/// What the agents' programs and lines begin with.
fn noun(container: &Container<'_>) -> &'static str {
    match container.kind {
        Kind::GitHub => "Runner",
        Kind::Azure => "Agent",
    }
}

/// The agent's `Listener` or `Worker`.
fn process(container: &Container<'_>, program: &str) -> Pid {
    let name = format!("{}.{program}", noun(container));
    let mut found = None;
    until(&name, || {
        found = container.processes().into_iter().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| name.starts_with(comm.trim()))
        });
        found.is_some()
    });
    found.expect("it was found")
}

fn exit(code: i32) -> ListenerExit {
    ListenerExit { code, text: None, times: 1, runner: None, at_session: false }
}

/// A job that runs, and what comes of it once `blow` has fallen: the exit code, and the job's result where it is sure.
fn with_job(
    kind: Kind,
    fault: &str,
    must: &str,
    blow: fn(&Forge, &mut Container<'_>, u64),
    code: i32,
    result: Option<JobResult>,
) -> Row {
    Row::new(kind, Step::Job, fault, must, move |forge, container| {
        // So long may the forge take to believe that an agent is dead.
        container.set("OSCR_KILL_TIMEOUT", "100");
        let (job, mut gate) = container.start_with_job();
        blow(forge, container, job);
        gate.open();
        assert_eq!(container.exit_code(), code);
        let job = forge.wait_job(job, LIMIT);
        if let Some(result) = result {
            assert_eq!(job.result, Some(result), "{}", job.log);
        }
    })
}

/// The listener ends with a code while it is idle.
fn ends_with(kind: Kind, code: i32) -> Row {
    let must = "`backing-off`, then a new registration; the old one goes";
    Row::new(kind, Step::Listen, &format!("ends with code {code}"), must, move |forge, container| {
        container.start();
        let (first, _) = forge.listening();
        forge.order(|orders| orders.listener_exit = Some(exit(code)));
        assert_said(container, &["trying again in"]);
        forge.another(first);
    })
}

/// The forge wants another version of the agent.
fn outdated(kind: Kind, code: i32) -> Row {
    let must = "`outdated`: one line with the version to pull, unhealthy, slow; no registration stays meanwhile";
    Row::new(kind, Step::Listen, &format!("wants another version: code {code}"), must, move |forge, container| {
        forge.order(|orders| {
            "5.999.1".clone_into(&mut orders.latest_version);
            "5.999.1".clone_into(&mut orders.latest_azure_version);
            orders.listener_exit = Some(exit(code));
        });
        container.start();
        assert_said(container, &["trying again in", "5.999.1"]);
        assert_eq!(container.status()["phase"], "outdated");
        assert_eq!(container.ask(&["health"]).0, 1);
        assert!(forge.runners().is_empty());
    })
}

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = vec![
        Row::new(
            kind,
            Step::Start,
            "the image holds no agent",
            "exit 78 with the cure, before any request",
            |forge, container| {
                container.replace_listener("");
                fs::remove_file(container.listener_program()).expect("a file");
                container.start();
                assert_eq!(container.exit_code(), 78);
                assert_eq!(container.lines_with("there is no agent in").len(), 1, "{:#?}", container.lines());
                assert!(forge.calls().is_empty());
                repair(container);
            },
        ),
        cannot_run(
            kind,
            "the agent is not executable",
            |container| {
                fs::set_permissions(container.listener_program(), fs::Permissions::from_mode(0o644))
                    .expect("our own file");
            },
            &["ermission denied"],
        ),
        cannot_run(
            kind,
            "the agent's libraries are missing (127)",
            |container| {
                write_program(&container.listener_program(), "#!/bin/sh\necho libicu is missing; exit 127\n");
            },
            &["127", "libraries"],
        ),
        Row::new(
            kind,
            Step::Configure,
            "cannot even say its version, as without ICU",
            "`denied`: one line with the cause, unhealthy, slow; nothing is registered",
            |forge, container| {
                let words =
                    "echo \"Process terminated. Couldn't find a valid ICU package\" >&2; echo '   at A.B()' >&2";
                let broken = container.path("broken");
                write(&broken, "", 0o444);
                let script =
                    format!("[ \"$1\" = --version ] && [ -e {} ] && {{ {words}; kill -ABRT $$; }}", broken.display());
                container.replace_listener(&script);
                container.start();
                let libraries = "the libraries that the agent needs, such as ICU";
                assert_denied(
                    forge,
                    container,
                    &["SIGABRT", "\"Process terminated. Couldn't find a valid ICU package\"", libraries],
                );
                assert!(container.lines_with("registered with").is_empty() && forge.runners().is_empty());
                fs::remove_file(&broken).expect("our own file");
                correct(forge, container);
                listens(container);
            },
        ),
        cannot_configure(kind),
        another_try(kind, Step::Configure, "crashes", "kill -SEGV $$", &["configure step failed"]),
        another_try(kind, Step::Configure, "says that it did, and did not", "exit 0", &["code 1"]),
        another_try(kind, Step::Listen, "crashes", "kill -SEGV $$", &["died"]),
        Row::new(
            kind,
            Step::Configure,
            "loses the file with its id",
            "the runner works: the id is asked for",
            |forge, container| {
                let (file, list) = match container.kind {
                    Kind::GitHub => (".runner", "/runners"),
                    Kind::Azure => (".agent", "/agents"),
                };
                once(container, "configure", &format!("\"$real\" \"$@\" && rm {file} && mkdir {file}; exit 0"));
                container.start();
                let asked = |seen: &Snapshot| seen.requests.iter().any(|r| !r.agent && r.path.ends_with(list));
                forge.wait("the id was asked for", LIMIT, asked);
                listens(container);
            },
        ),
        hangs(kind, Step::Configure, "hangs", "exit 0 at a stop, which interrupts it; nothing stays"),
        Row::new(
            kind,
            Step::Configure,
            "hangs, and ignores every signal",
            "exit 0 at a stop, which kills it after `OSCR_KILL_TIMEOUT`",
            |_, container| {
                container.set("OSCR_KILL_TIMEOUT", "1");
                once(container, "configure", "trap '' INT TERM; echo hanging; while :; do sleep 1; done");
                container.start();
                container.wait_line("hanging");
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(STOP), 0);
                assert!(!container.lines_with("killing it").is_empty(), "{:#?}", container.lines());
                container.set("OSCR_KILL_TIMEOUT", "10");
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "prints 4 MB and garbage, then listens",
            "the runner works; PID 1 stays small",
            |forge, container| {
                let noise = "head -c 4194304 /dev/zero | tr '\\0' x; head -c 300000 /dev/urandom; echo";
                once(container, "run", noise);
                container.start();
                forge.listening();
                assert_small(container);
                let job = forge.wait_job(forge.job("true"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                // That many lines are read for a while after the job.
                assert_eq!(container.exit_code(), 0);
            },
        ),
        hangs(kind, Step::Listen, "hangs before it connects", "exit 0 at a stop, which removes the registration"),
        Row::new(
            kind,
            Step::Listen,
            "the listener is killed while idle, as by the OOM killer",
            "a new registration; the old one goes",
            |forge, container| {
                container.start();
                let (first, _) = forge.listening();
                kill(process(container, "Listener"), Signal::SIGKILL).expect("it runs");
                assert_said(container, &["trying again in", "died"]);
                forge.another(first);
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "another session for a while",
            "the agent waits for it to end, then listens",
            |forge, container| {
                forge.order(|orders| orders.session_conflicts = 3);
                container.start();
                forge.listening();
                assert!(container.lines_with("trying again in").is_empty());
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "another session that stays",
            "a new registration under another name",
            |forge, container| {
                forge.order(|orders| {
                    orders.session_conflicts = 4;
                    orders.conflict_limit_ms = Some(250);
                });
                container.start();
                container.wait_line("trying again in");
                forge.order(|orders| orders.session_conflicts = 0);
                listens(container);
            },
        ),
        Row::new(kind, Step::Listen, "somebody removes the registration", "a new registration", |forge, container| {
            forge.order(|orders| orders.end_polls_on_delete = true);
            container.start();
            let (first, _) = forge.listening();
            forge.unregister(first);
            assert_said(container, &["trying again in", "registration"]);
            forge.another(first);
        }),
        Row::new(
            kind,
            Step::Listen,
            "the forge restarts",
            "the agent goes on; the same registration takes the next job",
            |forge, container| {
                forge.order(|orders| orders.poll_timeout_ms = 1000);
                container.start();
                forge.listening();
                forge.go_down();
                container.wait_line("Retrying until reconnected");
                forge.come_back().expect("the port is still free");
                let job = forge.wait_job(forge.job("true"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                assert_eq!(container.exit_code(), 0);
                assert_eq!(container.lines_with("registered with").len(), 1);
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "an assignment that comes to nothing",
            "the agent goes on; it takes the job when that is offered again",
            |forge, container| {
                let lost = LostAssignments { times: 1, status: 409, consume: false };
                forge.order(|orders| orders.lost_assignments = Some(lost));
                container.start();
                let job = forge.wait_job(forge.job("true"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                assert_eq!(container.exit_code(), 0);
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "it is over before the listener's words are read",
            "exit 0, as after any job; no second registration",
            |forge, container| {
                let mut gate = container.gate();
                let words = "t='2026-01-01 00:00:00Z:'; echo \"$t Running job: short\"; echo \"$t Job short completed with result: Succeeded\"; exit 0";
                once(container, "run", &format!("{}; {words}", gate.wait()));
                container.start();
                container.wait_line("at the gate");
                let listener = process(container, "Listener");
                // PID 1 learns of the end and of the words before it at the same time, as on a busy machine.
                container.signal(Signal::SIGSTOP);
                gate.open();
                let stat = format!("/proc/{listener}/stat");
                until("the listener is gone", || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")));
                container.signal(Signal::SIGCONT);
                assert_eq!(container.exit_code(), 0);
                assert!(container.lines_with("trying again in").is_empty());
                assert!(forge.runners().is_empty());
            },
        ),
        with_job(
            kind,
            "the worker is killed, as by the OOM killer",
            "the job fails, and the forge knows; exit 0",
            |_, container, _| kill(process(container, "Worker"), Signal::SIGKILL).expect("it runs"),
            0,
            Some(JobResult::Failed),
        ),
        with_job(
            kind,
            "the listener is killed, as by the OOM killer",
            "exit 75; the job is lost, and the log says so; nothing stays",
            |forge, container, job| {
                let runner = forge.runner_of(job);
                kill(process(container, "Listener"), Signal::SIGKILL).expect("it runs");
                forge.let_go_once_refused(runner);
                assert_said(container, &["the job was lost"]);
            },
            75,
            None,
        ),
        with_job(
            kind,
            "the forge is away when it ends, and comes back",
            "the job finishes, and succeeded; exit 0",
            |forge, container, _| {
                forge.go_down();
                container.wait_line("Retrying until reconnected");
                forge.come_back().expect("the port is still free");
            },
            0,
            Some(JobResult::Succeeded),
        ),
        with_job(
            kind,
            "somebody removes the registration",
            "the job finishes; exit 0",
            |forge, _, job| forge.unregister(forge.runner_of(job)),
            0,
            None,
        ),
        with_job(
            kind,
            "a user cancels it",
            "the job is cancelled; exit 0; nothing stays",
            |forge, _, job| {
                assert!(forge.cancel_job(job));
                // Or it could be done before its agent hears of it.
                forge.wait_job(job, LIMIT);
            },
            0,
            Some(JobResult::Canceled),
        ),
        Row::new(
            kind,
            Step::Job,
            "it kills everything that it may",
            "whatever it hits ends, PID 1 does not; nothing stays",
            |forge, container| {
                container.set("OSCR_KILL_TIMEOUT", "100");
                container.start();
                let job = forge.job("kill -KILL -1");
                forge.wait("it begins", LIMIT, |seen| seen.events.iter().any(|event| event.kind == "job_started"));
                forge.let_go_once_refused(forge.runner_of(job));
                let code = container.exit_code();
                assert!([0, 75].contains(&code), "{code}");
                assert_ne!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "the container is killed under it",
            "the next start writes its summary and counts it: `lost` while the forge believes in it, else `unknown`",
            |forge, container| {
                container.start_with_job();
                let id = forge.runners()[0].id;
                container.signal(Signal::SIGKILL);
                restart(forge, container);
                let summary = container.wait_line("\"job summary\"");
                assert!(summary.contains(r#""result":"lost""#), "{summary}");
                forge.let_go_once_refused(id);
                listens(container);
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "the credential is revoked meanwhile",
            "the job finishes; exit 0; the next incarnation removes the registration once it is corrected",
            |forge, container| {
                forge.order(|orders| orders.ephemeral_removal = Removal::Never);
                let (job, mut gate) = container.start_with_job();
                let pats = forge.orders().pats;
                forge.order(|orders| orders.pats = vec!["ghp_another".to_owned()]);
                gate.open();
                assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
                assert_eq!(container.exit_code(), 0);
                assert!(!container.lines_with("the next incarnation will").is_empty(), "{:#?}", container.lines());
                forge.order(|orders| orders.pats = pats.clone());
                restart(forge, container);
                listens(container);
                assert_eq!(forge.runners().len(), 1, "{:#?}", forge.runners());
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "the forge believes that it still runs",
            "asked again within `OSCR_KILL_TIMEOUT`; then the next incarnation removes the registration",
            |forge, container| {
                forge.order(|orders| orders.ephemeral_removal = Removal::Never);
                container.set("OSCR_KILL_TIMEOUT", "2");
                container.start();
                forge.listening();
                forge.fault(registrations(container.kind), believes_busy(container.kind));
                forge.listening();
                let job = forge.job("true");
                forge.wait("the job is over", LIMIT, |seen| {
                    seen.jobs.iter().any(|known| known.id == job && known.status == JobStatus::Completed)
                });
                assert_eq!(container.exit_code(), 0);
                assert!(!container.lines_with("still believes").is_empty(), "{:#?}", container.lines());
                container.set("OSCR_KILL_TIMEOUT", "10");
            },
        ),
    ];
    let (codes, updates) = match kind {
        Kind::GitHub => (&[0, 1, 2, 5, 6, 99][..], &[3, 4, 7][..]),
        Kind::Azure => (&[0, 1, 2, 99][..], &[3, 4][..]),
    };
    rows.extend(codes.iter().map(|code| ends_with(kind, *code)));
    rows.extend(updates.iter().map(|code| outdated(kind, *code)));
    if kind == Kind::GitHub {
        rows.extend(with_registration_tokens_and_hooks());
        rows.extend(whatever_the_agent());
    }
    rows
}

/// What Azure DevOps' agent does not have.
fn with_registration_tokens_and_hooks() -> [Row; 3] {
    [
        Row::new(
            Kind::GitHub,
            Step::Configure,
            "the registration token has expired meanwhile",
            "`backing-off`, then with a new token",
            |forge, container| {
                forge.order(|orders| orders.token_lifetime_s = -1);
                container.start();
                container.wait_line("trying again in");
                forge.order(|orders| orders.token_lifetime_s = 3600);
                listens(container);
                assert!(container.lines_with("configure step failed").iter().any(|line| line.contains("WARN")));
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Job,
            "its started hook fails",
            "the job fails before its first step; exit 0",
            |forge, container| {
                let hook = container.path("etc/oscr/hooks.d/job-started/10-no");
                write_program(&hook, "#!/bin/sh\necho no; exit 9\n");
                container.start();
                let job = forge.wait_job(forge.job("echo the 'step' ran"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Failed));
                assert!(!job.log.contains("the step ran"), "{}", job.log);
                assert_eq!(container.exit_code(), 0);
                fs::remove_file(hook).expect("our own file");
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Job,
            "three in a row fail before their hook, in \"Set up job\"",
            "the runner takes jobs as long as the agent's user can work; a warning, `last_error` and `oscr_jobs_without_hook`",
            |forge, container| {
                // A file is where the directory for temporary files should be.
                let spoil = format!(": >'{}'", container.text("work/_temp"));
                container.replace_listener(&format!("[ \"$1\" = run ] && {spoil}"));
                for _ in 0..3 {
                    restart(forge, container);
                    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Failed));
                    assert_eq!(container.exit_code(), 0);
                }
                container.wait_line("look at the step \"Set up job\"");
                fs::rename(container.real_listener(), container.listener_program()).expect("our own file");
                restart(forge, container);
                listens(container);
                let error = container.status()["last_error"].to_string();
                assert!(error.contains("Set up job"), "{error}");
            },
        ),
    ]
}

/// What is the same to us whichever agent it is.
fn whatever_the_agent() -> [Row; 5] {
    [
        another_try(
            Kind::GitHub,
            Step::Configure,
            "prints garbage",
            "head -c 300000 /dev/urandom; exit 1",
            &["configure step failed"],
        ),
        another_try(
            Kind::GitHub,
            Step::Configure,
            "prints 4 MB in one line",
            "head -c 4194304 /dev/zero | tr '\\0' x; exit 1",
            &["configure step failed"],
        ),
        another_try(Kind::GitHub, Step::Configure, "fails without a word", "exit 1", &["configure step failed"]),
        another_try(Kind::GitHub, Step::Listen, "is killed, as by the OOM killer", "kill -KILL $$", &["died"]),
        cannot_run(
            Kind::GitHub,
            "the agent's interpreter is missing",
            |container| write_program(&container.listener_program(), "#!/no/such/interpreter\n"),
            &["cannot"],
        ),
    ]
}
