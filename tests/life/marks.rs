//! What a job sets on the directories that are emptied and never made anew: lists of access rights, flags, attributes, modes. The
//! test does it in the job's place: whoever owns a directory may.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use oscr::os::flags::Flags;
use oscr::os::xattr;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, allow, each};

/// `u::---,g::---,o::---`: nobody may do anything with what is made in such a directory.
const NO_RIGHTS: &[u8] =
    &[2, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 4, 0, 0, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255];

/// `u::rwx,u:54321:rwx,g::r-x,m::rwx,o::---`: what somebody may have given a volume.
const SOMEBODYS: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 49, 212, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0,
    255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// Where a job can set something that stays.
const PLACES: [&str; 3] = ["work", "work/_tool", "home/runner"];

const PERSISTENT: (&str, &str) = ("RUNNER_PERSISTENT", "true");

type New = for<'f> fn(&'f Forge) -> Container<'f>;

/// A container whose work directory, cache and home are there.
fn with_places(new: New, forge: &Forge) -> Container<'_> {
    let mut container = new(forge);
    container.with_accounts();
    let cache = container.text("work/_tool");
    container.set_all(&[PERSISTENT, ("OSCR_CACHE_DIRS", &cache)]);
    for place in PLACES {
        fs::create_dir_all(container.path(place)).expect("a directory");
        chown(container.path(place), Some(container.uid), Some(container.uid)).expect("root may");
    }
    container
}

/// All that is set on a directory.
fn marks(directory: &Path) -> String {
    let directory = File::open(directory).expect("the directory");
    let list = |name| xattr::of(&directory, name).expect("a list");
    let flags = Flags::of(&directory).expect("flags");
    let mut names = xattr::names(&directory).expect("names");
    names.sort();
    let mode = directory.metadata().expect("a mode").mode();
    format!("{mode:o} {:?} {:?} {flags:?} {names:?}", list(xattr::ACCESS), list(xattr::DEFAULT))
}

/// What a job does that wants to be the last one.
fn spoil(directory: &Path) {
    let open = File::open(directory).expect("the directory");
    for (name, value) in [(xattr::DEFAULT, NO_RIGHTS), (xattr::ACCESS, SOMEBODYS), (c"user.planted", b"x")] {
        xattr::set(&open, name, value).expect("a file system with lists and attributes");
    }
    if Flags::of(&open).expect("flags").is_some() {
        let marked = Command::new("chattr").arg("+dA").arg(directory).status();
        assert!(marked.expect("chattr of e2fsprogs").success());
    }
    assert!(!marks(directory).contains("None None"));
}

/// Has a job fill all places, which must succeed.
#[track_caller]
fn works(forge: &Forge, container: &Container) {
    let places = PLACES.map(|place| container.text(place)).join(" ");
    let script = format!(
        "set -e; mkdir here; for place in {places}; do mkdir -p $place/made/deep; echo x >$place/made/deep/file; done"
    );
    let job = forge.wait_job(forge.job(&script), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
}

/// Runs a job in whose time the test may look and do something.
#[track_caller]
fn during_a_job(forge: &Forge, container: &Container, something: impl FnOnce()) {
    let mut gate = container.gate();
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    something();
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    fs::remove_file(container.path("gate")).expect("the gate");
}

#[test]
fn a_default_list_of_no_rights_breaks_no_later_job() {
    let kinds: [New; 2] = [|forge| Container::new(forge), |forge| Container::azure(forge)];
    each(&kinds, |new| {
        let forge = Forge::start();
        let mut container = with_places(*new, &forge);
        container.start();
        forge.listening();
        let paths: Vec<PathBuf> = PLACES.iter().map(|place| container.path(place)).collect();
        let all = || paths.iter().map(|path| marks(path)).collect::<Vec<_>>();
        let before = all();
        let spoil = || {
            assert_eq!(all(), before);
            paths.iter().for_each(|path| spoil(path));
        };
        during_a_job(&forge, &container, spoil);
        works(&forge, &container);
        // Nor when nobody has the time to put it right.
        let gate = container.gate();
        let job = forge.job(&gate.wait());
        forge.wait_log(job, "at the gate");
        spoil();
        container.signal(Signal::SIGKILL);
        container.exit_code();
        assert!(forge.let_go(forge.runner_of(job)));
        container.start();
        works(&forge, &container);
    });
}

#[test]
fn a_volume_gets_back_what_it_had_and_another_in_its_place_does_not_get_it() {
    let forge = Forge::start();
    let mut container = with_places(|forge| Container::new(forge), &forge);
    for volume in ["first", "second"] {
        fs::create_dir(container.path(volume)).expect("a directory");
    }
    let (volume, other) = (container.path("first"), container.path("second"));
    let open = File::open(&volume).expect("the directory");
    let lists = [xattr::DEFAULT, xattr::ACCESS];
    for name in lists {
        xattr::set(&open, name, SOMEBODYS).expect("a file system with lists");
    }
    let before = marks(&volume);
    let place = container.text("work");
    container.in_namespace(&format!("mount --bind '{}' '{place}'", volume.display()));
    for _ in 0..2 {
        container.start();
        during_a_job(&forge, &container, || {
            assert_eq!(marks(&volume), before);
            spoil(&volume);
        });
        during_a_job(&forge, &container, || {
            assert_eq!(marks(&volume), before);
            for name in lists {
                xattr::remove(&open, name).expect("our own directory");
            }
        });
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        assert_eq!(marks(&volume), before);
    }
    container.in_namespace(&format!("mount --bind '{}' '{place}'", other.display()));
    container.start();
    for _ in 0..2 {
        during_a_job(&forge, &container, || {
            assert!(marks(&other).contains(" None None "), "{}", marks(&other));
            spoil(&other);
        });
    }
}

#[test]
fn a_place_in_memory_is_as_new_for_each_job() {
    let forge = Forge::start();
    let mut container = with_places(|forge| Container::new(forge), &forge);
    let place = container.text("work");
    container.in_namespace(&format!("mount -t tmpfs -o mode=0755 none '{place}'"));
    container.start();
    forge.listening();
    let work = PathBuf::from(format!("/proc/{}/root{place}", container.pid()));
    let before = marks(&work);
    for _ in 0..2 {
        during_a_job(&forge, &container, || {
            assert_eq!(marks(&work), before);
            spoil(&work);
        });
        works(&forge, &container);
    }
}

#[test]
fn what_cannot_be_taken_back_is_dirty_and_says_so() {
    let forge = Forge::start();
    let mut container = with_places(|forge| Container::new(forge), &forge);
    // As every container is that was not given the capability.
    let entry = container.text("usr/local/bin/oscr-entry");
    container.in_namespace(&format!("exec setpriv --bounding-set -linux_immutable '{entry}'"));
    container.start();
    forge.listening();
    let cache = container.path("work/_tool");
    let change = |flag: &str| Command::new("chattr").arg(flag).arg(&cache).status().expect("chattr").success();
    let mut known = false;
    during_a_job(&forge, &container, || known = change("+i"));
    if !known {
        println!("skipped: this file system has no such flags");
        return;
    }
    let why = container.wait_line("trying again in");
    for part in ["work/_tool", "inode flags", "Operation not permitted", "--force-recreate"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let status = container.wait_phase("dirty");
    assert_eq!(status["healthy"], false, "{status}");
    assert!(change("-i"));
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    container.start();
    forge.listening();
}

#[test]
fn an_ordinary_user_takes_back_what_its_jobs_set() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set_all(&[PERSISTENT]);
    let (entry, uid) = (container.text("usr/local/bin/oscr-entry"), container.uid);
    for place in ["", "work", "runner", "var/lib/oscr", "run/oscr", "run/secrets", "run/secrets/github_pat"] {
        if place != "run/secrets/github_pat" {
            fs::create_dir_all(container.path(place)).expect("a directory");
        }
        chown(container.path(place), Some(uid), Some(uid)).expect("root may");
    }
    container
        .in_namespace(&format!("exec setpriv --pdeathsig KILL --reuid {uid} --regid {uid} --clear-groups '{entry}'"));
    container.start();
    let work = container.path("work");
    forge.listening();
    let before = marks(&work);
    let gate = container.gate();
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    spoil(&work);
    // No job gets over this one, not even its own end.
    allow(&work, 0);
    drop(gate);
    forge.wait_job(job, LIMIT);
    fs::remove_file(container.path("gate")).expect("the gate");
    during_a_job(&forge, &container, || assert_eq!(marks(&work), before));
    let job = forge.wait_job(forge.job("mkdir made && echo x >made/file"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
}
