//! Shared hardware: runners of two organisations that take turns on two boards.
//!
//! Overlap is seen by the jobs themselves: each makes a marker in a directory that stands for its board, with O_EXCL. Order is
//! seen by inotify on the queues, which reports what the kernel did in the order in which it did it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use oscr::resource::{LockPlace, Locks, Occupancy, ResourceId};
use oscr_sim::forge::{Event, JobSpec, JobStatus};
use oscr_sim::patience::{LIMIT, patient};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::docker::{self, Container, command};
use crate::forge::Forge;
use crate::world::{RUNNER, World};

/// No board may be free for longer while somebody waits for it, in looks: what a busy machine takes from those who hand a board
/// over it takes from those who look.
const TOO_LONG: Duration = Duration::from_secs(1);
/// So often it is looked whether that is so.
pub const LOOK: Duration = Duration::from_millis(20);
const ORGANISATIONS: [&str; 2] = ["acme", "umbrella"];
pub const BOARDS: [&str; 2] = ["board-1", "board-2"];
/// As many as fit into about a minute; `make soak-boards` sets OSCR_BOARDS_JOBS to 500.
const UNDER_FIRE: usize = 100;

/// What a job does with its board, which is the directory $B. The marker is made with O_EXCL; a marker without a lock was left
/// by a job that was killed. One that is just being killed may hold its marker a moment longer than PID 1 its lock, which
/// `flock(1)` does not wait for (docs/shared-hardware.md): however long that moment is, such a job does not remove its marker.
const USE_BOARD: &str = r#"
set -C
overlap() { echo "overlap: $1" >>"$B/violations"; echo "overlap: $1"; exit 1; }
if ! { exec 9>"$B/marker"; } 2>/dev/null; then
    [ "$KILLS" = yes ] || overlap "$NAME finds a marker"
    exec 8<"$B/marker" && flock -w 100 8 || overlap "$NAME finds a marker that somebody holds"
    [ "$B/marker" -ef /dev/fd/8 ] || overlap "$NAME finds a marker whose owner went on"
    rm -f "$B/marker"
    exec 8<&-
    { exec 9>"$B/marker"; } 2>/dev/null || overlap "$NAME is not alone in replacing a marker"
fi
flock -n 9 || overlap "$NAME cannot hold its marker"
echo "start $NAME $(date +%s%N)" >>"$B/log"
sleep "$SECONDS_OF_WORK" 9>&-
echo "end $NAME $(date +%s%N)" >>"$B/log"
rm "$B/marker"
"#;

fn use_board(name: &str, board: &str, kills: bool, ms: u64) -> String {
    let kills = if kills { "yes" } else { "no" };
    format!("NAME={name} B={board} KILLS={kills} SECONDS_OF_WORK={}.{:03}\n{USE_BOARD}", ms / 1000, ms % 1000)
}

/// Numbers that are the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap_or(0)]
    }
}

/// What happened to a ticket of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Happened {
    /// It was drawn, by this runner.
    Arrived(u64, String),
    /// It got the board.
    Got(u64),
}

/// Boards, and runners that share them.
struct Lab {
    folder: PathBuf,
    runners: Vec<Container>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    history: Arc<Mutex<Vec<(usize, Happened)>>>,
    /// The longest time, in looks, that each board was free while somebody waited.
    idle: Arc<Mutex<[Duration; 2]>>,
}

impl Lab {
    /// Boards without runners yet.
    fn build(world: &World) -> Self {
        world.set("GITHUB_REPO", None);
        world.set("OSCR_MIN_UPTIME", "0s");
        let folder = world.folder.path().to_owned();
        for board in BOARDS {
            let locks = folder.join(board).join("locks");
            fs::create_dir_all(&locks).expect("a lock directory can be made");
            fs::set_permissions(&locks, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
            let queue = locks.join(format!("{board}.queue"));
            fs::DirBuilder::new().mode(0o700).create(queue).expect("a queue can be made");
            let shared = folder.join(board).join("shared");
            fs::create_dir(&shared).expect("a board can be made");
            fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("its mode can be set");
        }
        let mut lab = Self {
            folder,
            runners: Vec::new(),
            over: Arc::default(),
            threads: Vec::new(),
            history: Arc::default(),
            idle: Arc::default(),
        };
        lab.watch_queues();
        lab.watch_idleness();
        lab
    }

    fn locks(&self, board: usize) -> PathBuf {
        self.folder.join(BOARDS[board]).join("locks")
    }

    fn shared(&self, board: usize) -> PathBuf {
        self.folder.join(BOARDS[board]).join("shared")
    }

    fn survey(&self, board: usize) -> Occupancy {
        survey(&self.locks(board), board)
    }

    fn history(&self, board: usize) -> Vec<Happened> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().filter(|(at, _)| *at == board).map(|(_, happened)| happened.clone()).collect()
    }

    /// The words of each line that begins with `word` in a board's log.
    fn logged(&self, board: usize, word: &str) -> Vec<Vec<String>> {
        let log = fs::read_to_string(self.shared(board).join("log")).unwrap_or_default();
        log.lines()
            .map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter(|words| words[0] == word)
            .collect()
    }

    /// A runner for one board.
    fn runner(&mut self, world: &World, organisation: &str, board: usize, more: &[&str]) -> Container {
        let (locks, shared) = (self.locks(board), self.shared(board));
        let name = BOARDS[board];
        let volumes = [format!("{}:/var/lock/oscr", locks.display()), format!("{}:/board", shared.display())];
        let settings = [
            format!("GITHUB_OWNER={organisation}"),
            format!("RUNNER_RESOURCE_ID={name}"),
            format!("RUNNER_LABELS={name}"),
        ];
        let mut arguments = vec!["--volume", &volumes[0], "--volume", &volumes[1]];
        for setting in &settings {
            arguments.extend(["--env", setting.as_str()]);
        }
        arguments.extend(more);
        let container = world.docker_run(&arguments);
        self.runners.push(container.clone());
        container
    }

    /// Brings each runner back whenever it ends, at once: Docker's own restart waits longer each time for what lives for
    /// less than ten seconds, as these do.
    fn keep_alive(&mut self) {
        for runner in self.runners.clone() {
            let over = Arc::clone(&self.over);
            self.threads.push(thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    docker::output(&mut command(&["wait", &runner.id]));
                    if !over.load(Ordering::SeqCst) {
                        docker::output(&mut command(&["start", &runner.id]));
                    }
                }
            }));
        }
    }

    fn watch_queues(&mut self) {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify is there");
        let watch = |path: &Path, flags| inotify.add_watch(path, flags).expect("a directory can be watched");
        let queues: Vec<(WatchDescriptor, PathBuf)> = (0..BOARDS.len())
            .map(|board| {
                let queue = self.locks(board).join(format!("{}.queue", BOARDS[board]));
                (watch(&queue, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM), queue)
            })
            .collect();
        let end = watch(&self.folder, AddWatchFlags::IN_CREATE);
        let history = Arc::clone(&self.history);
        self.threads.push(thread::spawn(move || {
            while let Ok(events) = inotify.read_events() {
                for event in events {
                    if event.wd == end {
                        return;
                    }
                    let name = event.name.unwrap_or_default().into_string().unwrap_or_default();
                    let found = queues.iter().enumerate().find(|(_, (wd, _))| *wd == event.wd);
                    let (Ok(number), Some((board, (_, queue)))) = (name.parse(), found) else { continue };
                    let happened = if event.mask.contains(AddWatchFlags::IN_MOVED_TO) {
                        Happened::Arrived(number, owner(queue, &name))
                    } else {
                        Happened::Got(number)
                    };
                    history.lock().unwrap_or_else(PoisonError::into_inner).push((board, happened));
                }
            }
        }));
    }

    fn watch_idleness(&mut self) {
        let locks = [self.locks(0), self.locks(1)];
        let (over, idle) = (Arc::clone(&self.over), Arc::clone(&self.idle));
        self.threads.push(thread::spawn(move || {
            let mut free = [Duration::ZERO; 2];
            while !over.load(Ordering::SeqCst) {
                for (board, locks) in locks.iter().enumerate() {
                    let survey = survey(locks, board);
                    let waited_for = !survey.held && !survey.queue.is_empty();
                    free[board] = if waited_for { free[board] + LOOK } else { Duration::ZERO };
                    let mut longest = idle.lock().unwrap_or_else(PoisonError::into_inner);
                    longest[board] = longest[board].max(free[board]);
                }
                thread::sleep(LOOK);
            }
        }));
    }

    /// Waits until a board is free and nobody waits for it.
    #[track_caller]
    fn wait_free(&self, board: usize) {
        let until = Instant::now() + patient(LIMIT);
        loop {
            let survey = self.survey(board);
            if !survey.held && survey.queue.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "{} should be free: {survey:?}", BOARDS[board]);
            thread::sleep(LOOK);
        }
    }

    /// Nobody ended after another had begun.
    #[track_caller]
    fn check_turns(&self, board: usize) {
        let log = fs::read_to_string(self.shared(board).join("log")).unwrap_or_default();
        let mut last = None;
        for line in log.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["start", name, _] => last = Some(name),
                ["end", name, _] => {
                    assert_eq!(last, Some(name), "{}: {line}, which was not alone: {log}", BOARDS[board])
                }
                // What the job of another test wrote.
                _ => {}
            }
        }
    }

    /// What must be so of every board at the end.
    #[track_caller]
    fn check(&self) {
        for (board, name) in BOARDS.iter().enumerate() {
            let violations = fs::read_to_string(self.shared(board).join("violations")).unwrap_or_default();
            assert_eq!(violations, "", "{name}");
            self.check_turns(board);
            self.wait_free(board);
            let got: Vec<u64> = self
                .history(board)
                .into_iter()
                .filter_map(|happened| if let Happened::Got(number) = happened { Some(number) } else { None })
                .collect();
            assert!(got.is_sorted_by(|a, b| a < b), "{name}: somebody was overtaken: {got:?}");
        }
        let idle = *self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(idle.iter().all(|longest| *longest <= TOO_LONG), "a board was free while somebody waited: {idle:?}");
    }

    /// From one job's last line to the first of the next that was waiting then, per board: half of them, and the longest.
    fn hand_overs(&self, board: usize) -> String {
        let stamps = |word| {
            let lines = self.logged(board, word);
            lines.iter().filter_map(|words| words.get(2)?.parse().ok()).collect::<Vec<u64>>()
        };
        let (starts, ends) = (stamps("start"), stamps("end"));
        let mut gaps: Vec<u64> = ends
            .iter()
            .filter_map(|end| starts.iter().find(|start| *start > end).map(|start| (start - end) / 1_000_000))
            .collect();
        gaps.sort_unstable();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner)[board];
        format!(
            "{}: {} jobs began, {} ended; last line of a job to first line of the next: median {} ms; \
             free while somebody waited: {} ms at most",
            BOARDS[board],
            starts.len(),
            ends.len(),
            gaps.get(gaps.len() / 2).copied().unwrap_or(0),
            idle.as_millis(),
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Both of the threads' waits end: the one for containers, and the one for files.
        for runner in &self.runners {
            docker::output(&mut command(&["kill", &runner.id]));
        }
        let _ = fs::write(self.folder.join("end"), "");
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub fn survey(locks: &Path, board: usize) -> Occupancy {
    let id: ResourceId = BOARDS[board].parse().expect("an id");
    Locks::unchecked(&LockPlace { directory: locks.to_owned(), allow_nfs: false }).look(&id)
}

/// Whose ticket it is. It may have got the board already.
fn owner(queue: &Path, name: &str) -> String {
    let holder = queue.with_extension("holder");
    let text = fs::read(queue.join(name)).or_else(|_| fs::read(holder)).unwrap_or_default();
    let claim: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    claim["who"].as_str().unwrap_or_default().to_owned()
}

pub fn a_job(board: &str, organisation: &str, name: &str, script: &str) -> JobSpec {
    JobSpec {
        repository: Some(format!("{organisation}/firmware")),
        labels: vec![board.to_owned()],
        ..JobSpec::script(name, script)
    }
}

/// Six runners: each organisation has some for each board.
fn six_runners(lab: &mut Lab, world: &World) {
    for (organisation, board) in [(0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (1, 1)] {
        lab.runner(world, ORGANISATIONS[organisation], board, &[]);
    }
    lab.keep_alive();
    world.forge.wait_idle(6);
}

pub fn sixty_jobs_of_two_organisations_take_turns_on_two_boards(world: &World) {
    let mut lab = Lab::build(world);
    six_runners(&mut lab, world);
    let mut random = Random(0x05c2_b0a2_d5ee_d001);
    let jobs: Vec<u64> = (0..60)
        .map(|n| {
            let (board, organisation) = (BOARDS[n % 2], *random.one(&ORGANISATIONS));
            let script = use_board("$RUNNER_NAME", "/board", false, 200 + random.below(800));
            world.forge.submit(&a_job(board, organisation, &format!("job-{n}"), &script))
        })
        .collect();
    for job in jobs {
        let job = world.forge.wait_job(job, JobStatus::Completed, LIMIT.saturating_mul(3));
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    }
    lab.check();
    for (board, id) in BOARDS.iter().enumerate() {
        let started: Vec<String> = lab.logged(board, "start").into_iter().map(|words| words[1].clone()).collect();
        let arrived: Vec<String> = lab
            .history(board)
            .into_iter()
            .filter_map(|happened| if let Happened::Arrived(_, who) = happened { Some(who) } else { None })
            .collect();
        assert_eq!(started.len(), 30, "{id}");
        assert_eq!(started, arrived, "{id}: start order is arrival order");
        println!("{}", lab.hand_overs(board));
    }
}

pub fn a_board_under_fire_is_never_shared_never_leaked_and_never_idle_while_jobs_wait(world: &World) {
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let count = set("OSCR_BOARDS_JOBS").and_then(|n| usize::try_from(n).ok()).unwrap_or(UNDER_FIRE);
    let seed = set("OSCR_BOARDS_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    println!("boards under fire: {count} jobs, OSCR_BOARDS_SEED={seed}");
    let began = Instant::now();
    // A cancelled job's worker is killed soon. One whose runner was killed is given up while others go on.
    world.forge.order(json!({ "sigint_ms": 500, "sigterm_ms": 300, "worker_kill_ms": 1500 }));
    let mut lab = Lab::build(world);
    six_runners(&mut lab, world);
    let mut random = Random(seed);
    let jobs: Vec<u64> = (0..count)
        .map(|n| {
            let (board, organisation) = (*random.one(&BOARDS), *random.one(&ORGANISATIONS));
            let script = use_board(&format!("job-{n}"), "/board", true, 100 + random.below(900));
            world.forge.submit(&a_job(board, organisation, &format!("job-{n}"), &script))
        })
        .collect();
    let mut fired: BTreeMap<&str, usize> = BTreeMap::new();
    let mut guests = Vec::new();
    loop {
        let all = world.forge.jobs();
        let open: Vec<u64> = all.iter().filter(|job| job.status == JobStatus::InProgress).map(|job| job.id).collect();
        if all.iter().all(|job| job.status == JobStatus::Completed) {
            break;
        }
        let before = turns(&world.forge);
        let what = match random.below(10) {
            0..3 => {
                docker::output(&mut command(&["kill", "--signal", "KILL", &random.one(&lab.runners).id]));
                "SIGKILL"
            }
            3 => {
                docker::output(&mut command(&["restart", "--time", "1", &random.one(&lab.runners).id]));
                "docker restart"
            }
            4..7 if !open.is_empty() => {
                let job = *random.one(&open);
                world.forge.cancel(job);
                "cancel"
            }
            7..9 => {
                let board = usize::try_from(random.below(2)).unwrap_or(0);
                let name = format!("guest-{}", guests.len());
                let script = use_board(&name, &lab.shared(board).display().to_string(), true, 50 + random.below(300));
                let lock = lab.locks(board).join(format!("{}.lock", BOARDS[board]));
                guests
                    .push(Command::new("flock").arg(lock).args(["bash", "-ec", &script]).spawn().expect("flock runs"));
                "flock(1)"
            }
            _ => "nothing",
        };
        *fired.entry(what).or_default() += 1;
        // Between two blows jobs get somewhere: on a busy machine blows would else come faster than lives begin.
        thread::sleep(Duration::from_millis(100 + random.below(900)));
        world.forge.until("a job begins or ends", LIMIT, |forge| (turns(forge) > before).then_some(()));
    }
    for mut guest in guests {
        assert!(guest.wait().expect("flock can be waited for").success());
    }
    let mut results: BTreeMap<String, usize> = BTreeMap::new();
    for job in &jobs {
        let job = world.forge.job(*job);
        // One that is cancelled while it waits is ended from here, which its runner reports as a failure.
        let cancelled = job.log.contains("it was cancelled while this job waited for its hardware");
        let failed = job.result == Some(JobResult::Failed);
        assert!(!failed || cancelled, "OSCR_BOARDS_SEED={seed}: {}", job.log);
        *results.entry(format!("{:?}", job.result)).or_default() += 1;
    }
    lab.check();
    println!("boards under fire: {:.0} s, blows {fired:?}, results {results:?}", began.elapsed().as_secs_f64());
    for board in 0..BOARDS.len() {
        println!("boards under fire: {}", lab.hand_overs(board));
    }
}

/// How many times jobs began and ended.
fn turns(forge: &Forge) -> usize {
    let turn = |event: &Event| ["job_started", "job_finished"].contains(&event.kind.as_str());
    forge.events(0, Duration::ZERO).iter().filter(|event| turn(event)).count()
}

/// What a job may try, and what it must find.
const HOSTILE: &str = r#"
set +e
fails() { if "$@" >/dev/null 2>&1; then echo "POSSIBLE: $*"; fi; }
L=/var/lock/oscr
fails flock -n $L/board-1.lock true
fails cat $L/board-1.holder
fails cat $L/board-1.lock
fails ls $L/board-1.queue
fails touch $L/board-1.queue/00000000000000000001
fails touch $L/other.lock
fails rm -f $L/board-1.holder
fails mv $L/board-1.lock $L/gone
fails chmod 777 $L
fails kill -KILL 1
fails oscr-entry drain
fails oscr-entry lock status
# A lock of the directory itself is nobody's business.
(exec 7<$L; flock -n 7; setsid sleep 1000 >/dev/null 2>&1 </dev/null &)
# The hooks again, by hand, with and without what they were given.
/run/oscr/hooks/job-completed.sh
/run/oscr/hooks/job-started.sh
env -i /bin/bash /run/oscr/hooks/job-completed.sh
setsid --fork /run/oscr/hooks/job-started.sh
# Garbage, whole and unfinished, on many connections at once.
head -c 300000 /dev/urandom >/tmp/garbage
for n in $(seq 60); do
    curl --silent --max-time 2 --unix-socket /run/oscr/control.sock --data-binary @/tmp/garbage http://x/ >/dev/null &
    printf '{"request":"hook"' | perl -MIO::Socket::UNIX -e '
        $s = IO::Socket::UNIX->new("/run/oscr/control.sock") or exit; print $s <STDIN>; $s->flush; sleep 1000' &
done
# Daemons that take every way out, each of which would tell the next job that it lives.
for n in 1 2 3; do
    ( unset RUNNER_TRACKING_ID; setsid bash -c 'trap "" HUP INT TERM; exec 6>>/board/daemon; flock -s 6; while :; do sleep 1; done' \
        </dev/null >/dev/null 2>&1 & )
done
until ! flock -n /board/daemon true; do sleep 0.1; done
until [ -e /board/go ]; do sleep 0.1; done
echo "hostile job ends"
"#;

pub fn a_hostile_job_can_neither_release_nor_keep_the_board(world: &World) {
    let mut lab = Lab::build(world);
    let hostile = lab.runner(world, "acme", 0, &[]);
    let peaceful = lab.runner(world, "umbrella", 0, &[]);
    world.forge.wait_runner(hostile.host(), 0);
    world.forge.wait_runner(peaceful.host(), 0);
    let first = world.forge.submit(&a_job("board-1", "acme", "hostile", HOSTILE));
    hostile.wait_log("has the hardware", LIMIT);
    let next = "echo peaceful >>/board/log; flock -n /board/daemon true && echo 'the daemons are dead'";
    let second = world.forge.submit(&a_job("board-1", "umbrella", "peaceful", next));
    peaceful.wait_log("waiting for board-1", LIMIT);
    // All that the hostile job does first has no effect on the other, which waits.
    let daemons = |lab: &Lab| lab.shared(0).join("daemon").exists();
    while !daemons(&lab) {
        assert_eq!(world.forge.job(first).status, JobStatus::InProgress, "{}", world.forge.job(first).live);
        thread::sleep(LOOK);
    }
    assert_eq!((lab.survey(0).held, lab.survey(0).queue.len()), (true, 1));
    assert!(lab.logged(0, "peaceful").is_empty());
    fs::write(lab.shared(0).join("go"), "").expect("the board can be written");
    let first = world.forge.finished(first);
    assert!(first.log.contains("hostile job ends") && !first.log.contains("POSSIBLE"), "{}", first.log);
    let second = world.forge.finished(second);
    assert_eq!(second.result, Some(JobResult::Succeeded), "{}", second.log);
    assert!(second.log.contains("the daemons are dead"), "{}", second.log);
    lab.check();
}

/// Kills the hook that waits, and not the shell that runs this.
const KILL_HOOK: &str = r#"
for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" | grep -q 'oscr-entry hook [-]'; then kill -KILL "${process#/proc/}"; fi
done
"#;

pub fn a_killed_hook_gives_its_place_up_and_no_step_runs_without_the_board(world: &World) {
    let mut lab = Lab::build(world);
    let holder = lab.runner(world, "acme", 0, &[]);
    let waiter = lab.runner(world, "umbrella", 0, &[]);
    world.forge.wait_runner(holder.host(), 0);
    world.forge.wait_runner(waiter.host(), 0);
    let go = lab.shared(0).join("go");
    let first = world.forge.submit(&a_job("board-1", "acme", "holder", "until [ -e /board/go ]; do sleep 0.1; done"));
    holder.wait_log("has the hardware", LIMIT);
    // Nothing but its death keeps it from the board; an agent that goes on gets as far as its first command on a busy machine.
    let stubborn = "trap '' HUP INT TERM; sleep 1; touch /board/without";
    let step = |name: &str, condition: &str| {
        serde_json::from_value(json!({ "name": name, "if": condition, "run": stubborn })).expect("a step")
    };
    let second = world.forge.submit(&JobSpec {
        repository: Some("umbrella/firmware".to_owned()),
        labels: vec!["board-1".to_owned()],
        ..JobSpec::steps("waiter", vec![step("first", "success"), step("at last", "always")])
    });
    waiter.wait_log("waiting for board-1", LIMIT);
    assert_eq!(lab.survey(0).queue.len(), 1);
    // As a process of the agent's user could.
    waiter.must_exec(RUNNER, KILL_HOOK);
    let until = Instant::now() + patient(LIMIT);
    while !lab.survey(0).queue.is_empty() {
        assert!(Instant::now() < until, "the place should be given up: {:?}", lab.survey(0));
        thread::sleep(LOOK);
    }
    let second = world.forge.finished(second);
    assert_eq!(second.result, Some(JobResult::Failed), "{}", second.log);
    // With its container ends whatever the job had begun.
    assert_eq!(waiter.wait_exit(LIMIT), 0, "{}", waiter.logs());
    assert!(!lab.shared(0).join("without").exists(), "a step ran without the board:\n{}", second.log);
    fs::write(go, "").expect("the board can be written");
    assert_eq!(world.forge.finished(first).result, Some(JobResult::Succeeded));
    lab.check();
}

pub fn groups_added_to_the_container_reach_the_job(world: &World) {
    let mut lab = Lab::build(world);
    let runner = lab.runner(
        world,
        "acme",
        0,
        &["--group-add", "4711", "--group-add", "dialout", "--device", "/dev/zero:/dev/ttyUSB0"],
    );
    world.forge.wait_runner(runner.host(), 0);
    let script = "echo \"groups $(id -G)\"; head -c 1 /dev/ttyUSB0 >/dev/null && echo 'the device can be read'";
    let job = world.forge.finished(world.forge.submit(&a_job("board-1", "acme", "groups", script)));
    let line = job.log.lines().find_map(|line| line.strip_prefix("groups ")).expect("the groups are printed");
    let groups: Vec<&str> = line.split_whitespace().collect();
    assert!(groups.contains(&"4711") && groups.contains(&"20") && !groups.contains(&"0"), "{}", job.log);
    assert!(job.log.contains("the device can be read"), "{}", job.log);
}

pub fn a_lock_directory_that_is_not_mounted_is_refused(world: &World) {
    for (arguments, reason) in [
        (&["--env", "RUNNER_RESOURCE_ID=board-1"][..], "/var/lock/oscr"),
        (&["--env", "RUNNER_RESOURCE_ID=board-1", "--env", "RUNNER_LOCK_DIR=/opt"], "is the container's own"),
        (&["--env", "RUNNER_RESOURCE_ID=../board-1"], "is no resource id"),
    ] {
        let container = world.docker_run(arguments);
        assert_eq!(container.wait_exit(LIMIT), 78, "{arguments:?}");
        let log = container.logs();
        assert!(log.contains(reason), "{log}");
    }
    let folder = world.folder.path().join("open");
    fs::create_dir(&folder).expect("a directory can be made");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("its mode can be set");
    let mount = format!("{}:/var/lock/oscr", folder.display());
    for (volume, reason) in
        [(mount.clone(), "can be opened by the agent's user"), (format!("{mount}:ro"), "cannot be used")]
    {
        let container = world.docker_run(&["--env", "RUNNER_RESOURCE_ID=board-1", "--volume", &volume]);
        assert_eq!(container.wait_exit(LIMIT), 78);
        let log = container.logs();
        assert!(log.contains(reason), "{log}");
    }
    assert!(world.forge.requests().is_empty());
}
