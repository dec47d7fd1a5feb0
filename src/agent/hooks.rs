//! Hooks around a job.
//!
//! The agent runs a script before and after each job. Ours are two-line shims, written at start, that run
//! `oscr-entry hook <event>` as the agent's user: it tells PID 1 about the job and then runs the user's own hooks.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::hook_files;
use super::interpreter::Interpreters;
use super::job_log::JobLog;
use crate::config::Places;
use crate::control::{self, HookAnswer, HookEvent};
use crate::os::program::{is_for_the_shell, shell};
use crate::policy::{Evidence, LARGEST_PAYLOAD};
use crate::provider::{Forge, JobHooks};

/// The shims' paths.
#[derive(Debug, Clone)]
pub(crate) struct Shims {
    /// For the event `job-started`.
    pub job_started: PathBuf,
    /// For the event `job-completed`.
    pub job_completed: PathBuf,
}

/// Writes the shims, which call this very program for an agent of this forge.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn write_shims(places: &Places, forge: &str) -> io::Result<Shims> {
    let directory = places.run().join("hooks");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    let program = std::env::current_exe()?;
    let write = |event: HookEvent| {
        let path = directory.join(format!("{event}.sh"));
        // `exec`, because bash would hold back the signals that the agent sends to a hook it cancels.
        let text = format!(
            "#!/bin/bash\nexec {} hook --forge {forge} --socket {} --hooks {} --agent {} --fetched {} {event}\n",
            quote(&program),
            quote(&control::socket(places)),
            quote(&places.hooks()),
            quote(&places.agent()),
            quote(&places.fetched_agents()),
        );
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok::<PathBuf, io::Error>(path)
    };
    Ok(Shims { job_started: write(HookEvent::JobStarted)?, job_completed: write(HookEvent::JobCompleted)? })
}

fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// `oscr-entry hook <event>`: tells PID 1, then runs the user's hooks in order. Returns the exit code: the first that fails
/// fails the job, as the agent's contract has it.
#[must_use]
pub(crate) fn run(forge: &Forge, event: HookEvent, socket: &Path, hooks: &Path, interpreters: &Interpreters) -> u8 {
    let known = forge.agent.hooks.as_ref();
    let (job, facts) = known.map(|known| (known.describe)(&|name| std::env::var(name).ok())).unwrap_or_default();
    let evidence = match (event, known) {
        (HookEvent::JobStarted, Some(known)) => Evidence { facts, payload: payload(known) },
        _ => Evidence::default(),
    };
    let log = JobLog { agent: known };
    let mut failed = false;
    let answer = control::client::hook(socket, event, job, &evidence, |answer| match answer {
        HookAnswer::Wait { why } => log.say(why),
        HookAnswer::Failed { why } => {
            log.fail(why);
            failed = true;
        }
        HookAnswer::Go { .. } | HookAnswer::Refused { .. } => {}
    });
    match answer {
        Ok(HookAnswer::Go { resource: Some(resource) }) if event == HookEvent::JobStarted => {
            log.say(&format!("this job has {resource}"));
            if let Err(error) = tell_job(known, &resource) {
                log.say(&format!("OSCR_RESOURCE cannot be set: {error}"));
            }
        }
        Ok(HookAnswer::Go { .. } | HookAnswer::Wait { .. }) => {}
        Ok(HookAnswer::Refused { why } | HookAnswer::Failed { why }) => {
            log.fail(&why);
            return 1;
        }
        // The end of the listener that was to be waited for; the reason has been told.
        Err(_) if failed => return 1,
        // Before a job, nobody else knows whether it has what it needs.
        Err(error) if event == HookEvent::JobStarted => {
            log.fail(&format!("PID 1 does not answer: {error}"));
            return 1;
        }
        // After it, nothing depends on the answer.
        Err(error) => log.say(&format!("PID 1 does not answer: {error}")),
    }
    let variable = match event {
        HookEvent::JobStarted => "JOB_STARTED",
        HookEvent::JobCompleted => "JOB_COMPLETED",
    };
    let chained = std::env::vars_os().find(|(name, _)| {
        name.to_str().is_some_and(|name| name.starts_with("OSCR_CHAINED_") && name.ends_with(variable))
    });
    // One that cannot be run was there to be run: to pass it over would let the job do what it guards.
    let mut commands = match hook_files::hooks(&hooks.join(event.to_string())) {
        Ok(commands) => commands,
        Err(unfit) => {
            log.fail(&unfit.to_string());
            control::client::hook_failed(socket, event);
            return 1;
        }
    };
    commands.extend(chained.map(|(_, script)| script.into()));
    let search = std::env::var_os("PATH");
    for command in commands {
        let path = command.as_path();
        let mut child = if path.extension().is_some_and(|extension| extension == "sh") {
            let mut bash = Command::new("bash");
            // As the agent runs a hook.
            bash.arg("-e").arg(path);
            bash
        } else {
            match interpreters.command(path, search.as_deref()) {
                Ok((program, arguments)) => {
                    let mut child = Command::new(program);
                    child.args(arguments);
                    child
                }
                Err(why) => {
                    log.fail(&format!("the hook {} cannot be run: {why}", path.display()));
                    return 1;
                }
            }
        };
        let ended = child.status().or_else(|error| {
            // A script without a `#!` line is the shell's, as `execvp(3)` has it.
            let for_the_shell = child.get_program() == path && is_for_the_shell(path, &error);
            if for_the_shell { Command::new(shell()).arg(path).status() } else { Err(error) }
        });
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => {
                log.fail(&format!("the hook {} failed: {status}", path.display()));
                control::client::hook_failed(socket, event);
                return status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).max(1);
            }
            Err(error) => {
                log.fail(&format!("the hook {} cannot be run: {error}", path.display()));
                control::client::hook_failed(socket, event);
                return 1;
            }
        }
    }
    0
}

/// The event's payload as the agent wrote it to a file.
fn payload(known: &JobHooks) -> Option<Result<Vec<u8>, String>> {
    let file = PathBuf::from(std::env::var_os(known.payload)?);
    let mut bytes = Vec::new();
    let read = fs::File::open(&file).and_then(|file| file.take(LARGEST_PAYLOAD + 1).read_to_end(&mut bytes));
    Some(match read {
        Ok(_) if bytes.len() as u64 > LARGEST_PAYLOAD => {
            Err(format!("has more than {LARGEST_PAYLOAD} bytes, which are not read"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("({}) cannot be read: {error}", file.display())),
    })
}

/// Sets `OSCR_RESOURCE` for the job's steps, in the agent's way.
fn tell_job(known: Option<&JobHooks>, resource: &str) -> io::Result<()> {
    let Some(file) = known.and_then(|known| std::env::var_os(known.step_variables)) else { return Ok(()) };
    writeln!(fs::OpenOptions::new().append(true).open(file)?, "OSCR_RESOURCE={resource}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &Path, name: &str, text: &str, mode: u32) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Somebody who says `Go` to everybody, as PID 1 does for a runner without shared hardware.
    fn somebody_who_agrees(socket: &Path) {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = String::new();
                std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut request).unwrap();
                writeln!(stream, r#"{{"answer":"go","resource":null}}"#).unwrap();
            }
        });
    }

    fn interpreters() -> Interpreters {
        Interpreters::of(&Places::below("/nonexistent".into()))
    }

    const FORGE: &Forge = crate::provider::FORGES.usual();

    #[test]
    fn hooks_run_in_order_and_the_first_failure_is_the_jobs() {
        let hooks = tempfile::tempdir().unwrap();
        let socket = hooks.path().join("socket");
        somebody_who_agrees(&socket);
        let started = hooks.path().join("job-started");
        let seen = hooks.path().join("seen");
        let line = |word: &str| format!("#!/bin/sh\necho {word} >> {}\n", seen.display());
        script(&started, "20-two", &format!("{}exit 7\n", line("two")), 0o755);
        script(&started, "10-one.sh", &line("one"), 0o755);
        script(&started, "17-says-no-shell", &line("shell").replace("#!/bin/sh\n", ""), 0o755);
        script(&started, "30-three", &line("three"), 0o755);
        assert_eq!(run(FORGE, HookEvent::JobStarted, &socket, hooks.path(), &interpreters()), 7);
        assert_eq!(fs::read_to_string(&seen).unwrap(), "one\nshell\ntwo\n");
        assert_eq!(run(FORGE, HookEvent::JobCompleted, &socket, hooks.path(), &interpreters()), 0);
    }

    #[test]
    fn nothing_runs_where_a_hook_cannot_be_run() {
        let hooks = tempfile::tempdir().unwrap();
        let socket = hooks.path().join("socket");
        somebody_who_agrees(&socket);
        for event in [HookEvent::JobStarted, HookEvent::JobCompleted] {
            let (place, seen) = (hooks.path().join(event.to_string()), hooks.path().join("seen"));
            script(&place, "10-one", &format!("#!/bin/sh\necho one >> {}\n", seen.display()), 0o755);
            script(&place, "20-guard", "#!/bin/sh\n", 0o644);
            assert_eq!(run(FORGE, event, &socket, hooks.path(), &interpreters()), 1, "{event}");
            assert!(!seen.exists(), "{event}");
            fs::remove_file(place.join("20-guard")).unwrap();
            std::os::unix::fs::symlink("nowhere", place.join("20-guard")).unwrap();
            assert_eq!(run(FORGE, event, &socket, hooks.path(), &interpreters()), 1, "{event}");
            fs::remove_file(place.join("20-guard")).unwrap();
            script(&place, ".hidden", "", 0o644);
            fs::create_dir(place.join("30-directory")).unwrap();
            assert_eq!(run(FORGE, event, &socket, hooks.path(), &interpreters()), 0, "{event}");
            fs::remove_file(seen).unwrap();
            fs::remove_dir_all(&place).unwrap();
            fs::write(&place, "").unwrap();
            assert_eq!(run(FORGE, event, &socket, hooks.path(), &interpreters()), 1, "{event} is a file");
        }
    }

    #[test]
    fn a_job_does_not_begin_without_an_answer_but_ends_without_one() {
        let nowhere = tempfile::tempdir().unwrap();
        let socket = nowhere.path().join("socket");
        assert_eq!(run(FORGE, HookEvent::JobStarted, &socket, nowhere.path(), &interpreters()), 1);
        assert_eq!(run(FORGE, HookEvent::JobCompleted, &socket, nowhere.path(), &interpreters()), 0);
    }
}
