//! No secret in any process' arguments or environment, in a log, or in a file that the agent's user can read.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use oscr_sim::forge::app::{AppOrders, KEY};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, each, outcome, write};

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

/// How a container gets its credential.
#[derive(Debug, Clone, Copy)]
enum Way {
    Pat,
    App,
    RegistrationToken,
    JitConfig,
}

/// Gives the container a credential in this way, in a file or in a plain variable; what must not be found, in pieces that no
/// line end divides.
fn give(container: &mut Container<'_>, forge: &Forge, way: Way, plain: bool) -> Vec<String> {
    container.unset("GITHUB_PAT_FILE");
    fs::remove_file(container.path(SECRET)).expect("it was there");
    let (setting, value) = match way {
        Way::Pat => ("GITHUB_PAT", forge.pat()),
        Way::App => {
            forge.order(|orders| orders.app = Some(AppOrders::default()));
            container.set("GITHUB_APP_ID", "4711");
            ("GITHUB_APP_PRIVATE_KEY", KEY.to_owned())
        }
        Way::RegistrationToken => ("RUNNER_TOKEN", forge.registration_token()),
        Way::JitConfig => ("ACTIONS_RUNNER_INPUT_JITCONFIG", forge.jit_config("theirs")),
    };
    if plain {
        container.set(setting, &value);
    } else {
        let file = container.path("run/secrets/credential");
        write(&file, &value, 0o400);
        container.set(&format!("{setting}_FILE"), &file.display().to_string());
    }
    value.lines().filter(|line| !line.starts_with("---")).map(|line| line[..line.len().min(64)].to_owned()).collect()
}

/// What root in the container finds who has the capabilities that a container of ours has.
fn as_root_inside(container: &Container<'_>, script: &str) -> String {
    let pid = container.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--pid", "--mount", "setpriv", "--inh-caps", "-all", "--bounding-set"]);
    command.args(["-all,+chown,+dac_override,+fowner,+kill,+setgid,+setuid", "sh", "-c", script]);
    let (_, out, error) = outcome(command);
    out + &error
}

/// Looks everywhere while a job runs, from inside as the job and as root, and from outside as root.
fn look_everywhere(settings: &[(&str, &str)], way: Way, plain: bool) {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set_all(settings);
    let hidden = give(&mut container, &forge, way, plain);
    let mut gate = container.gate();
    container.start();
    let (one, two) = hidden[hidden.len() / 2].split_at(10);
    // In two halves, so that the script itself does not hold what it looks for.
    let job = forge.job(&format!(
        "one={one}; two={two}; \n\
         grep -rslF --devices=skip \"$one$two\" {} && echo FOUND in a file\n\
         for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do\n\
           case $file in */$$/*|/proc/self/*) continue;; esac\n\
           {{ tr '\\0' '\\n' <$file | grep -sF \"$one$two\" >/dev/null && echo FOUND in $file; }} 2>/dev/null\n\
         done\n\
         for file in environ mem auxv maps stack syscall; do\n\
           head -c 1 /proc/1/$file 2>/dev/null | grep -qc . && echo FOUND a readable $file of PID 1\n\
         done\n\
         ls /proc/1/fd 2>/dev/null && echo FOUND descriptors of PID 1\n\
         grep 'Max core file size' /proc/1/limits\n\
         env | sort | sed 's/^/env: /'\n\
         {}",
        container.text(""),
        gate.wait()
    ));
    forge.wait_log(job, "at the gate");

    let issued = forge.issued();
    let secrets: Vec<&String> = hidden.iter().chain(&issued).collect();
    let processes = container.processes();
    assert!(processes.len() >= 4, "PID 1, listener, worker, step");
    for pid in &processes {
        let shown = shown(*pid);
        for secret in &secrets {
            assert!(!holds(&shown, secret), "process {pid} shows a secret");
        }
        assert!(!holds(&shown, "encoded_jit") && !holds(&shown, "JITCONFIG="), "process {pid} shows a configuration");
    }
    let environ = fs::read(format!("/proc/{}/environ", container.pid()));
    assert!(environ.is_ok(), "root outside may look: {environ:?}");
    for file in ["environ", "mem"] {
        let said = as_root_inside(&container, &format!("id -u; head -c 1 /proc/1/{file} | wc -c"));
        assert!(said.starts_with("0\n0\n") && said.contains("ermission denied"), "{file}: {said}");
    }
    let mut files = Vec::new();
    readable(&container.root, container.uid, &mut files);
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let content = fs::read(&file).unwrap_or_default();
        for secret in &secrets {
            assert!(!holds(&content, secret), "{} holds a secret", file.display());
        }
    }
    let mut told = fs::read_to_string(container.path("var/lib/oscr/state.json")).expect("a state file");
    for question in [&["status"][..], &["status", "--json"], &["health"], &["check"]] {
        let (code, out, error) = container.ask(question);
        assert_eq!(code, 0, "{question:?}: {out} {error}");
        told += &(out + &error);
    }

    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    for found in ["FOUND in", "FOUND a", "FOUND desc"] {
        assert!(!job.log.contains(found), "{}", job.log);
    }
    let core = job.log.lines().find(|line| line.starts_with("Max core file size")).expect("the limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for line in job.log.lines().filter_map(|line| line.strip_prefix("env: ")) {
        let name = line.split('=').next().unwrap_or_default();
        let kept = ["OSCR_ROOT", "OSCR_STASH_FD", "MY_OTHER", "GITHUB_HOST"];
        assert!(!kept.contains(&name), "{line}");
        let plain = name.strip_suffix("_FILE").unwrap_or(name);
        let secret =
            ["GITHUB_PAT", "GITHUB_APP_PRIVATE_KEY", "RUNNER_TOKEN", "ACTIONS_RUNNER_INPUT_JITCONFIG", "ADO_PAT"];
        assert!(!secret.contains(&plain), "{line}");
    }
    assert!(job.log.contains("env: MY_OWN=allowed"), "OSCR_JOB_ENV: {}", job.log);
    assert!(job.log.contains("env: LC_TIME=C"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    let log = container.lines().join("\n");
    assert_eq!(log.contains("use ") && log.contains("is a plain variable"), plain, "{log}");
    for secret in hidden.iter().chain(&forge.issued()) {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
        assert!(!told.contains(secret.as_str()), "a secret is in the status: {told}");
        assert!(!job.log.contains(secret.as_str()), "{}", job.log);
    }
}

#[test]
fn a_secret_reaches_nothing_that_a_job_or_the_machine_shows() {
    let common = [
        ("MY_OWN", "allowed"),
        ("MY_OTHER", "not allowed"),
        ("OSCR_JOB_ENV", "MY_OWN,GITHUB_PAT*,GITHUB_APP*,RUNNER_TOKEN*,ACTIONS_RUNNER_*,ADO_*"),
        // Of another provider, and a secret all the same.
        ("ADO_PAT_FILE", "/nonexistent"),
        ("LC_TIME", "C"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&common[..], more].concat();
    let jit = ("OSCR_REGISTRATION", "jit");
    let json = ("OSCR_LOG", "json");
    let ways = [
        (with(&[]), Way::Pat, false),
        (with(&[jit, json]), Way::Pat, true),
        (with(&[json]), Way::App, false),
        (with(&[jit]), Way::App, true),
        (with(&[]), Way::RegistrationToken, true),
        (with(&[json]), Way::JitConfig, false),
        (with(&[]), Way::JitConfig, true),
    ];
    each(&ways, |(settings, way, plain)| look_everywhere(settings, *way, *plain));
}

#[test]
fn memory_that_held_a_secret_is_wiped_when_it_is_given_back() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    // Its connections and buffers are let go before this line.
    container.wait_line("a new phase: listening");
    let pid = container.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root outside may look");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("root outside may look");
    let (mut looked_at, mut found) = (0, 0);
    let pat = forge.pat();
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[v")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (from, to) = range.split_once('-').expect("two addresses");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let mut bytes = vec![0; usize::try_from(number(to) - number(from)).expect("it fits")];
        if memory.read_exact_at(&mut bytes, number(from)).is_ok() {
            looked_at += bytes.len();
            found += bytes.windows(pat.len()).filter(|window| *window == pat.as_bytes()).count();
        }
    }
    assert!(looked_at > 100_000, "{looked_at} bytes");
    // The one copy by which the log knows what to blank out.
    assert_eq!(found, 1, "copies of the token in {looked_at} bytes");
}

#[test]
fn what_the_image_sets_for_everybody_reaches_jobs_if_only_root_can_set_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let file = container.path("etc/environment");
    write(&file, "# for all\nexport JAVA_HOME=\"/opt/java 21\"\nGITHUB_PAT=no\n", 0o644);
    container.start();
    let ask = "echo \"java: $JAVA_HOME, pat: $GITHUB_PAT.\"";
    let job = forge.wait_job(forge.job(ask), LIMIT);
    assert!(job.log.contains("java: /opt/java 21, pat: .\n"), "{}", job.log);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
    container.restart();
    container.wait_line("etc/environment has no effect: it is not root's alone to write");
    let job = forge.wait_job(forge.job(ask), LIMIT);
    assert!(job.log.contains("java: , pat: .\n"), "{}", job.log);
}

#[test]
fn what_a_job_writes_for_the_agent_to_load_is_gone_before_the_next_one() {
    for persistent in ["false", "true"] {
        let forge = Forge::start();
        let mut container = Container::listening(&forge, &[("RUNNER_PERSISTENT", persistent)]);
        let plant = format!(
            "for root in {}/*; do for file in .env .path; do echo \"PLANTED=in $file\" >$root/$file && echo wrote $file; done; done\n\
             echo 'PLANTED=in the home' >~/.profile; true",
            container.text("runner")
        );
        let job = forge.wait_job(forge.job(&plant), LIMIT);
        assert!(job.log.contains("wrote .env"), "within its own life it may: {}", job.log);
        if persistent == "false" {
            container.restart();
        }
        forge.listening();
        let job = forge.wait_job(forge.job("env | grep -c PLANTED || echo nothing is planted"), LIMIT);
        assert!(job.log.contains("\nnothing is planted\n"), "{persistent}: {}", job.log);
    }
}

#[test]
fn a_secret_that_is_not_used_is_guarded_all_the_same() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    for (name, place) in [("RUNNER_TOKEN_FILE", "run/secrets/unused"), ("AZP_TOKEN_FILE", "run/secrets/others")] {
        write(&container.path(place), "a-token-that-nobody-needs", 0o444);
        container.set(name, &container.text(place));
    }
    container.start();
    forge.listening();
    for place in ["run/secrets/unused", "run/secrets/others"] {
        let meta = fs::metadata(container.path(place)).expect("it is there");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o400, 0), "{place}");
    }
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

#[test]
fn a_private_key_beside_the_certificates_is_no_jobs_to_read() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let own =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/certificates/ca.pem")).expect("a file");
    let key = "-----BEGIN PRIVATE KEY-----\nb3VyLXByaXZhdGUta2V5\n-----END PRIVATE KEY-----\n";
    let file = container.path("ca.pem");
    write(&file, &format!("{key}subject=CN=ours\n{own}"), 0o600);
    container.set("OSCR_CA_FILE", file.to_str().expect("a plain name"));
    container.start();
    let show = "for name in SSL_CERT_FILE NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE GIT_SSL_CAINFO CURL_CA_BUNDLE; do
        eval cat \"\\$$name\"; done";
    let job = forge.wait_job(forge.job(show), LIMIT);
    assert_eq!(job.log.matches(own.trim_end()).count(), 5, "whole, as OpenSSL and .NET read it: {}", job.log);
    for absent in ["PRIVATE", "b3VyLXByaXZhdGUta2V5", "subject"] {
        assert!(!job.log.contains(absent), "{absent}: {}", job.log);
    }
    container.exit_code();
    assert_eq!(container.lines_with("OSCR_CA_FILE").len(), 1, "{:#?}", container.lines());
    for command in ["check", "doctor"] {
        let (_, said, error) = container.ask(&[command]);
        assert!(said.contains("has a private key in it"), "{command}: {said}{error}");
    }

    write(&file, key, 0o600);
    let (code, _, error) = container.ask(&["check"]);
    assert!(code == 78 && error.contains("has no certificate in it that can be used"), "{error}");
}
