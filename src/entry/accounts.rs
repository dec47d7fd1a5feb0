//! Who jobs run as: the agent's account, with the groups that the container was given.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Gid, Uid, access};

use crate::config::{Common, Places, Problem};
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
    give_home(&mut account, &common.places);
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

/// A home of our own for an account without one, as orchestrators make them: a number alone, or an entry whose home is not there. Tools
/// write into it, and what they leave there must be wiped.
fn give_home(account: &mut Account, places: &Places) {
    if account.home != Path::new("/") && account.home.is_dir() {
        return;
    }
    let homes = places.spare_homes();
    let can_be_made = |home: &&PathBuf| {
        let above = home.ancestors().find(|place| place.exists());
        above.is_some_and(|above| access(above, AccessFlags::W_OK | AccessFlags::X_OK).is_ok())
    };
    let home = homes.iter().find(can_be_made).unwrap_or(&homes[1]).clone();
    let lacking = if account.home == Path::new("/") { "no home" } else { "a home that is not there" };
    tracing::info!("user {} has {lacking} in /etc/passwd: its home is {}, made by OSCR", account.name, home.display());
    account.home = home;
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
    fn an_account_without_a_home_gets_one_of_ours_and_another_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path().to_owned());
        let home = |home: PathBuf| {
            let identity = Identity { uid: Uid::effective(), gid: Gid::effective(), groups: Vec::new() };
            let mut account = Account { name: "4711".to_owned(), identity, home, shell: PathBuf::from("/bin/sh") };
            give_home(&mut account, &places);
            account.home
        };
        for missing in ["/", "/nonexistent"] {
            assert_eq!(home(PathBuf::from(missing)), root.path().join("home/oscr"));
        }
        assert_eq!(home(root.path().to_owned()), root.path());
    }

    #[test]
    fn groups_added_to_the_container_reach_the_agent_but_roots_own_do_not() {
        let gids = |raw: &[u32]| raw.iter().copied().map(Gid::from_raw).collect::<Vec<_>>();
        let groups = with_added_groups(gids(&[1001, 20]), &gids(&[0, 6, 20, 4711]), &gids(&[0, 6]));
        assert_eq!(groups, gids(&[1001, 20, 4711]));
    }
}
