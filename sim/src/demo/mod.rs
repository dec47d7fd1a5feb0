//! The driver of `make demo`: sends jobs to the runners of a compose project and tells what happens.
//!
//! Three ephemeral runners take six jobs. One job leaves a mess, and a later one on the same container looks for it. One container
//! is stopped in the middle of its job, which must succeed all the same. In the end no registration may be left.

use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;

mod containers;
mod control;
mod jobs;
mod screen;

use crate::forge::{Event, Job, JobStatus, RunnerView};
use crate::protocol::JobResult;
use containers::{Container, Phases};
use control::Control;
use jobs::Provider;
use screen::{Screen, Tone};

/// Show three ephemeral runners at work on a simulated forge.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Cli {
    /// Address of the forge
    #[arg(long, default_value = "http://127.0.0.1")]
    forge: String,
    /// The compose project
    #[arg(long, default_value = "oscr-demo")]
    project: String,
    /// Whose runners there are
    #[arg(long, value_enum, default_value = "github")]
    provider: Provider,
    /// How many runners there must be
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..))]
    runners: u16,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut demo = Demo {
        deadline: Instant::now() + Duration::from_secs(cli.timeout),
        control: Control::new(&cli.forge),
        screen: Screen::new(),
        containers: Vec::new(),
        phases: Phases::default(),
        told: Vec::new(),
        seen: 0,
        runners: Vec::new(),
        jobs: Vec::new(),
        cli,
    };
    match demo.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            demo.screen.line(&demo.screen.paint(&format!("demo: {why}"), Tone::Bad));
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    cli: Cli,
    deadline: Instant,
    control: Control,
    screen: Screen,
    containers: Vec<Container>,
    phases: Phases,
    /// The phases that were told last, in the order of the containers.
    told: Vec<Option<String>>,
    /// The number of the last event.
    seen: u64,
    runners: Vec<RunnerView>,
    jobs: Vec<Job>,
}

impl Demo {
    /// True when all went as promised.
    fn run(&mut self) -> Result<bool, String> {
        self.wait_for_runners()?;
        let (messy, stopped) = (self.containers[0].clone(), self.containers[1].clone());

        self.control.submit(&jobs::mess(self.cli.provider, &messy.id))?;
        self.control.submit(&jobs::long(&stopped.id))?;
        let [tests, lint, package] = jobs::others();
        self.control.submit(&tests)?;
        self.follow("the first three jobs run", |d| d.started(jobs::MESS_NAME) && d.started(jobs::LONG_NAME))?;
        // Only now, or the incarnation that makes the mess could look for it.
        self.control.submit(&jobs::search(self.cli.provider, &messy.id))?;
        self.control.submit(&lint)?;
        self.control.submit(&package)?;

        // The log of a step is stored when it is over.
        self.follow("the long build has got somewhere", |d| d.job(jobs::LONG_NAME).is_some_and(|j| seconds(j) > 4.0))?;
        self.screen.event(&format!("docker stop {}, in the middle of \"{}\"", stopped.name, jobs::LONG_NAME));
        let stop = stop_in_background(vec![stopped.id.clone()]);
        let all_done = self.follow("all six jobs are done", |d| {
            d.jobs.len() == 6 && d.jobs.iter().all(|j| j.status == JobStatus::Completed)
        });
        if let Err(why) = &all_done {
            self.screen.event(&self.screen.paint(why, Tone::Bad));
        }
        self.screen.event("docker stop, for the other runners");
        let others = self.containers.iter().map(|c| c.id.clone()).filter(|id| *id != stopped.id).collect();
        let stops = [stop, stop_in_background(others)];
        while stops.iter().any(|s| !s.is_finished()) {
            self.look()?;
        }
        for stop in stops {
            if let Err(why) = stop.join().unwrap_or_else(|_| Err("docker stop panicked".into())) {
                self.screen.event(&self.screen.paint(&why, Tone::Bad));
            }
        }
        let left = self.control.registrations_left(Duration::from_secs(10))?;
        self.look()?;
        Ok(self.report(&left) && all_done.is_ok())
    }

    fn wait_for_runners(&mut self) -> Result<(), String> {
        let wanted = usize::from(self.cli.runners);
        self.screen.event(&format!("waiting for {wanted} runners"));
        loop {
            self.containers = containers::find(&self.cli.project, self.cli.provider.service())?;
            if self.containers.len() >= wanted {
                break;
            }
            if Instant::now() > self.deadline {
                return Err(format!(
                    "{} of {wanted} containers of service {} in project {}",
                    self.containers.len(),
                    self.cli.provider.service(),
                    self.cli.project
                ));
            }
            thread::sleep(Duration::from_millis(500));
        }
        // The forge's container may be younger than this program.
        while let Err(why) = self.control.runners() {
            if Instant::now() > self.deadline {
                return Err(why);
            }
            thread::sleep(Duration::from_millis(200));
        }
        self.phases = Phases::watch(&self.containers);
        self.told = vec![None; self.containers.len()];
        self.follow("all runners are online", |d| {
            d.containers.iter().all(|c| d.runner_of(c).is_some_and(|r| r.status == "online" && !r.busy))
        })
    }

    /// Shows what happens until `done`.
    fn follow(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        loop {
            self.look()?;
            if done(self) {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                return Err(format!("not in time: {what}"));
            }
        }
    }

    /// Takes in what is new, for at most a quarter of a second, and shows it.
    fn look(&mut self) -> Result<(), String> {
        let events = self.control.events(self.seen, Duration::from_millis(250))?;
        self.runners = self.control.runners()?;
        self.jobs = self.control.jobs()?;
        for event in events {
            self.seen = event.n;
            if let Some(text) = self.describe(&event) {
                self.screen.event(&text);
            }
        }
        for (container, told) in self.containers.iter().zip(&mut self.told) {
            let phase = self.phases.of(&container.id);
            if phase.is_some() && phase != *told {
                let phase_text = phase.as_deref().unwrap_or_default();
                self.screen.event(&format!("{:<24} {phase_text}", container.name));
                *told = phase;
            }
        }
        let block = self.block();
        self.screen.block(&block);
        Ok(())
    }

    fn describe(&self, event: &Event) -> Option<String> {
        let runner = event.runner.as_deref().unwrap_or("-");
        let place = self.containers.iter().find(|c| runner.contains(&c.id)).map_or(runner, |c| c.name.as_str());
        let job = event.job_name.as_deref().unwrap_or("-");
        let detail = event.detail.as_deref().unwrap_or_default();
        let text = match event.kind.as_str() {
            "runner_registered" => format!("registered as {runner}"),
            "runner_unregistered" => format!("unregistered {runner}: {detail}"),
            "job_started" => format!("runs \"{job}\""),
            "job_finished" => {
                let tone = if detail == "succeeded" { Tone::Good } else { Tone::Bad };
                format!("\"{job}\" {}", self.screen.paint(detail, tone))
            }
            _ => return None,
        };
        Some(format!("{place:<24} {text}"))
    }

    fn block(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        for container in &self.containers {
            let runner = self.runner_of(container);
            let job = runner.and_then(|r| r.job).and_then(|id| self.jobs.iter().find(|j| j.id == id));
            let phase = self.phases.of(&container.id).unwrap_or_else(|| {
                runner.map_or("not registered", |r| if r.busy { "running" } else { &r.status }).to_owned()
            });
            let tone = match (job.is_some(), runner.is_some()) {
                (true, _) => Tone::Busy,
                (false, true) => Tone::Good,
                (false, false) => Tone::Dim,
            };
            let phase = self.screen.paint(&format!("{phase:<14}"), tone);
            let doing = job.map(|j| format!("{} ({} s)", j.name, seconds(j) as u64)).unwrap_or_default();
            lines.push(format!("  {:<26} {phase} {doing}", container.name));
        }
        if !self.jobs.is_empty() {
            let count = |status| self.jobs.iter().filter(|j| j.status == status).count();
            let (queued, done) = (count(JobStatus::Queued), count(JobStatus::Completed));
            let running = self.jobs.len() - queued - done;
            lines.push(
                self.screen.paint(&format!("  jobs: {queued} queued, {running} running, {done} done"), Tone::Dim),
            );
        }
        lines
    }

    /// The registration that an incarnation of this container has now.
    fn runner_of(&self, container: &Container) -> Option<&RunnerView> {
        self.runners.iter().find(|r| r.name.contains(&container.id))
    }

    fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|j| j.name == name)
    }

    fn started(&self, name: &str) -> bool {
        self.job(name).is_some_and(|j| j.started_at.is_some())
    }

    fn log(&self, name: &str) -> &str {
        self.job(name).map_or("", |j| j.log.as_str())
    }

    /// Prints the table; true when nothing is amiss.
    fn report(&mut self, left: &[String]) -> bool {
        let mut lines =
            vec![String::new(), format!("{:<20} {:<11} {:<32} {:>7}", "job", "result", "runner", "seconds")];
        let mut all_good = self.jobs.len() == 6;
        for job in &self.jobs {
            let good = job.result == Some(JobResult::Succeeded);
            all_good &= good;
            let result = job.result.map_or("not done".into(), |r| r.word().to_lowercase());
            let result = self.screen.paint(&format!("{result:<11}"), if good { Tone::Good } else { Tone::Bad });
            let runner = job.runner.as_deref().unwrap_or("-");
            lines.push(format!("{:<20} {result} {runner:<32} {:>7.1}", job.name, seconds(job)));
        }
        lines.push(String::new());
        let mut verdict = |what: &str, good: bool, text: String| {
            all_good &= good;
            lines.push(format!("{what}: {}", self.screen.paint(&text, if good { Tone::Good } else { Tone::Bad })));
        };
        let none = |found: &[String]| {
            if found.is_empty() { "none".into() } else { found.join(", ") }
        };
        verdict("registrations left", left.is_empty(), none(left));
        let findings: Vec<String> = self
            .log(jobs::SEARCH_NAME)
            .lines()
            .filter_map(|line| line.strip_prefix(jobs::FINDING))
            .map(str::to_owned)
            .collect();
        let made = has_line(self.log(jobs::MESS_NAME), jobs::MESS_MADE);
        let searched = has_line(self.log(jobs::SEARCH_NAME), jobs::SEARCHED);
        if made && searched {
            verdict("leftovers found", findings.is_empty(), none(&findings));
        } else {
            verdict("leftovers found", false, "nobody left or looked for anything".into());
        }
        for line in &lines {
            self.screen.line(line);
        }
        all_good
    }
}

fn has_line(log: &str, start: &str) -> bool {
    log.lines().any(|line| line.starts_with(start))
}

/// How long a job ran, so far or in all.
fn seconds(job: &Job) -> f64 {
    let Some(started) = job.started_at else {
        return 0.0;
    };
    let ended = job.finished_at.unwrap_or_else(jiff::Timestamp::now);
    ended.duration_since(started).as_secs_f64()
}

fn stop_in_background(ids: Vec<String>) -> JoinHandle<Result<(), String>> {
    thread::spawn(move || containers::stop(&ids.iter().map(String::as_str).collect::<Vec<_>>()))
}
