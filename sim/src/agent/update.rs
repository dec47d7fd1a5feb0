//! The self-update of both agents: another version is downloaded, laid beside the running one, and a script takes it into use.
//!
//! Whether a root can be rewritten is found as upstream finds it: by doing it. In OSCR's own root, sticky and root's, the new
//! folders can be made; it is the scripts beside `bin` that can be neither deleted nor replaced. GitHub's runner was seen to
//! do so; of Azure's agent only the source was read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::trace::Trace;

/// How often a download is tried.
const TRIES: u32 = 3;

/// What `run-helper.sh` waits for, in the root.
const FINISHED: &str = "update.finished";

/// What differs between the two agents.
#[derive(Debug)]
pub(super) struct Words {
    /// As its own texts call it, and the same within a sentence.
    title: &'static str,
    noun: &'static str,
    /// The part of the program that speaks in the log.
    source: &'static str,
    leaving: &'static str,
    /// Whether people are told of an update that failed.
    tells_failure: bool,
}

/// Those of actions/runner.
pub(super) const GITHUB: Words = Words {
    title: "Runner",
    noun: "runner",
    source: "SelfUpdaterV2",
    leaving: "Runner will exit shortly for update, should be back online within 10 seconds.",
    tells_failure: true,
};

/// Those of azure-pipelines-agent, which swallows the error.
pub(super) const AZURE: Words = Words {
    title: "Agent",
    noun: "agent",
    source: "SelfUpdater",
    leaving: "Agent will exit shortly for update, should back online within 10 seconds.",
    tells_failure: false,
};

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The agent listens on.
    Failed,
    /// The agent must end: the script, which runs already, waits for that.
    Ends(Child),
}

/// Another version, and where it goes.
#[derive(Debug)]
pub(super) struct Update<'a> {
    pub(super) words: &'static Words,
    pub(super) trace: &'a Trace,
    pub(super) root: &'a Path,
    pub(super) work: &'a Path,
    pub(super) version: &'a str,
    /// Where the archive is.
    pub(super) url: &'a str,
    /// The archive's, in hexadecimal digits; where it is empty nothing is checked.
    pub(super) sha256: &'a str,
    /// The process that the script waits for: the listener.
    pub(super) listener: u32,
}

impl Update<'_> {
    /// Does all of it, up to the script's start. `download` gets the archive; `wait_for_job` comes back when no job runs.
    pub(super) fn run(
        &self,
        download: impl FnMut() -> Result<Vec<u8>, String>,
        wait_for_job: impl FnOnce(),
    ) -> Outcome {
        let Words { title, noun, source, leaving, tells_failure } = *self.words;
        self.trace.info(source, "An update is available.");
        self.trace.say(&format!("{title} update in progress, do not shutdown {noun}."));
        self.trace.say(&format!("Downloading {} {noun}", self.version));
        let started = self.lay_beside(download).and_then(|()| {
            self.trace.say("Waiting for current job finish running.");
            wait_for_job();
            self.trace.say("Generate and execute update script.");
            self.start_script()
        });
        match started {
            Ok(script) => {
                self.trace.say(leaving);
                Outcome::Ends(script)
            }
            Err(why) if tells_failure => {
                self.trace.say(&format!("{title} update failed: {why}"));
                self.trace.say(&format!("{title} update process finished."));
                Outcome::Failed
            }
            Err(why) => {
                self.trace.error(source, &why);
                Outcome::Failed
            }
        }
    }

    /// Unpacks into the work folder, and copies from there into the root.
    fn lay_beside(&self, download: impl FnMut() -> Result<Vec<u8>, String>) -> Result<(), String> {
        let unpacked = self.work.join("_update");
        match fs::remove_dir_all(&unpacked) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(&unpacked, &error)),
            _ => {}
        }
        make(&unpacked)?;
        let archive = self.fetch(&unpacked.join(format!("{}1.tar.gz", self.words.noun)), download)?;
        let mut tar = tar::Archive::new(GzDecoder::new(archive.as_slice()));
        tar.set_preserve_mtime(false);
        tar.unpack(&unpacked).map_err(|error| told(&unpacked, &error))?;
        for folder in ["bin", "externals"] {
            copy_folder(&unpacked.join(folder), &self.root.join(format!("{folder}.{}", self.version)))?;
        }
        for file in entries(&unpacked)?.into_iter().filter(|path| path.is_file()) {
            let there = self.root.join(file.file_name().unwrap_or_default());
            // What could be overwritten is deleted all the same: this is what a sticky root refuses.
            if there.exists() {
                fs::remove_file(&there).map_err(|error| told(&there, &error))?;
            }
            fs::copy(&file, &there).map_err(|error| told(&there, &error))?;
        }
        Ok(())
    }

    /// The archive, checked. It was in a file for a while, which is where a full disk shows.
    fn fetch(&self, file: &Path, mut download: impl FnMut() -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
        let Words { title, noun, source, .. } = *self.words;
        let tried = (1..=TRIES).find_map(|attempt| {
            let text = format!("Attempt {attempt}: save latest {noun} into {}.", file.display());
            self.trace.info(source, &text);
            let saved = download().and_then(|archive| {
                fs::write(file, &archive).map_err(|error| told(file, &error))?;
                Ok(archive)
            });
            saved.inspect_err(|why| self.trace.error(source, why)).ok()
        });
        let archive =
            tried.ok_or_else(|| format!("{title} package '{}' failed after {TRIES} download attempts", self.url))?;
        fs::remove_file(file).map_err(|error| told(file, &error))?;
        let sum: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
        if !self.sha256.is_empty() && !self.sha256.eq_ignore_ascii_case(&sum) {
            // In words of its own: upstream's were not seen.
            return Err(format!("'{}' has the SHA-256 {sum}, not {}", self.url, self.sha256));
        }
        Ok(archive)
    }

    fn start_script(&self) -> Result<Child, String> {
        let finished = self.root.join(FINISHED);
        match fs::remove_file(&finished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(&finished, &error)),
            _ => {}
        }
        let path = self.work.join("_update.sh");
        fs::write(&path, self.script()).map_err(|error| told(&path, &error))?;
        let mut script = Command::new("bash");
        // It outlives the listener, whose output must not stay open for it.
        script.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        script.spawn().map_err(|error| told(&path, &error))
    }

    /// Links in place of the folders, once nobody runs from them.
    fn script(&self) -> String {
        let Self { version, listener, .. } = self;
        let root = self.root.to_string_lossy().replace('\'', r"'\''");
        format!(
            r#"#!/bin/bash
root='{root}'
while [ -e /proc/{listener} ]; do
    sleep 0.1
done
for folder in bin externals; do
    if [ -L "$root/$folder" ]; then
        rm "$root/$folder" || exit 1
    else
        rm -rf "$root/$folder.old"
        mv "$root/$folder" "$root/$folder.old" || exit 1
    fi
    ln -s "$folder.{version}" "$root/$folder" || exit 1
done
date >"$root/{FINISHED}"
"#
        )
    }
}

/// An error as .NET words it, where it is one of rights.
fn told(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("Access to the path '{path}' is denied."),
        _ => format!("{path}: {error}"),
    }
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| told(folder, &error))
}

/// What is in a folder, in the order of names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let found = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut found: Vec<PathBuf> = found.map_err(|error| told(folder, &error))?;
    found.sort();
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    make(to)?;
    for path in entries(from)? {
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).map_err(|error| told(&copy, &error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::BufRead as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::thread;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use nix::unistd::{Uid, setfsuid};

    use super::*;
    use crate::agent::Kind;

    /// Who does not own the root.
    const SOMEBODY: u32 = 1001;

    /// An agent in a folder that is deleted at the end; and its archive of another version.
    struct Place {
        _folder: tempfile::TempDir,
        root: PathBuf,
        work: PathBuf,
        archive: Vec<u8>,
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is there");
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let (root, work) = (folder.path().join("it's a root"), folder.path().join("work"));
            for part in [&root.join("bin"), &root.join("externals"), &work] {
                fs::create_dir_all(part).expect("a folder");
            }
            mode(folder.path(), 0o755);
            mode(&work, 0o777);
            for name in ["bin/program", "run.sh"] {
                fs::write(root.join(name), "old").expect("a file");
            }
            let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
            for name in ["bin/program", "externals/node/bin/node", "run.sh"] {
                let mut header = tar::Header::new_ustar();
                header.set_size(3);
                header.set_mode(0o755);
                tar.append_data(&mut header, name, &b"new"[..]).expect("memory");
            }
            let archive = tar.into_inner().and_then(GzEncoder::finish).expect("memory");
            Self { _folder: folder, root, work, archive }
        }

        fn sum(&self) -> String {
            Sha256::digest(&self.archive).iter().map(|byte| format!("{byte:02X}")).collect()
        }

        fn trace(&self, kind: Kind) -> Trace {
            Trace::open(&self.root, kind.facts(), kind.facts().title).expect("a log")
        }

        fn update<'a>(&'a self, words: &'static Words, trace: &'a Trace, sha256: &'a str) -> Update<'a> {
            let Self { root, work, .. } = self;
            // No process has the number 0: the script goes on at once.
            Update { words, trace, root, work, version: "9.9.9", url: "http://forge/it", sha256, listener: 0 }
        }

        /// What people were told.
        fn said(&self) -> Vec<String> {
            let logs = entries(&self.root.join("_diag")).expect("_diag");
            let text: String = logs.iter().map(|log| fs::read_to_string(log).expect("a log")).collect();
            text.lines().filter_map(|line| Some(line.split_once(" Terminal] WRITE LINE: ")?.1.to_owned())).collect()
        }

        fn file(&self, name: &str) -> String {
            fs::read_to_string(self.root.join(name)).unwrap_or_default()
        }
    }

    const BEGIN: [&str; 2] = ["Runner update in progress, do not shutdown runner.", "Downloading 9.9.9 runner"];

    #[test]
    fn a_root_of_ones_own_is_rewritten_once_its_job_has_ended() {
        let place = Place::new();
        let trace = place.trace(Kind::GitHub);
        fs::write(place.root.join(FINISHED), "of an earlier update").expect("a file");
        let sum = place.sum();
        let update = place.update(&GITHUB, &trace, &sum);
        let waited = Cell::new(Vec::new());
        let outcome = update.run(|| Ok(place.archive.clone()), || waited.set(place.said()));
        let mut words = BEGIN.to_vec();
        words.push("Waiting for current job finish running.");
        assert_eq!(waited.take(), words, "what is said before the job is waited for");
        words.extend(["Generate and execute update script.", GITHUB.leaving]);
        assert_eq!(place.said(), words);
        let Outcome::Ends(mut script) = outcome else { panic!("{outcome:?}") };
        assert!(script.wait().expect("it was started").success());
        assert_eq!(["bin/program", "externals/node/bin/node", "run.sh"].map(|name| place.file(name)), ["new"; 3]);
        assert_eq!(place.file("bin.old/program"), "old");
        let link = fs::read_link(place.root.join("bin")).expect("a link");
        assert_eq!(link, Path::new("bin.9.9.9"));
        assert!(place.root.join(FINISHED).exists());
    }

    #[test]
    fn the_script_rewrites_nothing_while_the_listener_lives() {
        let place = Place::new();
        let trace = place.trace(Kind::GitHub);
        let mut update = place.update(&GITHUB, &trace, "");
        let mut listener = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        update.listener = listener.id();
        update.lay_beside(|| Ok(place.archive.clone())).expect("it can be written");
        fs::write(place.work.join("_update.sh"), update.script()).expect("a file");
        // What the script sleeps with says so, and sleeps until a line comes.
        let path = std::env::var("PATH").expect("a PATH");
        let bash = std::env::split_paths(&path).map(|folder| folder.join("bash")).find(|bash| bash.is_file());
        symlink(bash.expect("bash"), place.work.join("sleep")).expect("a link");
        fs::write(place.work.join("0.1"), "echo waits; read -r _").expect("a file");
        let mut script = Command::new("bash")
            .args(["_update.sh"])
            .current_dir(&place.work)
            .env("PATH", format!("{}:{path}", place.work.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let mut line = String::new();
        io::BufReader::new(script.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!((line.as_str(), place.file("bin/program").as_str()), ("waits\n", "old"));
        drop(listener.stdin.take());
        listener.wait().expect("it was started");
        drop(script.stdin.take());
        assert!(script.wait().expect("it was started").success());
        assert_eq!(place.file("bin/program"), "new");
    }

    #[test]
    fn a_second_update_takes_the_place_of_the_firsts_links() {
        let place = Place::new();
        let trace = place.trace(Kind::GitHub);
        for version in ["9.9.8", "9.9.9"] {
            let mut update = place.update(&GITHUB, &trace, "");
            update.version = version;
            let outcome = update.run(|| Ok(place.archive.clone()), || ());
            let Outcome::Ends(mut script) = outcome else { panic!("{outcome:?}") };
            assert!(script.wait().expect("it was started").success());
        }
        assert_eq!(fs::read_link(place.root.join("bin")).expect("a link"), Path::new("bin.9.9.9"));
        assert_eq!(place.file("bin.old/program"), "old");
    }

    /// An update in a root whose scripts cannot be deleted, or, for who can have none of another's, in one of no rights; and what
    /// is denied there.
    fn denied(kind: Kind, words: &'static Words) -> (Place, PathBuf) {
        let place = Place::new();
        let trace = place.trace(kind);
        let is_root = Uid::effective().is_root();
        mode(&place.root, if is_root { 0o1777 } else { 0o555 });
        // The file system's user is each thread's own, and so are the rights that go with it.
        let update = place.update(words, &trace, "");
        let work = || {
            if is_root {
                setfsuid(Uid::from_raw(SOMEBODY));
            }
            update.run(|| Ok(place.archive.clone()), || panic!("there is no job to wait for"))
        };
        let outcome = thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"));
        mode(&place.root, 0o755);
        assert!(matches!(outcome, Outcome::Failed), "{outcome:?}");
        assert_eq!(["bin/program", "run.sh"].map(|name| place.file(name)), ["old"; 2]);
        assert_eq!(place.file("bin.9.9.9/program"), if is_root { "new" } else { "" });
        let path = place.root.join(if is_root { "run.sh" } else { "bin.9.9.9" });
        (place, path)
    }

    #[test]
    fn a_root_that_cannot_be_rewritten_fails_the_update_and_the_runner_says_so() {
        let (place, path) = denied(Kind::GitHub, &GITHUB);
        let why = format!("Runner update failed: Access to the path '{}' is denied.", path.display());
        assert_eq!(place.said(), [BEGIN[0], BEGIN[1], &why, "Runner update process finished."]);
    }

    #[test]
    fn azures_agent_keeps_that_to_itself() {
        let (place, _) = denied(Kind::Azure, &AZURE);
        let words = ["Agent update in progress, do not shutdown agent.", "Downloading 9.9.9 agent"];
        assert_eq!(place.said(), words);
    }

    #[test]
    fn a_download_is_tried_three_times() {
        let place = Place::new();
        let trace = place.trace(Kind::GitHub);
        let tries = Cell::new(0);
        let download = || {
            tries.set(tries.get() + 1);
            Err("404".to_owned())
        };
        let outcome = place.update(&GITHUB, &trace, "").run(download, || panic!("nothing to wait for"));
        assert!(matches!(outcome, Outcome::Failed), "{outcome:?}");
        assert_eq!(tries.get(), TRIES);
        let why = "Runner update failed: Runner package 'http://forge/it' failed after 3 download attempts";
        assert_eq!(place.said(), [BEGIN[0], BEGIN[1], why, "Runner update process finished."]);
    }

    #[test]
    fn an_archive_that_is_another_is_not_used() {
        let place = Place::new();
        let trace = place.trace(Kind::GitHub);
        let other = "0".repeat(64);
        let outcome = place.update(&GITHUB, &trace, &other).run(|| Ok(place.archive.clone()), || ());
        assert!(matches!(outcome, Outcome::Failed), "{outcome:?}");
        assert!(!place.root.join("bin.9.9.9").exists());
        assert_eq!(place.file("run.sh"), "old");
        assert!(place.said()[2].ends_with(&format!("{}, not {other}", place.sum().to_lowercase())));
    }
}
