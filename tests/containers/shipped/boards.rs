//! `compose.boards.yml`: two organisations on two boards.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::thread;
use std::time::Instant;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use oscr::resource::Occupancy;
use oscr_sim::forge::Job;
use oscr_sim::patience::{LIMIT, patient};

use super::{Shipped, succeeded, wait_healthy, wait_listening};
use crate::boards::{BOARDS, LOOK, a_job, survey};
use crate::world::World;

/// Looks at a board until what is seen is as wanted.
#[track_caller]
fn wait_board(locks: &Path, board: usize, what: &str, wanted: impl Fn(&Occupancy) -> bool) {
    let until = Instant::now() + patient(LIMIT);
    loop {
        let survey = survey(locks, board);
        if wanted(&survey) {
            return;
        }
        assert!(Instant::now() < until, "{what}: {survey:?}");
        thread::sleep(LOOK);
    }
}

/// The numbers of the groups that own the devices, which the image does not know.
const SERIAL_GID: u32 = 4711;
const KVM_GID: u32 = 4712;

/// A character device of the kernel's (major number 1) under a name of ours, for root and one group.
fn device(path: &Path, minor: u64, group: u32) {
    mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(1, minor)).expect("root can make device nodes");
    chown(path, None, Some(group)).expect("root can give a file to any group");
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).expect("its mode can be set");
}

/// What a job does with the board that it has.
const USE: &str = r#"
echo "start $(date +%s%N)"
echo "groups $(id -G)"
exec 3<>/dev/ttyUSB0 4</dev/kvm
echo "device $(stat -c %t:%T /dev/ttyUSB0), kvm $(stat -c %t:%T /dev/kvm), resource $OSCR_RESOURCE"
"#;
const END: &str = "echo \"end $(date +%s%N)\"\n";

/// The time that a job printed after this word, in nanoseconds.
#[track_caller]
fn stamp(job: &Job, word: &str) -> u128 {
    let found = job.log.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("«{}» does not say {word}: {}", job.name, job.log))
}

/// The boards' compose files with two boards, two organisations, and devices of the world's own.
pub(super) fn with_boards<'a>(world: &'a World, files: &str, more: &[(&str, &str)]) -> Shipped<'a> {
    let folder = world.folder.path();
    let path = |name: &str| folder.join(name).to_str().expect("a path is text").to_owned();
    // zero, null and full: each can be opened, and is told from the others by its number.
    for (name, minor, group) in [("tty-1", 5, SERIAL_GID), ("tty-2", 3, SERIAL_GID), ("kvm", 7, KVM_GID)] {
        device(&folder.join(name), minor, group);
    }
    for name in ["locks-1", "locks-2", "hooks"] {
        fs::create_dir(folder.join(name)).expect("a directory can be made");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    }
    for name in ["acme_pat", "umbrella_pat"] {
        fs::write(folder.join(name), &world.pat).expect("a secret can be written");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o400)).expect("its mode can be set");
    }
    let (serial, kvm) = (SERIAL_GID.to_string(), KVM_GID.to_string());
    let values = &[
        ("GITHUB_HOST", "http://forge"),
        ("ACME_PAT_FILE", &path("acme_pat")),
        ("UMBRELLA_PAT_FILE", &path("umbrella_pat")),
        ("BOARD_1_TTY", &path("tty-1")),
        ("BOARD_2_TTY", &path("tty-2")),
        ("KVM_DEVICE", &path("kvm")),
        ("BOARD_1_LOCKS", &path("locks-1")),
        ("BOARD_2_LOCKS", &path("locks-2")),
        ("BOARD_HOOKS", &path("hooks")),
        ("SERIAL_GID", &serial),
        ("KVM_GID", &kvm),
        // The same machine has a runner of compose.yml, whose settings are not these runners'.
        ("GITHUB_PAT", "ghp_ofAnotherRunner000000000000000000000"),
        ("GITHUB_REPO", "another"),
        ("REPO_URL", "https://github.com/another/one"),
        ("LABELS", "another"),
        ("RUNNER_NAME", "another"),
        ("RUNNER_LOCK_DIR", "/another"),
        ("GITHUB_APP_ID", "1"),
        ("RUNNER_TOKEN", "another"),
        ("ACCESS_TOKEN", "another"),
    ];
    Shipped::new(world, files, &[&values[..], more].concat())
}

pub fn two_organisations_take_turns_on_the_boards_of_compose_boards_yml(world: &World) {
    let folder = world.folder.path();
    let path = |name: &str| folder.join(name).to_str().expect("a path is text").to_owned();
    let shipped = with_boards(world, "compose.boards.yml", &[]);
    shipped.compose(&["up", "--detach", "--scale", "acme-board-1=2"]);
    wait_listening(world, 5);
    for (service, scale) in [("acme-board-1", 2), ("acme-board-2", 1), ("umbrella-board-1", 1), ("umbrella-board-2", 1)]
    {
        let (organisation, board) = service.split_once('-').expect("a service is called so");
        let containers = shipped.containers(service);
        assert_eq!(containers.len(), scale, "{service}");
        for container in &containers {
            wait_healthy(container);
            let facts = container.inspect();
            assert_eq!(facts["RestartCount"], 0, "{service}");
            let mounts = facts["Mounts"].as_array().expect("it has mounts");
            let secret = mounts.iter().find(|mount| mount["Destination"] == "/run/secrets/github_pat");
            let own = path(&format!("{organisation}_pat"));
            assert!(secret.is_some_and(|mount| mount["Source"] == own.as_str()), "{service}: {mounts:?}");
            let runner = world.forge.wait_runner(container.host(), 0);
            assert_eq!(runner.scope, format!("orgs/{organisation}"), "{service}");
            assert!(runner.labels.iter().any(|label| label == board), "{service}: {runner:?}");
        }
    }

    // One job has board 1 until it is told to end, and two wait for it in the order in which they came.
    let locks = folder.join("locks-1");
    let send = |organisation: &str, board: usize, name: &str, script: &str| {
        world.forge.submit(&a_job(BOARDS[board], organisation, name, &format!("{USE}{script}{END}")))
    };
    let holder = send("acme", 0, "holder", "until [ -e /tmp/go-on ]; do sleep 0.1; done\n");
    wait_board(&locks, 0, "acme should have board-1", |board| {
        board.holder.as_ref().is_some_and(|holder| holder.to_string().contains("acme"))
    });
    let second = send("umbrella", 0, "second", "");
    wait_board(&locks, 0, "umbrella should wait for board-1", |board| board.queue.len() == 1);
    let third = send("acme", 0, "third", "");
    wait_board(&locks, 0, "acme should wait for board-1 too", |board| board.queue.len() == 2);
    // Nobody has board 2, on which both work meanwhile.
    let others = ["acme", "umbrella"].map(|organisation| send(organisation, 1, "other", ""));
    let mut others = others.map(|id| succeeded(world, id));
    let runner = world.forge.job(holder).runner.expect("a job that runs has a runner");
    let container = shipped.containers("acme-board-1").into_iter().find(|container| runner.contains(container.host()));
    container.expect("its container is there").must_exec("0", "touch /tmp/go-on");
    let turns = [holder, second, third].map(|id| succeeded(world, id));
    for job in &turns[1..] {
        assert!(job.log.contains("waiting for board-1: held by"), "{}", job.log);
    }
    others.sort_by_key(|job| stamp(job, "start"));
    for jobs in [&turns[..], &others[..]] {
        for pair in jobs.windows(2) {
            let (end, start) = (stamp(&pair[0], "end"), stamp(&pair[1], "start"));
            assert!(end <= start, "«{}» and «{}» had the board at the same time", pair[0].name, pair[1].name);
        }
    }
    for (jobs, used) in [
        (&turns[..], "device 1:5, kvm 1:7, resource board-1\n"),
        (&others[..], "device 1:3, kvm 1:7, resource board-2\n"),
    ] {
        for job in jobs {
            assert!(job.log.contains(used), "{}", job.log);
            let groups = job.log.lines().find_map(|line| line.strip_prefix("groups ")).unwrap_or_default();
            let groups: Vec<&str> = groups.split(' ').collect();
            assert!([SERIAL_GID, KVM_GID].iter().all(|gid| groups.contains(&gid.to_string().as_str())), "{}", job.log);
        }
    }
}

pub fn a_job_on_compose_boards_hardened_yml_has_its_board_and_cannot_change_the_image(world: &World) {
    let shipped = with_boards(world, "compose.boards.yml:compose.boards.hardened.yml", &[]);
    shipped.compose(&["up", "--detach"]);
    wait_listening(world, 4);
    for service in ["acme-board-1", "acme-board-2", "umbrella-board-1", "umbrella-board-2"] {
        let container = shipped.containers(service).remove(0);
        let (changed, said) = container.exec("0", "touch /etc/changed");
        assert!(!changed && said.contains("Read-only file system"), "{service}: {said}");
    }
    let job = world.forge.submit(&a_job(BOARDS[1], "umbrella", "hardened", &format!("{USE}{END}")));
    let log = succeeded(world, job).log;
    assert!(log.contains("device 1:3, kvm 1:7, resource board-2\n"), "{log}");
}
