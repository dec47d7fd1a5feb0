//! The life of one job in the worker: folders, started hook, steps, completed hook, orphans.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{self, Interruption, Patience};
use super::worker::{Happening, Log};
use crate::protocol::{Condition, JobMessage, JobResult, Step};

const SHUTDOWN: &str = "##[error]The runner has received a shutdown signal. This can happen when the runner service is \
                        stopped, or a manually started runner is canceled.";

/// A job, and who runs it where.
#[derive(Debug)]
pub(super) struct Assignment {
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
    workspace: PathBuf,
    temp: PathBuf,
    /// The worker's environment with `GITHUB_*`, `RUNNER_*`, and what `GITHUB_ENV` and `GITHUB_PATH` files added.
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
    let repository = assignment.job.repository.rsplit('/').next().unwrap_or("repository").to_owned();
    let mut run = Run {
        assignment,
        log,
        received,
        sender,
        interruption: Interruption::None,
        failed: false,
        workspace: assignment.work.join(&repository).join(&repository),
        temp: assignment.work.join("_temp"),
        env: BTreeMap::new(),
        commands: 0,
    };
    log.line(&format!("Current runner version: '{}'", crate::AGENT_VERSION));
    log.line(&format!("Runner name: '{}'", assignment.runner));
    let tracking = format!("github_{}", crate::forge::random_id());
    if let Err(error) = run.set_up(&tracking) {
        log.line(&format!("##[error]{error}"));
        return JobResult::Failed;
    }
    run.hook("ACTIONS_RUNNER_HOOK_JOB_STARTED", "Set up runner");
    for step in &assignment.job.steps {
        run.step(step);
    }
    run.catch_up();
    if run.interruption != Interruption::Shutdown {
        run.hook("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", "Complete runner");
    }
    run.catch_up();
    kill_orphans(&tracking, log);
    match run.interruption {
        Interruption::Shutdown => {
            log.line(SHUTDOWN);
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
        let Assignment { job, work, root, server, runner } = self.assignment;
        let at = |error: std::io::Error, path: &Path| {
            std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        for folder in [work.join("_temp"), work.join("_actions")] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(at(error, &folder));
                }
                _ => {}
            }
        }
        let mut tools = work.join("_tool");
        for name in ["RUNNER_TOOLSDIRECTORY", "AGENT_TOOLSDIRECTORY", "RUNNER_TOOL_CACHE"] {
            if let Ok(path) = std::env::var(name) {
                tools = path.into();
            }
        }
        let workflow = self.temp.join("_github_workflow");
        for folder in [&self.workspace, &workflow, &work.join("_actions"), &work.join("_PipelineMapping"), &tools] {
            fs::create_dir_all(folder).map_err(|error| at(error, folder))?;
        }
        let commands = self.temp.join("_runner_file_commands");
        fs::create_dir_all(&commands).map_err(|error| at(error, &commands))?;
        let event = workflow.join("event.json");
        let payload = if job.payload.is_null() { serde_json::json!({}) } else { job.payload.clone() };
        fs::write(&event, payload.to_string()).map_err(|error| at(error, &event))?;

        self.env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let (owner, _) = job.repository.split_once('/').unwrap_or((&job.repository, ""));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let arch = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
        for (key, value) in [
            ("CI", "true".into()),
            ("GITHUB_ACTIONS", "true".into()),
            ("GITHUB_ACTOR", "octocat".into()),
            ("GITHUB_API_URL", format!("{server}/api/v3")),
            ("GITHUB_EVENT_NAME", job.event.clone()),
            ("GITHUB_EVENT_PATH", text(&event)),
            ("GITHUB_JOB", job.name.clone()),
            ("GITHUB_REF", "refs/heads/main".into()),
            ("GITHUB_REF_NAME", "main".into()),
            ("GITHUB_REPOSITORY", job.repository.clone()),
            ("GITHUB_REPOSITORY_OWNER", owner.into()),
            ("GITHUB_RUN_ATTEMPT", "1".into()),
            ("GITHUB_RUN_ID", job.id.to_string()),
            ("GITHUB_RUN_NUMBER", job.id.to_string()),
            ("GITHUB_SERVER_URL", server.clone()),
            ("GITHUB_SHA", "0".repeat(40)),
            ("GITHUB_WORKFLOW", "simulated".into()),
            ("GITHUB_WORKFLOW_REF", format!("{}/.github/workflows/ci.yml@refs/heads/main", job.repository)),
            ("GITHUB_WORKSPACE", text(&self.workspace)),
            ("RUNNER_ARCH", arch.into()),
            ("RUNNER_ENVIRONMENT", "self-hosted".into()),
            ("RUNNER_NAME", runner.clone()),
            ("RUNNER_OS", "Linux".into()),
            ("RUNNER_TEMP", text(&self.temp)),
            ("RUNNER_TOOL_CACHE", text(&tools)),
            ("RUNNER_TRACKING_ID", tracking.into()),
            ("RUNNER_WORKSPACE", self.workspace.parent().map(text).unwrap_or_default()),
        ] {
            self.env.insert(key.into(), value);
        }
        self.log.line(&format!("Runner root: {}", root.display()));
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
    fn hook(&mut self, variable: &str, title: &str) {
        let Some(path) = std::env::var_os(variable).filter(|p| !p.is_empty()).map(PathBuf::from) else {
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
        let script = self.temp.join(format!("{}.sh", crate::forge::random_id()));
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
        let folder = self.temp.join("_runner_file_commands");
        let file = |kind: &str| folder.join(format!("{kind}_{}", self.commands));
        let files: Vec<(&str, PathBuf)> = [
            ("GITHUB_ENV", "set_env"),
            ("GITHUB_PATH", "add_path"),
            ("GITHUB_OUTPUT", "set_output"),
            ("GITHUB_STATE", "save_state"),
            ("GITHUB_STEP_SUMMARY", "step_summary"),
        ]
        .map(|(name, kind)| (name, file(kind)))
        .into();
        command.env_clear().envs(&self.env).current_dir(&self.workspace);
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
    let wanted = format!("RUNNER_TRACKING_ID={tracking}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for pid in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environ.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes()) {
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
