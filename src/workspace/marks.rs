//! What a directory itself is marked with: its mode, its lists of access rights, its inode flags, its `user.*` attributes.
//!
//! The places of a slate are emptied and not made anew, so a mark that a job sets on one of them would outlive the job, and most
//! are inherited by all that is made inside: with a default access list of no rights, every later job fails at its first
//! directory. So each gets back what it had before this container's first job. That is written down then, for root alone; what
//! nobody knows is none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::Uid;

use super::error::SlateError;
use super::origin::{KnownMarks, Marks};
use super::slate::Slate;
use super::wipe::enter;
use crate::os::flags::Flags;
use crate::os::mounts::Mount;
use crate::os::xattr;

impl Slate {
    /// The directories that are emptied or kept and not made anew, each before those in it.
    pub(super) fn lasting(&self, mounts: &[Mount]) -> Vec<PathBuf> {
        let mut all = self.kept.clone();
        for place in self.places() {
            let inside = |path: &&Path| path.starts_with(&place) && **path != place;
            let (emptied, left): (Vec<_>, Vec<_>) =
                mounts.iter().filter(|mount| inside(&mount.point.as_path())).partition(|mount| self.empties(mount));
            let kept = self.kept.iter().map(PathBuf::as_path).filter(inside);
            let left: Vec<&Path> = left.into_iter().map(|mount| mount.point.as_path()).chain(kept).collect();
            let emptied = emptied.into_iter().map(|mount| mount.point.as_path());
            // What leads to something that stays has to stay as well. What is in it is somebody else's.
            let above = emptied.clone().chain(left.iter().copied()).flat_map(|stays| stays.ancestors().skip(1));
            let ours = |path: &&Path| inside(path) && !left.iter().any(|left| path.starts_with(left));
            all.extend(above.chain(emptied).filter(ours).map(Path::to_owned));
            all.push(place);
        }
        all.sort();
        all.dedup();
        all
    }

    /// Learns what is written down of these directories or, before the container's first job, what they are marked with.
    pub(super) fn learn_marks(&mut self, lasting: &[PathBuf], mounts: &[Mount]) -> Result<(), SlateError> {
        if self.origin.known.is_some() {
            return Ok(());
        }
        if self.origin.here(mounts).is_some_and(Mount::in_memory) {
            // It would be forgotten with each start, and each life taken for the first one.
            self.origin.file = None;
        }
        let Some(file) = self.origin.file.clone() else {
            self.origin.known = Some(BTreeMap::new());
            return Ok(());
        };
        let failed = |source| SlateError::Place { place: file.clone(), source };
        match fs::read(&file) {
            Ok(written) => {
                self.origin.known = Some(serde_json::from_slice(&written).unwrap_or_else(|error| {
                    tracing::warn!("{} is damaged, and is made anew: {error}", file.display());
                    BTreeMap::new()
                }));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut known = BTreeMap::new();
                for top in lasting {
                    let failed = |source| SlateError::Place { place: top.clone(), source };
                    let Some(directory) = self.open_lasting(top).map_err(failed)? else { continue };
                    let on = self.origin.on(&directory, mounts).map_err(failed)?;
                    known.insert(top.clone(), KnownMarks { on, marks: Marks::of(&directory).map_err(failed)? });
                }
                self.origin.known = Some(known);
                // Before any of it is taken off.
                let written = self.origin.write_down();
                written.inspect_err(|_| self.origin.known = None).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes an emptied directory's marks what they were, but for lists that give or take rights: what is made in it next is to have
    /// the rights that it is given.
    pub(super) fn unmark(&mut self, top: &Path, mounts: &[Mount]) -> Result<(), SlateError> {
        let failed = |source| SlateError::Place { place: top.to_owned(), source };
        let Some(directory) = self.open_lasting(top).map_err(failed)? else { return Ok(()) };
        let owner = Uid::from_raw(fstat(&directory).map_err(|errno| failed(errno.into()))?.st_uid);
        if self.only_of(top).is_some_and(|uid| uid != owner) {
            // Of somebody else's directory an ordinary user can change no more than this.
            if !Uid::effective().is_root() {
                let _ = without_attributes(&directory);
            }
            return Ok(());
        }
        let now = Marks::of(&directory).map_err(failed)?;
        let on = self.origin.on(&directory, mounts).map_err(failed)?;
        let known = self.origin.find(top, &on).cloned();
        let marks = known.unwrap_or_else(|| {
            let marks = now.clone().cleared(owner == self.agent.uid);
            self.origin.known.get_or_insert_default().insert(top.to_owned(), KnownMarks { on, marks: marks.clone() });
            marks
        });
        // First what can forbid to change the rest.
        let flags = now.flags.zip(marks.flags.or(now.flags.map(Flags::cleared))).filter(|(now, flags)| now != flags);
        settle(top, "inode flags", flags.map_or(Ok(()), |(_, flags)| flags.give(&directory)))?;
        settle(top, "user attributes", without_attributes(&directory))?;
        for name in now.access.map(|_| xattr::ACCESS).into_iter().chain(now.default.map(|_| xattr::DEFAULT)) {
            settle(top, "access lists", xattr::remove(&directory, name))?;
        }
        // Last: it would be the mask of a list that is still there.
        let mode = fstat(&directory).map_err(|errno| failed(errno.into()))?.st_mode & 0o7777;
        let changed =
            if mode == marks.mode { Ok(()) } else { fchmod(&directory, Mode::from_bits_truncate(marks.mode)) };
        settle(top, "a mode", changed.map_err(io::Error::from))
    }

    /// Gives these directories the lists back that they had, now that all is in them that a slate begins with. What was learnt of them
    /// since the first look is written down too, though nothing depends on it.
    pub(super) fn give_lists_back(&self, lasting: &[PathBuf], mounts: &[Mount]) -> Result<(), SlateError> {
        for (top, known) in lasting.iter().filter_map(|top| self.origin.known.as_ref()?.get_key_value(top)) {
            let lists = [(xattr::ACCESS, &known.marks.access), (xattr::DEFAULT, &known.marks.default)];
            let give = || {
                let Some(directory) = self.open_lasting(top)? else { return Ok(()) };
                if self.origin.on(&directory, mounts)? != known.on {
                    return Ok(());
                }
                for (name, list) in lists.iter().filter_map(|(name, list)| Some((name, list.as_ref()?))) {
                    if xattr::of(&directory, name)?.as_ref() != Some(list) {
                        xattr::set(&directory, name, list)?;
                    }
                }
                Ok(())
            };
            if lists.iter().any(|(_, list)| list.is_some()) {
                settle(top, "access lists", give())?;
            }
        }
        if let Err(error) = self.origin.write_down() {
            tracing::warn!("what later lives should know of the wiped places cannot be written down: {error}");
        }
        Ok(())
    }

    /// Opens one of these directories, following no link that a job could have made. `None` where there is none: a cache may be a
    /// link of the user's.
    fn open_lasting(&self, top: &Path) -> io::Result<Option<OwnedFd>> {
        let place = self.places().filter(|place| top.starts_with(place)).max_by_key(|place| place.as_os_str().len());
        let first = place.as_deref().unwrap_or(top);
        let mut opened = enter(AT_FDCWD, first);
        for name in top.strip_prefix(first).unwrap_or(Path::new("")) {
            opened = opened.and_then(|directory| enter(directory, name));
        }
        match opened {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            // A cache on another machine, where our root is nobody. It was so before any job.
            Err(Errno::EACCES) if self.origin.known.as_ref().is_none_or(|known| !known.contains_key(top)) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Removes what users may attach to a directory. What the system attaches (`security.*`, `trusted.*`) is not for us to judge.
fn without_attributes(directory: &OwnedFd) -> io::Result<()> {
    let mut users = xattr::names(directory)?.into_iter().filter(|name| name.to_bytes().starts_with(b"user."));
    users.try_for_each(|name| xattr::remove(directory, &name))
}

/// How file systems answer that cannot be written, or do not know what they are told to change.
const NOT_THERE: [Errno; 4] = [Errno::EROFS, Errno::ENOTTY, Errno::EOPNOTSUPP, Errno::ENOSYS];

/// What came of taking marks off. Nobody can have set any where nothing can be written, or where there are none.
fn settle(top: &Path, what: &'static str, result: io::Result<()>) -> Result<(), SlateError> {
    match result {
        Err(error) if error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| NOT_THERE.contains(&errno)) => {
            Ok(())
        }
        other => other.map_err(|source| SlateError::Marked { place: top.to_owned(), what, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin::{FirstMarks, On};
    use super::super::slate::tests::slate_in;
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    /// A list of access rights in the kernel's form: version 2, then a kind, rights and a number for each entry.
    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (kind, rights, number) in entries {
            list.extend([kind.to_le_bytes(), rights.to_le_bytes()].concat());
            list.extend(number.to_le_bytes());
        }
        list
    }

    const NOBODY: u32 = u32::MAX;
    const OWNER: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHERS: u16 = 0x20;

    /// For the owner, a user, the owning group, at most, and for others.
    fn five(rights: [u16; 5]) -> Vec<u8> {
        let numbers = [NOBODY, 54321, NOBODY, NOBODY, NOBODY];
        let kinds = [OWNER, USER, GROUP, MASK, OTHERS];
        list(&std::array::from_fn::<_, 5, _>(|at| (kinds[at], rights[at], numbers[at])))
    }

    /// A slate on a disk, where there are lists and flags, with a cache of its own and one elsewhere.
    fn slate() -> (tempfile::TempDir, Slate) {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut slate = slate_in(root.path());
        slate.kept = vec![root.path().join("work/a/cache"), root.path().join("opt/cache")];
        for place in ["work/a/cache", "opt/cache", "home/runner", "tmp", "dev/shm", "pristine/.config"] {
            fs::create_dir_all(root.path().join(place)).unwrap();
        }
        (root, slate)
    }

    /// Where there is something to mark, from the root on.
    const TOPS: [&str; 7] = ["work", "work/a", "work/a/cache", "opt/cache", "home/runner", "tmp", "dev/shm"];

    fn open(root: &Path, top: &str) -> OwnedFd {
        enter(AT_FDCWD, &root.join(top)).unwrap()
    }

    fn marks(root: &Path) -> Vec<Marks> {
        TOPS.map(|top| Marks::of(&open(root, top)).unwrap()).to_vec()
    }

    /// What a job does to all of them.
    fn spoil(root: &Path) {
        for top in TOPS {
            let directory = open(root, top);
            if let Some(flags) = Flags::of(&directory).unwrap() {
                flags.marked().give(&directory).unwrap();
            }
            xattr::set(&directory, c"user.planted", b"x").unwrap();
            xattr::set(&directory, xattr::ACCESS, &five([7, 0, 5, 0, 0])).unwrap();
            xattr::set(
                &directory,
                xattr::DEFAULT,
                &list(&[(OWNER, 0, NOBODY), (GROUP, 0, NOBODY), (OTHERS, 0, NOBODY)]),
            )
            .unwrap();
        }
    }

    #[track_caller]
    fn usable(root: &Path) {
        for top in TOPS {
            let (top, directory) = (root.join(top), open(root, top));
            let users = xattr::names(&directory).unwrap().into_iter().any(|name| name.to_bytes().starts_with(b"user."));
            assert!(!users, "{}", top.display());
            fs::create_dir(top.join("made")).unwrap();
            let mode = fs::metadata(top.join("made")).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o700, 0o700, "{}", top.display());
            fs::remove_dir(top.join("made")).unwrap();
        }
    }

    #[test]
    fn what_a_job_marked_is_as_before_in_this_life_and_in_the_next() {
        let (root, mut slate) = slate();
        slate.clean().unwrap();
        let before = marks(root.path());
        spoil(root.path());
        slate.clean().unwrap();
        assert_eq!(marks(root.path()), before);
        usable(root.path());
        spoil(root.path());
        // As after a kill.
        slate.origin = FirstMarks::at(root.path().join("marks.json"));
        slate.clean().unwrap();
        assert_eq!(marks(root.path()), before);
        usable(root.path());
    }

    #[test]
    fn what_a_mount_had_before_the_first_job_comes_back_however_it_was_changed() {
        let (root, mut slate) = slate();
        let (access, default) = (five([7, 7, 5, 7, 5]), five([7, 7, 5, 7, 0]));
        for top in TOPS {
            let directory = open(root.path(), top);
            xattr::set(&directory, xattr::ACCESS, &access).unwrap();
            xattr::set(&directory, xattr::DEFAULT, &default).unwrap();
            if let Some(flags) = Flags::of(&directory).unwrap() {
                flags.marked().give(&directory).unwrap();
            }
        }
        let before = marks(root.path());
        for _ in 0..2 {
            slate.clean().unwrap();
            assert_eq!(marks(root.path()), before);
            let inherits = xattr::of(&open(root.path(), "home/runner/.config"), xattr::DEFAULT).unwrap();
            assert_eq!(inherits, None, "the home's content is the image's");
            for top in TOPS {
                let directory = open(root.path(), top);
                xattr::remove(&directory, xattr::ACCESS).unwrap();
                xattr::remove(&directory, xattr::DEFAULT).unwrap();
                fchmod(&directory, Mode::S_IRWXU).unwrap();
            }
            slate.clean().unwrap();
            assert_eq!(marks(root.path()), before);
            spoil(root.path());
            slate.origin = FirstMarks::at(root.path().join("marks.json"));
        }
    }

    #[test]
    fn what_is_not_known_is_none() {
        let (root, mut slate) = slate();
        let ordinary = marks(root.path());
        spoil(root.path());
        slate.origin = FirstMarks::default();
        slate.clean().unwrap();
        for (now, ordinary) in marks(root.path()).into_iter().zip(ordinary) {
            assert_eq!((&now.access, &now.default, now.flags), (&None, &None, ordinary.flags));
        }
        usable(root.path());
    }

    #[test]
    fn what_was_written_down_of_another_mount_is_not_given_to_this_one() {
        let (root, mut slate) = slate();
        slate.clean().unwrap();
        let file = root.path().join("marks.json");
        let mut known: BTreeMap<PathBuf, KnownMarks> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(known.values().all(|known| known.on == On::Here));
        for (top, known) in &mut known {
            known.marks.default = Some(five([0; 5]));
            if top.ends_with("cache") {
                known.on = On::Other { inode: 2, born: Some(Duration::from_secs(1)), device: None };
            }
        }
        fs::write(&file, serde_json::to_vec(&known).unwrap()).unwrap();
        slate.origin = FirstMarks::at(file);
        slate.clean().unwrap();
        let default = |top| xattr::of(&open(root.path(), top), xattr::DEFAULT).unwrap();
        assert_eq!(default("work/a/cache"), None);
        assert!(default("work").is_some());
    }

    #[test]
    fn a_damaged_record_is_no_knowledge_and_one_that_was_changed_is_written_again() {
        let (root, mut slate) = slate();
        slate.clean().unwrap();
        // The directory of agents' roots was missing at first.
        slate.clean().unwrap();
        let file = root.path().join("marks.json");
        let written = fs::read_to_string(&file).unwrap();
        fs::write(&file, "{\"/work\":").unwrap();
        slate.clean().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), written);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "{\"/work\":").unwrap();
        spoil(root.path());
        slate.origin = FirstMarks::at(file);
        slate.clean().unwrap();
        usable(root.path());
    }

    #[test]
    fn marks_of_what_a_link_leads_to_are_left_alone() {
        let (root, mut slate) = slate();
        fs::create_dir(root.path().join("precious")).unwrap();
        xattr::set(&open(root.path(), "precious"), c"user.mine", b"x").unwrap();
        fs::remove_dir(root.path().join("opt/cache")).unwrap();
        std::os::unix::fs::symlink("../precious", root.path().join("opt/cache")).unwrap();
        slate.clean().unwrap();
        assert_eq!(xattr::names(&File::open(root.path().join("precious")).unwrap()).unwrap().len(), 1);
    }
}
