//! A newer agent than the image's: asked for in time, fetched beside the listener, proved, and put in its place.
//!
//! The forge is GitHub's own by name, and the simulated one by address. What is old is old by the image's word and by the state
//! file, so no test waits for time to pass.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use oscr_sim::AGENT_VERSION;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Cut, Fault, PackageFault, Refresh, Refusals};
use oscr_sim::protocol::JobResult;
use serde_json::{Value, json};

use crate::harness::{Container, Forge, LIMIT, SECRET, WIPED, allow, each, outcome, until, write};

/// The version that the forge offers.
const NEWER: &str = "2.1000.0";
/// What asks the forge for it, and what fetches it.
const LIST: &str = "/downloads";
const ARCHIVE: &str = ".tar.gz";
/// Where fetched agents are.
const AGENTS: &str = "var/cache/oscr/agents";
const DAY: u64 = 24 * 60 * 60;

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The image says that its agent was released so many days ago.
fn released(container: &Container<'_>, days: u64) {
    let at = SystemTime::now() - Duration::from_secs(days * DAY);
    let day = humantime::format_rfc3339_seconds(at).to_string();
    let note = json!({ "version": AGENT_VERSION, "released": day.split('T').next() });
    write(&container.path("opt/oscr/agent.json"), &note.to_string(), 0o644);
}

/// What the container remembers of newer agents, with what it has besides.
fn remember(container: &Container<'_>, memory: &Value) {
    let mut state = json!({ "version": 1, "current": null, "leftovers": [], "failures": 0, "update": {} });
    state["update"] = memory.clone();
    write(&container.path("var/lib/oscr/state.json"), &state.to_string(), 0o600);
}

/// A container of a company's part of github.com with an agent of so many days, whose moment to ask has come.
fn of_github<'f>(forge: &'f Forge, days: u64) -> Container<'f> {
    let mut container = Container::new(forge);
    let hosts = container.path("etc/hosts");
    write(&hosts, &format!("{} api.octo.ghe.com\n", forge.address().ip()), 0o644);
    container.mount(&hosts, Path::new("/etc/hosts"));
    // The agent itself would go there, too; with a just-in-time configuration it goes where that leads.
    container.set_all(&[("GITHUB_HOST", "http://octo.ghe.com"), ("OSCR_REGISTRATION", "jit")]);
    released(&container, days);
    remember(&container, &json!({ "ours": AGENT_VERSION, "ask_at": 1 }));
    container
}

fn offering(version: &str) -> Forge {
    let forge = Forge::start();
    forge.order(|orders| version.clone_into(&mut orders.latest_version));
    forge
}

fn asked(forge: &Forge, ending: &str) -> usize {
    forge.api_requests().iter().filter(|request| request.path.ends_with(ending)).count()
}

#[track_caller]
fn works(forge: &Forge) {
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
}

/// Waits until this incarnation's listener is of a version.
#[track_caller]
fn runs(container: &Container<'_>, version: &str) {
    container.wait_line(&format!("Current runner version: '{version}'"));
}

fn age(container: &Container<'_>) -> Value {
    container.status()["agent_age"].clone()
}

#[test]
fn nothing_is_asked_while_the_agent_is_young() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 24);
    for _ in 0..2 {
        container.restart();
        forge.listening();
        let age = age(&container);
        assert_eq!((&age["update"], &age["version"]), (&json!("auto: true"), &json!(AGENT_VERSION)), "{age}");
        works(&forge);
        assert_eq!(container.exit_code(), 0);
    }
    assert_eq!(asked(&forge, LIST), 0, "{:?}", forge.calls());
}

#[test]
fn a_container_asks_once_in_six_hours_over_restarts_and_fetches_nothing_that_is_not_newer() {
    each(&[AGENT_VERSION, "2.337.9", "1.999.0"], |version| {
        let forge = offering(version);
        let mut container = of_github(&forge, 26);
        for _ in 0..3 {
            container.restart();
            forge.listening();
            forge.wait_requests(LIST, 1);
            works(&forge);
            assert_eq!(container.exit_code(), 0);
        }
        assert_eq!((asked(&forge, LIST), asked(&forge, ARCHIVE)), (1, 0), "{:?}", forge.calls());
        let next = container.state()["update"]["ask_at"].as_u64().expect("a time");
        assert!(next > now() + 5 * DAY / 24 && next <= now() + 6 * DAY / 24, "{next}");
    });
}

#[test]
fn a_new_container_picks_a_moment_within_six_hours_and_keeps_to_it() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 54);
    fs::remove_file(container.path("var/lib/oscr/state.json")).expect("it was there");
    let mut picked = Vec::new();
    for _ in 0..2 {
        container.restart();
        until("it has picked one", || {
            container.path("var/lib/oscr/state.json").exists() && container.state()["update"]["ask_at"].is_u64()
        });
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        picked.push(container.state()["update"]["ask_at"].as_u64().expect("a time"));
    }
    assert_eq!(picked[0], picked[1]);
    assert!(picked[0] <= now() + 6 * DAY / 24, "{picked:?}");
}

#[test]
fn an_idle_listener_gives_way_to_a_newer_agent_the_forge_first() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 26);
    container.start();
    let (first, _) = forge.listening();
    forge.another(first);
    runs(&container, NEWER);
    let calls = forge.calls();
    let order: Vec<&str> = calls.iter().map(String::as_str).filter(|call| !call.contains(ARCHIVE)).collect();
    assert_eq!(
        order,
        ["POST generate-jitconfig 201", "GET downloads 200", "DELETE ID 204", "POST generate-jitconfig 201"],
        "asked while ours listened, and let go before anything else"
    );
    let meta = fs::metadata(container.path(AGENTS).join(NEWER).join(Kind::GitHub.listener())).expect("it is kept");
    assert_eq!((meta.uid(), meta.mode() & 0o022), (0, 0), "no job can change it");
    let age = age(&container);
    assert_eq!((&age["version"], &age["failures"]), (&json!(NEWER), &json!(0)), "{age}");
    let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    assert_eq!(age["released"].as_str(), today.split('T').next(), "the day on which it was first seen");
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    // It is there for the next incarnation, which asks nothing: it is young.
    container.restart();
    runs(&container, NEWER);
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    assert_eq!((asked(&forge, LIST), asked(&forge, ARCHIVE)), (1, 1), "{:?}", forge.calls());
    assert_eq!(container.names("var/cache/oscr/archives").len(), 0, "nobody needs the archive any more");
    assert_eq!(container.names(AGENTS), [NEWER]);
}

#[test]
fn a_running_job_is_not_disturbed_and_the_next_incarnation_goes_on_with_what_was_fetched() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 26);
    let (job, mut gate) = container.start_with_job();
    container.wait_line("fetching version");
    forge.wait_requests(ARCHIVE, 1);
    assert_eq!(container.status()["phase"], "running");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.calls().iter().filter(|call| call.starts_with("DELETE")).count(), 1, "{:?}", forge.calls());
    container.restart();
    runs(&container, NEWER);
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(asked(&forge, LIST), 1, "{:?}", forge.calls());
}

#[test]
fn a_runner_that_is_always_at_work_fetches_before_it_registers() {
    let forge = offering(NEWER);
    let downloads = forge.downloads();
    let here = forge.url();
    let ours =
        |one: &&Value| one["os"] == "linux" && one["download_url"].as_str().is_some_and(|at| at.starts_with(&here));
    let offered = downloads.as_array().into_iter().flatten().find(ours).expect("one for this machine");
    let package = json!({ "version": NEWER, "url": offered["download_url"], "sha256": offered["sha256_checksum"] });
    let offer = json!({ "package": package, "since": now() });
    let mut container = of_github(&forge, 26);
    // As it is when the forge was asked, and jobs have cut three fetches short.
    remember(&container, &json!({ "ours": AGENT_VERSION, "ask_at": now() + 3600, "cuts": 3, "offer": offer }));
    forge.clear_requests();
    let (job, mut gate) = container.start_with_job();
    runs(&container, NEWER);
    let calls = forge.calls();
    assert!(calls[0].contains(ARCHIVE) && calls[1] == "POST generate-jitconfig 201", "{calls:?}");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_fetch_that_fails_costs_no_start_no_job_and_no_health() {
    type Spoil = fn(&Forge, &mut Container<'_>);
    let status = |status| Fault { status: Some(status), ..Fault::default() };
    let full: Spoil = |_, container| {
        let place = container.text("var/cache/oscr/archives");
        fs::create_dir_all(&place).expect("a directory");
        container.in_namespace(&format!("mount -t tmpfs -o size=64k tmpfs '{place}'"));
    };
    let broken = |fault| move |forge: &Forge, _: &mut Container<'_>| forge.order(|o| o.package_fault = Some(fault));
    let faulty =
        |path: &'static str, fault: Fault| move |forge: &Forge, _: &mut Container<'_>| forge.fault(path, fault.clone());
    type Cases = [(&'static str, Box<dyn Fn(&Forge, &mut Container<'_>) + Sync>, &'static str); 9];
    let cases: Cases = [
        ("another checksum", Box::new(broken(PackageFault::Hash)), "SHA-256"),
        ("another version inside", Box::new(broken(PackageFault::Version)), "says that it is 0.0.1"),
        ("no archive", Box::new(broken(PackageFault::Missing)), "404"),
        ("no list", Box::new(broken(PackageFault::None)), "names no version"),
        ("the list: 500", Box::new(faulty(LIST, status(500))), "500"),
        ("the list: 403", Box::new(faulty(LIST, status(403))), "403"),
        ("the archive: 503", Box::new(faulty(ARCHIVE, status(503))), "503"),
        ("cut", Box::new(faulty(ARCHIVE, Fault { cut: Some(Cut::Body), ..Fault::default() })), ARCHIVE),
        ("the disk is full", Box::new(full), "cannot be written"),
    ];
    each(&cases, |(name, spoil, words)| {
        let forge = offering(NEWER);
        let mut container = of_github(&forge, 26);
        container.set("OSCR_METRICS_FILE", &container.text("metrics/x.prom"));
        fs::create_dir(container.path("metrics")).expect("a directory");
        spoil(&forge, &mut container);
        container.start();
        let (first, _) = forge.listening();
        let line = container.wait_line("no newer agent could be fetched");
        assert!(line.contains(words) && line.contains(" WARN "), "{name}: {line}");
        assert_eq!(container.ask(&["health"]).0, 0, "{name}");
        let age = age(&container);
        assert_eq!((&age["version"], &age["failures"]), (&json!(AGENT_VERSION), &json!(1)), "{name}: {age}");
        let before = (asked(&forge, LIST), asked(&forge, ARCHIVE));
        assert_eq!(forge.runners()[0].id, first, "{name}: the listener was left alone");
        works(&forge);
        assert_eq!(container.exit_code(), 0, "{name}");
        let page = fs::read_to_string(container.path("metrics/x.prom")).expect("metrics");
        assert!(page.lines().any(|line| line.starts_with("oscr_agent_update_failures{") && line.ends_with(" 1")));
        assert!(page.lines().any(|line| line.starts_with("oscr_agent_release_time_seconds{")), "{page}");
        // Not again and again.
        container.restart();
        runs(&container, AGENT_VERSION);
        works(&forge);
        assert_eq!(container.exit_code(), 0, "{name}");
        assert_eq!((asked(&forge, LIST), asked(&forge, ARCHIVE)), before, "{name}");
        // What was unpacked is removed beside everything else, or by the next incarnation before it registers.
        assert_eq!(container.names(AGENTS).len(), 0, "{name}");
    });
}

#[test]
fn a_forge_that_does_not_answer_keeps_neither_a_job_nor_a_stop_waiting() {
    each(&[LIST, ARCHIVE], |slow| {
        let forge = offering(NEWER);
        forge.fault(slow, Fault { delay_ms: 3_600_000, ..Fault::default() });
        let mut container = of_github(&forge, 26);
        container.start();
        forge.listening();
        forge.wait_requests(slow, 1);
        assert_eq!(container.ask(&["health"]).0, 0);
        works(&forge);
        assert_eq!(container.exit_code(), 0);
        // The archive is tried again, the list is not.
        container.restart();
        forge.listening();
        if *slow == ARCHIVE {
            forge.wait_requests(slow, 2);
        }
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        assert_eq!(asked(&forge, LIST), 1);
        assert_eq!(forge.runners().len(), 0);
        assert_eq!(container.names("var/cache/oscr/archives").len(), 0, "{slow}: half an archive stays");
    });
}

#[test]
fn containers_that_share_their_archives_fetch_one() {
    let forge = offering(NEWER);
    // Long enough for the second to come while the first one fetches; if it comes later, it finds the archive.
    forge.fault(ARCHIVE, Fault { delay_ms: 1000, ..Fault::default() });
    let shared = tempfile::tempdir_in("/tmp").expect("a directory");
    let old = shared
        .path()
        .join(format!("github-{}-2.99.0.tar.gz", if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" }));
    fs::write(&old, "an older archive").expect("a file");
    let mut containers = [of_github(&forge, 26), of_github(&forge, 26)];
    for container in &mut containers {
        container.set("OSCR_AGENT_CACHE", shared.path().to_str().expect("text"));
        container.start();
    }
    for container in &containers {
        runs(container, NEWER);
        let listener = container.path(AGENTS).join(NEWER).join(Kind::GitHub.listener());
        assert!(listener.exists(), "each has unpacked its own");
    }
    assert_eq!(asked(&forge, ARCHIVE), 1, "{:?}", forge.calls());
    assert!(!old.exists(), "the newer one took its place");
    assert_eq!(fs::metadata(shared.path()).expect("it is there").mode() & 0o777, 0o700);
    // A later container fetches none, and uses none that is not what the forge says.
    let archive =
        fs::read_dir(shared.path()).expect("a directory").next().expect("the archive").expect("a name").path();
    let whole = fs::read(&archive).expect("it can be read");
    fs::write(&archive, &whole[..whole.len() / 2]).expect("it can be damaged");
    let mut third = of_github(&forge, 26);
    third.set("OSCR_AGENT_CACHE", shared.path().to_str().expect("text"));
    third.start();
    runs(&third, NEWER);
    assert_eq!(asked(&forge, ARCHIVE), 2, "{:?}", forge.calls());
}

#[test]
fn a_shared_directory_that_a_job_can_write_is_refused() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let place = container.path("shared");
    fs::create_dir(&place).expect("a directory");
    std::os::unix::fs::chown(&place, Some(container.uid), None).expect("root may");
    container.set("OSCR_AGENT_CACHE", &container.text("shared"));
    container.start();
    assert!(container.wait_line("OSCR_AGENT_CACHE").contains("belongs to user"));
    assert_eq!(container.exit_code(), 78);
}

#[test]
fn auto_is_false_where_it_cannot_help_or_cannot_work() {
    type Set = fn(&Forge, &mut Container<'_>);
    let cases: [(Set, &str); 5] = [
        (|forge, c| c.set("GITHUB_HOST", &forge.url()), "only github.com and *.ghe.com"),
        (
            |forge, c| {
                c.unset("GITHUB_PAT_FILE");
                c.set("OSCR_REGISTRATION", "token");
                c.set("GITHUB_HOST", &forge.url());
                c.set("RUNNER_TOKEN", &forge.registration_token());
            },
            "auto: false",
        ),
        (
            |forge, c| {
                for setting in ["GITHUB_PAT_FILE", "GITHUB_OWNER", "GITHUB_REPO", "OSCR_REGISTRATION"] {
                    c.unset(setting);
                }
                c.set("ACTIONS_RUNNER_INPUT_JITCONFIG", &forge.jit_config("given"));
            },
            "a just-in-time configuration that is given can ask the forge nothing",
        ),
        (
            |_, c| {
                let place = c.text("var/cache/oscr");
                fs::create_dir_all(&place).expect("a directory");
                c.in_namespace(&format!("mount -t tmpfs -o ro tmpfs '{place}'"));
            },
            "the file system is read-only",
        ),
        (|_, c| c.set("OSCR_AGENT_UPDATE", "false"), "false"),
    ];
    each(&cases, |(set, why)| {
        let forge = offering(NEWER);
        let mut container = of_github(&forge, 400);
        set(&forge, &mut container);
        forge.clear_requests();
        container.start();
        forge.listening();
        let age = age(&container);
        assert!(age["update"].as_str().is_some_and(|update| update.contains(why)), "{why}: {age}");
        works(&forge);
        assert_eq!(container.exit_code(), 0);
        assert_eq!(asked(&forge, LIST), 0, "{:?}", forge.calls());
    });
}

#[test]
fn check_says_what_the_setting_comes_to() {
    let forge = Forge::start();
    let mut container = of_github(&forge, 26);
    let says = |container: &Container<'_>, text: &str| {
        let (code, out, error) = container.ask(&["check"]);
        assert_eq!(code, 0, "{error}");
        let line = out.lines().find(|line| line.contains("OSCR_AGENT_UPDATE")).expect("a line").to_owned();
        assert!(line.ends_with(text), "{line}");
    };
    says(&container, "auto: true");
    container.set("GITHUB_HOST", &forge.url());
    says(&container, "auto: false, because only github.com and *.ghe.com give no jobs to old agents");
    container.set("OSCR_AGENT_UPDATE", "TRUE");
    says(&container, "true");
    // Without root.
    container.unset("GITHUB_HOST");
    container.set_all(&[("OSCR_AGENT_UPDATE", ""), ("GITHUB_PAT_FILE", ""), ("GITHUB_PAT", &forge.pat())]);
    let oscr = container.command(&["check"]);
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={0}", container.uid), format!("--regid={0}", container.uid)]);
    command.arg("--clear-groups").arg(oscr.get_program()).args(oscr.get_args());
    command.env_clear().envs(oscr.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (_, out, error) = outcome(command);
    assert!(out.contains("auto: false, because the container does not run as root"), "{out}{error}");
    container.unset("GITHUB_PAT");
    container.set("GITHUB_PAT_FILE", &container.text(SECRET));
    container.set("OSCR_AGENT_UPDATE", "sometimes");
    let (code, _, error) = container.ask(&["check"]);
    assert!(code == 78 && error.contains("use auto, true or false"), "{error}");
}

#[test]
fn true_fetches_before_it_registers() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 1);
    fs::remove_file(container.path("var/lib/oscr/state.json")).expect("it was there");
    container.set("OSCR_AGENT_UPDATE", "true");
    container.start();
    runs(&container, NEWER);
    let calls = forge.calls();
    assert_eq!(
        (calls[0].as_str(), calls[2].as_str()),
        ("GET downloads 200", "POST generate-jitconfig 201"),
        "{calls:?}"
    );
    assert!(calls[1].contains(ARCHIVE), "{calls:?}");
    works(&forge);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn an_agent_of_unknown_age_is_replaced_a_fortnight_after_a_newer_one_was_seen() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 26);
    fs::remove_file(container.path("opt/oscr/agent.json")).expect("it was there");
    remember(&container, &json!({ "ask_at": 1 }));
    container.start();
    forge.listening();
    container.wait_line(&format!("version {NEWER} of the agent is offered; ours is {AGENT_VERSION}"));
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    assert_eq!((asked(&forge, LIST), asked(&forge, ARCHIVE)), (1, 0));
    let mut memory = container.state()["update"].clone();
    assert_eq!((&memory["ours"], &memory["offer"]["package"]["version"]), (&json!(AGENT_VERSION), &json!(NEWER)));
    memory["newer_since"] = json!(now() - 14 * DAY);
    remember(&container, &memory);
    container.restart();
    runs(&container, NEWER);
    assert_eq!((asked(&forge, LIST), asked(&forge, ARCHIVE)), (1, 1));
}

#[test]
fn an_agent_that_is_refused_is_replaced_however_young_it_is() {
    let forge = offering(NEWER);
    forge.order(|orders| {
        let exit = oscr_sim::forge::ListenerExit { code: 7, text: None, times: 1, runner: None, at_session: false };
        orders.listener_exit = Some(exit);
    });
    let mut container = of_github(&forge, 1);
    container.start();
    runs(&container, NEWER);
    works(&forge);
    assert_eq!(container.exit_code(), 0);
}

/// The forge tells the listener to become the newer version.
fn refresh(forge: &Forge) {
    let refresh = Refresh { version: NEWER.to_owned(), url: None, sha256: String::new() };
    forge.order(|orders| orders.refresh = Some(refresh));
}

#[test]
fn what_a_failed_update_of_the_agents_own_left_is_said_once_and_wiped() {
    let forge = offering(NEWER);
    let mut container = Container::new(&forge);
    container.start();
    for said in 1..=2 {
        forge.listening();
        refresh(&forge);
        until("the agent has tried", || container.lines_with("agent: Runner update process finished.").len() == said);
    }
    let line = container.wait_line("offers a newer version of the GitHub Actions runner than ours");
    assert!(line.ends_with("or set OSCR_AGENT_UPDATE=true") && line.contains(" WARN "), "{line}");
    assert_eq!(container.lines_with("offers a newer version of").len(), 1);
    let status = container.status();
    assert_eq!((&status["phase"], &status["healthy"]), (&json!("listening"), &json!(true)));
    assert!(status["agent_age"]["urged"].is_string() && status["agent_age"]["newer"].is_null(), "{status}");
    let root = container.path("runner").join(&container.names("runner")[0]);
    assert!(container.path("work/_update").exists() && root.join(format!("bin.{NEWER}")).exists());
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    for place in WIPED {
        assert!(container.names(place).is_empty(), "{place}");
    }
    assert_eq!((asked(&forge, LIST), container.names(AGENTS).len()), (0, 0), "{:?}", forge.calls());
}

#[test]
fn what_the_agent_is_told_of_is_asked_for_at_once_and_fetched_by_true() {
    each(&["auto", "true"], |setting| {
        let forge = offering(AGENT_VERSION);
        let mut container = of_github(&forge, 1);
        remember(&container, &json!({ "ours": AGENT_VERSION, "ask_at": now() + 3600 }));
        container.set("OSCR_AGENT_UPDATE", setting);
        container.start();
        let (first, _) = forge.listening();
        assert_eq!(asked(&forge, LIST), 0);
        forge.order(|orders| NEWER.clone_into(&mut orders.latest_version));
        refresh(&forge);
        let said = container.wait_line("offers a newer version of the GitHub Actions runner than ours");
        assert!(said.contains("looking for it now (OSCR_AGENT_UPDATE is "), "{said}");
        container.wait_line(&format!("version {NEWER} of the agent is offered; ours is {AGENT_VERSION}"));
        if *setting == "true" {
            forge.another(first);
            runs(&container, NEWER);
            let age = age(&container);
            assert_eq!((&age["version"], &age["urged"]), (&json!(NEWER), &json!(null)), "{age}");
        } else {
            let age = age(&container);
            assert_eq!(age["newer"], NEWER, "{age}");
            assert!(age["urged"].is_string(), "{age}");
        }
        works(&forge);
        assert_eq!(container.exit_code(), 0);
        let fetches = container.lines_with("fetching version").len();
        // The newer one asks before it registers whether there is a newer one yet; ours is young.
        let expected = if *setting == "true" { (2, 1) } else { (1, 0) };
        assert_eq!((asked(&forge, LIST), fetches), expected, "{:?}", forge.calls());
    });
}

#[test]
fn a_refusal_without_a_cause_is_outdated_where_a_newer_version_is_known() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 1);
    let offer =
        json!({ "package": { "version": NEWER, "url": "https://nowhere/a.tar.gz", "sha256": null }, "since": 1 });
    remember(&container, &json!({ "ours": AGENT_VERSION, "ask_at": now() + 60, "offer": offer }));
    container.set("OSCR_AGENT_UPDATE", "false");
    forge.order(|orders| orders.refuse_polls = Some(Refusals { status: 403, times: None }));
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains(" outdated ") && line.contains("Error: Forbidden"), "{line}");
    assert!(line.contains(&format!("version {NEWER} is offered")), "{line}");
    let status = container.status();
    assert_eq!((&status["phase"], &status["healthy"]), (&json!("outdated"), &json!(false)), "{status}");
    assert_eq!(status["agent_age"]["newer"], NEWER, "{status}");
}

#[test]
fn a_persistent_runner_keeps_its_registration() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 26);
    // The agent would configure itself with octo.ghe.com: it is told where that is.
    container.set_all(&[("OSCR_REGISTRATION", "token"), ("RUNNER_PERSISTENT", "true")]);
    container
        .replace_listener(&format!("set -- \"${{@/http:\\/\\/octo.ghe.com/{}}}\"", forge.url().replace('/', "\\/")));
    container.start();
    runs(&container, NEWER);
    works(&forge);
    let calls = forge.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("POST")).count(), 1, "{calls:?}");
    assert!(!calls.iter().any(|call| call.starts_with("DELETE")), "{calls:?}");
}

#[test]
fn a_fetched_agent_is_looked_at_like_the_images() {
    let forge = offering(NEWER);
    let mut container = of_github(&forge, 26);
    let mut gate = container.gate();
    container.with_programs_of_its_own();
    container.start();
    runs(&container, NEWER);
    // Ordinary jobs change nothing.
    for _ in 0..2 {
        works(&forge);
        assert_eq!(container.exit_code(), 0);
        container.start();
        runs(&container, NEWER);
    }
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    let program = format!("{AGENTS}/{NEWER}/run.sh");
    let mut text = fs::read_to_string(container.path(&program)).expect("a script");
    text.push_str("evil\n");
    write(&container.path(&program), &text, 0o755);
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    let said = container.wait_line("this container is tainted");
    assert!(said.contains(&format!("wiped: /{program} (content). Make")), "{said}");
    assert_eq!(container.wait_phase("tainted")["healthy"], false);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    container.start();
    container.wait_line("this container is tainted");
}

#[test]
fn what_is_left_of_a_fetch_that_was_killed_is_neither_used_nor_a_taint() {
    let forge = offering(AGENT_VERSION);
    let mut container = of_github(&forge, 1);
    container.with_programs_of_its_own();
    container.start();
    forge.listening();
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    let half = container.path(AGENTS).join("0badcafe.half");
    fs::create_dir_all(half.join("bin")).expect("a directory");
    allow(&half, 0o755);
    // One that was made, and of which nobody wrote down what it was like.
    let unknown = container.path(AGENTS).join(NEWER);
    copy(&container.path("opt/oscr/agent"), &unknown);
    let image = fs::metadata(container.listener_program()).expect("a listener");
    let mut state = container.state();
    state["agent"] = json!({ "version": NEWER, "since": 1, "replaces": [image.ino(), image.size(), image.mtime()] });
    write(&container.path("var/lib/oscr/state.json"), &state.to_string(), 0o600);
    container.start();
    runs(&container, AGENT_VERSION);
    works(&forge);
    assert_eq!(container.exit_code(), 0);
    assert!(!half.exists() && !unknown.exists());
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a"]).args([from, to]).status();
    assert!(copied.expect("cp of coreutils").success());
}
