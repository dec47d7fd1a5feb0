//! The longer of the commands: to make a container, to run a step in one, and to run an action.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::paths::{self, Paths};
use super::words::words;
use super::{Container, Containers, Places, name_of};

/// Where jobs' containers get the socket from, whatever `DOCKER_HOST` says.
const SOCKET: &str = "/var/run/docker.sock";

impl Containers {
    /// What makes a container, which is started later.
    pub(super) fn create_arguments(&self, container: &Container) -> Result<Vec<String>, String> {
        let Places { root, work, temp, tools, workspace } = &self.places;
        let spec = &container.spec;
        let of_job = container.service.is_none();
        let paths = Paths::of_job(&self.places);
        let mut all: Vec<String> = vec!["create".into()];
        let mut option = |name: &str, value: &str| all.extend([name.to_owned(), value.to_owned()]);
        option("--name", &container.name);
        option("--label", &self.label);
        if of_job {
            option("--workdir", &paths.translate(&workspace.to_string_lossy()));
        }
        option("--network", self.network.as_deref().unwrap_or_default());
        if let Some(alias) = &container.service {
            option("--network-alias", alias);
        }
        for port in &spec.ports {
            option("-p", port);
        }
        all.extend(words(&spec.options));
        let mut option = |name: &str, value: &str| all.extend([name.to_owned(), value.to_owned()]);
        let mut env = spec.env.clone();
        if of_job {
            env.push(("HOME".into(), paths::HOME.into()));
        }
        for (key, value) in &env {
            // A variable without a value is the worker's own.
            option("-e", &if value.is_empty() { key.clone() } else { format!("{key}={value}") });
        }
        option("-e", "GITHUB_ACTIONS=true");
        if !env.iter().any(|(key, _)| key == "CI") {
            option("-e", "CI=true");
        }
        if of_job {
            option("-v", &mount(Path::new(SOCKET), SOCKET));
        }
        for volume in &spec.volumes {
            option("-v", volume);
        }
        if !of_job {
            all.push(spec.image.clone());
            return Ok(all);
        }
        let (home, workflow) = (temp.join("_github_home"), temp.join("_github_workflow"));
        for folder in [&home, &workflow] {
            fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        let same = |path: &Path| mount(path, &paths.translate(&path.to_string_lossy()));
        option("-v", &same(work));
        option("-v", &(same(&root.join("externals")) + ":ro"));
        for folder in [temp, &work.join("_actions"), tools, &home, &workflow] {
            option("-v", &same(folder));
        }
        option("--entrypoint", "tail");
        all.extend([&spec.image, "-f", "/dev/null"].map(str::to_owned));
        Ok(all)
    }

    /// What runs a step's script in the job's own container. `env` has the job's own variables only, which the container
    /// gets in its terms; the command itself keeps the worker's environment. `first` comes before the container's `PATH`.
    ///
    /// # Errors
    ///
    /// When the container is not there: a step with `always()` comes to this after a failed [`Self::initialize`].
    pub(in crate::agent) fn exec(
        &self,
        script: &Path,
        first: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<Command, String> {
        let id = self.own().and_then(|own| own.id.as_ref()).ok_or("Value cannot be null. (Parameter 'ContainerId')")?;
        let paths = Paths::of_job(&self.places);
        let mut command = Command::new(&self.docker.program);
        command.current_dir(&self.places.work).args(["exec", "-i", "--workdir"]);
        command.arg(paths.translate(&self.places.workspace.to_string_lossy()));
        for (key, value) in env {
            command.args(["-e", key]).env(key, paths.translate(value));
        }
        if !first.is_empty() {
            let path = if self.path.is_empty() { first.to_owned() } else { format!("{first}:{}", self.path) };
            command.arg("-e").arg(format!("PATH={path}"));
        }
        command.args([id, "sh", "-e"]).arg(paths.translate(&script.to_string_lossy()));
        Ok(command)
    }

    /// What runs a step that is an image. `args` is split as a command line is; `env` as for [`Self::exec`].
    ///
    /// # Errors
    ///
    /// When a folder cannot be made.
    pub(in crate::agent) fn action(
        &self,
        image: &str,
        entrypoint: &str,
        args: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<Command, String> {
        let mut env = env.clone();
        for (name, value) in [("INPUT_ENTRYPOINT", entrypoint), ("INPUT_ARGS", args)] {
            if !value.is_empty() {
                env.insert(name.into(), value.into());
            }
        }
        let home = self.places.temp.join("_github_home");
        fs::create_dir_all(&home).map_err(|why| format!("{}: {why}", home.display()))?;
        env.insert("HOME".into(), home.to_string_lossy().into_owned());
        let paths = Paths::of_action(&self.places, self.mounts_temp);
        let mut command = Command::new(&self.docker.program);
        command.current_dir(&self.places.workspace);
        command.args(["run", "--name", &name_of(image), "--label", &self.label]);
        command.args(["--workdir", paths::WORKSPACE, "--rm"]);
        for (key, value) in &env {
            command.args(["-e", key]).env(key, paths.translate(value));
        }
        command.args(["-e", "GITHUB_ACTIONS=true"]);
        if !env.contains_key("CI") {
            command.args(["-e", "CI=true"]);
        }
        if !entrypoint.is_empty() {
            command.args(["--entrypoint", entrypoint]);
        }
        if let Some(network) = &self.network {
            command.args(["--network", network]);
        }
        command.args(["-v", &mount(Path::new(SOCKET), SOCKET)]);
        for (ours, theirs) in paths.mounts() {
            command.args(["-v", &mount(Path::new(ours), theirs)]);
        }
        command.arg(image).args(words(args));
        Ok(command)
    }
}

fn mount(ours: &Path, theirs: &str) -> String {
    format!("{}:{theirs}", ours.display())
}
