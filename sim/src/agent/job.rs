//! The life of one job in the worker: folders, started hook, steps, completed hook, orphans.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kind::{Kind, Layout};
use super::process::{self, Interruption, Patience};
use super::worker::{Happening, Log};
use crate::protocol::{Condition, JobMessage, JobResult, Step};

/// A job, and who runs it where.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) kind: Kind,
    pub(super) server: String,
    pub(super) runner: String,
    pub(super) root: PathBuf,
    pub(super) work: PathBuf,
    pub(super) job: JobMessage,
}

/// A job that runs.
struct Run<'a> {
    assignment: &'a Assignment,
    log: &'a Log,
    received: &'a Receiver<Happening>,
    sender: &'a Sender<Happening>,
    interruption: Interruption,
    failed: bool,
    layout: Layout,
    /// The worker's environment, what the layout adds, and what `GITHUB_ENV` and `GITHUB_PATH` files added.
    env: BTreeMap<String, String>,
    commands: u32,
}

/// Runs a job to its end.
pub(super) fn run(
    assignment: &Assignment,
    log: &Log,
    received: &Receiver<Happening>,
    sender: &Sender<Happening>,
) -> JobResult {
    let facts = assignment.kind.facts();
    let noun = facts.noun;
    let mut run = Run {
        assignment,
        log,
        received,
        sender,
        interruption: Interruption::None,
        failed: false,
        layout: (facts.lay_out)(assignment),
        env: BTreeMap::new(),
        commands: 0,
    };
    log.line(&format!("Current {noun} version: '{}'", super::version(assignment.kind, &assignment.root)));
    log.line(&format!("{} name: '{}'", facts.title, assignment.runner));
    let (variable, prefix) = facts.tracking;
    let tracking = format!("{variable}={prefix}{}", crate::forge::random_id());
    if let Err(error) = run.set_up(&tracking) {
        log.line(&format!("##[error]{error}"));
        return JobResult::Failed;
    }
    let [started, completed] = facts.hooks.map(|hooks| hooks.map(Some)).unwrap_or_default();
    run.hook(started, "Set up runner");
    for step in &assignment.job.steps {
        run.step(step);
    }
    run.catch_up();
    if run.interruption != Interruption::Shutdown {
        run.hook(completed, "Complete runner");
    }
    run.catch_up();
    kill_orphans(&tracking, log);
    match run.interruption {
        Interruption::Shutdown => {
            log.line(&format!(
                "##[error]The {noun} has received a shutdown signal. This can happen when the {noun} service is \
                 stopped, or a manually started {noun} is canceled."
            ));
            JobResult::Failed
        }
        Interruption::Cancelled => {
            log.line("##[error]The operation was canceled.");
            JobResult::Canceled
        }
        Interruption::None if run.failed => JobResult::Failed,
        Interruption::None => JobResult::Succeeded,
    }
}

impl Run<'_> {
    fn set_up(&mut self, tracking: &str) -> std::io::Result<()> {
        let at = |error: std::io::Error, path: &Path| {
            std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        for folder in &self.layout.fresh {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(error, folder)),
                _ => {}
            }
        }
        for folder in self.layout.fresh.iter().chain(&self.layout.folders) {
            fs::create_dir_all(folder).map_err(|error| at(error, folder))?;
        }
        if let Some(event) = &self.layout.event {
            let payload = &self.assignment.job.payload;
            let payload = if payload.is_null() { "{}".to_owned() } else { payload.to_string() };
            fs::write(event, payload).map_err(|error| at(error, event))?;
        }
        self.env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        self.env.extend(self.layout.env.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.env.extend(tracking.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
        self.log.line(&format!("{} root: {}", self.assignment.kind.facts().title, self.assignment.root.display()));
        Ok(())
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
    fn hook(&mut self, variable: Option<&str>, title: &str) {
        let Some(path) = variable.and_then(std::env::var_os).filter(|p| !p.is_empty()).map(PathBuf::from) else {
            return;
        };
        self.catch_up();
        if self.interruption == Interruption::Shutdown {
            return;
        }
        self.log.line(&format!("##[group]{title}"));
        self.log.line(&format!(
            "A job hook has been configured by the self-hosted runner administrator: '{}'",
            path.display()
        ));
        self.log.line("##[endgroup]");
        match self.hook_command(&path) {
            Ok(command) => self.process(command, Interruption::Shutdown),
            Err(why) => self.fail(&why),
        }
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

    fn step(&mut self, step: &Step) {
        self.catch_up();
        let due = match (self.interruption, step.condition) {
            (Interruption::Shutdown, _) => false,
            (_, Condition::Always) => true,
            (Interruption::Cancelled, condition) => condition == Condition::Cancelled,
            (Interruption::None, Condition::Success) => !self.failed,
            (Interruption::None, Condition::Failure) => self.failed,
            (Interruption::None, Condition::Cancelled) => false,
        };
        let first = step.run.lines().next().unwrap_or_default();
        let title = step.name.clone().unwrap_or_else(|| first.to_owned());
        if !due {
            self.log.line(&format!("Skipped: {title}"));
            return;
        }
        self.log.line(&format!("##[group]Run {title}"));
        self.log.line("##[endgroup]");
        let script = self.layout.temp.join(format!("{}.sh", crate::forge::random_id()));
        if let Err(error) = fs::write(&script, &step.run) {
            return self.fail(&format!("{}: {error}", script.display()));
        }
        // A step that would still be due after the cancellation goes on.
        let yields_to = match step.condition {
            Condition::Always | Condition::Cancelled => Interruption::Shutdown,
            Condition::Success | Condition::Failure => Interruption::Cancelled,
        };
        self.process(shell(&script), yields_to);
    }

    fn fail(&mut self, why: &str) {
        self.log.line(&format!("##[error]{why}"));
        self.failed = true;
    }

    fn process(&mut self, mut command: Command, yields_to: Interruption) {
        self.commands += 1;
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
        command.env_clear().envs(&self.env).current_dir(&self.layout.workspace);
        for (name, path) in &files {
            if let Err(error) = fs::write(path, "") {
                return self.fail(&format!("{}: {error}", path.display()));
            }
            command.env(name, path);
        }
        let job = &self.assignment.job;
        let patience = Patience {
            after_int: Duration::from_millis(job.sigint_ms),
            after_term: Duration::from_millis(job.sigterm_ms),
        };
        let outcome =
            process::run(command, self.log, self.received, self.sender, &mut self.interruption, yields_to, patience);
        match outcome {
            Ok(outcome) if outcome.code == 0 => {}
            Ok(outcome) => self.fail(&format!("Process completed with exit code {}.", outcome.code)),
            Err(error) => self.fail(&error.to_string()),
        }
        self.read_commands(&files);
    }

    fn read_commands(&mut self, files: &[(&str, PathBuf)]) {
        for (name, path) in files {
            let text = fs::read_to_string(path).unwrap_or_default();
            match *name {
                "GITHUB_ENV" => {
                    for (key, value) in assignments(&text) {
                        self.env.insert(key, value);
                    }
                }
                "GITHUB_PATH" => {
                    for entry in text.lines().filter(|l| !l.is_empty()) {
                        let path = self.env.entry("PATH".into()).or_default();
                        *path = format!("{entry}:{path}");
                    }
                }
                _ => {}
            }
        }
    }
}

/// `bash -e`, or `sh -e` where there is no bash.
fn shell(script: &Path) -> Command {
    let bash = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("bash").is_file()));
    let mut command = Command::new(if bash { "bash" } else { "sh" });
    command.arg("-e").arg(script);
    command
}

/// The lines of a `GITHUB_ENV` file: `KEY=value`, or `KEY<<END`, lines, `END`.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let heredoc = line.split_once("<<").filter(|(key, _)| !key.contains('='));
        if let Some((key, end)) = heredoc {
            let value: Vec<&str> = lines.by_ref().take_while(|l| *l != end).collect();
            found.push((key.to_owned(), value.join("\n")));
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::assignments;

    #[test]
    fn env_files_hold_single_and_multi_line_values() {
        let text = "A=1\nB<<END\none\ntwo=2\nEND\nC=x<<y\n";
        let found = assignments(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, [("A", "1"), ("B", "one\ntwo=2"), ("C", "x<<y")]);
    }
}
