//! Keeping secrets away from the agent's user: out of our own environment, and out of files that it could read.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{AccessFlags, access};
use zeroize::Zeroizing;

use crate::config::{Environment, Problem, Secret, SecretError, SecretSource};
use crate::os;
use crate::os::Identity;
use crate::os::access::{READ, may};
use crate::provider::Forges;

/// Names the descriptor in which our earlier self left the secrets of its environment.
const STASH: &str = "OSCR_STASH_FD";

/// Where files are the system's, and their modes not OSCR's to change.
const SYSTEM: [&str; 6] = ["/bin", "/etc", "/lib", "/sbin", "/usr", "/var/lib"];

/// The environment, with secrets, of a process whose own environment holds none any more.
///
/// The kernel shows the environment that a process was started with to whoever may look, for as long as it lives. So if
/// there is a secret in it, this program executes itself anew without, and hands the secrets over in anonymous memory. Does
/// not return in that case.
///
/// # Errors
/// When the hand-over fails; nothing is started then.
pub(super) fn environment_without_trace(forges: Forges) -> io::Result<Vec<(OsString, OsString)>> {
    let mut variables: Vec<_> = std::env::vars_os().collect();
    if let Some(at) = variables.iter().position(|(name, _)| name == STASH) {
        let (_, number) = variables.swap_remove(at);
        let number = number.to_str().and_then(|number| number.parse().ok()).unwrap_or(-1);
        let stash = Zeroizing::new(os::unstash(number)?);
        let pairs: Vec<(String, String)> = serde_json::from_slice(&stash).map_err(io::Error::from)?;
        variables.extend(pairs.into_iter().map(|(name, value)| (name.into(), value.into())));
        return Ok(variables);
    }
    let (secret, plain): (Vec<_>, Vec<_>) = variables.into_iter().partition(|(name, value)| {
        name.to_str().is_some_and(|name| forges.is_secret(name)) && value.to_str().is_some()
    });
    if secret.iter().all(|(_, value)| value.is_empty()) {
        return Ok(plain);
    }
    let pairs: Vec<(&str, &str)> =
        secret.iter().filter_map(|(name, value)| name.to_str().zip(value.to_str())).collect();
    let json = Zeroizing::new(serde_json::to_vec(&pairs).map_err(io::Error::from)?);
    let (_stash, number) = os::stash(&json).map_err(|error| {
        let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        io::Error::other(format!(
            "{error} (memfd_create): let the engine's filter of system calls pass it, or give {names} as files"
        ))
    })?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(plain)
        .env(STASH, number.to_string())
        .exec();
    Err(error)
}

/// Every secret that this container was given, whether this configuration makes use of it or not: a job could.
pub(super) fn given(forges: Forges, environment: &Environment) -> Vec<SecretSource> {
    let of = |(name, value): (&str, &str)| match name.strip_suffix("_FILE") {
        Some(plain) if forges.is_secret(plain) => Some(SecretSource::file(name, PathBuf::from(value))),
        _ if forges.is_secret(name) => Some(SecretSource::environment(name, Secret::new(value.to_owned()))),
        _ => None,
    };
    // A file without content is what Compose makes of a secret that is unset.
    let meant = environment.iter().filter_map(|(name, _)| Some((name, environment.get(name)?)));
    meant
        .filter_map(of)
        .filter(|source| !matches!(source.read(), Err(SecretError::Empty { .. } | SecretError::Unreadable { .. })))
        .collect()
}

/// What there is to say about a secret's file that the agent's user can read, unless [`guard`] can close it: `Ok(true)` where it has to.
///
/// # Errors
/// The problem, with its cure.
pub(super) fn could_guard(source: &SecretSource, agent: &Identity) -> Result<bool, Problem> {
    let Some(path) = source.path().filter(|path| may(agent, path, READ)) else {
        return Ok(false);
    };
    let problem = |what: String, cure: &str| Problem::of(&source.setting, what, cure);
    let on_own_layer = match (fs::metadata(path), fs::metadata("/")) {
        (Ok(file), Ok(root)) => file.dev() == root.dev(),
        _ => false,
    };
    if !on_own_layer {
        return Err(problem(
            format!("{} can be read by the agent's user, and so by every job", path.display()),
            "on the host, give the file to root and make its mode 0400 (chown 0:0, chmod 400), or use a Compose secret; \
             Swarm's secrets have mode: 0400, those of Kubernetes defaultMode: 0400",
        ));
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if SYSTEM.iter().any(|place| real.starts_with(place)) {
        return Err(problem(
            format!(
                "{} can be read by every job, and is a file of the system, which OSCR does not close",
                path.display()
            ),
            "name the secret's own file, such as one in /run/secrets; or make its mode 0400",
        ));
    }
    match access(path, AccessFlags::W_OK) {
        Err(error) => Err(cannot_be_closed(source, path, &error.into())),
        Ok(()) => Ok(true),
    }
}

fn cannot_be_closed(source: &SecretSource, path: &Path, error: &io::Error) -> Problem {
    let what = format!("{} can be read by the agent's user and cannot be protected: {error}", path.display());
    Problem::of(&source.setting, what, "give the file to root and make its mode 0400")
}

/// Makes a secret's file unreadable for the agent's user, if that is ours to do: Compose puts a copy of mode 0444 into the
/// container. A file on a mount belongs to the host, and changing it there would be a surprise.
///
/// # Errors
/// The problem, with its cure, when the agent could read the file.
pub(super) fn guard(source: &SecretSource, agent: &Identity) -> Result<(), Problem> {
    let Some(path) = source.path() else {
        return Ok(());
    };
    if !could_guard(source, agent)? {
        return Ok(());
    }
    let protect = || {
        lchown(path, Some(0), Some(0))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o400))
    };
    match protect() {
        Ok(()) if !may(agent, path, READ) => Ok(()),
        Ok(()) => Err(Problem::of(
            &source.setting,
            format!("{} stays readable for the agent's user", path.display()),
            "mount it read-only for root",
        )),
        Err(error) => Err(cannot_be_closed(source, path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    #[test]
    fn a_file_of_the_system_is_refused_rather_than_closed() {
        let agent = Identity { uid: Uid::from_raw(54321), gid: Gid::from_raw(54321), groups: Vec::new() };
        let source = |file: &Path| SecretSource::file("GITHUB_PAT_FILE", file.to_owned());
        assert!(could_guard(&source(Path::new("/etc/passwd")), &agent).is_err());
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(could_guard(&source(&link), &agent).is_err());
        assert!(!could_guard(&source(&directory.path().join("missing")), &agent).unwrap());
    }
}
