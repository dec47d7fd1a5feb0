//! What an operator sees: the status, the job's summary, metrics over HTTP and as a file, and a disk that is full.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use oscr_sim::forge::{Cut, Fault, Match};
use serde_json::Value;

use crate::harness::{Container, Forge, LIMIT, allow, each, until};

/// The summaries of the running incarnation, or of the last.
pub(crate) fn summaries(container: &Container<'_>) -> Vec<Value> {
    let lines = container.lines_with("\"job summary\"");
    lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["summary"].clone()).collect()
}

/// The address at which metrics are served.
pub fn address(container: &Container<'_>) -> String {
    let line = container.wait_line("metrics are served at");
    line.split("http://").nth(1).expect("a URL").trim_end_matches("/metrics").to_owned()
}

fn request(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a valid time");
    stream.write_all(request).expect("it reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn page(container: &Container<'_>) -> String {
    let answer = request(&address(container), b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

/// The number after a sample's name and labels, all labels but `replica`.
fn number(page: &str, name: &str, labels: &str) -> f64 {
    let line = page
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(labels))
        .unwrap_or_else(|| panic!("no {name} {labels}:\n{page}"));
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_job_leaves_one_line_that_sums_it_up() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    forge.job("echo hello; exit 3");
    assert_eq!(container.exit_code(), 0);
    let all = summaries(&container);
    assert_eq!(all.len(), 1, "{all:?}");
    let summary = &all[0];
    assert_eq!(summary["version"], 1);
    assert_eq!(summary["repository"], "o/r", "{summary}");
    assert_eq!(summary["result"], "failed", "{summary}");
    assert_eq!(summary["waited"], 0.0, "{summary}");
    for field in ["workflow", "run", "attempt", "run_url", "runner", "job", "began"] {
        assert!(summary[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {summary}");
    }
    assert!(summary["ran"].as_f64().is_some_and(|ran| ran > 0.0 && ran < 60.0), "{summary}");
    assert!(summary["wiped"].as_f64().is_some(), "{summary}");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("the page");
    let table = page.split("<!-- summary -->").nth(1).and_then(|rest| rest.split("<!-- /summary -->").next());
    let rows = table.expect("a table").lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let described: BTreeSet<&str> = rows.map(|(name, _)| name).collect();
    let written: BTreeSet<&str> = summary.as_object().expect("fields").keys().map(String::as_str).collect();
    assert_eq!(described, written, "docs/operations.md describes other fields");
}

#[test]
fn without_a_job_there_is_nothing_to_sum_up() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(summaries(&container).len(), 0);
}

#[test]
fn a_persistent_runner_sums_up_each_job() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("RUNNER_PERSISTENT", "true")]);
    for script in ["true", "false"] {
        let job = forge.job(script);
        forge.wait_job(job, LIMIT);
    }
    until("two summaries", || summaries(&container).len() == 2);
    let results: Vec<Value> = summaries(&container).iter().map(|summary| summary["result"].clone()).collect();
    assert_eq!(results, ["succeeded", "failed"]);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_job_whose_agent_dies_is_lost() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (_, _gate) = container.start_with_job();
    nix::sys::signal::kill(container.listener(), Signal::SIGKILL).expect("it lives");
    assert_eq!(container.exit_code(), 75);
    let all = summaries(&container);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["result"], "lost");
}

#[test]
fn metrics_count_over_restarts_and_say_how_things_are() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("OSCR_METRICS_ADDR", "127.0.0.1:0")]);
    container.wait_phase("listening");
    let before = page(&container);
    assert!(before.lines().all(|line| line.starts_with('#') || line.contains("replica=\"")), "{before}");
    for (name, labels, expected) in [
        ("oscr_phase", "phase=\"listening\"", 1.0),
        ("oscr_phase", "phase=\"running\"", 0.0),
        ("oscr_healthy", "", 1.0),
        ("oscr_incarnations_total", "", 1.0),
        ("oscr_jobs_total", "result=\"succeeded\"", 0.0),
        ("oscr_registrations_total", "event=\"made\"", 1.0),
        ("oscr_api_requests_total", "code=\"201\"", 1.0),
        ("oscr_leftover_registrations", "", 0.0),
        ("oscr_wipe_seconds_count", "", 1.0),
    ] {
        assert_eq!(number(&before, name, labels), expected, "{name} {labels}");
    }
    assert!(number(&before, "oscr_disk_free_bytes", "place=") > 0.0);
    assert!(before.contains("agent=\"2."), "{before}");
    forge.job("true");
    container.restart();
    forge.listening();
    container.wait_phase("listening");
    let after = page(&container);
    for (name, labels, expected) in [
        ("oscr_incarnations_total", "", 2.0),
        ("oscr_jobs_total", "result=\"succeeded\"", 1.0),
        ("oscr_job_seconds_count", "", 1.0),
        ("oscr_registrations_total", "event=\"made\"", 2.0),
        ("oscr_registrations_total", "event=\"removed\"", 1.0),
    ] {
        assert_eq!(number(&after, name, labels), expected, "{name} {labels}\n{after}");
    }
    assert!(!before.contains(&forge.pat()) && !after.contains(&forge.pat()));
}

#[test]
fn a_fault_of_the_forge_is_counted_by_its_code() {
    let forge = Forge::start();
    forge.fault("registration-token", Fault { status: Some(503), times: Some(1), ..Fault::default() });
    forge.order(|orders| orders.rate_limit = 1234);
    let container = Container::listening(&forge, &[("OSCR_METRICS_ADDR", "127.0.0.1:0")]);
    container.wait_phase("listening");
    let page = page(&container);
    assert_eq!(number(&page, "oscr_api_requests_total", "code=\"503\""), 1.0);
    assert_eq!(number(&page, "oscr_registrations_total", "event=\"failed\""), 1.0);
    assert_eq!(number(&page, "oscr_api_rate_limit_limit", ""), 1234.0);
    assert!(number(&page, "oscr_api_rate_limit_remaining", "") < 1234.0);
}

#[test]
fn those_who_ask_for_metrics_in_bad_manners_take_nothing_from_others() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[("OSCR_METRICS_ADDR", "127.0.0.1:0")]);
    let address = address(&container);
    let long = vec![b'x'; 1 << 20];
    for (bytes, status) in [
        (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 405 "),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        (b"hello\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let answer = request(&address, bytes);
        assert!(answer.starts_with(status), "{answer}");
    }
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let _ = stream.write_all(&long);
    drop(stream);
    container.wait_phase("listening");
    // More silent ones than are served at once: later ones are turned away until these have had their time.
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&address).expect("it listens")).collect();
    container.wait_phase("listening");
    drop(silent);
    until("it serves again", || request(&address, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    assert_eq!(container.ask(&["health"]).0, 0);
}

#[test]
fn an_address_that_is_taken_or_makes_no_sense_is_a_mistake_in_the_configuration() {
    let forge = Forge::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("an address");
    for (value, words) in [(taken.1.as_str(), "cannot be served"), ("9464", "no address with a port")] {
        let mut container = Container::new(&forge);
        container.set("OSCR_METRICS_ADDR", value);
        container.start();
        assert_eq!(container.exit_code(), 78);
        container.lines_with("OSCR_METRICS_ADDR").iter().find(|line| line.contains(words)).expect(words);
    }
    assert_eq!(forge.api_requests().len(), 0);
}

#[test]
fn the_file_follows_what_happens_and_goes_when_the_runner_is_stopped() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let directory = container.path("metrics");
    fs::create_dir(&directory).expect("a directory");
    container.set("OSCR_METRICS_FILE", &container.text("metrics"));
    container.start();
    forge.listening();
    let file = || -> Option<PathBuf> {
        let entries = fs::read_dir(&directory).expect("a directory").flatten();
        entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "prom"))
    };
    let listening = |path: &Path| {
        fs::read_to_string(path)
            .is_ok_and(|page| page.lines().any(|line| line.contains("phase=\"listening\"") && line.ends_with(" 1")))
    };
    until("the file says that it listens", || file().is_some_and(|path| listening(&path)));
    forge.job("true");
    assert_eq!(container.exit_code(), 0);
    let page = fs::read_to_string(file().expect("it stays for the next incarnation")).expect("it can be read");
    assert_eq!(number(&page, "oscr_jobs_total", "succeeded"), 1.0);
    container.start();
    forge.listening();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0);
}

#[test]
fn a_file_that_a_job_could_write_is_refused() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let directory = container.path("metrics");
    fs::create_dir(&directory).expect("a directory");
    allow(&directory, 0o777);
    container.set("OSCR_METRICS_FILE", &container.text("metrics"));
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line("OSCR_METRICS_FILE").contains("by every job").then_some(()).expect("the reason");
}

/// A small file system, as long as this lives.
struct Small(PathBuf);

impl Small {
    fn at(place: PathBuf) -> Self {
        fs::create_dir_all(&place).expect("a directory");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m,mode=755", "none"]).arg(&place).status();
        assert!(mounted.expect("mount").success(), "these tests mount file systems: run them as root");
        Self(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn no_job_is_taken_while_the_disk_is_full_and_jobs_are_when_it_is_not() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let small = Small::at(container.path("small"));
    container.set("RUNNER_WORKDIR", &container.text("small/work"));
    container.set("OSCR_MIN_FREE", "32m");
    let filler = small.0.join("filler");
    let fill = || fs::write(&filler, vec![1; 48 << 20]).expect("room for it");
    fill();
    container.start();
    container.wait_line("no job is taken");
    let status = container.wait_phase("full");
    let (code, out, _) = container.ask(&["health"]);
    assert_eq!(code, 1);
    assert!(out.contains("small/work has ") && out.contains("OSCR_MIN_FREE"), "{out}");
    assert_eq!(status["disk"][0]["least"], 32 << 20, "{status}");
    assert_eq!(forge.api_requests().len(), 0, "nothing is asked for that cannot be used");
    fs::remove_file(&filler).expect("the file");
    let (id, _) = forge.listening();
    container.wait_phase("listening");
    // While it listens: whoever looks has it take the registration back.
    fill();
    let (code, out, _) = container.ask(&["health"]);
    assert_eq!((code, out.contains("OSCR_MIN_FREE")), (1, true), "{out}");
    container.wait_phase("full");
    forge.wait_nobody();
    fs::remove_file(&filler).expect("the file");
    let again = forge.another(id);
    assert_ne!(again.id, id);
    let job = forge.job("true");
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(oscr_sim::protocol::JobResult::Succeeded));
}

#[test]
fn a_full_runner_can_be_stopped() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_MIN_FREE", "9000t");
    container.start();
    container.wait_line("no job is taken");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.api_requests().len(), 0);
}

#[test]
fn a_cache_is_held_to_its_cap_between_jobs() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let cache = container.path("cache");
    for (name, days) in [("old", 30), ("new", 1)] {
        let file = cache.join(name).join("data");
        fs::create_dir_all(cache.join(name)).expect("a directory");
        fs::write(&file, vec![1; 600 << 10]).expect("the file");
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 3600);
        for path in [file, cache.join(name)] {
            let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
            fs::File::open(path).and_then(|file| file.set_times(times)).expect("our own file");
        }
    }
    let given = Command::new("chown").arg("-R").arg(container.uid.to_string()).arg(&cache).status();
    assert!(given.expect("chown of coreutils").success());
    let place = container.text("cache");
    container.set_all(&[("OSCR_CACHE_DIRS", &place), ("OSCR_CACHE_MAX", "1m"), ("OSCR_METRICS_ADDR", "127.0.0.1:0")]);
    container.start();
    forge.listening();
    container.wait_line("removed 1 entries");
    assert_eq!(container.names("cache"), ["new"]);
    assert!(number(&page(&container), "oscr_cache_evicted_bytes_total", "") >= 600.0 * 1024.0);
    // What a job adds is there for the next, as far as it fits.
    forge.job(&format!("mkdir {0}/mine; head -c 700000 /dev/zero > {0}/mine/data", cache.display()));
    container.restart();
    forge.listening();
    assert_eq!(container.names("cache"), ["mine"]);
}

#[test]
fn an_agent_of_azure_devops_is_summed_up_too() {
    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    container.start();
    forge.listening();
    container.wait_phase("listening");
    assert!(container.status()["agent"] == oscr_sim::AZURE_AGENT_VERSION, "{}", container.status());
    forge.job("exit 1");
    assert_eq!(container.exit_code(), 0);
    let all = summaries(&container);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["result"], "failed", "{all:?}");
}

#[test]
fn a_listener_that_lost_its_connection_does_not_look_as_if_all_were_well() {
    let kinds: [for<'f> fn(&'f Forge) -> Container<'f>; 2] =
        [|forge| Container::new(forge), |forge| Container::azure(forge)];
    each(&kinds, |container| {
        let forge = Forge::start();
        forge.order(|orders| orders.poll_timeout_ms = 300);
        let mut container = container(&forge);
        container.set("OSCR_WATCH_INTERVAL", "1");
        container.start();
        forge.listening();
        let matching = Match { path_contains: Some("/message".to_owned()), agent: Some(true), ..Match::default() };
        forge.add_fault(Fault { matching, cut: Some(Cut::Before), ..Fault::default() });
        container.wait_line("connect error");
        let status = container.status();
        let error = status["last_error"].to_string();
        assert!(error.contains("lost its connection") && status["last_error_at"].is_string(), "{status}");
        assert_eq!(status["connection"], "lost", "{status}");
        forge.clear_faults();
        // Azure's agent says that it has it back; of GitHub's the forge is asked, at the latest after OSCR_WATCH_INTERVAL.
        let up = || container.status()["connection"] == "up";
        until("its connection is known again", up);
        assert_eq!(container.lines_with("registered with").len(), 1);
    });
}
