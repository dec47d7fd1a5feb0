//! Emptying a directory, safely against whatever is in it.
//!
//! Several threads share the work. One that has none is given a whole subtree, which is renamed up to the top first. So
//! nobody waits for anybody, and a tree of any depth or width needs no more memory and descriptors than a small one.

mod crew;
mod opening;
mod terms;
mod tree;
mod walk;

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use crew::lock;
use opening::reopen;
pub(super) use opening::{DIRECTORY, enter};
pub(crate) use terms::{Reins, Spare, Terms, Wiped};
use tree::Tree;
use walk::Walk;

/// How often the top is gone over again while there is progress.
const ROUNDS: usize = 10_000;
/// Entries that one thread removes before others are asked to help. Starting them costs as much as some dozens of these.
const ALONE: u64 = 1000;
/// The most threads. More only wait for the file system's own locks.
const THREADS: usize = 4;

/// Removes everything in `top`, but not `top` itself.
///
/// # Errors
/// When `top` cannot be opened as a directory, or is a link. What cannot be removed inside is in [`Wiped::failures`].
pub(crate) fn wipe(top: &Path, spare: &Spare) -> io::Result<Wiped> {
    wipe_so(top, spare, Terms::default())
}

/// The same in this manner.
///
/// # Errors
/// As [`wipe`].
pub(super) fn wipe_so(top: &Path, spare: &Spare, manner: Terms<'_>) -> io::Result<Wiped> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let started = Instant::now();
    let directory = enter(AT_FDCWD, top)?;
    let all = Tree::new(top, directory, spare, manner)?;
    for round in 0..=ROUNDS {
        let before = all.progress();
        all.begin_round();
        let mut alone = Walk::new(&all, (round == 0).then_some(ALONE));
        alone.pass(&reopen(&all.top)?, &all.path, 0);
        if alone.spent() || all.crew.waits() {
            let top = reopen(&all.top)?;
            let first = |walk: &mut Walk<'_>| {
                walk.pass(&top, &all.path, 0);
            };
            all.crew.together(threads, || Walk::new(&all, None), first, Walk::subtree);
        }
        if all.progress() == before || all.halted() {
            break;
        }
        if round == ROUNDS {
            all.failed(&all.path, Errno::EBUSY);
        }
    }
    let mut wiped = lock(&all.wiped).clone();
    wiped.entries = all.entries.load(Ordering::Relaxed);
    wiped.bytes = all.bytes.load(Ordering::Relaxed);
    wiped.took = started.elapsed();
    Ok(wiped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::Mode;
    use nix::unistd::Uid;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn everything_goes_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        fs::write(top.path().join("a/b/file"), vec![0; 10_000]).unwrap();
        symlink(outside.path(), top.path().join("a/link")).unwrap();
        symlink("/", top.path().join("root")).unwrap();
        nix::unistd::mkfifo(&top.path().join("a/fifo"), Mode::S_IRWXU).unwrap();
        let wiped = wipe(top.path(), &Spare::default()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
        assert_eq!(wiped.entries, 7);
        assert!(wiped.bytes >= 10_000, "{wiped:?}");
        assert!(wiped.failures.is_empty());
    }

    #[test]
    fn a_link_in_place_of_the_top_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        fs::write(directory.path().join("real/file"), "x").unwrap();
        symlink(directory.path().join("real"), directory.path().join("link")).unwrap();
        assert!(wipe(&directory.path().join("link"), &Spare::default()).is_err());
        assert!(directory.path().join("real/file").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let top = tempfile::tempdir().unwrap();
        let mut directory = enter(AT_FDCWD, top.path()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            directory = openat(&directory, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let wiped = wipe(top.path(), &Spare::default()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        assert_eq!(wiped.entries, 3000);
    }

    #[test]
    fn many_files_and_odd_names_and_modes_go() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..5000 {
            fs::write(top.path().join(format!("f{number}")), "").unwrap();
        }
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\n*");
        fs::create_dir(top.path().join(odd)).unwrap();
        fs::write(top.path().join(odd).join("x"), "").unwrap();
        fs::set_permissions(top.path().join(odd), fs::Permissions::from_mode(0o000)).unwrap();
        wipe(top.path(), &Spare::default()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn entries_of_others_stay_where_asked() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        let somebody = Uid::from_raw(Uid::effective().as_raw() + 1);
        let wiped = wipe(top.path(), &Spare { only_of: Some(somebody), ..Spare::default() }).unwrap();
        assert_eq!(wiped.entries, 0);
        assert!(top.path().join("file").exists());
    }
}
