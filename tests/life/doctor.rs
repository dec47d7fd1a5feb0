//! `oscr-entry doctor` finds each fault, names its cure, and changes nothing at the forge.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use oscr_sim::forge::{Fault, Match};
use serde_json::json;

use crate::engine::Engine;
use crate::harness::{Container, Forge, Gate, SECRET, allow, each, until, write, write_program};

/// The lines of one examination: verdict, topic, and the rest with its cure.
struct Report {
    code: i32,
    text: String,
    lines: Vec<(String, String, String)>,
}

impl Report {
    #[track_caller]
    fn of(container: &Container<'_>) -> Self {
        Self::read(container.ask(&["doctor"]))
    }

    #[track_caller]
    fn read((code, text, error): (i32, String, String)) -> Self {
        assert_eq!(error, "", "{text}");
        let mut lines: Vec<(String, String, String)> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix("      "), lines.last_mut()) {
                (Some(cure), Some(last)) => last.2.push_str(cure),
                _ => {
                    let mut words = line.splitn(3, ' ');
                    let verdict = words.next().unwrap_or_default().to_owned();
                    let rest = words.collect::<Vec<_>>().join(" ");
                    let (topic, rest) = rest.trim_start().split_once(' ').unwrap_or_default();
                    lines.push((verdict, topic.to_owned(), rest.trim_start().to_owned()));
                }
            }
        }
        Self { code, text, lines }
    }

    fn verdicts(&self, verdict: &str) -> Vec<&str> {
        self.lines.iter().filter(|line| line.0 == verdict).map(|line| line.1.as_str()).collect()
    }

    /// Asserts that this topic alone fails, and that its line and cure have these words.
    #[track_caller]
    fn fails(&self, topic: &str, words: &[&str]) {
        assert_eq!(self.code, 1, "{}", self.text);
        assert_eq!(self.verdicts("FAIL"), [topic], "{}", self.text);
        let line = self.lines.iter().find(|line| line.0 == "FAIL").expect("just seen");
        assert!(line.2.contains("cure: "), "{}", self.text);
        for word in words {
            assert!(line.2.contains(word), "{word}: {}", self.text);
        }
    }

    #[track_caller]
    fn warns(&self, topic: &str, words: &[&str]) {
        assert_eq!(self.code, 0, "{}", self.text);
        let line = self.lines.iter().find(|line| line.0 == "warn" && line.1 == topic);
        let line = line.unwrap_or_else(|| panic!("no warning about {topic}: {}", self.text));
        for word in words.iter().chain([&"cure: "]) {
            assert!(line.2.contains(word), "{word}: {}", self.text);
        }
    }
}

/// A container in which all is well but for what a test changes.
fn healthy(forge: &Forge) -> Container<'_> {
    made_healthy(Container::new(forge))
}

fn made_healthy(mut container: Container<'_>) -> Container<'_> {
    // That of the tests is too short for the official agent, which is worth a warning.
    container.unset("OSCR_KILL_TIMEOUT");
    write(&container.path("sys/fs/cgroup/memory.max"), "4294967296\n", 0o444);
    write(&container.path("sys/fs/cgroup/pids.max"), "4096\n", 0o444);
    std::fs::create_dir_all(container.path("runner")).expect("a directory");
    container
}

#[test]
fn where_all_is_well_everything_is_looked_at_in_order_and_nothing_changes() {
    let forge = Forge::start();
    let container = healthy(&forge);
    let report = Report::of(&container);
    assert_eq!(report.code, 0, "{}", report.text);
    let topics: Vec<&str> = report.lines.iter().map(|line| line.1.as_str()).collect();
    let order = [
        "settings",
        "dns",
        "tls",
        "proxy",
        "clock",
        "credential",
        "scope",
        "credential",
        "labels",
        "agent",
        "worker",
        "age",
        "lock",
        "disk",
        "cgroup",
        "cgroup",
        "docker",
    ];
    assert_eq!(topics[..order.len()], order, "{}", report.text);
    // The simulated forge speaks no TLS.
    assert_eq!(report.verdicts("warn"), ["tls"], "{}", report.text);
    assert!(report.verdicts("FAIL").is_empty() && report.text.contains(oscr_sim::AGENT_VERSION), "{}", report.text);
    assert_eq!(forge.runners().len(), 0);
    let changing: Vec<String> = forge.calls().into_iter().filter(|call| !call.starts_with("GET ")).collect();
    assert_eq!(changing, ["POST registration-token 201"]);
    assert_eq!(container.names("runner").len(), 0, "the agent's directory was taken away again");
    assert!(!report.text.contains(&forge.pat()));
}

#[test]
fn what_the_configuration_warns_of_is_told() {
    let forge = Forge::start();
    let mut container = healthy(&forge);
    container.set("OSCR_KILL_TIMEOUT", "5");
    let report = Report::of(&container);
    assert_eq!(report.code, 0, "{}", report.text);
    let warned: Vec<_> = report.lines.iter().filter(|line| line.0 == "warn" && line.1 == "settings").collect();
    assert!(warned.len() == 1 && warned[0].2.contains("OSCR_KILL_TIMEOUT"), "{}", report.text);
    assert!(report.text.contains("see the warnings"), "{}", report.text);
}

#[test]
fn a_running_runner_can_be_examined() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    let report = Report::of(&container);
    assert_eq!(report.code, 0, "{}", report.text);
    assert_eq!(forge.wait_idle(1, crate::harness::LIMIT).len(), 1);
    assert_eq!(container.status()["phase"], "listening");
}

/// A container that listens, and a doctor that waits at a gate while the agent says its version to it.
fn examined_at_a_gate<'f>(forge: &'f Forge) -> (Container<'f>, Gate, Child) {
    let mut container = healthy(forge);
    let (gate, armed, reached) = (container.gate(), container.path("armed"), container.path("reached"));
    std::fs::create_dir(&reached).expect("a directory");
    allow(&reached, 0o777);
    let wait = format!("mkdir {}/x; read -r _ <'{}'", reached.display(), container.text("gate"));
    container.replace_listener(&format!("[ \"$1\" = --version ] && [ -e {} ] && {{ {wait}; }}", armed.display()));
    container.start();
    forge.listening();
    write(&armed, "", 0o444);
    let mut command = container.command(&["doctor"]);
    let doctor = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    until("the agent is asked", || reached.join("x").exists());
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for a doctor");
    (container, gate, doctor)
}

#[test]
fn a_root_that_it_uses_is_wiped_by_nobody_else() {
    let forge = Forge::start();
    let (mut container, mut gate, doctor) = examined_at_a_gate(&forge);
    assert_eq!(container.names("runner").len(), 2, "{:?}", container.names("runner"));
    gate.open();
    let output = doctor.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let report = Report::read((output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr)));
    assert!(report.verdicts("FAIL").is_empty() && report.text.contains(oscr_sim::AGENT_VERSION), "{}", report.text);
    assert_eq!(container.exit_code(), 0);
    assert!(container.names("runner").is_empty());
}

#[test]
fn a_root_that_a_killed_one_left_goes() {
    let forge = Forge::start();
    let (mut container, mut gate, mut doctor) = examined_at_a_gate(&forge);
    doctor.kill().expect("it lives");
    doctor.wait().expect("it ends");
    assert_eq!(container.exit_code(), 0);
    assert!(container.names("runner").is_empty());
    gate.open();
}

#[test]
fn each_fault_of_the_way_has_its_own_line() {
    type Break = fn(&mut Container<'_>);
    let faults: [(&str, Break, &[&str]); 6] = [
        ("dns", |c| c.set("GITHUB_HOST", "http://no-such-host.invalid"), &["no-such-host.invalid", "name server"]),
        (
            "dns",
            |c| c.set_all(&[("GITHUB_HOST", "http://127.0.0.1:1"), ("OSCR_REGISTRATION", "jit")]),
            &["no connection", "firewall"],
        ),
        (
            "tls",
            |c| {
                let encrypted = c.setting("GITHUB_HOST").replace("http://", "https://");
                c.set("GITHUB_API_URL", &format!("{encrypted}:80/api/v3"));
            },
            &["cannot be trusted", "speaks no TLS", "check the address and its port"],
        ),
        (
            "proxy",
            |c| {
                c.unset("GITHUB_HOST");
                c.set("GITHUB_API_URL", "http://forge.example/api/v3");
                c.set("HTTP_PROXY", "http://me:hidden-word@127.0.0.1:1");
            },
            &["127.0.0.1:1", "NO_PROXY"],
        ),
        ("settings", |c| c.unset("GITHUB_PAT_FILE"), &["GITHUB_PAT", "no credential"]),
        ("settings", |c| c.set("OSCR_AGENT_USER", "nobody-of-that-name"), &["OSCR_AGENT_USER"]),
    ];
    each(&faults, |(topic, break_it, words)| {
        let forge = Forge::start();
        let mut container = healthy(&forge);
        break_it(&mut container);
        let report = Report::of(&container);
        report.fails(topic, words);
        assert!(!report.text.contains("hidden-word"), "{}", report.text);
    });
}

#[test]
fn a_wrong_clock_is_found() {
    let forge = Forge::start();
    for (ahead, verdict) in [(3600, "FAIL"), (60, "warn"), (0, "ok")] {
        let date = std::time::SystemTime::now() + std::time::Duration::from_secs(ahead);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
            httpdate(date)
        );
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in server.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let mut container = healthy(&forge);
        container.set_all(&[("GITHUB_HOST", &format!("http://{address}")), ("OSCR_REGISTRATION", "jit")]);
        let report = Report::of(&container);
        let clock = report.lines.iter().find(|line| line.1 == "clock").expect("a line");
        assert_eq!(clock.0, verdict, "{}", report.text);
        assert_eq!(clock.2.contains("timedatectl"), verdict != "ok", "{}", report.text);
    }
}

/// A time as HTTP writes it.
fn httpdate(time: std::time::SystemTime) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%a, %d %b %Y %H:%M:%S GMT", "-d"])
        .arg(format!("@{}", time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()))
        .env("LC_ALL", "C")
        .output();
    String::from_utf8(output.expect("date of coreutils").stdout).expect("text").trim().to_owned()
}

#[test]
fn each_refusal_of_the_forge_names_its_cure() {
    type Break = fn(&Forge, &mut Container<'_>);
    let organisation: Break = |_, container| {
        container.unset("GITHUB_REPO");
        container.set("GITHUB_RUNNER_GROUP", "no-such-group");
    };
    let faults: [(&str, Break, &[&str]); 6] = [
        ("credential", |_, c| write(&c.path(SECRET), "ghp_wrong", 0o400), &["401", "GITHUB_PAT_FILE", "replace it"]),
        (
            "credential",
            |forge, _| {
                forge.order(|o| {
                    o.deny.insert("repos/o/r".into(), 403);
                });
            },
            &["403", "Administration (read and write)"],
        ),
        (
            "credential",
            |forge, _| {
                let body = json!({"message": "Resource not accessible by personal access token"});
                let matching = Match { method: Some("POST".to_owned()), ..Match::default() };
                let fault = Fault { matching, status: Some(403), body: Some(body), ..Fault::default() };
                forge.fault("registration-token", fault);
            },
            &["refused to register", "Administration (read and write)"],
        ),
        (
            "scope",
            |forge, _| forge.order(|o| o.only_scopes = vec!["repos/else/where".into()]),
            &["404", "GITHUB_OWNER and GITHUB_REPO"],
        ),
        ("group", organisation, &["no-such-group", "GITHUB_RUNNER_GROUP"]),
        ("credential", |forge, _| forge.fault("rate_limit", Fault { status: Some(503), ..Fault::default() }), &["503"]),
    ];
    each(&faults, |(topic, break_it, words)| {
        let forge = Forge::start();
        let mut container = healthy(&forge);
        break_it(&forge, &mut container);
        Report::of(&container).fails(topic, words);
    });
}

#[test]
fn an_old_agent_is_a_warning_and_one_that_cannot_run_a_failure() {
    let forge = Forge::start();
    forge.order(|orders| orders.latest_version = "2.400.0".to_owned());
    let container = healthy(&forge);
    Report::of(&container).warns("agent", &[oscr_sim::AGENT_VERSION, "2.400.0", "pull a newer image"]);
    let listener = container.path("opt/oscr/agent/bin/Runner.Listener");
    write_program(&listener, "#!/bin/sh\necho 'libicu is missing' >&2; exit 134\n");
    Report::of(&container).fails("agent", &["cannot run here", "libicu is missing"]);
    std::fs::remove_file(&listener).expect("the file");
    Report::of(&container).fails("agent", &["there is no agent in"]);
}

#[test]
fn a_credential_that_cannot_ask_is_said_to_be_untried() {
    let forge = Forge::start();
    let mut container = healthy(&forge);
    let token = forge.registration_token();
    container.unset("GITHUB_PAT_FILE");
    container.set("RUNNER_TOKEN", &token);
    let report = Report::of(&container);
    report.warns("credential", &["shows when it is used"]);
    assert!(!report.text.contains(&token));
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn labels_that_no_job_will_ask_for_are_remarked_on() {
    let forge = Forge::start();
    let mut container = healthy(&forge);
    container.set("RUNNER_NO_DEFAULT_LABELS", "true");
    Report::of(&container).warns("labels", &["self-hosted", "RUNNER_LABELS"]);
}

#[test]
fn the_place_is_looked_at_too() {
    type Break = fn(&mut Container<'_>);
    let broken: [(&str, Break, &[&str]); 4] = [
        (
            "lock",
            |c| {
                c.set("RUNNER_RESOURCE_ID", "board-1");
                c.set("RUNNER_LOCK_DIR", "/nonexistent/locks");
            },
            &["/nonexistent/locks"],
        ),
        (
            "lock",
            |c| {
                let locks = c.path("locks");
                std::fs::create_dir(&locks).expect("a directory");
                allow(&locks, 0o777);
                c.set("RUNNER_RESOURCE_ID", "board-1");
                c.set("RUNNER_LOCK_DIR", &c.text("locks"));
            },
            &["can be opened by the agent's user", "give it to root"],
        ),
        ("disk", |c| c.set("OSCR_MIN_FREE", "9000t"), &["OSCR_MIN_FREE"]),
        ("docker", |c| c.set("DOCKER_HOST", "unix:///nonexistent/docker.sock"), &["nobody answers"]),
    ];
    each(&broken, |(topic, break_it, words)| {
        let forge = Forge::start();
        let mut container = healthy(&forge);
        break_it(&mut container);
        let report = Report::of(&container);
        assert_eq!(report.code, 1, "{}", report.text);
        let failed = report.verdicts("FAIL");
        assert!(!failed.is_empty() && failed.iter().all(|failed| failed == topic), "{}", report.text);
        for word in *words {
            assert!(report.text.contains(word), "{word}: {}", report.text);
        }
    });
}

/// Somebody who answers as Docker does.
fn daemon(socket: &Path, mode: u32) {
    Engine::at(socket);
    allow(socket, mode);
}

#[test]
fn dockers_socket_must_answer_and_let_jobs_in() {
    let forge = Forge::start();
    let container = healthy(&forge);
    daemon(&container.path("var/run/docker.sock"), 0o666);
    let report = Report::of(&container);
    assert_eq!(report.code, 0, "{}", report.text);
    assert!(report.text.contains("Docker 29.0.1 answers"), "{}", report.text);
    let container = healthy(&forge);
    daemon(&container.path("var/run/docker.sock"), 0o660);
    Report::of(&container).fails("docker", &["jobs may not use", "OSCR_DOCKER_GID0"]);
}

#[test]
fn a_container_without_limits_is_remarked_on() {
    let forge = Forge::start();
    let container = healthy(&forge);
    write(&container.path("sys/fs/cgroup/memory.max"), "max\n", 0o644);
    write(&container.path("sys/fs/cgroup/pids.max"), "max\n", 0o644);
    let report = Report::of(&container);
    report.warns("cgroup", &["OSCR_MEMORY"]);
    assert!(report.text.contains("OSCR_PIDS"), "{}", report.text);
}

#[test]
fn azure_devops_is_examined_by_its_own_rules() {
    let forge = Forge::start();
    let report = Report::of(&made_healthy(Container::azure(&forge)));
    assert_eq!(report.code, 0, "{}", report.text);
    assert!(report.text.contains("the pool Default exists"), "{}", report.text);
    assert!(report.lines.iter().any(|line| line.1 == "agent" && line.0 == "ok"), "{}", report.text);
    let reading = forge.api_requests().into_iter().all(|request| request.method == "GET");
    assert!(reading, "nothing is changed");
    type Break = fn(&mut Container<'_>);
    let faults: [(&str, Break, &[&str]); 2] = [
        ("credential", |c| write(&c.path(SECRET), "wrong-token", 0o400), &["ADO_PAT_FILE", "replace it"]),
        ("scope", |c| c.set("ADO_POOL", "no-such-pool"), &["no-such-pool", "ADO_POOL"]),
    ];
    for (topic, break_it, words) in faults {
        let mut container = made_healthy(Container::azure(&forge));
        break_it(&mut container);
        Report::of(&container).fails(topic, words);
    }
}

#[test]
fn a_file_of_certificates_that_is_none_fails_and_one_that_has_expired_is_a_warning() {
    let forge = Forge::start();
    let mut container = healthy(&forge);
    let file = container.path("etc/ca.pem");
    container.set("OSCR_CA_FILE", &file.display().to_string());
    write(&file, "of ours", 0o644);
    let report = Report::of(&container);
    report.fails("settings", &["OSCR_CA_FILE: ", "has no certificate in it", "-----BEGIN CERTIFICATE-----"]);
    let expired = include_str!("../faults/certificates/own-expired.pem");
    write(&file, expired, 0o644);
    let report = Report::of(&container);
    assert_eq!(report.code, 0, "{}", report.text);
    let said = report.lines.iter().find(|line| line.0 == "warn" && line.2.contains("OSCR_CA_FILE")).map(|line| &line.2);
    for words in ["the certificate of ", "expired on 2020-02-01", "put its successor there"] {
        assert!(said.is_some_and(|said| said.contains(words)), "{words}: {}", report.text);
    }
}
