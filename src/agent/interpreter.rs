//! Which program runs a hook: by its name's ending, as the agents run theirs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Places;

/// Where the agents' own versions of Node.js lie in an agent.
const EXTERNALS: &str = "externals";

/// Where hooks' interpreters are looked for before the search path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreters {
    /// The image's agent.
    pub agent: PathBuf,
    /// The directory of agents that were fetched in its place.
    pub fetched: PathBuf,
}

/// A hook cannot be run here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it needs {needs}: {cure}")]
pub(crate) struct NoInterpreter {
    needs: String,
    cure: &'static str,
}

impl Interpreters {
    /// Those of a container.
    #[must_use]
    pub(crate) fn of(places: &Places) -> Self {
        Self { agent: places.agent(), fetched: places.fetched_agents() }
    }

    /// The program that runs this hook, and its arguments. What has no ending that is known here is its own program.
    ///
    /// # Errors
    /// When that program is not here.
    pub(crate) fn command(
        &self,
        hook: &Path,
        path: Option<&OsStr>,
    ) -> Result<(OsString, Vec<OsString>), NoInterpreter> {
        let found = |name: &str| program(name, path).map(PathBuf::into_os_string);
        match hook.extension().and_then(OsStr::to_str) {
            Some("js") => {
                let node = self.newest_node().map(PathBuf::into_os_string).or_else(|| found("node"));
                let node = node.ok_or_else(|| NoInterpreter {
                    needs: format!(
                        "Node.js, which is neither in {} nor in PATH",
                        self.agent.join(EXTERNALS).join("node*/bin/node").display()
                    ),
                    cure: "add node to the image, or write the hook in another language",
                })?;
                Ok((node, vec![hook.into()]))
            }
            Some("ps1") => {
                let pwsh = found("pwsh").ok_or_else(|| NoInterpreter {
                    needs: "PowerShell, and no pwsh is in PATH".to_owned(),
                    cure: "add PowerShell to the image, or write the hook in another language",
                })?;
                let mut script = OsString::from(". '");
                script.push(quoted(hook));
                script.push("'");
                Ok((pwsh, vec!["-command".into(), script]))
            }
            _ => Ok((hook.into(), Vec::new())),
        }
    }

    /// The newest Node.js of the agents that are here.
    fn newest_node(&self) -> Option<PathBuf> {
        let agents = entries(&self.fetched).into_iter().filter(|agent| agent.extension() != Some(OsStr::new("half")));
        let externals = agents.chain([self.agent.clone()]).flat_map(|agent| entries(&agent.join(EXTERNALS)));
        let nodes = externals.filter_map(|directory| {
            let version = NodeVersion::of(directory.file_name()?.to_str()?)?;
            let program = directory.join("bin/node");
            executable(&program).then_some((version, program))
        });
        nodes.max().map(|(_, program)| program)
    }
}

/// What the name of a directory says of the Node.js in it, in the order of preference.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeVersion {
    /// One that is made for another C library comes after all that are not.
    usual: bool,
    numbers: Vec<u32>,
}

impl NodeVersion {
    /// `node20`, `node20_1`, `node20_alpine`.
    fn of(name: &str) -> Option<Self> {
        let mut version = Self { usual: true, numbers: Vec::new() };
        for part in name.strip_prefix("node")?.split('_').filter(|part| !part.is_empty()) {
            match part.parse() {
                Ok(number) => version.numbers.push(number),
                Err(_) => version.usual = false,
            }
        }
        Some(version)
    }
}

/// The first program of this name in a search path.
#[must_use]
pub(crate) fn program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|directory| directory.join(name)).find(|program| executable(program))
}

fn executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A path between PowerShell's single quotes.
fn quoted(path: &Path) -> OsString {
    let doubled = path.as_os_str().as_bytes().iter().flat_map(|byte| match byte {
        b'\'' => vec![b'\''; 2],
        other => vec![*other],
    });
    OsStr::from_bytes(&doubled.collect::<Vec<u8>>()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_newest_node_is_taken_by_its_number() {
        let root = tempfile::tempdir().unwrap();
        let interpreters = Interpreters { agent: root.path().join("agent"), fetched: root.path().join("fetched") };
        let hook = Path::new("/h/a.js");
        let taken = |interpreters: &Interpreters| {
            let (node, arguments) = interpreters.command(hook, None).unwrap();
            assert_eq!(arguments, [hook]);
            Path::new(&node).strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned()
        };
        let why = interpreters.command(hook, Some(OsStr::new("/nonexistent"))).unwrap_err().to_string();
        assert!(why.contains("agent/externals/node*/bin/node nor in PATH: add node"), "{why}");
        // Each is preferred to all before it; what cannot be executed is none.
        program(&root.path().join("agent/externals/node99/bin/node"), 0o644);
        program(&root.path().join("agent/externals/other/bin/node"), 0o755);
        let order = [
            "agent/externals/node30_alpine",
            "agent/externals/node",
            "agent/externals/node9",
            "agent/externals/node20",
            "agent/externals/node20_1",
            "fetched/2.400.0/externals/node24",
            "agent/externals/node100",
        ];
        for directory in order {
            let node = format!("{directory}/bin/node");
            program(&root.path().join(&node), 0o755);
            assert_eq!(taken(&interpreters), node);
        }
        program(&root.path().join("fetched/0.half/externals/node200/bin/node"), 0o755);
        assert_eq!(taken(&interpreters), "agent/externals/node100/bin/node", "no agent yet");
    }

    #[test]
    fn other_interpreters_come_from_the_search_path_and_other_hooks_need_none() {
        let root = tempfile::tempdir().unwrap();
        let interpreters = Interpreters { agent: root.path().join("agent"), fetched: root.path().join("fetched") };
        let empty = root.path().join("empty");
        let path = std::env::join_paths([&empty, &root.path().join("bin")]).unwrap();
        let command = |hook: &str| interpreters.command(Path::new(hook), Some(&path));
        let why = command("/h/a.ps1").unwrap_err().to_string();
        assert!(why.contains("no pwsh is in PATH: add PowerShell"), "{why}");
        for name in ["node", "pwsh"] {
            program(&root.path().join("bin").join(name), 0o755);
        }
        let bin = |name: &str| root.path().join("bin").join(name).into_os_string();
        assert_eq!(command("/h/a.js"), Ok((bin("node"), vec!["/h/a.js".into()])));
        assert_eq!(command("/h/it's.ps1"), Ok((bin("pwsh"), vec!["-command".into(), ". '/h/it''s.ps1'".into()])));
        assert_eq!(command("/h/a"), Ok(("/h/a".into(), vec![])));
    }
}
