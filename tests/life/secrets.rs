//! No secret in any process' arguments or environment, in a log, or in a file that the agent's user can read.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, each, write};

/// What the kernel shows of a process to whoever may look: this test may, being root outside of the container.
fn shown(pid: Pid) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in ["environ", "cmdline"] {
        bytes.extend(fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
        bytes.push(0);
    }
    bytes
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Every file below `directory` that this user may read, by the permissions of the file and of all directories above it.
fn readable(directory: &Path, uid: u32, found: &mut Vec<PathBuf>) {
    let may = |path: &Path, bit: u32| {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return false;
        };
        let shift = if meta.uid() == uid {
            6
        } else if meta.gid() == uid {
            3
        } else {
            0
        };
        meta.permissions().mode() >> shift & bit != 0
    };
    if !may(directory, 1) {
        return;
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => readable(&path, uid, found),
            // The programs were built before the token was made.
            Ok(meta) if meta.is_file() && meta.len() < 1 << 20 && may(&path, 4) => found.push(path),
            _ => {}
        }
    }
}

/// Looks everywhere while a job runs, from inside as the job and from outside as root.
fn look_everywhere(settings: &[(&str, &str)]) {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    for (name, value) in settings {
        container.set(name, value);
    }
    if settings.iter().any(|(name, _)| *name == "GITHUB_PAT") {
        container.unset("GITHUB_PAT_FILE");
        fs::remove_file(container.path(SECRET)).expect("it was there");
        container.set("GITHUB_PAT", &forge.pat());
    }
    let mut gate = container.gate();
    container.start();
    let pat = forge.pat();
    let (one, two) = pat.split_at(pat.len() / 2);
    // In two halves, so that the script itself does not hold what it looks for.
    let job = forge.job(&format!(
        "one={one}; two={two}; \n\
         grep -rslF --devices=skip \"$one$two\" {} && echo FOUND in a file\n\
         for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do\n\
           case $file in */$$/*|/proc/self/*) continue;; esac\n\
           {{ tr '\\0' '\\n' <$file | grep -sF \"$one$two\" >/dev/null && echo FOUND in $file; }} 2>/dev/null\n\
         done\n\
         head -c 1 /proc/1/environ 2>/dev/null && echo FOUND a readable PID 1\n\
         ls /proc/1/fd 2>/dev/null && echo FOUND descriptors of PID 1\n\
         env | sort | sed 's/^/env: /'\n\
         {}",
        container.text(""),
        gate.wait()
    ));
    forge.wait_log(job, "at the gate");

    let processes = container.processes();
    assert!(processes.len() >= 4, "PID 1, listener, worker, step");
    for pid in &processes {
        let shown = shown(*pid);
        assert!(!holds(&shown, &pat), "process {pid} shows the token");
        assert!(!holds(&shown, "encoded_jit") && !holds(&shown, "JITCONFIG"), "process {pid} shows a configuration");
    }
    let environ = fs::read(format!("/proc/{}/environ", container.pid()));
    assert!(environ.is_ok(), "root outside may look: {environ:?}");
    let mut files = Vec::new();
    readable(&container.root, container.uid, &mut files);
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let content = fs::read(&file).unwrap_or_default();
        assert!(!holds(&content, &pat), "{} holds it", file.display());
    }

    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(!job.log.contains("FOUND in"), "{}", job.log);
    assert!(!job.log.contains("FOUND a"), "{}", job.log);
    assert!(!job.log.contains("FOUND desc"), "{}", job.log);
    for line in job.log.lines().filter_map(|line| line.strip_prefix("env: ")) {
        let name = line.split('=').next().unwrap_or_default();
        for foreign in ["OSCR_ROOT", "OSCR_STASH_FD", "GITHUB_PAT", "GITHUB_PAT_FILE", "MY_OTHER", "GITHUB_HOST"] {
            assert_ne!(name, foreign, "{line}");
        }
    }
    assert!(job.log.contains("env: MY_OWN=allowed"), "OSCR_JOB_ENV: {}", job.log);
    assert!(job.log.contains("env: LC_TIME=C"), "{}", job.log);
    // The rest is looked at, with every other log, when the container goes.
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_secret_reaches_nothing_that_a_job_or_the_machine_shows() {
    let common =
        [("MY_OWN", "allowed"), ("MY_OTHER", "not allowed"), ("OSCR_JOB_ENV", "MY_OWN,GITHUB_PAT*"), ("LC_TIME", "C")];
    let with = |more: &[(&'static str, &'static str)]| [&common[..], more].concat();
    let ways = [
        with(&[]),
        with(&[("OSCR_REGISTRATION", "jit")]),
        with(&[("GITHUB_PAT", "set below")]),
        with(&[("GITHUB_PAT", "set below"), ("OSCR_REGISTRATION", "jit")]),
    ];
    each(&ways, |settings| look_everywhere(settings));
}

#[test]
fn a_secret_that_everybody_can_read_is_protected_on_our_own_layer() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let secret = container.path(SECRET);
    let device = |path: &Path| fs::metadata(path).expect("it is there").dev();
    assert_eq!(
        device(&secret),
        device(Path::new("/")),
        "this test needs /tmp on the root file system, as a container has it"
    );
    // As Compose writes a secret that comes from its environment.
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o444)).expect("ours");
    chown(&secret, Some(container.uid), Some(container.uid)).expect("root may");
    container.start();
    forge.listening();
    let meta = fs::metadata(&secret).expect("it is there");
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o400, 0, 0));
    assert_eq!(fs::read_to_string(&secret).expect("ours"), forge.pat(), "the next restart needs it");
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("registered with");
}

#[test]
fn a_secret_on_somebody_elses_file_system_is_refused_rather_than_changed() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let mount = tempfile::tempdir_in("/dev/shm").expect("a tmpfs, as containers have it");
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let secret = mount.path().join("pat");
    write(&secret, &forge.pat(), 0o444);
    container.set("GITHUB_PAT_FILE", &secret.display().to_string());
    container.start();
    assert_eq!(container.exit_code(), 78);
    let said = container.lines_with("can be read by the agent's user");
    assert_eq!(said.len(), 1, "{:#?}", container.lines());
    assert_eq!(fs::metadata(&secret).expect("it is there").mode() & 0o777, 0o444);
    assert_eq!(forge.requests().len(), 0);
}
