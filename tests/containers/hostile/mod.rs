//! Hostile jobs in real containers, in three postures. Every row of the three tables ends as `docs/security.md` says.

mod attempts;
mod identical;
mod leftovers;
mod limits;
mod unread;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use oscr_sim::forge::{Job, JobStatus};
use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::Container;
use crate::runner::Test;
use crate::world::{Mode, World};

use leftovers::Reach;

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nowhere does the job get what it wants.
    Denied,
    /// Only where jobs may be root.
    ForRoot,
    /// Everywhere, and the documentation says so.
    Possible,
}

/// How the container is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Posture {
    Default,
    Hardened,
    Sudo,
}

impl Posture {
    const ALL: [Self; 3] = [Self::Default, Self::Hardened, Self::Sudo];

    fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
            Self::Sudo => "sudo",
        }
    }

    /// Has the runners of a world be so.
    fn set_up(self, world: &World) {
        match self {
            Self::Default => {}
            Self::Hardened => world.harden(),
            Self::Sudo => world.also("compose.sudo.yml"),
        }
    }

    /// The word for an attempt that ends so.
    fn verdict(self, end: End) -> &'static str {
        match end {
            End::Possible => "possible",
            End::ForRoot if self == Self::Sudo => "possible",
            End::ForRoot | End::Denied => "denied",
        }
    }
}

type Case = (&'static str, fn(&World, Posture));

const CASES: &[Case] = &[
    ("what_a_job_tries_ends_as_the_docs_say", what_a_job_tries_ends_as_the_docs_say),
    ("what_a_job_leaves_does_not_reach_the_next", what_a_job_leaves_does_not_reach_the_next),
    ("what_a_job_uses_up_is_its_own", what_a_job_uses_up_is_its_own),
];

/// All tests of this module: each case in each posture.
pub fn tests() -> Vec<Test> {
    let cases = CASES.iter().flat_map(|case| Posture::ALL.map(|posture| (case, posture)));
    let mut tests: Vec<Test> = cases
        .map(|(&(name, case), posture)| Test {
            name: format!("hostile::{}::{name}", posture.word()),
            run: Box::new(move |name| {
                let world = World::start(name, Mode::Token);
                posture.set_up(&world);
                case(&world, posture);
                world.check();
            }),
        })
        .collect();
    tests.extend(identical::CASES.into_iter().chain(unread::CASES).map(|(name, case)| Test {
        name: format!("hostile::{name}"),
        run: Box::new(move |name| {
            let world = World::start(name, Mode::Jit);
            case(&world);
            world.check();
        }),
    }));
    tests
}

/// For a job that tries everything, one thing after the other.
const LONG: Duration = LIMIT.saturating_mul(2);

/// A word for bash that means exactly this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The lines `[name] verdict` of a job's log.
fn verdicts(log: &str) -> BTreeMap<&str, &str> {
    log.lines().filter_map(|line| line.split_once('[')?.1.split_once("] ")).collect()
}

/// Compares what was seen with what must be, row by row, and complains about all differences at once.
#[track_caller]
fn judge<'a>(log: &str, expected: impl Iterator<Item = (&'a str, &'a str)>) {
    let seen = verdicts(log);
    let mut wrong = String::new();
    for (name, must) in expected {
        let was = seen.get(name).copied().unwrap_or("not tried");
        if was != must {
            let _ = writeln!(wrong, "{name}: {was}, and should be {must}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{log}");
}

/// Runs a job to its end, which must be a good one.
#[track_caller]
fn run(world: &World, container: &Container, name: &str, script: &str) -> Job {
    let job = world.forge.script_on(container.host(), name, script);
    let job = world.forge.wait_job(job, JobStatus::Completed, LONG);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    job
}

/// A pattern that matches `secret` and not itself, so that a search does not find its own words.
fn pattern(secret: &str) -> String {
    let (first, rest) = secret.split_at(1);
    format!("[{first}]{rest}")
}

/// What must be so after any job: PID 1 lived until the incarnation was over, and the next one listens.
#[track_caller]
fn next_incarnation(world: &World, container: &Container, before: u64) -> u64 {
    let next = world.forge.wait_runner(container.host(), before).id;
    let facts = container.inspect();
    assert_eq!(facts["RestartCount"], 1, "PID 1 has ended once, and by itself");
    let runners = world.forge.runners();
    assert!(runners.iter().all(|runner| runner.id != before), "the old registration is gone: {runners:?}");
    assert!(!container.logs().contains(&world.pat));
    next
}

fn what_a_job_tries_ends_as_the_docs_say(world: &World, posture: Posture) {
    world.also("tests/containers/hostile/shared.yml");
    let containers = world.up(2);
    let container = &containers[0];
    let before = world.forge.wait_runner(container.host(), 0).id;
    world.forge.wait_runner(containers[1].host(), 0);
    let mut script = attempts::TOOLS.replace("PATTERN", &pattern(&world.pat));
    for attempt in attempts::all() {
        let _ = writeln!(script, "attempt {} {} {}", attempt.name, quoted(attempt.control), quoted(attempt.attack));
    }
    let job = run(world, container, "attempts", &script);
    judge(&job.log, attempts::all().map(|attempt| (attempt.name, posture.verdict(attempt.end))));
    assert!(!job.log.contains(&world.pat));
    // PID 1 made the pipe that the agent speaks into, and nobody else can open it.
    let log = container.logs();
    assert!(!log.contains("Running job: forged-marker"));
    for process in ["listener", "worker"] {
        assert!(log.contains(&format!("{process} was stopped (SIGSTOP): letting it go on")), "{log}");
    }
    next_incarnation(world, container, before);
}

fn what_a_job_leaves_does_not_reach_the_next(world: &World, posture: Posture) {
    let container = world.up_one();
    let before = world.forge.wait_runner(container.host(), 0).id;
    let pristine =
        "cd /opt/oscr/home && find . -printf '%p %y %m %u %s\\n' | sort && find . -type f -exec sha256sum {} + | sort";
    let pristine_before = container.must_exec("0", pristine);
    let (mut plant, mut look) = (leftovers::TOOLS.to_owned(), leftovers::TOOLS.to_owned());
    for leftover in leftovers::LEFTOVERS {
        let _ = writeln!(plant, "plant {} {} {}", leftover.name, quoted(leftover.plant), quoted(leftover.look));
        let _ = writeln!(look, "look {} {}", leftover.name, quoted(leftover.look));
    }
    let job = run(world, &container, "plant", &plant);
    let reaches = |reach: Reach| reach == Reach::Anybody || posture == Posture::Sudo;
    let planted = |reach| if reaches(reach) { "planted" } else { "cannot be planted" };
    judge(&job.log, leftovers::LEFTOVERS.iter().map(|leftover| (leftover.name, planted(leftover.reach))));

    let container = if posture == Posture::Sudo {
        // What root changed in the image is there until the container is made anew. Until then it takes no job.
        let line = container.wait_log("this container is tainted", LIMIT);
        let root = leftovers::LEFTOVERS.iter().filter(|leftover| leftover.reach == Reach::Root);
        let unnoticed: Vec<&str> = root.filter(|row| !line.contains(row.path)).map(|row| row.name).collect();
        assert!(unnoticed.is_empty(), "{unnoticed:?} are not in: {line}");
        assert_eq!(container.status()["phase"], "tainted");
        world.forge.wait_empty();
        world.compose(&["up", "--detach", "--no-deps", "--force-recreate", "github-runner"]);
        let container = world.containers().remove(0);
        world.forge.wait_runner(container.host(), before);
        container
    } else {
        next_incarnation(world, &container, before);
        assert_eq!(container.must_exec("0", pristine), pristine_before, "no link led the wipe out of its places");
        container
    };
    let job = run(world, &container, "look", &look);
    judge(&job.log, leftovers::LEFTOVERS.iter().map(|leftover| (leftover.name, "gone")));
}

fn what_a_job_uses_up_is_its_own(world: &World, posture: Posture) {
    for &(name, value) in limits::SETTINGS {
        world.set(name, value);
    }
    if posture != Posture::Hardened {
        world.also("tests/containers/hostile/limits.yml");
    }
    let containers = world.up(2);
    let (container, other) = (&containers[0], &containers[1]);
    let before = world.forge.wait_runner(container.host(), 0).id;
    let others = world.forge.wait_runner(other.host(), 0).id;
    let mut script = limits::TOOLS.to_owned();
    for limit in limits::LIMITS {
        let _ = writeln!(script, "exhaust {} {}", limit.name, quoted(limit.script));
    }
    script += limits::BOMB;
    let job = world.forge.script_on(container.host(), "use everything up", &script);
    let job = world.forge.wait_job(job, JobStatus::Completed, LONG);
    // As it came: what the bomb leaves no room for is to store a log.
    judge(&job.live, limits::LIMITS.iter().map(|limit| (limit.name, posture.verdict(limit.end))));
    assert!(job.live.contains("[the bomb] goes off"), "{}", job.live);
    // Whatever became of the job: the next one finds room for everything.
    next_incarnation(world, container, before);
    let look = "ls /work /tmp; head -c 10M /dev/zero >/work/ten && for n in $(seq 50); do sleep 60 & done; echo plenty";
    let job = run(world, container, "room", look);
    assert!(job.log.contains("plenty") && !job.log.lines().any(|line| line == "full"), "{}", job.log);
    // The other replica has not noticed.
    assert_eq!(other.inspect()["RestartCount"], 0);
    assert!(world.forge.runners().iter().any(|runner| runner.id == others && runner.status == "online"));
}
