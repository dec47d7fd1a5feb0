//! What is wrong is said at once, with its cure, before anybody is asked anything.

use std::fs;
use std::os::unix::fs::chown;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;

use crate::harness::{Container, Forge, SECRET, allow, each, write};

#[test]
fn every_problem_is_said_at_once_and_nothing_is_asked() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.unset("GITHUB_PAT_FILE");
    container.set_all(&[
        ("GITHUB_OWNER", ""),
        ("RUNNER_PERSISTENT", "maybe"),
        ("OSCR_STOP_TIMEOUT", "soon"),
        ("RUNNER_WORKDIR", "work"),
        ("RUNNER_NAME", "one"),
        ("OSCR_REGISTRATION", "magic"),
    ]);
    container.start();
    assert_eq!(container.exit_code(), 78);
    for (setting, cure) in [
        ("GITHUB_PAT", "GITHUB_PAT_FILE"),
        ("GITHUB_OWNER", "owner/name"),
        ("RUNNER_PERSISTENT", "true or false"),
        ("OSCR_STOP_TIMEOUT", "30m"),
        ("RUNNER_WORKDIR", "/work"),
        ("RUNNER_NAME", "RUNNER_NAME_PREFIX"),
        ("OSCR_REGISTRATION", "jit"),
    ] {
        let said = container.lines_with(&format!("- {setting}: "));
        assert_eq!(said.len(), 1, "{setting}: {:#?}", container.lines());
        assert!(said[0].contains(cure), "{}", said[0]);
    }
    assert!(!container.lines_with("7 problems").is_empty());
    assert_eq!(forge.requests().len(), 0);
}

#[test]
fn single_mistakes_are_found_too() {
    let mistakes: [(&str, &str, &str); 9] = [
        ("CI_PROVIDER", "gitmill", "CI_PROVIDER"),
        ("GITHUB_PAT_FILE", "/no/such/file", "GITHUB_PAT_FILE"),
        ("GITHUB_ENTERPRISE", "e", "GITHUB_ENTERPRISE"),
        ("GITHUB_REPO", "other/r", "GITHUB_REPO"),
        ("GITHUB_HOST", "http://x/y", "GITHUB_HOST"),
        ("OSCR_AGENT_USER", "0", "OSCR_AGENT_USER"),
        ("OSCR_AGENT_USER", "nobody-of-that-name", "OSCR_AGENT_USER"),
        ("OSCR_CA_FILE", "/no/such/file", "OSCR_CA_FILE"),
        ("RUNNER_SCOPE", "org", "RUNNER_SCOPE"),
    ];
    each(&mistakes, |(name, value, setting)| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        // Which is warned of.
        container.unset("OSCR_KILL_TIMEOUT");
        container.set(name, value);
        container.start();
        assert_eq!(container.exit_code(), 78, "{name}={value}");
        let said = container.lines_with(&format!("- {setting}: "));
        assert_eq!(said.len(), 1, "{name}={value}: {:#?}", container.lines());
        assert!(container.lines()[0].contains("1 problem "), "{name}={value}: {:#?}", container.lines());
        assert_eq!(forge.requests().len(), 0, "{name}={value}");
    });
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_reason_not_to_start() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    write(&container.path("var/lib/oscr"), "not a directory", 0o600);
    container.start();
    assert_eq!(container.exit_code(), 78);
    let said = container.lines_with("var/lib/oscr cannot be");
    assert!(!said.is_empty(), "{:#?}", container.lines());
    assert_eq!(forge.requests().len(), 0);
}

#[test]
fn a_work_directory_has_one_runner() {
    let forge = Forge::start();
    let first = Container::listening(&forge, &[]);
    let mut second = Container::new(&forge);
    second.set("RUNNER_WORKDIR", &first.text("work"));
    second.start();
    assert_eq!(second.exit_code(), 78);
    let said = second.lines_with("in use by another runner");
    assert_eq!(said.len(), 1, "{:#?}", second.lines());
    first.signal(Signal::SIGKILL);
    drop(first);
    std::fs::create_dir_all(second.root.join("work")).expect("a directory");
    second.set("RUNNER_WORKDIR", &second.text("work"));
    second.restart();
    second.wait_line("registered with");
}

#[test]
fn an_empty_secret_file_is_named_when_there_is_no_other_credential() {
    let forge = Forge::start();
    let app = |forge| {
        let mut container = Container::new(forge);
        let key = container.text(SECRET);
        container.unset("GITHUB_PAT_FILE");
        container.set_all(&[("GITHUB_APP_ID", "4711"), ("GITHUB_APP_PRIVATE_KEY_FILE", &key)]);
        container
    };
    for (setting, mut container) in [
        ("GITHUB_PAT", Container::new(&forge)),
        ("GITHUB_APP_PRIVATE_KEY", app(&forge)),
        ("ADO_PAT", Container::azure(&forge)),
    ] {
        write(&container.path(SECRET), "\n", 0o400);
        // What Compose makes of a secret that nobody gave: nothing to tell.
        container.set("RUNNER_TOKEN_FILE", "/dev/null");
        container.start();
        assert_eq!(container.exit_code(), 78);
        let said = container.wait_line(&format!("- {setting}: "));
        let empty = format!("{setting}_FILE names {}, which is empty;", container.text(SECRET));
        assert!(said.contains(&empty) && !said.contains("/dev/null"), "{said}");
    }
    // Beside another credential it is one that is not used.
    let mut container = Container::new(&forge);
    let empty = container.path("run/secrets/empty");
    write(&empty, "", 0o400);
    container.set("RUNNER_TOKEN_FILE", &empty.display().to_string());
    container.start();
    forge.listening();
}

#[test]
fn check_prints_what_is_in_force_without_the_secret_and_without_asking() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("HTTP_PROXY", "http://me:hunter22@proxy:3128");
    container.set("LABELS", "a,b");
    container.set("OSCR_TYPO", "1");
    let (code, out, error) = container.ask(&["check"]);
    assert_eq!(code, 0, "{error}");
    for part in [
        "o/r",
        "*** from GITHUB_PAT_FILE",
        "http://***@proxy:3128",
        "LABELS was read as RUNNER_LABELS",
        "OSCR_TYPO is no setting",
        "Warning: OSCR_KILL_TIMEOUT is 10s",
        "30m",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for secret in [forge.pat().as_str(), "hunter22"] {
        assert!(!out.contains(secret) && !error.contains(secret), "{out}");
    }
    container.unset("GITHUB_OWNER");
    container.set("OSCR_LOG", "xml");
    container.set("GITHUB_PAT", &forge.pat());
    let (code, out, error) = container.ask(&["check"]);
    assert_eq!(code, 78, "{out}");
    assert!(error.contains("3 problems"), "{error}");
    assert!(!error.contains(&forge.pat()), "{error}");
    assert_eq!(forge.requests().len(), 0);
}

#[test]
fn too_little_time_for_a_cancel_is_a_warning_at_start() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[("OSCR_KILL_TIMEOUT", "19")]);
    let said = container.lines_with("OSCR_KILL_TIMEOUT is 19s");
    assert!(said.len() == 1 && said[0].contains(" WARN "), "{said:#?}");
}

#[test]
fn a_directory_for_temporary_files_must_be_one_that_is_emptied() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let lasting = container.text("data");
    container.set("TMPDIR", &lasting);
    let wrong = format!("TMPDIR: {lasting} is not emptied after each job");
    let (code, out, error) = container.ask(&["check"]);
    assert_eq!(code, 78, "{out}");
    assert!(error.contains(&wrong) && error.contains("or unset it"), "{error}");
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line(&wrong);
    assert_eq!(forge.requests().len(), 0);
    let work = container.text("work");
    container.set("TMPDIR", &work);
    let (code, _, error) = container.ask(&["check"]);
    assert_eq!(code, 0, "{error}");
    container.restart();
    forge.listening();
    let job = forge.job("echo \"for temporary files: $TMPDIR\"");
    assert!(forge.wait_job(job, crate::harness::LIMIT).log.contains(&format!("for temporary files: {work}")));
}

/// Asserts that a start, a check and an examination refuse a container with these words, and ask nobody to register.
#[track_caller]
pub fn assert_refused(forge: &Forge, container: &mut Container<'_>, words: &[&str]) {
    container.restart();
    assert_eq!(container.exit_code(), 78, "{:#?}", container.lines());
    let (checked, _, error) = container.ask(&["check"]);
    assert_eq!(checked, 78, "{error}");
    let (examined, report, _) = container.ask(&["doctor"]);
    assert_eq!(examined, 1, "{report}");
    for word in words {
        assert!(!container.lines_with(word).is_empty(), "{word}: {:#?}", container.lines());
        assert!(error.contains(word), "{word}: {error}");
        assert!(report.contains(word), "{word}: {report}");
    }
    assert!(!forge.kinds().contains(&"runner_registered".to_owned()), "{:?}", forge.calls());
}

#[test]
fn a_place_below_a_directory_that_the_agent_cannot_list_is_refused() {
    let cases =
        [(Kind::GitHub, 0o711, ""), (Kind::GitHub, 0o700, ""), (Kind::GitHub, 0o744, "true"), (Kind::Azure, 0o711, "")];
    each(&cases, |(kind, mode, persistent)| {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        container.set("RUNNER_PERSISTENT", persistent);
        let (closed, work) = (container.text("data"), container.text("data/runners/work"));
        container.set("RUNNER_WORKDIR", &work);
        fs::create_dir_all(container.path("data/runners")).expect("a directory");
        fs::create_dir_all(container.path("runner")).expect("a directory");
        allow(&container.path("data"), *mode);
        let line = format!("the agent's user cannot list {closed}, and");
        let cure = format!("chmod o+rx {closed},");
        assert_refused(&forge, &mut container, &["RUNNER_WORKDIR: ", &line, &cure]);
        allow(&container.path("data"), 0o755);
        allow(&container.path("runner"), 0o711);
        let place = container.text("runner");
        let line = format!("the agent's user cannot list {place}, and");
        assert_refused(&forge, &mut container, &["image: ", &line, &format!("chmod o+rx {place} ")]);
        allow(&container.path("runner"), 0o755);
        container.start();
        forge.listening();
    });
}

#[test]
fn a_port_that_the_runner_drops_when_it_is_configured_by_token_is_refused() {
    let jit = "use OSCR_REGISTRATION=jit, or have the server or a proxy listen on port 80";
    let proxy = "have the server or a proxy listen on port 80";
    let cases = [("GITHUB_PAT_FILE", "", jit), ("GITHUB_PAT_FILE", "true", proxy), ("RUNNER_TOKEN_FILE", "", proxy)];
    each(&cases, |(credential, persistent, cure)| {
        let forge = Forge::start_at_another_port();
        let mut container = Container::new(&forge);
        let secret = container.setting("GITHUB_PAT_FILE").to_owned();
        container.unset("GITHUB_PAT_FILE");
        container.set_all(&[(credential, &secret), ("RUNNER_PERSISTENT", persistent)]);
        let (host, port) = (forge.address().ip(), forge.address().port());
        let line = format!("drops the port {port}, and would send the token to http://{host}");
        assert_refused(&forge, &mut container, &["GITHUB_HOST: ", &line, cure]);
        assert!(container.lines_with("OSCR_REGISTRATION=jit").is_empty() || *cure == jit, "{:#?}", container.lines());
        assert_eq!(forge.requests().len(), 0);
    });
}

#[test]
fn an_ordinary_users_agent_must_be_able_to_list_its_place_too() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (entry, uid) = (container.text("usr/local/bin/oscr-entry"), container.uid);
    let work = container.text("data/work");
    container.set("RUNNER_WORKDIR", &work);
    for place in ["data/work", "runner", "var/lib/oscr", "run/oscr", "run/secrets"] {
        fs::create_dir_all(container.path(place)).expect("a directory");
        chown(container.path(place), Some(uid), Some(uid)).expect("root may");
    }
    chown(container.path(SECRET), Some(uid), Some(uid)).expect("root may");
    allow(&container.path("data"), 0o711);
    container
        .in_namespace(&format!("exec setpriv --pdeathsig KILL --reuid {uid} --regid {uid} --clear-groups '{entry}'"));
    container.start();
    assert_eq!(container.exit_code(), 78, "{:#?}", container.lines());
    container.wait_line(&format!("cannot list {}, and", container.text("data")));
    assert_eq!(forge.requests().len(), 0);
    allow(&container.path("data"), 0o755);
    container.restart();
    forge.listening();
}

#[test]
fn a_user_without_a_home_gets_one_that_is_wiped() {
    for kind in [Kind::GitHub, Kind::Azure] {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        container.start();
        forge.listening();
        let home = container.text("home/oscr");
        let said = container.wait_line("made by OSCR");
        assert!(said.contains(&format!("has no home in /etc/passwd: its home is {home}")), "{said}");
        let job = forge.job("echo \"at home in $HOME\"; touch \"$HOME/left\"");
        let log = forge.wait_job(job, crate::harness::LIMIT).log;
        assert!(log.contains(&format!("at home in {home}")), "{log}");
        container.exit_code();
        assert_eq!(container.names("home/oscr"), [".config"]);
    }
}

#[test]
fn a_json_log_is_one_object_per_line_with_phase_and_runner() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("OSCR_LOG", "json")]);
    let (_, name) = forge.listening();
    forge.wait_job(forge.job("true"), crate::harness::LIMIT);
    assert_eq!(container.exit_code(), 0);
    let mut phases = Vec::new();
    for line in container.lines() {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["time", "level", "phase", "runner", "message"] {
            assert!(object[key].is_string(), "{key}: {line}");
        }
        let phase = object["phase"].as_str().expect("a string").to_owned();
        if ["listening", "running"].contains(&phase.as_str()) {
            assert_eq!(object["runner"], name.as_str(), "{line}");
        }
        phases.push(phase);
    }
    phases.dedup();
    for phase in ["cleaning", "registering", "listening", "running", "unregistering"] {
        assert!(phases.iter().any(|seen| seen == phase), "{phases:?}");
    }
}
