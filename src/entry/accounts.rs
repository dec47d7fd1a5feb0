//! Who jobs run as: the agent's account, with the groups that the container was given.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use crate::config::{Common, Problem};
use crate::init::account::{Account, Accounts};
use crate::os::Identity;

/// The agent's account, and the identity to become, with the group of a mounted Docker socket.
pub(super) fn agent_account(common: &Common, problems: &mut Vec<Problem>) -> (Account, Option<Identity>) {
    let accounts = Accounts::default();
    let root = Uid::effective().is_root();
    let spec = if root { common.agent_user.clone() } else { Uid::effective().to_string() };
    let mut account = match accounts.resolve(&spec) {
        Ok(account) => account,
        Err(error) => {
            problems.push(Problem::of("OSCR_AGENT_USER", &error, "name a user of this image, or its number"));
            let identity = Identity { uid: Uid::effective(), gid: Gid::effective(), groups: Vec::new() };
            let nobody = Account { name: spec, identity, home: PathBuf::from("/"), shell: PathBuf::from("/bin/sh") };
            // Without an identity: what it could read is no further problem, and no reason to change a file.
            return (nobody, None);
        }
    };
    if !root {
        return (account, None);
    }
    if account.identity.uid.is_root() {
        problems.push(Problem::of(
            "OSCR_AGENT_USER",
            "jobs may not run as root: they could read every secret",
            "name an ordinary user, such as runner",
        ));
        return (account, None);
    }
    if let Some(gid) = docker_group(&common.places.docker_socket()) {
        if gid.as_raw() == 0 && !common.docker_gid0 {
            tracing::warn!(
                "Docker's socket belongs to group 0, which the agent is not given; OSCR_DOCKER_GID0=true allows it"
            );
        } else if !account.identity.groups.contains(&gid) {
            account.identity.groups.push(gid);
        }
    }
    // What root belongs to by /etc/group came with the image, and was not meant for jobs.
    let roots = accounts.resolve("0").map(|root| root.identity.groups).unwrap_or_default();
    let own = nix::unistd::getgroups().unwrap_or_default();
    account.identity.groups = with_added_groups(account.identity.groups, &own, &roots);
    let identity = account.identity.clone();
    (account, Some(identity))
}

/// The agent's groups, and those that the container was given besides (`group_add`, `docker run --group-add`): they say which
/// devices jobs may use. Never group 0, whose files are root's.
fn with_added_groups(mut groups: Vec<Gid>, container: &[Gid], roots: &[Gid]) -> Vec<Gid> {
    for gid in container {
        if gid.as_raw() != 0 && !roots.contains(gid) && !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    groups
}

fn docker_group(socket: &Path) -> Option<Gid> {
    let meta = fs::metadata(socket).ok()?;
    meta.file_type().is_socket().then(|| Gid::from_raw(meta.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_added_to_the_container_reach_the_agent_but_roots_own_do_not() {
        let gids = |raw: &[u32]| raw.iter().copied().map(Gid::from_raw).collect::<Vec<_>>();
        let groups = with_added_groups(gids(&[1001, 20]), &gids(&[0, 6, 20, 4711]), &gids(&[0, 6]));
        assert_eq!(groups, gids(&[1001, 20, 4711]));
    }
}
