//! Nobody takes what PID 1 writes: its log, its metrics. Everything else goes on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each, until};

/// What an end may take: a second for what is unwritten, and what it takes anyhow.
const END: Duration = Duration::from_secs(10);

fn container(kind: Kind, forge: &Forge) -> Container<'_> {
    match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_hook_no_job_and_no_end() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        container.start_unread();
        forge.listening();
        // GitHub's job waits for what PID 1 answers to its hook.
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        container.ends_within(END);
        container.read(true);
        assert_eq!(container.exit_code(), 0);
        assert!(forge.runners().is_empty(), "{:#?}", forge.runners());
    });
}

#[test]
fn a_stop_is_obeyed_while_nobody_reads_the_log() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        container.start_unread();
        forge.listening();
        container.signal(Signal::SIGTERM);
        container.ends_within(END);
        container.read(true);
        assert_eq!(container.exit_code(), 0);
        assert!(forge.runners().is_empty(), "{:#?}", forge.runners());
    });
}

#[test]
fn what_is_missing_in_the_log_is_counted_and_said_once_it_is_read_again() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        let mut gate = container.gate();
        container.start_unread();
        forge.listening();
        let job = forge.job(&gate.wait());
        forge.wait_log(job, "at the gate");
        assert_eq!(container.wait_phase("running")["healthy"], true);
        container.read(true);
        let said = container.wait_line(" lines of this log are missing here");
        gate.open();
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        let lines = container.lines();
        assert_eq!(container.lines_with(" missing here").len(), 1);
        let words: Vec<&str> = said.split_whitespace().collect();
        let lost = words[words.iter().position(|word| *word == "lines").expect("the word") - 1];
        let kept = fs::read_to_string(container.path("var/lib/oscr/metrics.json")).expect("counts");
        assert!(kept.contains(&format!("\"log_lines_lost\":{lost}")), "{lost}: {kept}");
        // What was written is whole, and what came later is all there.
        let cut = lines.iter().find(|line| !line.starts_with("20") && !line.starts_with('{'));
        assert_eq!(cut, None);
        for part in ["job summary", "leaving"] {
            assert!(!container.lines_with(part).is_empty(), "{part}");
        }
    });
}

/// A mount whose server does not answer, for as long as this lives.
struct DeadMount(Child);

impl DeadMount {
    fn over(container: &Container<'_>, place: &str) -> Self {
        let script = "exec 9<>/dev/fuse\n\
            mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 dead \"$1\"\necho mounted\nread -r _";
        let mut server = Command::new("nsenter")
            .args(["-t", &container.pid().to_string(), "-m", "sh", "-ec", script, "sh", &container.text(place)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter of util-linux");
        let mut said = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut said).expect("text");
        assert_eq!(said, "mounted\n");
        Self(server)
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_metrics_file_whose_mount_does_not_answer_holds_up_no_job_and_no_end() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    fs::create_dir(container.path("metrics")).expect("a directory");
    container.set("OSCR_METRICS_FILE", &container.text("metrics"));
    let mut gate = container.gate();
    container.start();
    forge.listening();
    until("metrics are written", || !container.names("metrics").is_empty());
    let dead = DeadMount::over(&container, "metrics");
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    container.wait_line("metrics cannot be written to");
    assert_eq!(container.wait_phase("running")["healthy"], true);
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    container.wait_line("does not answer: it stays as it is");
    assert!(forge.runners().is_empty(), "{:#?}", forge.runners());
    drop(dead);
}
