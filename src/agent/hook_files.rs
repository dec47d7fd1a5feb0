//! The files of hooks, and whether each can be run: one that cannot is no hook that can be passed over.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;

use super::interpreter::Interpreters;
use super::system_env;
use crate::config::{Environment, Problem};
use crate::os::Identity;
use crate::os::attempt::can_access;
use crate::os::mounts::{self, under};
use crate::provider::AgentFacts;

/// What others run, whatever its mode.
const SCRIPTS: [&str; 3] = ["sh", "js", "ps1"];

/// The directories of hooks, by what they are for.
const EVENTS: [&str; 4] = ["job-started", "job-completed", "resource-acquired", "resource-released"];

/// A file that is there to be a hook, and cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hook {} cannot be run: {why}; {cure}", path.display())]
pub(crate) struct Unfit {
    /// Which.
    pub path: PathBuf,
    /// Why.
    why: String,
    /// What to do.
    cure: String,
}

impl Unfit {
    fn new(path: &Path, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into(), cure: cure.into() }
    }

    fn problem(self, setting: &str) -> Problem {
        let Self { path, why, cure } = self;
        Problem::of(setting, format!("the hook {} cannot be run: {why}", path.display()), cure)
    }
}

/// The hooks of a directory, by name, and what keeps a file there from being one. Names that begin with a dot are passed over, and so
/// are directories. A directory that is missing has no hooks.
///
/// # Errors
/// The first that cannot be run.
pub(crate) fn hooks(directory: &Path) -> Result<Vec<PathBuf>, Unfit> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let cure = format!("make {} a directory that everybody can read, or take it away", directory.display());
            return Err(Unfit::new(directory, format!("hooks there cannot be looked up: {error}"), cure));
        }
        Ok(entries) => entries,
    };
    let names = entries.flatten().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let mut found: Vec<PathBuf> = names.map(|entry| entry.path()).collect();
    found.sort();
    found.retain(|path| !path.is_dir());
    for path in &found {
        let shown = path.display();
        match fs::metadata(path) {
            Err(error) => return Err(Unfit::new(path, error.to_string(), "put it right, or take it away")),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
                return Err(Unfit::new(
                    path,
                    "it is not executable",
                    format!("chmod a+rx {shown} (a ConfigMap has defaultMode: 0755), or take it away if it is no hook"),
                ));
            }
            Ok(_) => {}
        }
    }
    Ok(found)
}

/// Whether the agent's user (our own where there is none) can run this hook.
fn runs(hook: &Path, agent: Option<&Identity>) -> Result<(), Unfit> {
    let shown = hook.display();
    let script = hook.extension().is_some_and(|kind| SCRIPTS.iter().any(|known| kind == *known));
    let needs = if script || interpreter(hook).is_some() { AccessFlags::R_OK } else { AccessFlags::empty() };
    let needs = if script { needs } else { needs | AccessFlags::X_OK };
    if can_access(agent, hook, needs) != Some(false) {
        return Ok(());
    }
    let mounts = mounts::list().unwrap_or_default();
    let real = fs::canonicalize(hook).unwrap_or_else(|_| hook.to_owned());
    Err(match under(&mounts, &real) {
        Some(mount) if !script && !mount.executable => {
            let point = mount.point.display();
            let cure = format!("mount {point} with exec, or end the hook's name in .sh, which bash reads");
            Unfit::new(hook, format!("{point} is mounted noexec"), cure)
        }
        _ => {
            let cure = format!("chmod a+rx {shown}, and let everybody pass through the directories above it");
            Unfit::new(hook, "the agent's user may not read or execute it", cure)
        }
    })
}

/// What the first line of a script names.
fn interpreter(hook: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    fs::File::open(hook).ok()?.take(256).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = std::str::from_utf8(line).ok()?.split_whitespace().next()?;
    Some(PathBuf::from(word))
}

/// A hook that the user, or the image in its `/etc/environment`, names to the agent.
#[derive(Debug)]
pub(crate) struct NamedHook {
    /// By which variable.
    pub variable: &'static str,
    /// Where it is.
    pub hook: PathBuf,
    /// What takes it away.
    away: String,
}

/// Those hooks. `system` is the image's file: what the container's environment sets counts before it.
pub(crate) fn named(facts: &AgentFacts, environment: &Environment, system: &Path) -> Vec<NamedHook> {
    // What is wrong with the file itself is said where it is used.
    let of_image = system_env::read(system).unwrap_or_default();
    let variables = facts.hooks.iter().flat_map(|known| [known.job_started, known.job_completed]);
    let named = variables.filter_map(|variable| {
        if let Some(hook) = environment.get(variable) {
            return Some(NamedHook { variable, hook: hook.into(), away: "unset it".to_owned() });
        }
        let (_, hook) = of_image.iter().rfind(|(name, hook)| name == variable && !hook.is_empty())?;
        Some(NamedHook { variable, hook: hook.into(), away: format!("take it out of {}", system.display()) })
    });
    named.collect()
}

/// What is wrong with the hooks of an agent: what cannot be run is a problem; what a job will have to find out, a warning.
#[derive(Debug, Default)]
pub(crate) struct HookReport {
    /// Reasons not to start.
    pub problems: Vec<Problem>,
    /// What is said at a start.
    pub warnings: Vec<Problem>,
}

/// Looks at all hooks, as `agent` (our own user where there is none) finds them. `resources` says whether those between holders of
/// hardware run, `system` is the image's `/etc/environment`.
pub(crate) fn look(
    directory: &Path,
    resources: bool,
    facts: &AgentFacts,
    (environment, system): (&Environment, &Path),
    agent: Option<&Identity>,
    interpreters: &Interpreters,
) -> HookReport {
    let mut report = HookReport::default();
    let mut found: Vec<(&str, PathBuf)> = Vec::new();
    for event in EVENTS {
        let (place, around_job) = (directory.join(event), event.starts_with("job-"));
        let heeded = if around_job { facts.hooks.is_some() } else { resources };
        match hooks(&place) {
            _ if !heeded && !around_job => {}
            Ok(hooks) if !heeded && !hooks.is_empty() => report.warnings.push(Problem::of(
                "hooks",
                format!("{} has hooks, and the {} runs none around a job", place.display(), facts.title),
                "take them away, or let the pipeline do what they do",
            )),
            _ if !heeded => {}
            Ok(hooks) => {
                // It is the agent's user that looks them up.
                if place.is_dir() && can_access(agent, &place, AccessFlags::R_OK | AccessFlags::X_OK) == Some(false) {
                    let cure = format!("chmod a+rx {}, and what is above it", place.display());
                    let what = "the agent's user cannot look up what is there";
                    report.problems.push(Unfit::new(&place, what, cure).problem("hooks"));
                } else {
                    found.extend(hooks.into_iter().map(|hook| ("hooks", hook)));
                }
            }
            Err(unfit) => report.problems.push(unfit.problem("hooks")),
        }
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !EVENTS.iter().any(|event| name == *event) && !name.as_encoded_bytes().starts_with(b".") {
            let what = format!("nothing runs {}", entry.path().display());
            report.warnings.push(Problem::of("hooks", what, format!("put hooks into one of {}", EVENTS.join(", "))));
        }
    }
    for NamedHook { variable: name, hook, away } in named(facts, environment, system) {
        let shown = hook.display();
        if !hook.is_absolute() {
            let what = format!("{shown} is not an absolute path");
            report.problems.push(Problem::of(name, what, format!("write where it is in the container, or {away}")));
        } else if !hook.is_file() {
            let what = format!("there is no file {shown}");
            report.problems.push(Problem::of(name, what, format!("put the hook there, or {away}")));
        } else {
            found.push((name, hook));
        }
    }
    for (setting, hook) in found {
        if let Err(unfit) = runs(&hook, agent) {
            report.problems.push(unfit.problem(setting));
            continue;
        }
        let what = format!("the hook {} cannot be run", hook.display());
        match interpreters.command(&hook, environment.get("PATH").map(str::as_ref)) {
            Err(why) => {
                report.warnings.push(Problem::of(setting, format!("{what}: {why}"), "until then it fails each job"));
            }
            Ok((program, _)) if program == hook && hook.extension().is_none_or(|kind| kind != "sh") => {
                let missing = interpreter(&hook).filter(|program| !program.exists());
                report.warnings.extend(missing.map(|program| {
                    let what = format!("{what}: its first line names {}, which is not there", program.display());
                    Problem::of(
                        setting,
                        what,
                        "add that to the image, or write the hook for what is there; until then it fails each job",
                    )
                }));
            }
            Ok(_) => {}
        }
    }
    report
}
