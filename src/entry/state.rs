//! What survives a restart of the container: the registrations that somebody must let go, in a file for root alone.
//!
//! It is written before the thing that it describes exists (the name before the agent is configured, the id before it
//! runs), so that whatever kills us, the next incarnation knows what to remove.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::in_use::{BuildStamp, Fetched};
use super::open_job::OpenJob;
use super::schedule::Memory;
use crate::docker::Label;
use crate::files;
use crate::provider::pace::Pace;
use crate::provider::{Files, Registration};
use crate::workspace::trial::could_write;

/// The content of the file. It holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Version of this form.
    pub version: u32,
    /// The registration in use, or about to be made.
    pub current: Option<Registration>,
    /// Registrations of earlier incarnations that could not be let go yet.
    pub leftovers: Vec<Registration>,
    /// Failures in a row.
    pub failures: u32,
    /// The last incarnation ended with its job, so that the next starts at a time of its own.
    #[serde(default)]
    pub alone: bool,
    /// Until when the forge wants little of us.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// The agent that was fetched in place of the image's.
    #[serde(default)]
    pub agent: Option<Fetched>,
    /// The image's listener, as it was when it was found to run here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<BuildStamp>,
    /// What is known of newer agents.
    #[serde(default)]
    pub update: Memory,
    /// What agents of ours marked their objects in Docker with that may still be there.
    #[serde(default)]
    pub docker_labels: Vec<Label>,
    /// Anonymous volumes of their containers, which carry no label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker_volumes: Vec<String>,
    /// The fingerprint of a grant that has had its one job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_up: Option<String>,
    /// Jobs in a row that failed before they reached their hook.
    #[serde(default)]
    pub without_hook: u32,
    /// When it last left because its network had no way out, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_for_network: Option<u64>,
    /// The job that runs, or that an earlier incarnation was killed under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<OpenJob>,
}

/// The file and what it holds.
#[derive(Debug)]
pub(super) struct StateFile {
    directory: PathBuf,
    /// What the file holds, or will hold after [`StateFile::save`].
    pub content: State,
    /// The file as it is: forcing it to the disk once more would cost some milliseconds.
    written: Vec<u8>,
}

/// Why the state cannot be kept. Without it no registration may be made.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {source}; OSCR keeps there what the next incarnation must clean up", path.display())]
pub(super) struct StateError {
    /// The file or directory.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

const NAME: &str = "state.json";
/// The directory in which a kept registration's files lie.
const KEPT: &str = "registration";
/// More than this many leftovers, and anonymous volumes, are not remembered: a container that made them all has another problem. The
/// newest are, since the oldest were tried most often, or are gone by now.
const LEFTOVERS: usize = 100;
const VOLUMES: usize = 500;

impl StateFile {
    /// Opens the state in `directory`, which is made if missing. A file that makes no sense is put aside and reported: it
    /// must not keep the runner from working.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub(super) fn open(directory: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join(NAME);
        let (content, written) = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(state) => (state, bytes),
                Err(error) => {
                    tracing::warn!(
                        "{} is damaged ({error}) and was put aside: a registration of the last incarnation may remain",
                        path.display()
                    );
                    let _ = fs::rename(&path, directory.join("state.damaged.json"));
                    Default::default()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(error) => return Err(failed(error)),
        };
        let mut file = Self { directory: directory.to_owned(), content, written };
        // Now rather than when it matters: a place that cannot be written is a reason not to start.
        if !file.write()? {
            could_write(directory).map_err(failed)?;
        }
        Ok(file)
    }

    /// Whether [`StateFile::open`] would go well. Nothing is made.
    ///
    /// # Errors
    /// As it.
    pub(super) fn could_open(directory: &Path) -> Result<(), StateError> {
        let failed = |source| StateError { path: directory.to_owned(), source };
        match fs::read(directory.join(NAME)) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(failed(error))
            }
            _ => could_write(directory).map_err(failed),
        }
    }

    /// Whether an incarnation has been here before.
    #[must_use]
    pub(super) fn is_there(directory: &Path) -> bool {
        directory.join(NAME).exists()
    }

    /// What the file in `directory` holds, if there is one that makes sense. Nothing is changed.
    #[must_use]
    pub(super) fn read(directory: &Path) -> Option<State> {
        serde_json::from_slice(&fs::read(directory.join(NAME)).ok()?).ok()
    }

    /// Replaces the file in one step, unless it is as it would be written.
    ///
    /// # Errors
    /// When it cannot be written, as on a full disk; the old one is intact then.
    pub(super) fn save(&mut self) -> Result<(), StateError> {
        self.write().map(drop)
    }

    /// The same. Whether it had to.
    fn write(&mut self) -> Result<bool, StateError> {
        self.content.version = 1;
        keep_newest(&mut self.content.leftovers, LEFTOVERS);
        keep_newest(&mut self.content.docker_labels, LEFTOVERS);
        keep_newest(&mut self.content.docker_volumes, VOLUMES);
        let path = self.directory.join(NAME);
        let json = serde_json::to_vec(&self.content).map_err(|error| self.error(&path, error.into()))?;
        let differs = json != self.written;
        if differs {
            files::replace_on_disk(&path, &json, 0o600).map_err(|error| self.error(&path, error))?;
            self.written = json;
        }
        Ok(differs)
    }

    fn error(&self, path: &Path, source: io::Error) -> StateError {
        StateError { path: path.to_owned(), source }
    }

    /// Saves what can be lost without harm; a failure is logged.
    pub(super) fn save_or_warn(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!("{error}");
        }
    }

    /// Makes the current registration one of those that must be let go.
    pub(super) fn demote(&mut self) {
        if let Some(current) = self.content.current.take() {
            self.content.leftovers.push(current);
        }
    }

    /// Keeps the files of a persistent registration, as the agent wrote them before any job ran.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub(super) fn keep(&self, root: &Path, names: &[&str]) -> Result<(), StateError> {
        let kept = self.directory.join(KEPT);
        let copy = || {
            self.forget_kept();
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&kept)?;
            for name in names {
                match fs::read(root.join(name)) {
                    Ok(content) => files::replace_on_disk(&kept.join(name), &content, 0o600)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        copy().map_err(|error| self.error(&kept, error))
    }

    /// The files of these names that are in `root`.
    pub(super) fn configuration(root: &Path, names: &[&str]) -> Files {
        let read = |name: &&str| Some(((*name).to_owned(), zeroize::Zeroizing::new(fs::read(root.join(name)).ok()?)));
        names.iter().filter_map(read).collect()
    }

    /// Keeps these files too, of a persistent registration that is kept.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(super) fn keep_changes(&self, files: &Files) -> Result<(), StateError> {
        let kept = self.directory.join(KEPT);
        if !kept.exists() {
            return Ok(());
        }
        for (name, content) in files {
            let file = kept.join(name);
            if fs::read(&file).map(zeroize::Zeroizing::new).is_ok_and(|known| known == *content) {
                continue;
            }
            files::replace_on_disk(&file, content, 0o600).map_err(|error| self.error(&file, error))?;
        }
        Ok(())
    }

    /// The kept files: name and content. Empty when none are kept.
    #[must_use]
    pub(super) fn kept(&self, names: &[&str]) -> Files {
        Self::configuration(&self.directory.join(KEPT), names)
    }

    /// Removes the kept files.
    pub(super) fn forget_kept(&self) {
        let _ = fs::remove_dir_all(self.directory.join(KEPT));
    }
}

/// Forgets the first of a list that is too long.
fn keep_newest<T>(list: &mut Vec<T>, most: usize) {
    list.drain(..list.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn registration(name: &str) -> Registration {
        Registration { id: Some(7), name: name.to_owned(), scope: "http://x".to_owned() }
    }

    #[test]
    fn what_is_saved_is_read_by_the_next_incarnation() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("deep/oscr");
        let mut file = StateFile::open(&place).unwrap();
        file.content.current = Some(registration("a"));
        file.save().unwrap();
        let mut next = StateFile::open(&place).unwrap();
        next.demote();
        assert_eq!(next.content.leftovers, [registration("a")]);
        assert_eq!(fs::metadata(place.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_that_is_as_it_would_be_written_is_not_written_again() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        StateFile::open(directory.path()).unwrap();
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = inode();
        // Held, so that no other file gets its number.
        let _held = fs::File::open(&path).unwrap();
        StateFile::open(directory.path()).unwrap();
        assert_eq!(inode(), first);
        fs::write(&path, format!("{} ", fs::read_to_string(&path).unwrap())).unwrap();
        let mut file = StateFile::open(directory.path()).unwrap();
        let second = inode();
        assert_ne!(second, first, "another form of it");
        let _held_too = fs::File::open(&path).unwrap();
        file.save().unwrap();
        assert_eq!(inode(), second);
        file.content.failures = 1;
        file.save().unwrap();
        assert_ne!(inode(), second);
        assert_eq!(StateFile::read(directory.path()).unwrap().failures, 1);
    }

    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let (place, away) = (directory.path().join("oscr"), directory.path().join("away"));
        let mut file = StateFile::open(&place).unwrap();
        file.content.failures = 1;
        fs::rename(&place, &away).unwrap();
        file.save().unwrap_err();
        fs::rename(&away, &place).unwrap();
        assert_eq!(StateFile::read(&place).unwrap().failures, 0);
        file.save().unwrap();
        assert_eq!(StateFile::read(&place).unwrap().failures, 1);
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), "{\"version\":1,").unwrap();
        let file = StateFile::open(directory.path()).unwrap();
        assert_eq!(file.content.current, None);
        assert!(directory.path().join("state.damaged.json").exists());
    }

    #[test]
    fn the_file_of_an_older_version_is_read_and_a_newer_ones_as_far_as_it_is_known() {
        let older = include_str!("../../tests/corpus/state/seed-1");
        let newer = older.replacen('{', r#"{"of_tomorrow":{"a":[1]},"#, 1).replace(r#""version":1"#, r#""version":2"#);
        for text in [older, &newer] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(NAME), text).unwrap();
            let State { current, leftovers, failures, version: 1, update, job: None, .. } =
                StateFile::open(directory.path()).unwrap().content
            else {
                panic!("it is as this version writes it: {text}");
            };
            assert_eq!(current.map(|current| (current.id, current.name)), Some((Some(7), "a".to_owned())));
            assert_eq!((leftovers.len(), failures, update), (1, 3, Memory::default()));
            assert!(!directory.path().join("state.damaged.json").exists());
            let written = fs::read_to_string(directory.path().join(NAME)).unwrap();
            assert!(!written.contains("of_tomorrow"), "{written}");
        }
    }

    #[test]
    fn kept_files_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".runner"), "r").unwrap();
        let file = StateFile::open(directory.path()).unwrap();
        file.keep(root.path(), &[".runner", ".credentials"]).unwrap();
        let kept = file.kept(&[".runner", ".credentials"]);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].0.as_str(), kept[0].1.as_slice()), (".runner", b"r".as_slice()));
        // What the agent changes or adds is kept too, and what it deletes stays.
        let names = [".runner", ".runner_migrated", ".credentials"];
        fs::remove_file(root.path().join(".runner")).unwrap();
        fs::write(root.path().join(".runner_migrated"), "m").unwrap();
        file.keep_changes(&StateFile::configuration(root.path(), &names)).unwrap();
        let kept: Vec<String> = file.kept(&names).into_iter().map(|(name, _)| name).collect();
        assert_eq!(kept, [".runner", ".runner_migrated"]);
        file.forget_kept();
        assert!(file.kept(&[".runner"]).is_empty());
        file.keep_changes(&StateFile::configuration(root.path(), &names)).unwrap();
        assert!(file.kept(&names).is_empty(), "what was given up does not come back");
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StateFile::open(directory.path()).unwrap();
        for number in 0..=VOLUMES {
            file.content.leftovers.push(registration(&number.to_string()));
            file.content.docker_labels.push(Label::of(&number.to_string()));
            file.content.docker_volumes.push(number.to_string());
        }
        file.save().unwrap();
        let state = StateFile::read(directory.path()).unwrap();
        assert_eq!((state.leftovers.len(), state.docker_labels.len(), state.docker_volumes.len()), (100, 100, 500));
        let newest = VOLUMES.to_string();
        assert_eq!(state.leftovers.last(), Some(&registration(&newest)));
        assert_eq!(state.docker_labels.last(), Some(&Label::of(&newest)));
        assert_eq!((state.docker_volumes.first(), state.docker_volumes.last()), (Some(&"1".to_owned()), Some(&newest)));
    }

    #[test]
    fn fuzz_state() {
        // In memory, where nothing waits for a disk.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        crate::fuzz::run("state", |bytes| {
            fs::write(directory.path().join(NAME), bytes).unwrap();
            let mut file = StateFile::open(directory.path()).unwrap();
            file.demote();
            file.save().unwrap();
            let again = StateFile::open(directory.path()).unwrap();
            assert_eq!(again.content, file.content, "what was saved is read");
            assert!(again.content.leftovers.len() <= LEFTOVERS);
            let damaged = directory.path().join("state.damaged.json");
            let put_aside = damaged.exists();
            let _ = fs::remove_file(damaged);
            (put_aside, again.content.leftovers.len().min(3), again.content.failures > 0)
        });
    }
}
