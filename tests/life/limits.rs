//! Rate limits and herds: what a job costs in requests, one token for many, and slowing down before the forge says so.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::forge::app::{AppOrders, KEY};
use oscr_sim::forge::{Fault, Match};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, allow, each, until, write};
use crate::page;

/// Runs jobs one after the other, and gives the requests of all lives but the first.
fn calls_per_job(forge: &Forge, mut container: Container<'_>, mode: &str) -> Vec<String> {
    const JOBS: usize = 3;
    let persistent = mode.contains("PERSISTENT");
    let calls = || if mode.contains("Azure") { crate::azure::calls(forge) } else { forge.calls() };
    let mut before = 0;
    container.start();
    for round in 0..=JOBS {
        forge.listening();
        if round == 1 {
            // The first life may have had more to ask. What a kept registration costs comes before the next job, not after.
            before = calls().len();
        }
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        if persistent {
            forge.wait_idle(1, LIMIT);
            wait_next_listener(forge, round + 2);
        } else {
            assert_eq!(container.exit_code(), 0);
            container.start();
        }
    }
    forge.listening();
    let calls = calls().split_off(before);
    assert_eq!(calls.len() % JOBS, 0, "not the same for each of {JOBS} jobs: {calls:#?}");
    let each = calls.len() / JOBS;
    let (first, rest) = calls.split_at(each);
    assert!(rest.chunks(each.max(1)).all(|round| round == first), "{calls:#?}");
    first.to_vec()
}

/// The listener of a kept registration begins a session for each job.
fn wait_next_listener(forge: &Forge, sessions: usize) {
    let begun = |seen: &oscr_sim::forge::Snapshot| {
        let begun = seen.requests.iter().filter(|r| {
            r.agent && r.method == "POST" && (r.path.ends_with("/_broker/session") || r.path.ends_with("/sessions"))
        });
        begun.filter(|r| r.status == Some(200) || r.status == Some(201)).count() >= sessions
    };
    forge.wait("the next listener", LIMIT, begun);
}

#[test]
fn a_job_costs_as_many_requests_as_the_documentation_says() {
    type Prepare = for<'f> fn(&'f Forge) -> Container<'f>;
    let modes: [(&str, Prepare); 8] = [
        ("`token`", |forge| Container::new(forge)),
        ("`token` with `OSCR_TOKEN_CACHE`", |forge| {
            let mut container = Container::new(forge);
            container.set("OSCR_TOKEN_CACHE", &container.text("var/cache/tokens"));
            container
        }),
        ("`token` with a GitHub App", |forge| {
            forge.order(|orders| orders.app = Some(AppOrders::default()));
            crate::app::container(forge)
        }),
        ("`jit`", |forge| {
            let mut container = Container::new(forge);
            container.set("OSCR_REGISTRATION", "jit");
            container
        }),
        ("`RUNNER_PERSISTENT`", |forge| {
            let mut container = Container::new(forge);
            container.set("RUNNER_PERSISTENT", "true");
            container
        }),
        ("`RUNNER_TOKEN`", |forge| {
            let mut container = Container::new(forge);
            container.unset("GITHUB_PAT_FILE");
            container.set("RUNNER_TOKEN", &forge.registration_token());
            container
        }),
        ("Azure DevOps", |forge| Container::azure(forge)),
        ("Azure DevOps with `RUNNER_PERSISTENT`", |forge| {
            let mut container = Container::azure(forge);
            container.set("RUNNER_PERSISTENT", "true");
            container
        }),
    ];
    let rows = Mutex::new(vec![String::new(); modes.len()]);
    let numbers: Vec<usize> = (0..modes.len()).collect();
    each(&numbers, |number| {
        let (mode, prepare) = &modes[*number];
        let forge = Forge::start();
        let container = prepare(&forge);
        let calls = calls_per_job(&forge, container, mode);
        let counted = calls.iter().filter(|call| !call.ends_with(" 304")).count();
        let list = if calls.is_empty() { "none".to_owned() } else { format!("`{}`", calls.join("`, `")) };
        rows.lock().expect("nobody panicked")[*number] = format!("| {mode} | {counted} | {list} |\n");
    });
    let head = "| registration | counted | requests |\n| --- | --- | --- |\n".to_owned();
    page::keep("docs/reliability.md", "calls", &(head + &rows.into_inner().expect("nobody panicked").concat()));
}

#[test]
fn replicas_that_start_together_ask_for_one_token_and_no_job_can_reach_it() {
    let forge = Forge::start();
    let volume = tempfile::Builder::new().prefix("oscr-life-tokens-").tempdir_in("/tmp").expect("a directory in /tmp");
    // As Docker makes a new volume.
    allow(volume.path(), 0o755);
    let mut replicas: Vec<Container<'_>> = (0..6).map(|_| Container::new(&forge)).collect();
    for replica in &mut replicas {
        replica.set("OSCR_TOKEN_CACHE", &volume.path().display().to_string());
    }
    each_mut(&mut replicas, |replica| replica.start());
    forge.wait_idle(replicas.len(), LIMIT);
    assert_eq!(forge.calls(), ["POST registration-token 201"]);
    for place in [volume.path().display().to_string(), format!("{}/*.json", volume.path().display())] {
        let job = forge.wait_job(forge.job(&format!("cat {place} || ls {place} || echo closed")), LIMIT);
        assert!(job.log.contains("\nclosed\n") && job.log.contains("ermission denied"), "{}", job.log);
    }
}

fn each_mut<T>(all: &mut [T], work: impl Fn(&mut T)) {
    all.iter_mut().for_each(work);
}

#[test]
fn a_shared_token_that_is_refused_is_replaced_for_all() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_TOKEN_CACHE", &container.text("tokens"));
    container.start();
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    let kept = container.names("tokens").into_iter().find(|name| name.to_string_lossy().ends_with(".json"));
    let kept = container.path("tokens").join(kept.expect("a kept token"));
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&kept).expect("readable")).expect("JSON");
    let mut bad = good.clone();
    bad["token"] = "ANOTHERTOKENTHATNOBODYGAVE".into();
    fs::write(&kept, bad.to_string()).expect("writable");
    container.start();
    forge.listening();
    assert_eq!(container.lines_with("trying again in").len(), 1, "{:#?}", container.lines());
    let asked = forge.calls().into_iter().filter(|call| call.starts_with("POST registration-token")).count();
    assert_eq!(asked, 2, "{:?}", forge.calls());
    let now: serde_json::Value = serde_json::from_slice(&fs::read(&kept).expect("readable")).expect("JSON");
    assert!(now["token"] != bad["token"], "it is still there");
    let secret = now["token"].as_str().expect("a token");
    assert!(container.lines_with(secret).is_empty(), "the token is in the log");
}

#[test]
fn a_directory_for_the_token_that_is_not_roots_alone_is_refused() {
    type Prepare = fn(&mut Container<'_>);
    let cases: [(Prepare, &str); 2] = [
        (
            |container| {
                let place = container.path("tokens");
                fs::create_dir(&place).expect("a directory");
                std::os::unix::fs::chown(&place, Some(container.uid), None).expect("root may");
                container.set("OSCR_TOKEN_CACHE", &container.text("tokens"));
            },
            "belongs to user",
        ),
        (|container| container.set("OSCR_TOKEN_CACHE", "tokens"), "not an absolute path"),
    ];
    each(&cases, |(prepare, words)| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        prepare(&mut container);
        container.start();
        assert_eq!(container.exit_code(), 78);
        assert_eq!(container.lines_with(words).len(), 1, "{:#?}", container.lines());
        assert!(container.lines_with("OSCR_TOKEN_CACHE").len() == 1 && forge.calls().is_empty());
    });
}

#[test]
fn a_limit_that_is_nearly_used_up_slows_the_next_registration_down_but_no_removal() {
    let forge = Forge::start();
    forge.order(|orders| orders.rate_used = orders.rate_limit - 100);
    let mut container = Container::listening(&forge, &[]);
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    let (before, _) = (forge.calls(), container.start());
    let said = container.wait_line("slowing down");
    assert!(said.contains("98 of 5000 requests"), "{said}");
    let status = container.status();
    assert_eq!(status["phase"], "backing-off", "{status}");
    assert_eq!(forge.calls(), before, "nothing is asked meanwhile");
    assert_eq!(container.lines_with("slowing down").len(), 1);
    // Once there is enough again, and the wait is over, all is as before. Here the wait is an hour, so it is cut short.
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.calls(), before);
    container.start();
    container.wait_line("slowing down");
    assert_eq!(forge.calls(), before, "not even by a stop is it forgotten");
    // A container with an idle runner is let go at once all the same.
    let mut other = Container::listening(&forge, &[]);
    other.signal(Signal::SIGTERM);
    assert_eq!(other.exit_code_within(Duration::from_secs(20)), 0);
    forge.wait_nobody();
}

#[test]
fn a_count_that_starts_anew_soon_is_waited_for_no_longer() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.rate_used = orders.rate_limit - 5;
        // Longer than one life's end and the next one's beginning take.
        orders.rate_reset_s = 10;
    });
    let mut container = Container::listening(&forge, &[]);
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    forge.order(|orders| orders.rate_used = 0);
    container.start();
    container.wait_line("slowing down");
    forge.listening();
    assert!(container.uptime() >= Duration::from_secs(1), "it did not wait");
}

#[test]
fn the_last_requests_are_not_spent_on_questions_about_an_idle_runner() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[("OSCR_WATCH_INTERVAL", "1")]);
    let (id, _) = forge.listening();
    let path = format!("/actions/runners/{id}");
    forge.wait_requests(&path, 1);
    forge.order(|orders| orders.rate_used = orders.rate_limit - 5);
    // The answer to the next one tells.
    container.wait_line("the forge is not asked");
    let asked = || forge.calls().iter().filter(|call| call.starts_with("GET")).count();
    let before = asked();
    // A listener that lost its connection is one more reason to ask, and no better one.
    let matching = Match { path_contains: Some("/message".to_owned()), agent: Some(true), ..Match::default() };
    forge.add_fault(Fault { matching, status: Some(500), ..Fault::default() });
    container.wait_line("connect error");
    let put_off = container.lines_with("the forge is not asked").len();
    until("it was put off again", || container.lines_with("the forge is not asked").len() > put_off + 1);
    assert_eq!(asked(), before, "{:?}", forge.calls());
    assert_eq!(container.status()["connection"], "lost");
}

#[test]
fn another_credential_is_not_held_to_what_the_last_one_used_up() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.rate_used = orders.rate_limit - 5;
        orders.app = Some(AppOrders::default());
    });
    let mut container = Container::listening(&forge, &[]);
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    let kept = container.state()["pace"].clone();
    assert!(kept["until"].is_u64() && !kept.to_string().contains(&forge.pat()), "{kept}");
    forge.order(|orders| orders.rate_used = 0);
    write(&container.path(SECRET), KEY, 0o400);
    let key = container.text(SECRET);
    container.unset("GITHUB_PAT_FILE");
    container.set_all(&[("GITHUB_APP_ID", "4711"), ("GITHUB_APP_PRIVATE_KEY_FILE", &key)]);
    container.start();
    forge.listening();
    assert!(container.lines_with("slowing down").is_empty());
}

#[test]
fn a_container_that_others_may_have_started_with_waits_and_one_after_its_job_does_not() {
    let forge = Forge::start();
    // No random part of this is short.
    const LONG: &str = "100h";
    let mut container = Container::new(&forge);
    container.set("OSCR_START_JITTER", LONG);
    container.start();
    container.wait_line("OSCR_START_JITTER");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(10)), 0);
    assert_eq!(forge.calls(), Vec::<String>::new());
    container.set("OSCR_START_JITTER", "0");
    container.start();
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    container.set("OSCR_START_JITTER", LONG);
    container.start();
    forge.listening();
    // Killed, as by a power cut that hits all: not alone.
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("OSCR_START_JITTER");
}
