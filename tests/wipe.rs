//! Hostile trees: whatever a job made of a directory, emptying it leaves nothing there, touches nothing else, ends, and needs
//! little memory and few descriptors. Each case runs `oscr-entry wipe` in a process of its own with tight limits.

#![expect(clippy::unwrap_used, reason = "a case that cannot be set up is no case")]

use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknod};
use nix::unistd::{Uid, mkfifo};

/// Enough for four threads and their stacks, and for no list of what is in a tree.
const MEMORY: &str = "--as=40000000";
/// Enough for four threads with 33 levels each.
const DESCRIPTORS: &str = "--nofile=160";

/// A directory to be emptied, beside one that must not be touched.
struct Trap {
    folder: tempfile::TempDir,
}

impl Trap {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("top")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/precious"), "x").unwrap();
        Self { folder }
    }

    fn top(&self) -> std::path::PathBuf {
        self.folder.path().join("top")
    }

    fn outside(&self) -> std::path::PathBuf {
        self.folder.path().join("outside")
    }

    /// Wipes, after the words that go before the command.
    fn wipe_by(&self, words: &[&str]) -> Output {
        let mut line: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        line.extend(["prlimit", DESCRIPTORS, MEMORY, env!("CARGO_BIN_EXE_oscr-entry"), "wipe"].map(OsStr::new));
        let top = self.top();
        line.push(top.as_os_str());
        Command::new(line[0]).args(&line[1..]).output().unwrap()
    }

    /// Wipes, and asserts that all went and nothing else did. The number of entries removed.
    #[track_caller]
    fn springs_nothing(&self) -> u64 {
        let output = self.wipe_by(&["env"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fs::read_dir(self.top()).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(self.outside().join("precious")).unwrap(), "x");
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 1);
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().parse().unwrap()
    }
}

fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        println!("skipped: it needs root");
    }
    root
}

/// Swaps two names.
fn exchange(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
    let (here, flag) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both names live through the call, which reads them. nix has it for glibc only. Either may be missing.
    unsafe { libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), flag) };
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn links_lead_nowhere() {
    let trap = Trap::new();
    fs::create_dir_all(trap.top().join("a/b")).unwrap();
    for (target, name) in [(trap.outside().as_path(), "a/out"), (Path::new("/"), "root"), (Path::new(".."), "a/b/up")] {
        symlink(target, trap.top().join(name)).unwrap();
    }
    symlink(trap.outside().join("precious"), trap.top().join("file")).unwrap();
    symlink("loop", trap.top().join("loop")).unwrap();
    fs::hard_link(trap.outside().join("precious"), trap.top().join("hard")).unwrap();
    assert_eq!(trap.springs_nothing(), 8);
}

#[test]
fn a_tree_of_ten_thousand_levels_goes() {
    let trap = Trap::new();
    let mut directory = open(&trap.top(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    // Long names: no path could hold them.
    let name = "n".repeat(200);
    for _ in 0..10_000 {
        mkdirat(&directory, name.as_str(), Mode::S_IRWXU).unwrap();
        directory = openat(&directory, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    drop(directory);
    assert_eq!(trap.springs_nothing(), 10_000);
}

#[test]
fn names_of_any_bytes_go() {
    let trap = Trap::new();
    for byte in (1..=255_u8).filter(|byte| ![b'/', b'.'].contains(byte)) {
        let directory = trap.top().join(OsStr::from_bytes(&[byte, b'd']));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(OsStr::from_bytes(&[byte; 255])), "").unwrap();
    }
    for name in ["-rf", "...", " ", ".oscr-wipe-1", ".oscr-wipe-2"] {
        fs::create_dir_all(trap.top().join(name).join("full")).unwrap();
    }
    fs::write(trap.top().join(".oscr-wipe-3"), "").unwrap();
    assert_eq!(trap.springs_nothing(), 253 * 2 + 11);
}

#[test]
fn what_nobody_may_read_goes() {
    let trap = Trap::new();
    fs::create_dir_all(trap.top().join("a/b/c")).unwrap();
    fs::write(trap.top().join("a/b/c/file"), "").unwrap();
    for (name, mode) in [("a/b/c/file", 0), ("a/b/c", 0), ("a/b", 0o200), ("a", 0o500)] {
        allow(&trap.top().join(name), mode);
    }
    assert_eq!(trap.springs_nothing(), 4);
}

#[test]
fn no_fifo_socket_or_device_is_opened() {
    let trap = Trap::new();
    mkfifo(&trap.top().join("fifo"), Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(trap.top().join("socket")).unwrap();
    let mut count = 2;
    if is_root() {
        // Opening the console or a tape would have effects; these numbers belong to no driver.
        let nodes = [(SFlag::S_IFCHR, "character"), (SFlag::S_IFBLK, "block")];
        for (kind, name) in nodes {
            mknod(&trap.top().join(name), kind, Mode::S_IRWXU, makedev(240, 7)).unwrap();
        }
        count += 2;
    }
    assert_eq!(trap.springs_nothing(), count);
}

#[test]
fn files_held_open_go() {
    let trap = Trap::new();
    fs::create_dir(trap.top().join("cwd")).unwrap();
    fs::write(trap.top().join("cwd/open"), "x").unwrap();
    let file = File::open(trap.top().join("cwd/open")).unwrap();
    let mut holder = Command::new("sleep").arg("600").current_dir(trap.top().join("cwd")).stdin(file).spawn().unwrap();
    assert_eq!(trap.springs_nothing(), 2);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// More than one thread's share, so several take part.
#[test]
fn very_many_files_need_no_more_memory() {
    let trap = Trap::new();
    let mut count = 0;
    for directory in 0..200 {
        let directory = trap.top().join(format!("{}/{directory}", directory % 7));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..100 {
            fs::write(directory.join(format!("{file:0100}")), "").unwrap();
        }
        count += 101;
    }
    let flat = trap.top().join("flat");
    fs::create_dir(&flat).unwrap();
    for file in 0..30_000 {
        fs::hard_link(trap.top().join("0/0").join(format!("{:0100}", 0)), flat.join(format!("{file:0200}"))).unwrap();
    }
    assert_eq!(trap.springs_nothing(), count + 7 + 1 + 30_000);
}

#[test]
fn a_thread_that_swaps_directories_for_links_gains_nothing() {
    let trap = Trap::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (top, outside, stop) = (trap.top(), trap.outside(), &stop);
            scope.spawn(move || {
                let (real, link) = (top.join(format!("real-{number}")), top.join(format!("link-{number}")));
                let _ = symlink(&outside, &link);
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::create_dir_all(real.join("precious/deep"));
                    let _ = symlink(&outside, &link);
                    // In one step, as no look at it could see.
                    exchange(&real, &link);
                }
            });
        }
        for _ in 0..20 {
            // It may or may not come to an end of what is made all the time; it must come to an end.
            let _ = trap.wipe_by(&["timeout", "60"]);
            assert!(trap.outside().join("precious").exists());
        }
        stop.store(true, Ordering::Relaxed);
    });
    trap.springs_nothing();
}

#[test]
fn immutable_entries_go_with_the_capability_and_are_named_without() {
    if !is_root() {
        return;
    }
    // Where the file system has such flags, which one in memory may not.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::create_dir_all(folder.path().join("top/d")).unwrap();
    fs::create_dir(folder.path().join("outside")).unwrap();
    fs::write(folder.path().join("outside/precious"), "x").unwrap();
    let trap = Trap { folder };
    for file in ["d/immutable", "d/append", "other"] {
        fs::write(trap.top().join(file), "").unwrap();
    }
    let change = |flag: &str, name: &str| {
        Command::new("chattr").arg(flag).arg(trap.top().join(name)).output().is_ok_and(|output| output.status.success())
    };
    if !change("+i", "d/immutable") || !change("+a", "d/append") || !change("+i", "d") {
        println!("skipped: this file system has no such flags");
        return;
    }
    let output = trap.wipe_by(&["setpriv", "--bounding-set", "-linux_immutable"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let named = String::from_utf8(output.stderr).unwrap();
    assert!(named.contains("d/immutable: Operation not permitted"), "{named}");
    assert!(!trap.top().join("other").exists(), "everything else goes");
    assert_eq!(trap.springs_nothing(), 3);
}

/// Runs a script in a mount namespace of its own, with the top as `$1` and the way to wipe it as the rest.
fn among_mounts(trap: &Trap, script: &str) -> Output {
    let script = format!("{script}\nshift; exec \"$@\"");
    let top = trap.top();
    trap.wipe_by(&["unshare", "--mount", "sh", "-ec", &script, "sh", top.to_str().unwrap()])
}

#[test]
fn what_is_mounted_inside_stays_and_all_around_it_goes() {
    if !is_root() {
        return;
    }
    let trap = Trap::new();
    let outside = trap.outside();
    // Deeper than what one thread holds open, so that nothing may be moved up that leads there.
    let deep = "d/".repeat(40);
    for directory in ["a/mount", "b/tmpfs", &deep] {
        fs::create_dir_all(trap.top().join(directory)).unwrap();
    }
    for file in ["a/file", "a/other/file", "b/file", "d/file", "c"] {
        fs::create_dir_all(trap.top().join(file).parent().unwrap()).unwrap();
        fs::write(trap.top().join(file), "").unwrap();
    }
    let script = format!(
        "mount --bind '{0}' \"$1/a/mount\"; mount -t tmpfs none \"$1/b/tmpfs\"; touch \"$1/b/tmpfs/x\"; \
         mount --bind '{0}' \"$1/{deep}\"; mount --bind '{0}/precious' \"$1/c\"",
        outside.display()
    );
    let output = among_mounts(&trap, &script);
    assert!(output.status.success(), "{output:?}");
    assert!(outside.join("precious").exists());
    let mut left: Vec<_> = fs::read_dir(trap.top()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a", "b", "c", "d"]);
    assert_eq!(fs::read_dir(trap.top().join("a")).unwrap().count(), 1);
    assert!(trap.top().join(deep).is_dir() && !trap.top().join("d/file").exists());
}

#[test]
fn a_full_disk_is_emptied() {
    if !is_root() {
        return;
    }
    let trap = Trap::new();
    // 40 levels: what is moved up needs no new space either.
    let script = format!(
        "mount -t tmpfs -o size=1m,nr_inodes=400 none \"$1\"; mkdir -p \"$1/{}\"; cat /dev/zero >\"$1/full\" || true; \
         while mkdir \"$1/inodes-$((n=n+1))\"; do :; done 2>/dev/null; at=$1; trap 'test -z \"$(ls -A \"$at\")\"' EXIT; shift; \"$@\"; exit",
        "d/".repeat(40)
    );
    let output = among_mounts(&trap, &script);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_link_in_place_of_the_directory_is_refused() {
    let trap = Trap::new();
    fs::remove_dir(trap.top()).unwrap();
    symlink(trap.outside(), trap.top()).unwrap();
    let output = trap.wipe_by(&["env"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(trap.outside().join("precious").exists());
}
