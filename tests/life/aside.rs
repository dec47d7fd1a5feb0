//! What a job left and takes long to remove: moved aside, and removed while the runner goes on.
//!
//! The kernel asks the test before a directory is opened (fanotify), and waits for its answer. So a removal takes as long as the
//! test wants, and fails when it says so.

use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use nix::sys::signal::Signal;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, write};

/// A directory that nobody opens before the test has said whether it may be opened.
struct Barrier {
    watch: Fanotify,
    /// Those who wait at it.
    waiting: Vec<FanotifyEvent>,
}

impl Barrier {
    fn before(directory: &Path) -> Self {
        let watch = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY)
            .expect("fanotify, for root");
        let mask = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ONDIR;
        watch.mark(MarkFlags::FAN_MARK_ADD, mask, nix::fcntl::AT_FDCWD, Some(directory)).expect("a mark");
        Self { watch, waiting: Vec::new() }
    }

    /// Waits until somebody is about to open it.
    #[track_caller]
    fn reached(&mut self) {
        let mut ready = [PollFd::new(self.watch.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(LIMIT).expect("some seconds");
        assert_eq!(poll(&mut ready, patience), Ok(1), "nobody opens it");
        self.waiting.extend(self.watch.read_events().expect("an event"));
    }

    fn answer(&mut self, response: Response) {
        for event in self.waiting.drain(..) {
            let fd = event.fd().expect("an open directory");
            self.watch.write_response(FanotifyResponse::new(fd, response)).expect("somebody waits");
        }
    }

    /// Lets nobody open it, however often it is tried, until `enough`.
    #[track_caller]
    fn refuse_until(&mut self, mut enough: impl FnMut() -> bool) {
        self.answer(Response::FAN_DENY);
        while !enough() {
            let mut ready = [PollFd::new(self.watch.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, 10_u8) == Ok(1) {
                self.waiting.extend(self.watch.read_events().expect("an event"));
                self.answer(Response::FAN_DENY);
            }
        }
    }

    /// Lets everybody open it from now on.
    fn lift(mut self) {
        self.answer(Response::FAN_ALLOW);
    }
}

/// A container whose next cleaning stops before a directory that an earlier job left.
fn with_a_slow_tree<'f>(forge: &'f Forge) -> (Container<'f>, Barrier) {
    let container = Container::new(forge);
    // Before a first life nobody could tell it from what came with the image.
    let state = r#"{"version": 1, "current": null, "leftovers": [], "failures": 0}"#;
    write(&container.path("var/lib/oscr/state.json"), state, 0o600);
    let slow = container.path("work/slow");
    std::fs::create_dir_all(slow.join("deep")).expect("a directory");
    let barrier = Barrier::before(&slow);
    (container, barrier)
}

const ASIDE: &str = "removed while the runner goes on";
const TRASH: &str = "var/lib/oscr/trash";

#[test]
fn what_takes_long_to_remove_delays_no_job() {
    let forge = Forge::start();
    let (mut container, mut barrier) = with_a_slow_tree(&forge);
    container.start();
    barrier.reached();
    forge.listening();
    assert_eq!(container.lines_with(ASIDE).len(), 1);
    assert_eq!(container.names(TRASH).len(), 1);
    let job = forge.job(&format!("ls -A {}; ls {} || echo hid'den'", container.text("work"), container.text(TRASH)));
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("hidden") && !job.log.contains("slow"), "{}", job.log);
    // The job's end does not wait for it either: the next incarnation goes on.
    assert_eq!(container.exit_code(), 0);
    assert!(!container.names(TRASH).is_empty());
    barrier.lift();
    container.start();
    forge.listening();
    assert!(container.names(TRASH).is_empty());
}

#[test]
fn the_end_of_the_removal_is_said_and_counted() {
    let forge = Forge::start();
    let (mut container, mut barrier) = with_a_slow_tree(&forge);
    container.set("OSCR_METRICS_FILE", &container.text("metrics"));
    container.start();
    barrier.reached();
    forge.listening();
    barrier.lift();
    let said = container.wait_line("removed what had been moved aside");
    assert!(said.contains("entries=3"), "two directories, and the one that they were moved to: {said}");
    assert!(container.names(TRASH).is_empty());
    // The forge sees the listener a moment before PID 1 reads what it says.
    container.wait_phase("listening");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    let kept = std::fs::read_to_string(container.path("var/lib/oscr/metrics.json")).expect("counts");
    let counts: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
    let removals = counts["removal_seconds"]["counts"].as_array().expect("counts");
    assert_eq!(removals.iter().filter_map(serde_json::Value::as_u64).sum::<u64>(), 1, "{counts}");
}

#[test]
fn what_cannot_be_removed_retires_an_idle_runner() {
    let forge = Forge::start();
    let (mut container, mut barrier) = with_a_slow_tree(&forge);
    container.start();
    barrier.reached();
    forge.listening();
    barrier.refuse_until(|| !container.lines_with("no job is taken any more").is_empty());
    // However long the next attempt takes, nobody registers before it has succeeded.
    barrier.reached();
    container.wait_line("waiting until what was left is removed");
    barrier.refuse_until(|| !container.lines_with("trying again in").is_empty());
    let why = container.wait_line("trying again in");
    assert!(why.contains("trash") && why.contains("slow"), "{why}");
    assert_eq!(forge.calls(), ["POST registration-token 201", "DELETE ID 204"]);
    let status = container.status();
    assert_eq!((&status["phase"], &status["healthy"]), (&"dirty".into(), &false.into()), "{status}");
    assert!(container.ask(&["health"]).1.contains("slow"));
    barrier.lift();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert!(container.names(TRASH).is_empty(), "the last cleaning could");
}

#[test]
fn what_cannot_be_removed_does_not_end_a_running_job() {
    let forge = Forge::start();
    let (mut container, mut barrier) = with_a_slow_tree(&forge);
    let mut gate = container.gate();
    container.start();
    barrier.reached();
    forge.listening();
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    barrier.refuse_until(|| !container.lines_with("a job is running: waiting for it to finish").is_empty());
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    barrier.lift();
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_stopped_runner_leaves_nothing_behind() {
    let forge = Forge::start();
    let (mut container, mut barrier) = with_a_slow_tree(&forge);
    container.start();
    barrier.reached();
    forge.listening();
    container.signal(Signal::SIGTERM);
    // Another removal begins, and this time it is waited for.
    barrier.reached();
    container.wait_line("nothing stays behind");
    barrier.lift();
    assert_eq!(container.exit_code(), 0);
    assert!(container.names(TRASH).is_empty());
}

#[test]
fn where_too_little_disk_space_is_left_it_is_waited_for() {
    let forge = Forge::start();
    let (mut container, mut barrier) = with_a_slow_tree(&forge);
    container.set("OSCR_MIN_FREE", "1000T");
    container.start();
    barrier.reached();
    container.wait_line("waiting until what was left is removed");
    assert_eq!(container.status()["phase"], "cleaning");
    barrier.lift();
    container.wait_line("no job is taken");
    assert!(container.names(TRASH).is_empty());
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert!(forge.calls().is_empty(), "{:?}", forge.calls());
}

#[test]
fn what_leads_to_a_mount_stays_and_all_around_it_goes() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    for directory in ["outside/precious", "work/a/b/mount", "work/a/other/deep", "work/c/deep"] {
        std::fs::create_dir_all(container.path(directory)).expect("a directory");
    }
    let [from, place] = ["outside", "work/a/b/mount"].map(|place| container.text(place));
    // Read-only: a mount that jobs can write would have to be named.
    container.in_namespace(&format!("mount --bind '{from}' '{place}'; mount -o remount,bind,ro '{place}'"));
    container.start();
    forge.listening();
    assert_eq!(container.lines_with("is a mount and was left alone").len(), 1);
    assert_eq!((container.names("work"), container.names("work/a")), (vec!["a".into()], vec!["b".into()]));
    assert!(container.path("work/a/b/mount").is_dir() && container.path("outside/precious").is_dir());
    assert!(container.names(TRASH).is_empty());
}
