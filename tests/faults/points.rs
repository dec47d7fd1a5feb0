//! Blows at every point of a life: killed, stopped, stopped by somebody in a hurry.

use std::fs::File;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::forge::{Fault, ListenerExit, Match, Removal, Snapshot};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, Gate, LIMIT};
use crate::table::{Row, Step};
use crate::world::{STOP, listens, restart, story};

/// A point of a life, and how a container is brought there.
struct Point {
    name: &'static str,
    reach: fn(&Forge, &mut Container<'_>) -> Reached,
}

/// What is going on there.
#[derive(Default)]
struct Reached {
    /// A job, which lasts until the next is done.
    job: Option<u64>,
    /// What the job waits for: a gate, or hardware that somebody else has.
    gate: Option<Gate>,
    board: Option<File>,
    /// A stop leaves its registration, because it is kept.
    kept: bool,
    /// The forge cannot be asked, so that a stop leaves what the next incarnation removes.
    deaf: bool,
}

impl Reached {
    /// Lets the job go on.
    fn open(&mut self) {
        if let Some(gate) = &mut self.gate {
            gate.open();
        }
        self.board = None;
    }
}

/// Longer than a blow takes to come, and shorter than what a stop grants a request.
const IN_FLIGHT_MS: u64 = 1500;

fn late(forge: &Forge, path: &str, method: &str) {
    let matching = Match { path_contains: Some(path.to_owned()), method: Some(method.to_owned()), ..Match::default() };
    forge.add_fault(Fault { matching, delay_ms: IN_FLIGHT_MS, times: Some(1), ..Fault::default() });
}

fn asked(forge: &Forge, path: &'static str, method: &'static str) {
    let came = move |seen: &Snapshot| seen.requests.iter().any(|r| r.method == method && r.path.contains(path));
    forge.wait("the request", LIMIT, came);
}

fn event(forge: &Forge, kind: &'static str) {
    forge.wait(kind, LIMIT, move |seen| seen.events.iter().any(|event| event.kind == kind));
}

/// A life up to a request that is on its way.
fn in_flight(forge: &Forge, container: &mut Container<'_>, path: &'static str, method: &'static str) -> Reached {
    late(forge, path, method);
    container.start();
    asked(forge, path, method);
    Reached::default()
}

fn running_job(forge: &Forge, container: &mut Container<'_>) -> Reached {
    let gate = container.gate();
    container.start();
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    Reached { job: Some(job), gate: Some(gate), ..Reached::default() }
}

const POINTS: &[Point] = &[
    Point {
        name: "waiting for OSCR_START_JITTER",
        reach: |_, container| {
            container.set("OSCR_START_JITTER", "100h");
            container.start();
            container.wait_line("OSCR_START_JITTER");
            Reached::default()
        },
    },
    Point {
        name: "an earlier registration's removal is on its way",
        reach: |forge, container| {
            container.start();
            forge.listening();
            container.signal(Signal::SIGKILL);
            container.exit_code();
            in_flight(forge, container, "/runners/", "DELETE")
        },
    },
    Point {
        name: "the request for a registration token is on its way",
        reach: |forge, container| in_flight(forge, container, "registration-token", "POST"),
    },
    Point {
        name: "the request is on its way and the token cache is locked",
        reach: |forge, container| {
            container.set("OSCR_TOKEN_CACHE", &container.text("tokens"));
            in_flight(forge, container, "registration-token", "POST")
        },
    },
    Point {
        name: "the request for a just-in-time configuration is on its way",
        reach: |forge, container| {
            container.set("OSCR_REGISTRATION", "jit");
            in_flight(forge, container, "generate-jitconfig", "POST")
        },
    },
    Point {
        name: "a just-in-time registration has just been made",
        reach: |forge, container| {
            container.set("OSCR_REGISTRATION", "jit");
            container.start();
            event(forge, "runner_registered");
            Reached::default()
        },
    },
    Point {
        name: "the agent is about to register",
        reach: |forge, container| in_flight(forge, container, "/_agent/register", "POST"),
    },
    Point {
        name: "the agent has just registered",
        reach: |forge, container| {
            container.start();
            event(forge, "runner_registered");
            Reached::default()
        },
    },
    Point {
        name: "the listener is about to begin its session",
        reach: |forge, container| in_flight(forge, container, "/_agent/sessions", "POST"),
    },
    Point {
        name: "listening",
        reach: |forge, container| {
            container.start();
            forge.listening();
            Reached::default()
        },
    },
    Point {
        name: "a job is being acquired",
        reach: |forge, container| {
            let gate = container.gate();
            container.start();
            forge.listening();
            late(forge, "/acquire", "POST");
            let job = forge.job(&gate.wait());
            asked(forge, "/acquire", "POST");
            Reached { job: Some(job), gate: Some(gate), ..Reached::default() }
        },
    },
    Point { name: "a job runs", reach: running_job },
    Point {
        name: "a job waits for hardware",
        reach: |forge, container| {
            let boards = container.path("boards");
            std::fs::create_dir(&boards).expect("a directory");
            container.set("RUNNER_LOCK_DIR", &container.text("boards"));
            container.set("RUNNER_RESOURCE_ID", "board-1");
            let lock = File::create(boards.join("board-1.lock")).expect("a file");
            lock.lock().expect("flock");
            container.start();
            let job = forge.job("true");
            container.wait_line("the job is waiting");
            Reached { job: Some(job), board: Some(lock), ..Reached::default() }
        },
    },
    Point {
        name: "a job has hardware",
        reach: |forge, container| {
            std::fs::create_dir(container.path("boards")).expect("a directory");
            container.set("RUNNER_LOCK_DIR", &container.text("boards"));
            container.set("RUNNER_RESOURCE_ID", "board-1");
            running_job(forge, container)
        },
    },
    Point {
        name: "a job runs and the container drains",
        reach: |forge, container| {
            let reached = running_job(forge, container);
            // It waits for the end of the drain.
            let mut drain = container.command(&["drain", "--exit"]).spawn().expect("the binary");
            std::thread::spawn(move || drain.wait());
            container.wait_line("waiting for it to finish");
            reached
        },
    },
    Point {
        name: "the removal after the job is on its way",
        reach: |forge, container| {
            forge.order(|orders| orders.ephemeral_removal = Removal::Never);
            container.start();
            forge.listening();
            late(forge, "/actions/runners/", "DELETE");
            forge.wait_job(forge.job("true"), LIMIT);
            asked(forge, "/actions/runners/", "DELETE");
            Reached::default()
        },
    },
    Point {
        name: "done and resting",
        reach: |forge, container| {
            container.set("OSCR_MIN_UPTIME", "1h");
            container.start();
            forge.wait_job(forge.job("true"), LIMIT);
            container.wait_phase("resting");
            Reached::default()
        },
    },
    Point {
        name: "drained and parked",
        reach: |forge, container| {
            container.start();
            forge.listening();
            let (code, _, error) = container.ask(&["drain"]);
            assert_eq!(code, 0, "{error}");
            container.wait_phase("drained");
            Reached::default()
        },
    },
    Point {
        name: "backing off",
        reach: |forge, container| {
            forge.fault("registration-token", Fault { status: Some(503), ..Fault::default() });
            container.start();
            container.wait_line("trying again in");
            Reached { deaf: true, ..Reached::default() }
        },
    },
    Point {
        name: "denied",
        reach: |forge, container| {
            forge.fault("/runners", Fault { status: Some(403), ..Fault::default() });
            container.start();
            container.wait_line("trying again in");
            Reached { deaf: true, ..Reached::default() }
        },
    },
    Point {
        name: "waiting for another version of the agent",
        reach: |forge, container| {
            let exit = ListenerExit { code: 7, text: None, times: 1, runner: None, at_session: false };
            forge.order(|orders| orders.listener_exit = Some(exit));
            container.start();
            container.wait_line("trying again in");
            Reached::default()
        },
    },
    Point {
        name: "listening with a registration that is kept",
        reach: |forge, container| {
            container.set("RUNNER_PERSISTENT", "true");
            container.start();
            forge.listening();
            Reached { kept: true, ..Reached::default() }
        },
    },
    Point {
        name: "a job of a registration that is kept",
        reach: |forge, container| {
            container.set("RUNNER_PERSISTENT", "true");
            Reached { kept: true, ..running_job(forge, container) }
        },
    },
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for point in POINTS {
        let job = point.name.starts_with("a job");
        let must = if job {
            "the forge gives the job up by itself; the next incarnation removes the registration; no lock stays"
        } else {
            "the next incarnation removes what is registered; no lock stays"
        };
        rows.push(Row::new(Step::Killed, point.name, must, || killed(point)));
        let must = if job { "the job finishes; exit 0; nothing stays" } else { "exit 0; nothing stays" };
        rows.push(Row::new(Step::Stopped, point.name, must, || stopped(point)));
        let must =
            if job { "the job is cancelled, and its log says why; exit 0; nothing stays" } else { "the same, at once" };
        rows.push(Row::new(Step::StoppedTwice, point.name, must, || stopped_twice(point)));
    }
    rows
}

fn killed(point: &Point) {
    story(
        |_, _| (),
        |forge, container| {
            let mut reached = (point.reach)(forge, container);
            container.signal(Signal::SIGKILL);
            container.exit_code();
            forge.clear_faults();
            container.set("OSCR_START_JITTER", "0");
            restart(forge, container);
            listens(container);
            // A job that nobody had begun is offered again, and done.
            reached.open();
            if let Some(job) = reached.job {
                forge.wait_job(job, LIMIT);
            }
            if container.path("boards").exists() {
                assert_no_lock(container);
            }
        },
    );
}

/// Once whoever else had the hardware has let it go, nobody has it.
fn assert_no_lock(container: &Container<'_>) {
    let lock = File::open(container.path("boards/board-1.lock")).expect("the lock");
    // The processes that died with PID 1 may take a moment to be gone.
    crate::harness::until("the lock is free", || lock.try_lock().is_ok());
}

fn stopped(point: &Point) {
    story(
        |_, _| (),
        |forge, container| {
            let mut reached = (point.reach)(forge, container);
            container.signal(Signal::SIGTERM);
            if let Some(job) = reached.job {
                wait_any(container, &["waiting for it to finish", "a job has been assigned"]);
                reached.open();
                let job = forge.wait_job(job, LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
            }
            assert_eq!(container.exit_code_within(STOP), 0);
            assert_left(forge, container, reached.kept, reached.deaf);
        },
    );
}

fn stopped_twice(point: &Point) {
    story(
        |_, _| (),
        |forge, container| {
            let mut reached = (point.reach)(forge, container);
            container.signal(Signal::SIGTERM);
            container.wait_line("asked to stop");
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code_within(Duration::from_secs(20)), 0);
            if let Some(job) = reached.job {
                let job = forge.wait_job(job, LIMIT);
                assert_ne!(job.result, Some(JobResult::Succeeded), "{}", job.log);
            }
            reached.open();
            assert_left(forge, container, reached.kept, reached.deaf);
        },
    );
}

fn wait_any(container: &Container<'_>, parts: &[&str]) {
    crate::harness::until("the log says that a job is waited for", || {
        std::thread::sleep(Duration::from_millis(20));
        parts.iter().any(|part| !container.lines_with(part).is_empty())
    });
}

fn assert_left(forge: &Forge, container: &Container<'_>, kept: bool, deaf: bool) {
    assert_eq!(forge.runners().len(), usize::from(kept), "{:?} {:#?}", forge.calls(), forge.runners());
    if !kept && !deaf {
        container.assert_state_empty();
    }
}
