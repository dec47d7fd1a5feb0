//! The lock directory, and the refusal of one that does not lock.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::{AccessFlags, access};

use super::mounted::{Private, private};
use super::sharing;
use super::wanted::ResourceId;
use crate::os::Identity;
use crate::os::access::{READ, WRITE, may};
use crate::os::mounts;

/// Where the locks are, as the settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockPlace {
    /// A directory of the host.
    pub directory: PathBuf,
    /// Whether NFS will do.
    pub allow_nfs: bool,
}

impl LockPlace {
    /// The directory where nobody says another.
    pub const USUAL: &'static str = "/var/lock/oscr";
}

/// A directory in which `flock` excludes across containers.
#[derive(Debug, Clone)]
pub(super) struct LockDirectory {
    path: PathBuf,
}

/// Why a directory cannot hold locks. Each text names what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be used at all.
    #[error("the lock directory {} cannot be used: {source}; mount a directory of the host there that this container may write", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is the container's own.
    #[error("the lock directory {} is the container's own, so other containers would not see its locks; mount a directory of the host there, such as /var/lock/oscr", .0.display())]
    NotShared(PathBuf),
    /// Each container gets one of its own.
    #[error("the lock directory {} is on a volume without a name, so each container has another one and would not see others' locks; mount a directory of the host there, such as /var/lock/oscr, or a volume with a name", .0.display())]
    Anonymous(PathBuf),
    /// Its file system does not carry locks to other hosts or sandboxes.
    #[error("the lock directory {} is on {kind}, where two sides can hold one lock at the same time; use a directory of the host's own disk or tmpfs{hint}", path.display())]
    DoesNotLock {
        /// The directory.
        path: PathBuf,
        /// What it is on.
        kind: &'static str,
        /// What else could be done.
        hint: &'static str,
    },
}

const OVERLAY: i64 = 0x794c_7630;
const FUSE: i64 = 0x6573_5546;
const NINE_P: i64 = 0x0102_1997;
const NFS: i64 = 0x6969;
const SMB: i64 = 0x517b;
const CIFS: i64 = 0xff53_4d42;
const SMB2: i64 = 0xfe53_4d42;

impl LockDirectory {
    /// Checks that this is a directory whose locks exclude others, and that we can make locks in it. NFS is refused unless it is
    /// allowed: it depends on versions and mount options whether its locks hold.
    pub(super) fn open(place: &LockPlace) -> Result<Self, DirectoryError> {
        let directory = Self::to_look_at(place)?;
        // A place that cannot be written shows now, and not when the first job waits. Asked rather than tried: every process that
        // opens this directory may be number 1 and may be killed at any moment, and a file left behind would hinder the next.
        access(directory.path(), AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|errno| DirectoryError::Unusable { path: directory.path.clone(), source: errno.into() })?;
        Ok(directory)
    }

    /// The same for who makes no lock there.
    pub(super) fn to_look_at(place: &LockPlace) -> Result<Self, DirectoryError> {
        let path = place.directory.as_path();
        let unusable = |source: io::Error| DirectoryError::Unusable { path: path.to_owned(), source };
        let meta = fs::metadata(path).map_err(unusable)?;
        if !meta.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        let kind = statfs(path).map_err(|errno| unusable(errno.into()))?.filesystem_type();
        judge(path, kind, fs::metadata("/").is_ok_and(|root| root.dev() == meta.dev()), place.allow_nfs)?;
        let real = fs::canonicalize(path).map_err(unusable)?;
        match private(&mounts::list().unwrap_or_default(), &real) {
            Some(Private::AnonymousVolume) => Err(DirectoryError::Anonymous(path.to_owned())),
            Some(Private::Own) => Err(DirectoryError::NotShared(path.to_owned())),
            None => Ok(Self { path: path.to_owned() }),
        }
    }

    /// A directory that has been checked before, by the process that started us.
    pub(super) fn checked(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The lock file, which is made if missing. An existing one keeps its content, and its mode but for the directory's group:
    /// people use it too.
    pub(super) fn open_lock(&self, id: &ResourceId) -> io::Result<File> {
        self.open_file(&self.lock(id))
    }

    /// The file under whose lock numbers are drawn.
    pub(super) fn open_mutex(&self, id: &ResourceId) -> io::Result<File> {
        self.open_file(&self.queue(id).join(".mutex"))
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        match OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path) {
            // It became so after the start, because of faults. To lock a file that is there, reading it will do.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
            opened => {
                let file = opened?;
                sharing::with_group(&self.path, path, &file);
                Ok(file)
            }
        }
    }

    pub(super) fn lock(&self, id: &ResourceId) -> PathBuf {
        self.path.join(format!("{id}.lock"))
    }

    pub(super) fn holder(&self, id: &ResourceId) -> PathBuf {
        self.path.join(format!("{id}.holder"))
    }

    /// What is said of the holder to those who may not open its ticket.
    pub(super) fn shown(&self, id: &ResourceId) -> PathBuf {
        self.path.join(format!("{id}.shown"))
    }

    /// The directory of a resource's tickets.
    pub(super) fn queue(&self, id: &ResourceId) -> PathBuf {
        self.path.join(format!("{id}.queue"))
    }

    /// The queue's directory, which is made if missing.
    pub(super) fn make_queue(&self, id: &ResourceId) -> io::Result<PathBuf> {
        let queue = self.queue(id);
        match fs::DirBuilder::new().mode(0o700).create(&queue) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => {
                if let Ok(opened) = File::open(&queue) {
                    sharing::with_group(&self.path, &queue, &opened);
                }
                Ok(queue)
            }
        }
    }

    /// A ticket under its first name.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        sharing::with_group(&self.path, path, &file);
        Ok(file)
    }

    /// A file that those may read who may read the directory, in the place of one of that name.
    pub(super) fn create_shown(&self, path: &Path) -> io::Result<File> {
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = match create() {
            // One that was killed left it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(path).and_then(|()| create()),
            created => created,
        }?;
        sharing::with_readers(&self.path, &file)?;
        Ok(file)
    }

    /// What of it and of these locks `user` could open: who can open a lock can hold it. A lock file of root's that others may read,
    /// as `flock(1)` makes them, is closed to others; anything else is for the host's owner to decide.
    pub(super) fn exposed_to(&self, user: &Identity, ids: &[ResourceId]) -> Vec<String> {
        let mut exposed = Vec::new();
        let mut say = |path: &Path, what: &str| exposed.push(format!("{} {what}", path.display()));
        let open = "can be opened by the agent's user, so a job could hold or free the hardware";
        if may(user, &self.path, WRITE) {
            say(&self.path, open);
        }
        for id in ids {
            let path = self.lock(id);
            // Made now if missing, so that it is nobody else's to make.
            match self.open_lock(id).and_then(|lock| close_to_others(&lock)) {
                Err(error) => say(&path, &format!("cannot be used: {error}")),
                Ok(()) if may(user, &path, READ | WRITE) => say(&path, open),
                Ok(()) => {}
            }
            let queue = self.queue(id);
            if may(user, &queue, READ | WRITE) {
                say(&queue, open);
            }
        }
        exposed
    }

    /// The resources that have a lock file or a queue here.
    pub(super) fn resources(&self) -> io::Result<Vec<ResourceId>> {
        let mut ids: Vec<ResourceId> = fs::read_dir(&self.path)?
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_suffix(".lock").or_else(|| name.strip_suffix(".queue"))?.parse().ok()
            })
            .collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }
}

fn close_to_others(lock: &File) -> io::Result<()> {
    let meta = lock.metadata()?;
    if meta.uid() == 0 && meta.mode() & 0o007 != 0 {
        lock.set_permissions(Permissions::from_mode(meta.mode() & 0o770))?;
    }
    Ok(())
}

fn judge(path: &Path, kind: FsType, same_as_root: bool, allow_nfs: bool) -> Result<(), DirectoryError> {
    // The type's width differs between C libraries; the constants fit in all.
    let magic = i64::from(kind.0 as u32);
    let path = path.to_owned();
    let refused = |kind, hint| Err(DirectoryError::DoesNotLock { path: path.clone(), kind, hint });
    match magic {
        OVERLAY | FUSE if same_as_root => Err(DirectoryError::NotShared(path)),
        OVERLAY => refused("an overlay (a layer of some container)", ""),
        FUSE => refused("FUSE or virtio-fs", ""),
        NINE_P => refused("9p", ""),
        SMB | CIFS | SMB2 => refused("SMB", ""),
        NFS if !allow_nfs => refused(
            "NFS",
            ", or set OSCR_LOCK_ALLOW_NFS=true if you have made sure that its locks hold between all hosts",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_do_not_lock_are_refused_with_the_reason() {
        let judged = |magic: i64, same_as_root, allow_nfs| {
            judge(Path::new("/l"), FsType(magic as _), same_as_root, allow_nfs).map_err(|error| error.to_string())
        };
        assert!(judged(FUSE, false, false).unwrap_err().contains("virtio-fs"));
        assert!(judged(NINE_P, false, false).unwrap_err().contains("9p"));
        assert!(judged(OVERLAY, false, false).unwrap_err().contains("overlay"));
        assert!(judged(OVERLAY, true, false).unwrap_err().contains("mount a directory of the host"));
        assert!(judged(NFS, false, false).unwrap_err().contains("OSCR_LOCK_ALLOW_NFS"));
        assert!(judged(NFS, false, true).is_ok());
        assert!(judged(0xef53, true, false).is_ok());
    }

    #[test]
    fn a_missing_directory_says_what_to_mount() {
        let place = LockPlace { directory: "/nonexistent/locks".into(), allow_nfs: false };
        let error = LockDirectory::open(&place).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/locks") && error.contains("mount"), "{error}");
    }
}
