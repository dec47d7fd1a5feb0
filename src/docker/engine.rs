//! A Docker engine of our own, under PID 1: for runtimes that are a sandbox already (Sysbox, Kata Containers), and for privileged
//! containers.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use super::endpoint::DEFAULT_SOCKET;
use crate::os::Identity;

/// Where the engine keeps images, containers and volumes. All of it goes with the job: it is emptied with the slate.
pub(crate) const DATA: &str = "/var/lib/docker";

/// Where it and its programs are looked for, whatever the container's own path.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the user may say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineSettings {
    /// Registry mirrors.
    pub mirrors: Vec<String>,
    /// The MTU of containers' networks, where the machine's is smaller than Docker believes.
    pub mtu: Option<u16>,
    /// The storage driver, if not of Docker's own choice.
    pub storage: Option<String>,
}

/// The engine's arguments: its socket belongs to the agent's group.
#[must_use]
pub(crate) fn arguments(settings: &EngineSettings, agent: &Identity) -> Vec<OsString> {
    let mut arguments = vec![
        format!("--host=unix://{DEFAULT_SOCKET}"),
        format!("--group={}", agent.gid),
        format!("--data-root={DATA}"),
        "--log-level=warn".to_owned(),
    ];
    arguments.extend(settings.mirrors.iter().map(|mirror| format!("--registry-mirror={mirror}")));
    arguments.extend(settings.mtu.map(|mtu| format!("--mtu={mtu}")));
    arguments.extend(settings.storage.iter().map(|driver| format!("--storage-driver={driver}")));
    arguments.into_iter().map(OsString::from).collect()
}

/// With version 2 of cgroups, a group that has processes of its own cannot have groups below it that limit anything. So the
/// processes of this container move into one group below `root`, and Docker's groups can stand beside it. Nothing happens where
/// the groups are not ours to change, or of version 1.
///
/// # Errors
/// When they can be changed but not all the way.
pub(crate) fn make_room_for_groups(root: &Path) -> io::Result<()> {
    let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) else { return Ok(()) };
    let own = root.join("oscr");
    match fs::create_dir(&own) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        made => made?,
    }
    for process in fs::read_to_string(root.join("cgroup.procs"))?.lines() {
        // It may have ended meanwhile.
        let _ = fs::write(own.join("cgroup.procs"), process);
    }
    let all: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(root.join("cgroup.subtree_control"), all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    #[test]
    fn the_engine_is_told_what_the_user_says() {
        let agent = Identity { uid: Uid::from_raw(1001), gid: Gid::from_raw(1002), groups: Vec::new() };
        let settings = EngineSettings {
            mirrors: vec!["https://a.example".to_owned(), "https://b.example".to_owned()],
            mtu: Some(1400),
            storage: Some("vfs".to_owned()),
        };
        let said = arguments(&settings, &agent).join(&OsString::from(" ")).into_string().unwrap();
        for part in ["--group=1002", "--registry-mirror=https://b.example", "--mtu=1400", "--storage-driver=vfs"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(
            !arguments(&EngineSettings::default(), &agent).iter().any(|word| word.to_string_lossy().contains("mtu"))
        );
    }

    #[test]
    fn groups_get_room_where_they_are_of_version_2_and_ours() {
        let version_1 = tempfile::tempdir().unwrap();
        make_room_for_groups(version_1.path()).unwrap();
        assert_eq!(fs::read_dir(version_1.path()).unwrap().count(), 0);

        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(root.path().join("cgroup.procs"), "1\n17\n").unwrap();
        make_room_for_groups(root.path()).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+cpu +memory +pids");
        // An ordinary file keeps the last of them; the kernel takes each.
        assert_eq!(read("oscr/cgroup.procs"), "17");
    }
}
