//! Blows at every point of a life: killed, stopped, stopped by somebody in a hurry.

use std::fs::File;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, Job, JobStatus, ListenerExit, Match, Removal, Snapshot};
use oscr_sim::protocol::JobResult;

use crate::azure::{offer_another_version, plant_old};
use crate::hardware::{assert_free, needs_board, take_board};
use crate::harness::{Container, Forge, Gate, LIMIT};
use crate::table::{Row, Step};
use crate::world::{STOP, be_a_principal, first_request, listens, registrations, restart};

/// A point of a life, and how a container is brought there.
struct Point {
    name: &'static str,
    /// Whose lives have it.
    forges: &'static [Kind],
    reach: fn(&Forge, &mut Container<'_>) -> Reached,
}

const BOTH: &[Kind] = &[Kind::GitHub, Kind::Azure];
const GITHUB: &[Kind] = &[Kind::GitHub];
const AZURE: &[Kind] = &[Kind::Azure];

/// What the agents of the two forges ask for: method and a part of the path.
type Request = (&'static str, &'static str);

const fn of_agent(kind: Kind, request: [Request; 2]) -> Request {
    match kind {
        Kind::GitHub => request[0],
        Kind::Azure => request[1],
    }
}

const REGISTER: [Request; 2] = [("POST", "/actions/runners/register"), ("POST", "/pools/1/agents")];
const SESSION: [Request; 2] = [("POST", "/_broker/session"), ("POST", "/sessions")];
const ACQUIRE: [Request; 2] = [("POST", "/acquire"), ("PATCH", "/jobrequests/")];

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

fn late(forge: &Forge, (method, path): Request) {
    let matching = Match { path_contains: Some(path.to_owned()), method: Some(method.to_owned()), ..Match::default() };
    forge.add_fault(Fault { matching, delay_ms: IN_FLIGHT_MS, times: Some(1), ..Fault::default() });
}

fn asked(forge: &Forge, (method, path): Request) {
    let came = move |seen: &Snapshot| seen.requests.iter().any(|r| r.method == method && r.path.contains(path));
    forge.wait("the request", LIMIT, came);
}

fn event(forge: &Forge, kind: &'static str) {
    forge.wait(kind, LIMIT, move |seen| seen.events.iter().any(|event| event.kind == kind));
}

/// A life up to a request that is on its way.
fn in_flight(forge: &Forge, container: &mut Container<'_>, request: Request) -> Reached {
    late(forge, request);
    container.start();
    asked(forge, request);
    Reached::default()
}

fn running_job(_: &Forge, container: &mut Container<'_>) -> Reached {
    let (job, gate) = container.start_with_job();
    Reached { job: Some(job), gate: Some(gate), ..Reached::default() }
}

const POINTS: &[Point] = &[
    Point {
        name: "waiting for OSCR_START_JITTER",
        forges: GITHUB,
        reach: |_, container| {
            container.set("OSCR_START_JITTER", "100h");
            container.start();
            container.wait_line("OSCR_START_JITTER");
            Reached::default()
        },
    },
    Point {
        name: "an earlier registration's removal is on its way",
        forges: BOTH,
        reach: |forge, container| {
            container.start();
            forge.listening();
            container.signal(Signal::SIGKILL);
            container.exit_code();
            in_flight(forge, container, ("DELETE", registrations(container.kind)))
        },
    },
    Point {
        name: "the request for a registration token is on its way",
        forges: GITHUB,
        reach: |forge, container| in_flight(forge, container, ("POST", "registration-token")),
    },
    Point {
        name: "the request is on its way and the token cache is locked",
        forges: GITHUB,
        reach: |forge, container| {
            container.set("OSCR_TOKEN_CACHE", &container.text("tokens"));
            in_flight(forge, container, ("POST", "registration-token"))
        },
    },
    Point {
        name: "the request for a just-in-time configuration is on its way",
        forges: GITHUB,
        reach: |forge, container| {
            container.set("OSCR_REGISTRATION", "jit");
            in_flight(forge, container, ("POST", "generate-jitconfig"))
        },
    },
    Point {
        name: "a just-in-time registration has just been made",
        forges: GITHUB,
        reach: |forge, container| {
            container.set("OSCR_REGISTRATION", "jit");
            container.start();
            event(forge, "runner_registered");
            Reached::default()
        },
    },
    Point {
        name: "the agent is about to register",
        forges: BOTH,
        reach: |forge, container| in_flight(forge, container, of_agent(container.kind, REGISTER)),
    },
    Point {
        name: "the agent has just registered",
        forges: BOTH,
        reach: |forge, container| {
            container.start();
            event(forge, "runner_registered");
            Reached::default()
        },
    },
    Point {
        name: "the listener is about to begin its session",
        forges: BOTH,
        reach: |forge, container| in_flight(forge, container, of_agent(container.kind, SESSION)),
    },
    Point {
        name: "listening",
        forges: BOTH,
        reach: |forge, container| {
            container.start();
            forge.listening();
            Reached::default()
        },
    },
    Point {
        name: "a job is being acquired",
        forges: BOTH,
        reach: |forge, container| {
            let gate = container.gate();
            container.start();
            forge.listening();
            let acquire = of_agent(container.kind, ACQUIRE);
            late(forge, acquire);
            let job = forge.job(&gate.wait());
            asked(forge, acquire);
            Reached { job: Some(job), gate: Some(gate), ..Reached::default() }
        },
    },
    Point { name: "a job runs", forges: BOTH, reach: running_job },
    Point {
        name: "a job waits for hardware",
        forges: GITHUB,
        reach: |forge, container| {
            needs_board(container);
            let lock = take_board(container);
            container.start();
            let job = forge.job("true");
            container.wait_line("the job is waiting");
            Reached { job: Some(job), board: Some(lock), ..Reached::default() }
        },
    },
    Point {
        name: "a job has hardware",
        forges: BOTH,
        reach: |forge, container| {
            needs_board(container);
            running_job(forge, container)
        },
    },
    Point {
        name: "a job runs and the container drains",
        forges: GITHUB,
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
        forges: BOTH,
        reach: |forge, container| {
            forge.order(|orders| orders.ephemeral_removal = Removal::Never);
            container.start();
            forge.listening();
            let removal = ("DELETE", registrations(container.kind));
            late(forge, removal);
            forge.wait_job(forge.job("true"), LIMIT);
            asked(forge, removal);
            Reached::default()
        },
    },
    Point {
        name: "done and resting",
        forges: GITHUB,
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
        forges: GITHUB,
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
        forges: BOTH,
        reach: |forge, container| {
            forge.fault(first_request(container.kind).path, Fault { status: Some(503), ..Fault::default() });
            container.start();
            container.wait_line("trying again in");
            Reached { deaf: true, ..Reached::default() }
        },
    },
    Point {
        name: "denied",
        forges: BOTH,
        reach: |forge, container| {
            forge.fault(first_request(container.kind).path, Fault { status: Some(403), ..Fault::default() });
            container.start();
            container.wait_line("trying again in");
            Reached { deaf: true, ..Reached::default() }
        },
    },
    Point {
        name: "waiting for another version of the agent",
        forges: BOTH,
        reach: |forge, container| {
            let exit = ListenerExit {
                code: if container.kind == Kind::GitHub { 7 } else { 4 },
                text: None,
                times: 1,
                runner: None,
                at_session: false,
            };
            forge.order(|orders| orders.listener_exit = Some(exit));
            container.start();
            container.wait_line("trying again in");
            Reached::default()
        },
    },
    Point {
        name: "listening with a registration that is kept",
        forges: BOTH,
        reach: |forge, container| {
            container.set("RUNNER_PERSISTENT", "true");
            container.start();
            forge.listening();
            Reached { kept: true, ..Reached::default() }
        },
    },
    Point {
        name: "a job of a registration that is kept",
        forges: BOTH,
        reach: |forge, container| {
            container.set("RUNNER_PERSISTENT", "true");
            Reached { kept: true, ..running_job(forge, container) }
        },
    },
    Point {
        name: "the request for a service principal's token is on its way",
        forges: AZURE,
        reach: |forge, container| {
            be_a_principal(forge, container);
            in_flight(forge, container, ("POST", "/oauth2/"))
        },
    },
    Point {
        name: "the request for the pool is on its way",
        forges: AZURE,
        reach: |forge, container| in_flight(forge, container, ("GET", "/pools")),
    },
    Point {
        name: "old agents are looked for",
        forges: AZURE,
        reach: |forge, container| {
            plant_old(forge, container);
            in_flight(forge, container, ("GET", "/agents"))
        },
    },
    Point {
        name: "an old agent's removal is on its way",
        forges: AZURE,
        reach: |forge, container| {
            plant_old(forge, container);
            in_flight(forge, container, ("DELETE", "/agents/"))
        },
    },
    Point {
        name: "waiting for hardware before listening",
        forges: AZURE,
        reach: |_, container| {
            needs_board(container);
            let lock = take_board(container);
            container.start();
            container.wait_line("a new phase: waiting");
            Reached { board: Some(lock), ..Reached::default() }
        },
    },
    Point {
        name: "listening with hardware",
        forges: AZURE,
        reach: |forge, container| {
            needs_board(container);
            container.start();
            forge.listening();
            Reached::default()
        },
    },
    Point {
        name: "another version of the agent is on its way",
        forges: AZURE,
        reach: |forge, container| {
            offer_another_version(forge, container);
            in_flight(forge, container, ("GET", ".tar.gz"))
        },
    },
];

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = Vec::new();
    for point in POINTS.iter().filter(|point| point.forges.contains(&kind)) {
        let job = point.name.starts_with("a job");
        let must = if job {
            "the forge gives the job up by itself; the next incarnation removes the registration; no lock stays"
        } else {
            "killed: the next incarnation removes what is registered; no lock stays"
        };
        rows.push(Row::new(kind, Step::Killed, point.name, must, |forge, container| killed(point, forge, container)));
        let must = if job { "the job finishes; exit 0; nothing stays" } else { "exit 0; nothing stays" };
        rows.push(Row::new(kind, Step::Stopped, point.name, must, |forge, container| stopped(point, forge, container)));
        if kind == Kind::Azure && !job && point.forges.contains(&Kind::GitHub) {
            // Where no job runs a second signal only shortens what the first one began.
            continue;
        }
        let must = if job {
            "the job is cancelled, and its log says why; exit 0; nothing stays"
        } else {
            "exit 0 at once; nothing stays"
        };
        rows.push(Row::new(kind, Step::StoppedTwice, point.name, must, |forge, container| {
            stopped_twice(point, forge, container)
        }));
    }
    rows
}

fn killed(point: &Point, forge: &Forge, container: &mut Container<'_>) {
    let mut reached = (point.reach)(forge, container);
    container.signal(Signal::SIGKILL);
    container.exit_code();
    let dead: Vec<u64> = forge.runners().iter().map(|runner| runner.id).collect();
    forge.clear_faults();
    container.set("OSCR_START_JITTER", "0");
    if container.path("boards").exists() {
        // Once whoever else had the hardware has let it go, nobody has it.
        reached.board = None;
        assert_free(container);
    }
    restart(forge, container);
    if !reached.kept {
        // Another registration serves while the forge believes in the old one and its job.
        listens(container);
    }
    dead.into_iter().for_each(|id| assert!(forge.let_go(id)));
    listens(container);
    // A job that nobody had begun is offered again, and done.
    reached.open();
    if let Some(job) = reached.job {
        forge.wait_job(job, LIMIT);
    }
}

fn stopped(point: &Point, forge: &Forge, container: &mut Container<'_>) {
    let mut reached = (point.reach)(forge, container);
    container.signal(Signal::SIGTERM);
    if let Some(job) = reached.job {
        wait_any(container, &["waiting for it to finish", "a job has been assigned"]);
        reached.open();
        let job = forge.wait_job(job, LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        // The stop lasted as long as the job.
        assert_eq!(container.exit_code(), 0);
    } else {
        assert_eq!(container.exit_code_within(STOP), 0);
    }
    assert_left(forge, container, &mut reached);
}

fn stopped_twice(point: &Point, forge: &Forge, container: &mut Container<'_>) {
    let mut reached = (point.reach)(forge, container);
    let init = container.pid();
    container.signal(Signal::SIGTERM);
    container.wait_line("asked to stop");
    match kill(init, Signal::SIGTERM) {
        // Without a job it may have left already.
        Err(Errno::ESRCH) if reached.job.is_none() => {}
        sent => sent.expect("PID 1 runs"),
    }
    assert_eq!(container.exit_code_within(Duration::from_secs(20)), 0);
    if let Some(job) = reached.job {
        // One that was not begun is offered to somebody else.
        let over = |job: &&Job| job.result.is_some() || job.status == JobStatus::Queued;
        let find = |seen: &Snapshot| seen.jobs.iter().find(|known| known.id == job).filter(over).cloned();
        let seen = forge.wait("the job is over, or offered anew", LIMIT, |seen| find(seen).is_some());
        let job = find(&seen).expect("it was there a moment ago");
        assert_ne!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        // Nobody else is there to take it.
        assert!(forge.cancel_job(job.id));
    }
    assert_left(forge, container, &mut reached);
}

fn wait_any(container: &Container<'_>, parts: &[&str]) {
    crate::harness::until("the log says that a job is waited for", || {
        std::thread::sleep(Duration::from_millis(20));
        parts.iter().any(|part| !container.lines_with(part).is_empty())
    });
}

/// What a stop may leave: a registration that is kept, and what the forge would not hear of. No lock.
fn assert_left(forge: &Forge, container: &Container<'_>, reached: &mut Reached) {
    reached.open();
    assert_eq!(forge.runners().len(), usize::from(reached.kept), "{:?} {:#?}", forge.calls(), forge.runners());
    if !reached.kept && !reached.deaf {
        container.assert_state_empty();
    }
    if container.path("boards").exists() {
        assert_free(container);
    }
}
