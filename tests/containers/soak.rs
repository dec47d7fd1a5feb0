//! A pool at work for a long time while everything around it fails: the forge, its network, the containers, Docker itself.
//!
//! Each job writes into a ledger as its first and as its last act. What the ledger, the forge and the list of our own blows
//! say must agree: a job that the forge calls finished did finish, and once; one that did not was ended by a blow.
//!
//! | variable | |
//! | --- | --- |
//! | `OSCR_SOAK_CYCLES` | jobs |
//! | `OSCR_SOAK_RUNNERS` | containers |
//! | `OSCR_SOAK_SEED` | the seed that an earlier run printed, for the same choices |
//! | `OSCR_SOAK_DAEMON` | a shell command that restarts Docker's daemon, such as `systemctl restart docker`; it ends the containers of everybody who uses that daemon |

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr::resource::{LockPlace, Locks, ResourceId};
use oscr_sim::forge::{Forge, Job, JobSpec, Options, Orders};
use oscr_sim::patience::{LIMIT, patient};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::boards::Random;
use crate::docker::{self, Container, POLL, command};
use crate::world::World;

/// As many as fit into less than a minute; `make soak` has 2,000 on 20 runners.
const CYCLES: usize = 50;
const RUNNERS: usize = 6;
const BOARDS: [&str; 3] = ["board-1", "board-2", "board-3"];
/// What the memory of a PID 1 may differ by between its first job and its last, in kB: two of the heap's steps.
const FLAT: u64 = 256;
/// After so many milliseconds without a sign of its listener a session ends, and no job is given to it any more; and without one
/// of its worker, a job. A busy machine must not look like a dead runner.
const SESSION_MS: i64 = 15_000;
/// From the last blow until all is well again, and from one job's end to the next one's. A runner may be in the longest wait after a
/// fault, which is five minutes.
const RECOVERY: Duration = LIMIT.saturating_mul(4);

/// What each job does between its first act and its last. Some leave a process that hides from the agent's own cleaning.
fn script(name: &str, random: &mut Random) -> String {
    let work = format!("sleep {}.{:02}", random.below(3), random.below(100));
    let litter = match random.below(4) {
        0 => "setsid env -u RUNNER_TRACKING_ID sleep 3600 </dev/null >/dev/null 2>&1 &",
        1 => "mkdir -p /tmp/litter && touch /tmp/litter/{1..50} && chmod 0 /tmp/litter",
        _ => ":",
    };
    format!("echo 'begin {name}' >>/soak/ledger\n{litter}\n{work}\necho 'end {name}' >>/soak/ledger")
}

/// What befell containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// `docker stop` with time for a job to finish.
    Stop,
    /// `docker stop` that kills after a moment.
    ShortStop,
    /// `docker restart` with time for a job to finish.
    Restart,
    /// `docker restart` that kills after a moment.
    ShortRestart,
    /// `docker kill`, SIGKILL.
    Kill,
    /// SIGKILL to PID 1 from outside, as the kernel does when memory is short: Docker brings the container back.
    Crash,
    /// Docker's daemon restarts.
    Daemon,
}

const BLOWS: [Blow; 6] = [Blow::Stop, Blow::ShortStop, Blow::Restart, Blow::ShortRestart, Blow::Kill, Blow::Crash];

impl Blow {
    /// Whether a job may end by it. If not, the job must be seen through.
    fn kills(self) -> bool {
        !matches!(self, Self::Stop | Self::Restart)
    }
}

/// A blow that was struck, in milliseconds of the clock.
#[derive(Debug, Clone)]
struct Struck {
    blow: Blow,
    /// The container's host name; all of them if there is none.
    host: Option<String>,
    from: i64,
    until: i64,
}

impl Struck {
    /// Whether it explains that a job of this runner did not end by itself. One that never began may have been given to a
    /// runner that was gone, whose session had not ended yet.
    fn explains(&self, job: &Job, began: bool) -> bool {
        let (Some(runner), Some(started)) = (&job.runner, job.started_at) else { return false };
        let session = if began { 0 } else { SESSION_MS };
        let finished = job.finished_at.map_or(i64::MAX, |at| at.as_millisecond());
        self.blow.kills()
            && self.host.as_ref().is_none_or(|host| runner.contains(host.as_str()))
            && self.from <= finished
            && self.until + session >= started.as_millisecond()
    }
}

fn clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one look at a PID 1 from outside says.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// kB that are its own.
    dirty: u64,
    /// kB in memory.
    resident: u64,
    descriptors: usize,
}

impl Look {
    fn at(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            dirty: field("Private_Dirty:")?,
            resident: field("Rss:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
        })
    }

    /// The least of both: what is held only for a moment does not count.
    fn least(self, other: Self) -> Self {
        Self {
            dirty: self.dirty.min(other.dirty),
            resident: self.resident.min(other.resident),
            descriptors: self.descriptors.min(other.descriptors),
        }
    }
}

/// A PID 1 that lives over many jobs.
struct Steady {
    container: Container,
    pid: i32,
    first: Option<Look>,
    last: Option<Look>,
    /// How many looks `first` is of.
    looks: u32,
}

/// A look is taken so often for a first or last figure.
const LOOKS: u32 = 5;

impl Steady {
    fn of(container: Container) -> Self {
        let pid = pid(&container);
        Self { container, pid, first: None, last: None, looks: 0 }
    }

    /// Looks, while it listens. The first figure is from after its first job: what is there once for all is there by then.
    fn look(&mut self, jobs: usize) {
        if jobs == 0 {
            return;
        }
        let Some(look) = Look::at(self.pid) else {
            // Docker's daemon was restarted.
            *self = Self::of(self.container.clone());
            return;
        };
        if self.looks < LOOKS {
            self.looks += 1;
            self.first = Some(self.first.map_or(look, |first| first.least(look)));
        }
        self.last = Some(look);
    }
}

fn pid(container: &Container) -> i32 {
    container.inspect()["State"]["Pid"].as_i64().and_then(|pid| pid.try_into().ok()).unwrap_or(0)
}

/// The pool and what has befallen it.
struct Pool {
    /// Those that are struck. `true` while one is.
    targets: Vec<(Container, Arc<Mutex<bool>>)>,
    persistent: Vec<Container>,
    steady: Vec<Steady>,
    struck: Arc<Mutex<Vec<Struck>>>,
    blows: Vec<JoinHandle<()>>,
    forge_faults: BTreeMap<&'static str, usize>,
    folder: PathBuf,
}

const SERVICES: [&str; 3] = ["github-runner", "board-runner", "persistent-runner"];

impl Pool {
    fn start(world: &World, runners: usize, outside: bool) -> Self {
        let folder = world.folder.path().to_owned();
        let make = |name: &str, mode: u32| {
            let path = folder.join(name);
            fs::create_dir(&path).expect("a directory can be made");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode can be set");
            path
        };
        let (ledger, locks) = (make("ledger", 0o777), make("locks", 0o755));
        set(world, "SOAK_LEDGER", ledger.display());
        set(world, "SOAK_LOCKS", locks.display());
        world.also("tests/containers/soak.yml");
        world.set("OSCR_LOG_LEVEL", "info");
        if outside {
            forge_of_our_own(world);
        }
        world.forge.order(json!({
            "job_lease_ms": SESSION_MS, "session_timeout_ms": SESSION_MS, "sigint_ms": 500, "sigterm_ms": 300, "worker_kill_ms": 1500,
            // Shared by all, for an hour: it would be used up.
            "rate_limit": 100_000,
        }));
        let persistent = (runners * 3 / 10).max(2);
        let board = (runners * 3 / 10).max(1);
        let counts = [runners - persistent - board, board, persistent];
        let mut arguments: Vec<String> = vec!["up".to_owned(), "--detach".to_owned()];
        for (service, count) in SERVICES.iter().zip(counts) {
            arguments.extend(["--scale".to_owned(), format!("{service}={count}")]);
        }
        world.compose(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let of = |service: &str| -> Vec<Container> {
            let ids = world.compose(&["ps", "--all", "--quiet", "--no-trunc", service]);
            ids.lines().map(|id| Container { id: id.to_owned() }).collect()
        };
        let persistent = of("persistent-runner");
        let half = persistent.len() / 2;
        let targets = of("github-runner").into_iter().chain(of("board-runner")).chain(persistent[half..].to_vec());
        Self {
            targets: targets.map(|container| (container, Arc::default())).collect(),
            steady: persistent[..half].iter().cloned().map(Steady::of).collect(),
            persistent,
            struck: Arc::default(),
            blows: Vec::new(),
            forge_faults: BTreeMap::new(),
            folder,
        }
    }

    /// Strikes one of the containers, unless it still suffers from the last blow.
    fn strike(&mut self, random: &mut Random) {
        let (container, busy) = random.one(&self.targets).clone();
        if std::mem::replace(&mut *lock(&busy), true) {
            return;
        }
        let blow = *random.one(&BLOWS);
        let pause = Duration::from_millis(random.below(2000));
        let struck = Arc::clone(&self.struck);
        self.blows.retain(|blow| !blow.is_finished());
        self.blows.push(thread::spawn(move || {
            let from = clock();
            let done = deal(blow, &container);
            // Then Docker killed it after all.
            let blow = if unheard(blow, &container, from) { Blow::Kill } else { blow };
            if done {
                let host = Some(container.host().to_owned());
                lock(&struck).push(Struck { blow, host, from, until: clock() });
            }
            if matches!(blow, Blow::Stop | Blow::ShortStop | Blow::Kill) {
                thread::sleep(pause);
                docker::output(&mut command(&["start", &container.id]));
            }
            *lock(&busy) = false;
        }));
    }

    /// Waits until no blow is being dealt.
    fn settle(&mut self) {
        for blow in self.blows.drain(..) {
            blow.join().expect("a blow does not panic");
        }
    }

    /// Restarts Docker's daemon, by the user's command.
    fn restart_docker(&mut self, how: &str) {
        self.settle();
        let from = clock();
        let status = Command::new("sh").args(["-c", how]).stdin(Stdio::null()).status().expect("sh can be run");
        assert!(status.success(), "OSCR_SOAK_DAEMON: {how}: {status}");
        let until = Instant::now() + patient(LIMIT);
        while !docker::output(&mut command(&["info"])).status.success() {
            assert!(Instant::now() < until, "Docker's daemon does not come back");
            thread::sleep(POLL);
        }
        lock(&self.struck).push(Struck { blow: Blow::Daemon, host: None, from, until: clock() });
    }

    /// One of the forge's own faults, for the next request or two. None of them says what is not true: a runner that is told that
    /// it does not exist believes it.
    fn disturb(&mut self, world: &World, random: &mut Random) {
        let times = 1 + random.below(2);
        let rest = json!({ "agent": false });
        let cuts = ["before", "after", "headers", "body"];
        let (kind, fault) = match random.below(10) {
            0 | 1 => {
                let status = *random.one(&[500, 502, 503, 504]);
                ("error", json!({ "match": rest, "times": times, "status": status }))
            }
            2 => ("429", json!({ "match": rest, "times": times, "status": 429, "headers": { "retry-after": "2" } })),
            3 => {
                let reset = (clock() / 1000 + 3).to_string();
                let headers = json!({ "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset });
                ("403 of a limit", json!({ "match": rest, "times": 1, "status": 403, "headers": headers }))
            }
            4 | 5 => ("cut", json!({ "match": rest, "times": 1, "cut": *random.one(&cuts) })),
            6 => ("late", json!({ "match": rest, "times": times, "delay_ms": 200 + random.below(4000) })),
            7 => ("half an answer", json!({ "match": rest, "times": 1, "truncate": true })),
            8 => {
                let to = json!({ "agent": true, "path_contains": "/register" });
                ("cut under the agent", json!({ "match": to, "times": 1, "cut": *random.one(&cuts) }))
            }
            _ => {
                let to = json!({ "agent": true, "path_contains": "/message" });
                ("error for the agent", json!({ "match": to, "times": times, "status": 502 }))
            }
        };
        world.forge.fault(fault);
        *self.forge_faults.entry(kind).or_default() += 1;
    }

    /// The lines of the ledger that begin with `word`: how often each job is there.
    fn ledger(&self, word: &str) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(self.folder.join("ledger/ledger")).unwrap_or_default();
        let mut counts = BTreeMap::new();
        for name in text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        counts
    }
}

/// How long a container that is stopped may take, in seconds.
const PATIENCE: i64 = 120;

/// Whether a stop came before PID 1's first instruction, where the kernel drops it: docs/troubleshooting.md.
fn unheard(blow: Blow, container: &Container, from: i64) -> bool {
    let killed = !blow.kills() && clock() - from >= PATIENCE * 1000;
    killed && !container.logs_since(from / 1000).contains("asked to stop")
}

/// Whether it could be done: the container may be down, or between two lives.
fn deal(blow: Blow, container: &Container) -> bool {
    let docker = |arguments: &[&str]| docker::output(command(arguments).arg(&container.id)).status.success();
    match blow {
        Blow::Stop => docker(&["stop", "--time", &PATIENCE.to_string()]),
        Blow::ShortStop => docker(&["stop", "--time", "1"]),
        Blow::Restart => docker(&["restart", "--time", &PATIENCE.to_string()]),
        Blow::ShortRestart => docker(&["restart", "--time", "1"]),
        Blow::Kill => docker(&["kill", "--signal", "KILL"]),
        Blow::Crash => match pid(container) {
            0 => false,
            pid => kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok(),
        },
        Blow::Daemon => unreachable!("it is not dealt to one container"),
    }
}

fn set(world: &World, name: &str, value: impl Display) {
    // A test's settings live as long as it does, and there are few.
    world.set(name, &*value.to_string().leak());
}

/// A forge in this process lives through a restart of Docker's daemon: a container would forget everything.
fn forge_of_our_own(world: &World) {
    let orders = Orders { pats: vec![world.pat.clone()], ..Orders::default() };
    // Where `host-gateway` leads, at the port that GitHub's runner does not drop.
    let gateway = docker::docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]);
    let gateway = gateway.trim().parse().expect("the address of Docker's bridge");
    let listen = SocketAddr::new(gateway, 80);
    let forge = Forge::start(Options { listen, orders, echo: false }).expect("port 80 of Docker's bridge");
    set(world, "GITHUB_HOST", "http://outside");
    world.forge.is_now(forge);
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn count(name: &str, default: usize) -> usize {
    number(name).map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

pub fn a_pool_under_fire_loses_no_job_leaves_no_ghost_and_does_not_grow(world: &World) {
    let cycles = count("OSCR_SOAK_CYCLES", CYCLES);
    let runners = count("OSCR_SOAK_RUNNERS", RUNNERS).max(4);
    let seed = number("OSCR_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    let daemon = std::env::var("OSCR_SOAK_DAEMON").ok().filter(|how| !how.is_empty());
    println!("soak: {cycles} cycles on {runners} runners, OSCR_SOAK_SEED={seed}");
    let mut random = Random(seed);
    if cycles > 20 * runners {
        // As users have it: Docker's own delay grows with each life that is shorter than that.
        world.set("OSCR_MIN_UPTIME", None);
    }
    let mut pool = Pool::start(world, runners, daemon.is_some());
    world.forge.wait_idle(runners / 2);
    let began = Instant::now();
    let jobs = fire(world, &mut pool, &mut random, cycles, runners, daemon.as_deref());

    // Peace. Whatever wait a runner is in, it comes back, and what was left behind is removed.
    pool.settle();
    world.forge.clear_faults();
    world.forge.until("each runner listens, and no other registration is left", RECOVERY, |forge| {
        let all = forge.runners();
        (all.len() == runners && all.iter().all(|runner| runner.status == "online" && !runner.busy)).then_some(())
    });
    let worked = began.elapsed();
    let requests = world.forge.requests_for("").len();
    let memory = memory(world, &mut pool);

    let account = Account::of(world, &pool, &jobs, cycles);
    let (ghosts, locks) = all_stopped(world, &pool);
    let struck = lock(&pool.struck).iter().fold(BTreeMap::<_, usize>::new(), |mut counts, struck| {
        *counts.entry(struck.blow).or_default() += 1;
        counts
    });
    println!(
        "soak: {cycles} cycles on {runners} runners in {} s; {account}; ghosts {ghosts}, locks left {locks}; blows {struck:?}, \
         faults of the forge {:?}; {memory}; {:.2} API calls per cycle",
        worked.as_secs(),
        pool.forge_faults,
        requests as f64 / cycles as f64,
    );
    assert!(account.wrong.is_empty(), "OSCR_SOAK_SEED={seed}: {:#?}", account.wrong);
    assert_eq!((ghosts, locks), (0, 0), "OSCR_SOAK_SEED={seed}");
    assert!(memory.flat(), "OSCR_SOAK_SEED={seed}: {memory}");
}

/// Submits the jobs, a little more or less than there are runners for, and disturbs their lives until the last one has begun.
fn fire(
    world: &World,
    pool: &mut Pool,
    random: &mut Random,
    cycles: usize,
    runners: usize,
    daemon: Option<&str>,
) -> Vec<u64> {
    let mut jobs = Vec::new();
    let (mut seen, mut over) = (0, 0);
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    let mut cancelled = 0;
    let mut restarts: usize = 0;
    let mut progress = Instant::now();
    while over < cycles {
        assert!(progress.elapsed() < patient(RECOVERY), "{over} of {cycles} jobs are over, and none for long");
        let wanted = runners / 2 + usize::try_from(random.below(runners as u64)).unwrap_or(0);
        while jobs.len() < cycles && jobs.len() < over + wanted {
            let name = format!("soak-{}", jobs.len());
            jobs.push(world.forge.submit(&JobSpec::script(&name, &script(&name, random))));
        }
        // Each container has its share, so that more of them are not at peace.
        match usize::try_from(random.below(80)).unwrap_or(0) {
            n if n < runners => pool.strike(random),
            n if n < 2 * runners => pool.disturb(world, random),
            _ if cancelled * 40 < over => {
                world.forge.cancel(*random.one(&jobs[jobs.len().saturating_sub(runners)..]));
                cancelled += 1;
            }
            _ => {}
        }
        // Four times, evenly.
        if let Some(how) = daemon.filter(|_| over * 5 > cycles * (restarts + 1)) {
            pool.restart_docker(how);
            restarts += 1;
        }
        for event in world.forge.events(seen, Duration::from_millis(100 + random.below(400))) {
            seen = event.n;
            if event.kind == "job_finished" {
                over += 1;
                progress = Instant::now();
                *done.entry(event.runner.unwrap_or_default()).or_default() += 1;
            }
        }
        for runner in world.forge.runners().iter().filter(|runner| runner.status == "online" && !runner.busy) {
            let jobs = done.get(&runner.name).copied().unwrap_or(0);
            for steady in pool.steady.iter_mut().filter(|steady| runner.name.contains(steady.container.host())) {
                steady.look(jobs);
            }
        }
    }
    jobs
}

/// What became of the jobs.
struct Account {
    succeeded: usize,
    /// Ended by a blow, of each kind.
    ended: BTreeMap<Blow, usize>,
    cancelled: usize,
    /// Of those, the ones that had done all they should, and whose result did not reach the forge.
    unreported: usize,
    lost: usize,
    doubled: usize,
    wrong: Vec<String>,
}

impl Account {
    fn of(world: &World, pool: &Pool, jobs: &[u64], cycles: usize) -> Self {
        let (begun, ended) = (pool.ledger("begin"), pool.ledger("end"));
        let struck = lock(&pool.struck).clone();
        let mut account = Self {
            succeeded: 0,
            ended: BTreeMap::new(),
            cancelled: 0,
            unreported: 0,
            lost: 0,
            doubled: 0,
            wrong: Vec::new(),
        };
        let all = world.forge.jobs();
        assert_eq!((all.len(), jobs.len()), (cycles, cycles));
        for job in &all {
            let times = |ledger: &BTreeMap<String, usize>| ledger.get(&job.name).copied().unwrap_or(0);
            let (begun, ended) = (times(&begun), times(&ended));
            let mut wrong = |what: &str| {
                let (runner, log) = (job.runner.as_deref().unwrap_or_default(), &job.log);
                account.wrong.push(format!("{} on {runner}: {what}: {:?}\n{log}", job.name, job.result));
            };
            if begun > 1 || ended > 1 {
                wrong(&format!("begun {begun} times, ended {ended} times"));
                account.doubled += 1;
            }
            if job.result == Some(JobResult::Succeeded) {
                account.succeeded += 1;
                if ended == 0 {
                    wrong("the forge calls it finished, and it never did finish");
                    account.lost += 1;
                }
            } else if let Some(struck) = struck.iter().find(|struck| struck.explains(job, begun > 0)) {
                *account.ended.entry(struck.blow).or_default() += 1;
                account.unreported += ended.min(1);
            } else if job.cancel_requested {
                account.cancelled += 1;
                account.unreported += ended.min(1);
            } else {
                wrong("it did not succeed, and nobody did anything to it");
                account.lost += 1;
            }
        }
        let known = |name: &&String| !all.iter().any(|job| job.name == **name);
        account.wrong.extend(ended.keys().filter(known).map(|name| format!("{name} is in the ledger alone")));
        account
    }
}

impl Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} jobs succeeded, {} cancelled by their users, ended by {:?} ({} of these after their last act); lost {}, \
             doubled {}",
            self.succeeded, self.cancelled, self.ended, self.unreported, self.lost, self.doubled
        )
    }
}

/// First and last figures of each PID 1 that lived over many jobs.
struct Memory(Vec<(usize, Look, Look)>);

impl Memory {
    fn flat(&self) -> bool {
        !self.0.is_empty()
            && self
                .0
                .iter()
                .all(|(_, first, last)| last.dirty <= first.dirty + FLAT && last.descriptors <= first.descriptors)
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PID 1 of runners that were not struck, first and last:")?;
        for (jobs, first, last) in &self.0 {
            write!(
                f,
                " [{jobs} jobs, private {} and {} kB, resident {} and {} kB, descriptors {} and {}]",
                first.dirty, last.dirty, first.resident, last.resident, first.descriptors, last.descriptors
            )?;
        }
        Ok(())
    }
}

/// The last look, now that all is quiet.
fn memory(world: &World, pool: &mut Pool) -> Memory {
    let all = world.forge.jobs();
    for turn in 0..LOOKS {
        for steady in &mut pool.steady {
            let earlier = steady.last.filter(|_| turn > 0);
            steady.last = Look::at(steady.pid).map(|look| earlier.map_or(look, |earlier| earlier.least(look)));
        }
        thread::sleep(POLL);
    }
    let figures = pool.steady.iter().filter_map(|steady| {
        let host = steady.container.host();
        let jobs = all.iter().filter(|job| job.runner.as_ref().is_some_and(|name| name.contains(host))).count();
        Some((jobs, steady.first?, steady.last?))
    });
    Memory(figures.collect())
}

/// Stops the whole pool, politely. What is left then: registrations that nobody comes back to, and locks.
fn all_stopped(world: &World, pool: &Pool) -> (usize, usize) {
    let kept = |forge: &crate::forge::Forge| -> Vec<u64> {
        let all = forge.runners();
        all.iter().filter(|r| pool.persistent.iter().any(|c| r.name.contains(c.host()))).map(|r| r.id).collect()
    };
    let before = kept(&world.forge);
    let mut stop = vec!["stop", "--timeout", "120"];
    stop.extend(SERVICES);
    world.compose(&stop);
    // A persistent runner stays registered by design, and each has one registration: it is no ghost if it works again.
    let left: Vec<u64> = world.forge.runners().iter().map(|runner| runner.id).collect();
    let ghosts = left.iter().filter(|id| !before.contains(id)).count() + before.len().abs_diff(pool.persistent.len());
    world.compose(&["start", "persistent-runner"]);
    let again = world.forge.until("the persistent runners listen again", RECOVERY, |forge| {
        let all = forge.runners();
        (all.iter().filter(|runner| runner.status == "online").count() == pool.persistent.len()).then_some(all)
    });
    let ghosts = ghosts + again.iter().filter(|runner| !before.contains(&runner.id)).count();
    (ghosts, locks_left(&pool.folder.join("locks")))
}

fn locks_left(locks: &Path) -> usize {
    let left = |board: &str| {
        let id: ResourceId = board.parse().expect("an id");
        let survey = Locks::unchecked(&LockPlace { directory: locks.to_owned(), allow_nfs: false }).look(&id);
        usize::from(survey.held) + survey.queue.len()
    };
    BOARDS.into_iter().map(left).sum()
}
