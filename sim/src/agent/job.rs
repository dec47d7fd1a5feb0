//! The life of one job in the worker: folders, started hook, steps, completed hook, orphans.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::assignment::{Assignment, PlannedStep, StepReport};
use super::command_files::assignments;
use super::github::chatter::{Phase, Sort, StepNames};
use super::github::containers::{Containers, Machine, Places};
use super::kind::{Kind, Layout};
use super::log::{Log, Store};
use super::narrator::Narrator;
use super::permissions::{usable, words};
use super::process::{self, Interruption, Patience};
use super::worker::Happening;
use crate::protocol::{Condition, JobResult, Step};

/// A job that runs.
struct Run<'a> {
    assignment: &'a Assignment,
    log: &'a Log,
    store: &'a Store,
    received: &'a Receiver<Happening>,
    sender: &'a Sender<Happening>,
    narrator: &'a Narrator,
    interruption: Interruption,
    failed: bool,
    layout: Layout,
    /// The worker's environment, what the layout adds, and what `GITHUB_ENV` and `GITHUB_PATH` files added.
    env: BTreeMap<String, String>,
    /// The same without the worker's, and without `PATH`.
    own: BTreeMap<String, String>,
    /// What `GITHUB_PATH` files added.
    path: Vec<String>,
    commands: u32,
    /// Of the part that runs now.
    outputs: Vec<(String, String)>,
    summary: String,
    steps: Vec<StepReport>,
    containers: Option<Containers>,
}

/// Runs a job to its end.
pub(super) fn run(
    assignment: &Assignment,
    log: &Log,
    store: &Store,
    received: &Receiver<Happening>,
    sender: &Sender<Happening>,
    narrator: &Narrator,
) -> (JobResult, Vec<StepReport>) {
    let facts = assignment.kind.facts();
    let mut run = Run {
        assignment,
        log,
        store,
        received,
        sender,
        narrator,
        interruption: Interruption::None,
        failed: false,
        layout: (facts.lay_out)(assignment),
        env: BTreeMap::new(),
        own: BTreeMap::new(),
        path: Vec::new(),
        commands: 0,
        outputs: Vec::new(),
        summary: String::new(),
        steps: Vec::new(),
        containers: None,
    };
    let (variable, prefix) = facts.tracking;
    let tracking = format!("{variable}={prefix}{}", crate::forge::random_id());
    if run.set_up(&tracking) {
        narrator.tell(Phase::JobSetUp);
        let [started, completed] = facts.hooks.map(|hooks| hooks.map(Some)).unwrap_or_default();
        run.hook(started, Sort::Started, "Set up runner");
        run.start_containers();
        for step in &assignment.job.steps {
            run.step(step);
        }
        run.catch_up();
        if run.interruption != Interruption::Shutdown {
            run.stop_containers();
            run.hook(completed, Sort::Completed, "Complete runner");
        }
        run.catch_up();
    }
    run.clean_up(&tracking);
    let result = match run.interruption {
        Interruption::Shutdown => JobResult::Failed,
        Interruption::Cancelled => JobResult::Canceled,
        Interruption::None if run.failed => JobResult::Failed,
        Interruption::None => JobResult::Succeeded,
    };
    (result, run.steps)
}

impl Run<'_> {
    /// The part of the job that runs now is a step of its own, with a log of its own, which is stored when it is over.
    fn part(&mut self, id: String, name: &str, body: impl FnOnce(&mut Self)) {
        let (began, failed, asked) = (Timestamp::now(), self.failed, self.interruption);
        self.failed = false;
        body(self);
        let result = if self.failed && self.interruption > asked {
            JobResult::Canceled
        } else if self.failed {
            JobResult::Failed
        } else {
            JobResult::Succeeded
        };
        self.failed |= failed;
        self.report(id, name, began, Some(result));
    }

    fn report(&mut self, id: String, name: &str, began: Timestamp, result: Option<JobResult>) {
        let number = self.steps.len() + 1;
        let lines = self.log.take();
        let (outputs, summary) = (std::mem::take(&mut self.outputs), std::mem::take(&mut self.summary));
        let (name, ended) = (name.to_owned(), Timestamp::now());
        let step = StepReport { id, number, name, lines, began, ended, result, outputs, summary };
        self.store.add(step.clone());
        self.steps.push(step);
    }

    /// False where the job cannot begin.
    fn set_up(&mut self, tracking: &str) -> bool {
        let mut ready = false;
        self.part(new_id(), "Set up job", |run| {
            run.introduce();
            match run.prepare(tracking) {
                Ok(()) => ready = true,
                Err(why) => run.fail(&why),
            }
        });
        ready
    }

    fn introduce(&self) {
        let Assignment { kind, root, runner, job, .. } = self.assignment;
        let facts = kind.facts();
        let lines = [
            format!("Current {} version: '{}'", facts.noun, super::version(*kind, root)),
            format!("{} name: '{runner}'", facts.title),
            format!("Machine name: '{}'", super::host_name()),
            "Prepare workflow directory".into(),
            format!("Complete job name: {}", job.name),
        ];
        for line in lines {
            self.log.line(&line);
        }
    }

    fn prepare(&mut self, tracking: &str) -> Result<(), String> {
        usable(&self.assignment.work)?;
        for folder in &self.layout.fresh {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(words(folder, &error)),
                _ => {}
            }
        }
        for folder in self.layout.fresh.iter().chain(&self.layout.folders) {
            fs::create_dir_all(folder).map_err(|error| words(folder, &error))?;
        }
        if let Some((event, payload)) = &self.layout.event {
            fs::write(event, payload).map_err(|error| words(event, &error))?;
        }
        self.env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        self.own = self.layout.env.iter().cloned().collect();
        self.own.extend(tracking.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
        self.env.extend(self.own.clone());
        self.prepare_containers()
    }

    /// What the job asks of Docker, and the images of its steps. Only GitHub's jobs ask.
    fn prepare_containers(&mut self) -> Result<(), String> {
        let Assignment { kind, root, work, manners, job, .. } = self.assignment;
        let images = job.steps.iter().filter_map(|planned| planned.step.uses.as_deref());
        let images: Vec<&str> = images.filter(|uses| !uses.starts_with("./")).collect();
        let message = &job.whole;
        let asked = |name: &str| !message[name].is_null();
        let some = asked("jobContainer") || asked("jobServiceContainers") || !images.is_empty();
        if *kind != Kind::GitHub || !some {
            return Ok(());
        }
        let tools = self.own.get("RUNNER_TOOL_CACHE").map(PathBuf::from).unwrap_or_default();
        let (temp, workspace) = (self.layout.temp.clone(), self.layout.workspace.clone());
        let places = Places { root: root.clone(), work: work.clone(), temp, tools, workspace };
        let containers = Containers::of(message, places, Machine::here(manners.scale))?;
        for image in images {
            containers.pull_action(image, &mut |line| self.log.line(line))?;
        }
        self.containers = Some(containers);
        Ok(())
    }

    /// The step "Initialize containers", where the job asks for any.
    fn start_containers(&mut self) {
        self.catch_up();
        let Some(mut containers) = self.containers.take().filter(|_| self.interruption == Interruption::None) else {
            return;
        };
        if !containers.is_empty() && !self.failed {
            self.part(new_id(), "Initialize containers", |run| {
                if let Err(why) = containers.initialize(&mut |line| run.log.line(line)) {
                    run.fail(&why);
                }
            });
        }
        self.containers = Some(containers);
    }

    /// The step "Stop containers": due on a cancel too.
    fn stop_containers(&mut self) {
        let Some(mut containers) = self.containers.take().filter(|containers| !containers.is_empty()) else {
            return;
        };
        self.part(new_id(), "Stop containers", |run| {
            if let Err(why) = containers.stop(&mut |line| run.log.line(line)) {
                run.fail(&why);
            }
        });
    }

    /// The last part: what the job left running ends, and why it ended early is said.
    fn clean_up(&mut self, tracking: &str) {
        self.part(new_id(), "Complete job", |run| {
            kill_orphans(tracking, run.log);
            let noun = run.assignment.kind.facts().noun;
            if run.interruption == Interruption::Shutdown {
                run.log.line(&format!(
                    "##[error]The {noun} has received a shutdown signal. This can happen when the {noun} service is \
                     stopped, or a manually started {noun} is canceled."
                ));
            }
        });
    }

    /// Takes note of what was asked while no process ran.
    fn catch_up(&mut self) {
        for happening in self.received.try_iter() {
            if let Happening::Interrupt(asked) = happening {
                self.interruption = self.interruption.max(asked);
            }
        }
    }

    /// A hook's condition is `always()`: only a shutdown stops it.
    fn hook(&mut self, variable: Option<&str>, sort: Sort, title: &str) {
        let Some(path) = variable.and_then(std::env::var_os).filter(|p| !p.is_empty()).map(PathBuf::from) else {
            return;
        };
        self.catch_up();
        if self.interruption == Interruption::Shutdown {
            return;
        }
        let (id, when) = (new_id(), if sort == Sort::Started { "started" } else { "completed" });
        let names = StepNames::of_hook(sort, &id, title, &path);
        self.part(id, title, |run| {
            let line = format!("A job {when} hook has been configured by the self-hosted runner administrator");
            run.log.line(&line);
            run.log.line(&format!("##[group]Run '{}'", path.display()));
            run.log.line("##[endgroup]");
            match run.hook_command(&path) {
                Ok(command) => run.process(How::Here(command), names, Interruption::Shutdown),
                Err(why) => run.fail(&why),
            }
        });
    }

    fn hook_command(&self, path: &Path) -> Result<Command, String> {
        if !path.is_absolute() {
            return Err(format!("'{}' is not an absolute path", path.display()));
        }
        if !path.is_file() {
            return Err(format!("File doesn't exist: '{}'", path.display()));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("sh") => Ok(shell(path)),
            Some("js") => {
                let own = self.assignment.root.join("externals/node20/bin/node");
                let mut node = Command::new(if own.is_file() { own } else { "node".into() });
                node.arg(path);
                Ok(node)
            }
            _ => Err(format!(
                "'{}' is not a valid path to a script. Make sure it has the extension '.sh' or '.js'.",
                path.display()
            )),
        }
    }

    fn step(&mut self, planned: &PlannedStep) {
        self.catch_up();
        let step = &planned.step;
        let due = match (self.interruption, step.condition) {
            (Interruption::Shutdown, _) => false,
            (_, Condition::Always) => true,
            (Interruption::Cancelled, condition) => condition == Condition::Cancelled,
            (Interruption::None, Condition::Success) => !self.failed,
            (Interruption::None, Condition::Failure) => self.failed,
            (Interruption::None, Condition::Cancelled) => false,
        };
        let first = step.uses.as_deref().or(step.run.lines().next()).unwrap_or_default();
        let title = step.name.clone().unwrap_or_else(|| format!("Run {first}"));
        if !due {
            return self.report(planned.id.clone(), &title, Timestamp::now(), None);
        }
        self.part(planned.id.clone(), &title, |run| {
            run.log.line(&format!("##[group]{title}"));
            run.log.line("##[endgroup]");
            let script = run.layout.temp.join(format!("{}.sh", new_id()));
            if let Err(error) = fs::write(&script, &step.run) {
                return run.fail(&words(&script, &error));
            }
            let names = StepNames::of_step(&run.assignment.job.whole, &planned.id, &title, &script);
            let how = match &step.uses {
                Some(folder) if folder.starts_with("./") => {
                    return run.fail(&format!("{folder}: a stand-in runs no actions of a repository"));
                }
                Some(image) => How::Image { image, step },
                None if run.containers.as_ref().is_some_and(Containers::has_own) => How::Inside(&script),
                None => How::Here(shell(&script)),
            };
            // A step that would still be due after the cancellation goes on.
            let yields_to = match step.condition {
                Condition::Always | Condition::Cancelled => Interruption::Shutdown,
                Condition::Success | Condition::Failure => Interruption::Cancelled,
            };
            let before = run.interruption;
            run.process(how, names, yields_to);
            if run.interruption > before && run.interruption >= yields_to {
                run.log.line("##[error]The operation was canceled.");
            }
        });
    }

    fn fail(&mut self, why: &str) {
        self.log.line(&format!("##[error]{why}"));
        self.failed = true;
    }

    fn process(&mut self, how: How<'_>, mut names: StepNames, yields_to: Interruption) {
        self.commands += 1;
        names.first = self.commands == 1;
        let folder = self.layout.temp.join("_runner_file_commands");
        let files: Vec<(&str, PathBuf)> = self
            .assignment
            .kind
            .facts()
            .command_files
            .iter()
            .copied()
            .map(|(name, kind)| (name, folder.join(format!("{kind}_{}", self.commands))))
            .collect();
        for (_, path) in &files {
            if let Err(error) = fs::write(path, "") {
                return self.fail(&words(path, &error));
            }
        }
        let paths = files.iter().map(|(name, path)| ((*name).to_owned(), path.to_string_lossy().into_owned()));
        let command = match self.command(how, paths.collect()) {
            Ok(command) => command,
            Err(why) => return self.fail(&why),
        };
        let manners = &self.assignment.manners;
        let set = |at: usize| {
            let names = self.assignment.kind.facts().patience?;
            std::env::var(names[at]).ok()?.parse().ok()
        };
        let patience = Patience {
            after_int: manners.time(manners.sigint_ms, set(0).unwrap_or(7_500)),
            after_term: manners.time(manners.sigterm_ms, set(1).unwrap_or(2_500)),
            output: manners.scale.ms(5_000),
        };
        match process::start(command, self.log, self.sender) {
            Ok(process) => {
                self.narrator.began(names, process.id());
                let outcome = process.end(self.received, &mut self.interruption, yields_to, patience);
                self.narrator.ended(&outcome);
                if outcome.code != 0 {
                    self.fail(&format!("Process completed with exit code {}.", outcome.code));
                }
            }
            Err(error) => self.fail(&error.to_string()),
        }
        self.read_commands(&files);
    }

    /// The process of a step or a hook; `files` are variables of its own.
    fn command(&self, how: How<'_>, files: BTreeMap<String, String>) -> Result<Command, String> {
        // The command line of Docker has the worker's environment, and passes the job's on.
        let passed = || -> BTreeMap<String, String> {
            self.own.iter().chain(&files).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let containers = || self.containers.as_ref().ok_or("there are no containers");
        let mut command = match how {
            How::Here(mut command) => {
                command.env_clear().envs(&self.env).envs(&files);
                command
            }
            How::Inside(script) => containers()?.exec(script, &self.path.join(":"), &passed())?,
            How::Image { image, step } => {
                let args = step.args.as_deref().unwrap_or_default();
                containers()?.action(image, step.entrypoint.as_deref().unwrap_or_default(), args, &passed())?
            }
        };
        command.current_dir(&self.layout.workspace);
        Ok(command)
    }

    fn read_commands(&mut self, files: &[(&str, PathBuf)]) {
        for (name, path) in files {
            let text = fs::read_to_string(path).unwrap_or_default();
            match *name {
                "GITHUB_ENV" => {
                    for (key, value) in assignments(&text) {
                        self.own.insert(key.clone(), value.clone());
                        self.env.insert(key, value);
                    }
                }
                "GITHUB_PATH" => {
                    for entry in text.lines().filter(|l| !l.is_empty()) {
                        let path = self.env.entry("PATH".into()).or_default();
                        *path = format!("{entry}:{path}");
                        self.path.insert(0, entry.to_owned());
                    }
                }
                "GITHUB_OUTPUT" => self.outputs.extend(assignments(&text)),
                "GITHUB_STEP_SUMMARY" => self.summary.push_str(&text),
                _ => {}
            }
        }
    }
}

/// How a step or a hook is run.
enum How<'a> {
    /// By this, on the runner.
    Here(Command),
    /// This script, in the job's container.
    Inside(&'a Path),
    /// As a container of its own.
    Image { image: &'a str, step: &'a Step },
}

/// What the forge calls a part of a job that no message has named.
fn new_id() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    format!("{:08x}-0000-4000-8000-{:012x}", 0x0300, u64::from_le_bytes(bytes) >> 16)
}

/// `bash -e`, or `sh -e` where there is no bash.
fn shell(script: &Path) -> Command {
    let bash = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("bash").is_file()));
    let mut command = Command::new(if bash { "bash" } else { "sh" });
    command.arg("-e").arg(script);
    command
}

/// Kills what the job left behind, found by the variable that every process of the job inherits.
fn kill_orphans(tracking: &str, log: &Log) {
    log.line("Cleaning up orphan processes");
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for pid in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environ.split(|b| *b == 0).any(|entry| entry == tracking.as_bytes()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            log.line(&format!("Terminate orphan process: pid ({pid}) ({})", name.trim()));
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
