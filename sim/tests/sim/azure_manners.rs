//! What Azure's agent is like where nothing goes by the book: roots that it cannot write, its token, its proxy, its own variables.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, ForgeHandle, JobSpec, Match};
use oscr_sim::protocol::JobResult;
use oscr_sim::scale::Scale;
use serde_json::Value;

use crate::azure::{api, configure, listen, listening, no_violations};
use crate::common::{Agent, LIMIT, Running, forge, token};

const TOKEN: &str = "/acme/_apis/oauth2/token";

/// Who does not own the root, where the tests' user can start somebody else.
const SOMEBODY: u32 = 1001;

fn is_root() -> bool {
    Uid::effective().is_root()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is there");
}

/// A command as somebody else, who may do here what everybody may; without another user, as ourselves.
fn as_somebody(agent: &Agent, arguments: &[&str]) -> Command {
    let mut command = agent.command(arguments);
    if is_root() {
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    command
}

/// A folder, and whose rights are taken back at the end so that it can be deleted.
struct Closed<'a>(&'a Path);

impl<'a> Closed<'a> {
    fn new(path: &'a Path, rights: u32) -> Self {
        mode(path, rights);
        Self(path)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        mode(self.0, 0o755);
    }
}

#[test]
fn an_agent_that_cannot_rewrite_its_root_says_nothing_of_it_and_listens_on() {
    let forge = forge();
    let agent = Agent::of_others(Kind::Azure);
    // As OSCR's root: sticky, and its scripts somebody else's.
    mode(&agent.root, if is_root() { 0o1777 } else { 0o755 });
    let url = format!("{}/acme", forge.url());
    let mut configured = as_somebody(&agent, &["configure", "--unattended", "--url", &url, "--agent", "stuck"]);
    let done = configured.env("VSTS_AGENT_INPUT_TOKEN", forge.pat()).output().expect("it starts");
    assert!(done.status.success(), "{done:?}");
    let _closed = (!is_root()).then(|| {
        fs::create_dir(agent.root.join("_work")).expect("a folder");
        Closed::new(&agent.root, 0o555)
    });

    forge.order(|o| {
        o.wanted_azure_version = Some("99.999.0".into());
        o.poll_timeout_ms = 50;
    });
    let mut running = Running::start(as_somebody(&agent, &["run"]));
    running.expect_line("Listening for Jobs");
    running.expect_line("Agent update in progress, do not shutdown agent.");
    running.expect_line("Downloading 99.999.0 agent");
    agent.until("the update fails", |agent| agent.diag().contains(" is denied."));
    let starved = forge.submit(JobSpec::script("starved", "true"));
    let polls =
        |seen: &oscr_sim::forge::Snapshot| seen.requests.iter().filter(|r| r.path.ends_with("/messages")).count();
    let before = polls(&forge.wait("it polls on", LIMIT, |_| true));
    let seen = forge.wait("it polls on, and is told nothing", LIMIT, |seen| polls(seen) > before + 3);
    let asked = seen.requests.iter().filter(|r| r.path.contains("/packages/agent/")).count();
    assert_eq!((asked, forge.job(starved).expect("it is there").runner), (1, None));

    // A server that is content with it has jobs for it.
    forge.order(|o| o.wanted_azure_version = None);
    assert_eq!(forge.wait_job(starved, LIMIT).result, Some(JobResult::Succeeded));
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(0));
    assert!(!running.said("will exit shortly") && !running.said("denied"), "{:#?}", running.seen);
    no_violations(&forge);
}

#[test]
fn an_agent_that_listens_on_after_its_jobs_ends_with_3_for_an_update() {
    let forge = forge();
    forge.order(|o| o.wanted_azure_version = Some("99.999.0".into()));
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "old", &[]).status.success());
    assert_eq!(agent.run(&[]).code(), Some(3));
    agent.until("the script of the update ends", |agent| agent.root.join("update.finished").exists());
    let version = agent.command(&["--version"]).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&version.stdout), "99.999.0\n");
}

#[test]
fn nothing_runs_where_no_log_can_be_written() {
    for kind in [Kind::Azure, Kind::GitHub] {
        let agent = Agent::of_others(kind);
        let log = agent.root.join("_diag");
        let tried = |words: &str| {
            for arguments in [["--version"].as_slice(), &["configure", "--unattended"], &["remove"], &["run"]] {
                let mut command = as_somebody(&agent, arguments);
                if kind == Kind::GitHub {
                    // It is Azure's alone.
                    command.env("AGENT_DIAGLOGPATH", "/tmp");
                }
                let done = command.output().expect("it starts");
                let (said, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
                assert_eq!((done.status.code(), &*said), (Some(1), ""), "{kind:?} {arguments:?}: {why}");
                assert!(why.starts_with(words) && why.ends_with("is denied.\n"), "{kind:?} {arguments:?}: {why}");
            }
        };
        {
            let _closed = Closed::new(&agent.root, 0o555);
            tried(&format!("Access to the path '{}' is denied.", log.display()));
        }
        fs::create_dir(&log).expect("a folder");
        let _closed = Closed::new(&log, 0o555);
        tried(&format!("Access to the path '{}/", log.display()));
    }
    let agent = Agent::of_others(Kind::Azure);
    let elsewhere = agent.root.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    mode(&elsewhere, 0o777);
    let _closed = Closed::new(&agent.root, 0o555);
    let version = as_somebody(&agent, &["--version"]).env("AGENT_DIAGLOGPATH", &elsewhere).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("{}\n", Kind::Azure.version()));
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 1);
}

#[test]
fn what_nobody_thought_of_ends_a_listener_with_2() {
    for kind in [Kind::Azure, Kind::GitHub] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
        let agent = Agent::of(kind);
        let done = agent.command(&["--version"]).stdout(full).stderr(Stdio::piped()).output().expect("it starts");
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.starts_with("An error occurred: "), "{said}");
    }
}

fn tokens(forge: &ForgeHandle) -> Vec<Option<u16>> {
    let asked = |s: oscr_sim::forge::Snapshot| s.requests.into_iter().filter(|r| r.path == TOKEN).collect::<Vec<_>>();
    let asked = asked(forge.wait("requests", LIMIT, |_| true));
    assert!(asked.iter().all(|r| r.agent && r.auth_kind == "none" && r.method == "POST"), "{asked:#?}");
    asked.into_iter().map(|r| r.status).collect()
}

#[test]
fn an_agent_gets_its_token_by_its_key_until_its_registration_goes() {
    let forge = forge();
    let fault = Fault {
        matching: Match { path_prefix: Some(TOKEN.into()), ..Match::default() },
        times: Some(1),
        status: Some(503),
        ..Fault::default()
    };
    forge.add_fault(fault);
    let (agent, mut running) = listening(&forge, "keyed");
    assert!(running.said("Agent connect error: Response status code 503"), "{:#?}", running.seen);
    let key = fs::read_to_string(agent.root.join(".credentials_rsaparams")).expect("a key");
    let key: Value = serde_json::from_str(key.trim_start_matches('\u{feff}')).expect("JSON");
    assert!(["modulus", "d", "inverseQ"].iter().all(|part| key[part].as_str().is_some_and(|text| text.len() > 100)));
    let job = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert_eq!(tokens(&forge), [Some(503), Some(200)], "one is enough for a life");

    let id = forge.runners()[0].id;
    assert_eq!(api(&forge, "DELETE", &format!("/acme/_apis/distributedtask/pools/1/agents/{id}")).0, 204);
    let mut again = agent.run(&["--once"]);
    assert_eq!(again.code(), Some(1));
    assert!(again.said("Failed to create a session. The agent registration has been deleted"), "{:#?}", again.seen);
    assert_eq!(tokens(&forge).last(), Some(&Some(400)));
}

#[test]
fn removal_is_told_in_the_agents_own_words() {
    let forge = forge();
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "leaver", &[]).status.success());
    let remove = || {
        let mut remove = agent.command(&["remove", "--unattended", "--auth", "pat"]);
        let done = remove.env("VSTS_AGENT_INPUT_TOKEN", forge.pat()).output().expect("it starts");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let gone = [
        "Removing agent from the server",
        "Succeeded: Removing agent from the server",
        "Removing .credentials",
        "Succeeded: Removing .credentials",
        "Removing .agent",
        "Succeeded: Removing .agent",
    ];
    assert_eq!(remove(), (Some(0), gone.map(str::to_owned).to_vec()));
    assert!(!agent.root.join(".credentials_rsaparams").exists());
    let nothing = [
        "Removing agent from the server",
        "Cannot connect to server, because config files are missing. Skipping removing agent from the server.",
        "Removing .credentials",
        "Does not exist. Skipping Removing .credentials",
        "Removing .agent",
        "Does not exist. Skipping Removing .agent",
    ];
    assert_eq!(remove(), (Some(0), nothing.map(str::to_owned).to_vec()));
}

#[test]
fn a_steps_time_after_sigint_and_sigterm_is_what_variables_say() {
    // What is not set is over in a hundredth of the time that the step lives on.
    let (brief, long) = ("0", "3600000000");
    for (after_int, after_term, signal) in [(long, brief, "INT"), (brief, long, "TERM")] {
        let forge = forge();
        forge.order(|o| {
            o.time_scale = Scale(0.001);
            (o.sigint_ms, o.sigterm_ms) = (None, None);
        });
        let mut agent = Agent::of(Kind::Azure);
        agent.set("PROCESS_SIGINT_TIMEOUT", after_int);
        agent.set("PROCESS_SIGTERM_TIMEOUT", after_term);
        assert!(configure(&agent, &forge, "patient", &[]).status.success());
        let mut running = listen(&agent, &forge, "patient");
        let script = format!(
            "trap '' INT\ntrap 'sleep 1; echo lived on; exit 3' {signal}\necho started\nwhile true; do sleep 0.01; done"
        );
        let id = forge.submit(JobSpec::script("stubborn", &script));
        forge.wait("the step runs", LIMIT, |s| s.jobs.iter().any(|j| j.live.contains("started\n")));
        assert!(forge.cancel_job(id));
        let job = forge.wait_job(id, LIMIT);
        assert_eq!(job.result, Some(JobResult::Canceled));
        assert!(job.log.contains("lived on\n"), "{signal}: {}", job.log);
        assert_eq!(running.code(), Some(0));
    }
}

#[test]
fn variables_are_measured_in_characters() {
    let forge = forge();
    let mut agent = Agent::of(Kind::Azure);
    agent.set("WIDE", &"ß".repeat(1023));
    agent.set("TOO_WIDE", &"ß".repeat(1024));
    assert!(configure(&agent, &forge, "wide", &[]).status.success());
    let published = &forge.runners()[0].capabilities.system;
    assert_eq!((published.contains_key("WIDE"), published.contains_key("TOO_WIDE")), (true, false));
}

#[test]
fn a_conflict_of_sessions_is_given_up_after_the_agents_own_time() {
    let forge = forge();
    forge.order(|o| {
        o.time_scale = Scale(0.001);
        (o.conflict_retry_ms, o.conflict_limit_ms) = (None, None);
    });
    let (agent, _running) = listening(&forge, "twice");
    let mut second = agent.run(&["--once"]);
    assert_eq!(second.code(), Some(1));
    let times = second.seen.iter().filter(|line| line.contains("A session for this agent already exists.")).count();
    assert!(times > 1, "it tries again each 30 s for four minutes: {:#?}", second.seen);
    assert!(second.said("stopped retrying"), "{:#?}", second.seen);
}

/// A proxy that leads every tunnel to the forge, whatever it is to lead to, and tells what it was asked.
fn proxy(forge: &ForgeHandle) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let to = forge.url().trim_start_matches("http://").to_owned();
    let (told, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (to, told) = (to.clone(), told.clone());
            thread::spawn(move || tunnel(stream, &to, &told));
        }
    });
    (address, asked)
}

/// One tunnel; whatever breaks ends it.
fn tunnel(mut stream: TcpStream, to: &str, told: &mpsc::Sender<String>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    told.send(String::from_utf8_lossy(&head).into_owned()).ok()?;
    let mut forge = TcpStream::connect(to).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut back) = (stream.try_clone().ok()?, forge.try_clone().ok()?);
    thread::spawn(move || {
        std::io::copy(&mut back, &mut stream).and_then(|_| stream.shutdown(std::net::Shutdown::Write))
    });
    std::io::copy(&mut from, &mut forge).ok()?;
    forge.shutdown(std::net::Shutdown::Write).ok()
}

#[test]
fn each_agent_works_through_the_proxy_of_its_own_variables() {
    let forge = forge();
    let port = forge.url().rsplit_once(':').expect("a port").1.to_owned();
    // A name that nothing but the proxy resolves.
    let place = format!("forge.example:{port}");
    let (address, asked) = proxy(&forge);
    let through = |user: Option<&str>| {
        let all: Vec<String> = asked.try_iter().collect();
        assert!(!all.is_empty());
        for head in all {
            assert!(head.starts_with(&format!("CONNECT {place} HTTP/1.1\r\n")), "{head}");
            let named =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("proxy-authorization: ").map(|_| line));
            assert_eq!(named.map(|line| line.rsplit(' ').next().expect("a value")), user, "{head}");
        }
    };
    let work = |running: &mut Running| {
        let job = forge.wait_job(forge.submit(JobSpec::script("job", "true")), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert_eq!(running.code(), Some(0));
    };

    let mut agent = Agent::of(Kind::Azure);
    agent.set("VSTS_HTTP_PROXY", &format!("http://nobody:wrong@{address}"));
    agent.set("VSTS_HTTP_PROXY_USERNAME", "you");
    agent.set("VSTS_HTTP_PROXY_PASSWORD", "word");
    let url = format!("http://{place}/acme");
    let mut configured = agent.command(&["configure", "--unattended", "--url", &url, "--agent", "behind"]);
    let done = configured.env("VSTS_AGENT_INPUT_TOKEN", forge.pat()).output().expect("it starts");
    assert!(done.status.success(), "{done:?}");
    work(&mut agent.run(&["--once"]));
    through(Some("eW91OndvcmQ="));

    let mut agent = Agent::of(Kind::GitHub);
    agent.set("http_proxy", &format!("http://me:secret@{address}"));
    agent.set("no_proxy", "other.example,*");
    let url = format!("http://{place}/o/r");
    let mut configured =
        agent.command(&["configure", "--unattended", "--url", &url, "--name", "behind", "--ephemeral"]);
    let done = configured.env("ACTIONS_RUNNER_INPUT_TOKEN", token(&forge)).output().expect("it starts");
    assert!(done.status.success(), "{done:?}");
    work(&mut agent.run(&[]));
    through(Some("bWU6c2VjcmV0"));
}
