//! The runners' containers, through the `docker` command.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A container of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// The short id, which is its host name, and so part of every name that a runner in it has.
    pub(super) id: String,
    /// Compose's name for it.
    pub(super) name: String,
}

/// Runs docker; its output, or what it complained about.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("docker: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("docker {}: {complaint}", arguments.join(" ")))
}

/// The containers of one service, by number.
pub(super) fn find(project: &str, service: &str) -> Result<Vec<Container>, String> {
    let project = format!("label=com.docker.compose.project={project}");
    let service = format!("label=com.docker.compose.service={service}");
    let text = docker(&["ps", "--filter", &project, "--filter", &service, "--format", "{{.ID}} {{.Names}}"])?;
    let mut found: Vec<Container> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(id, name)| Container { id: id.into(), name: name.into() })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Stops containers all at once, with time for a job to finish.
pub(super) fn stop(ids: &[&str]) -> Result<(), String> {
    // One command stops one after the other: each gets its own.
    let results: Vec<Result<String, String>> = thread::scope(|scope| {
        let stops: Vec<_> = ids.iter().map(|id| scope.spawn(move || docker(&["stop", "-t", "60", id]))).collect();
        stops.into_iter().map(|s| s.join().unwrap_or_else(|_| Err("docker stop panicked".into()))).collect()
    });
    results.into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
}

/// The phases that the containers report, kept up to date by a thread per container.
#[derive(Debug, Clone, Default)]
pub(super) struct Phases(Arc<Mutex<BTreeMap<String, String>>>);

impl Phases {
    pub(super) fn watch(containers: &[Container]) -> Self {
        let phases = Self::default();
        for container in containers {
            let (phases, id) = (phases.clone(), container.id.clone());
            // Ends with the program.
            thread::spawn(move || {
                loop {
                    let phase = status(&id);
                    let mut all = phases.0.lock().unwrap_or_else(PoisonError::into_inner);
                    match phase {
                        Some(phase) => all.insert(id.clone(), phase),
                        None => all.remove(&id),
                    };
                    drop(all);
                    thread::sleep(Duration::from_secs(1));
                }
            });
        }
        phases
    }

    /// What a container said last; none while it cannot be asked.
    pub(super) fn of(&self, id: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// The phase, by the program's own word.
fn status(id: &str) -> Option<String> {
    let text = docker(&["exec", id, "/usr/local/bin/oscr-entry", "status", "--json"]).ok()?;
    let status: Value = serde_json::from_str(text.trim()).ok()?;
    status["phase"].as_str().map(str::to_owned)
}
