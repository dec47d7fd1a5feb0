//! What is different on Azure DevOps: the agent stays listed after its job, publishes what it is told, has no hooks, and wants
//! another version now and then.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use oscr_sim::forge::{
    Fault, JobSpec, ListenerExit, Match, PackageFault, RequestRecord, Scope, ServicePrincipal, Snapshot,
};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, WIPED, each, until, write};

/// OSCR's requests, as `DELETE agents/ID 204`.
pub fn calls(forge: &Forge) -> Vec<String> {
    let call = |request: RequestRecord| {
        let path = request.path.rsplit_once("/distributedtask/").map_or(request.path.as_str(), |(_, tail)| tail);
        let parts: Vec<&str> =
            path.split('/').map(|part| if part.parse::<u64>().is_ok() { "ID" } else { part }).collect();
        format!("{} {} {}", request.method, parts.join("/"), request.status.unwrap_or_default())
    };
    forge.api_requests().into_iter().map(call).collect()
}

fn listening<'f>(forge: &'f Forge, settings: &[(&str, &str)]) -> Container<'f> {
    let mut container = Container::azure(forge);
    container.set_all(settings);
    container.start();
    forge.listening();
    container
}

fn pool() -> Scope {
    Scope::Pool("acme".to_owned(), "Default".to_owned())
}

#[test]
fn a_life_leaves_nothing_and_costs_two_requests() {
    let forge = Forge::start();
    let mut container = listening(&forge, &[]);
    let (_, name) = forge.listening();
    let job = forge.wait_job(forge.job("pwd; touch left"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains(&container.text("work/")), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(calls(&forge), ["GET pools 200", "DELETE pools/ID/agents/ID 204"]);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    assert!(container.names("work").is_empty());
    // The agent tells its containers from others' by its root, and the server sessions by their names.
    container.restart();
    assert_ne!(forge.listening().1, name);
}

#[test]
fn nothing_secret_and_nothing_accidental_is_published() {
    let forge = Forge::start();
    let settings = [
        ("AGENT_LABELS", "gpu,board=stm32"),
        ("OSCR_JOB_ENV", "MY_*"),
        ("MY_FLAG", "flag"),
        ("AZURE_STORAGE_KEY", "accidental"),
        ("TZ", "Europe/Vienna"),
    ];
    let container = listening(&forge, &settings);
    let agent = forge.runners().remove(0);
    let user: Vec<(&str, &str)> = agent.capabilities.user.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(user, [("OSCR_NAME_PREFIX", "oscr"), ("board", "stm32"), ("gpu", "true")]);
    let system = &agent.capabilities.system;
    assert!(system.contains_key("Agent.Version"), "the agent's own are there: {system:?}");
    for name in ["PATH", "HOME", "TZ", "MY_FLAG", "AZURE_STORAGE_KEY", "VSO_AGENT_IGNORE", "ADO_PAT_FILE", "OSCR_ROOT"]
    {
        assert!(!system.contains_key(name), "{name}: {system:?}");
    }
    // The job sees what it was given all the same, and can be asked for by what was published.
    let demanding = JobSpec { demands: vec!["gpu".to_owned(), "board -equals stm32".to_owned()], ..job("env") };
    let job = forge.wait_job(forge.submit(demanding), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert!(job.log.contains("MY_FLAG=flag") && job.log.contains("TZ=Europe/Vienna"), "{}", job.log);
    assert!(!job.log.contains("AZURE_STORAGE_KEY") && !job.log.contains(&forge.pat()), "{}", job.log);
    drop(container);
}

fn job(script: &str) -> JobSpec {
    JobSpec::script("job", script)
}

#[test]
fn no_job_finds_the_token() {
    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    let secret = container.text(SECRET);
    container.start();
    let look = format!(
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; cat {secret} 2>&1 || true; \
         grep -rs . \"$AGENT_HOMEDIRECTORY\" ../.. 2>/dev/null | head -c 200000; true"
    );
    let job = forge.wait_job(forge.job(&look), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert!(!job.log.contains(&forge.pat()));
    assert!(job.log.contains("Agent.Listener"), "it did look: {}", job.log);
    assert!(job.log.contains("Permission denied"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_stopped_idle_agent_is_removed_before_it_is_interrupted() {
    let forge = Forge::start();
    let mut container = listening(&forge, &[]);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    let kinds = forge.kinds();
    let at = |kind: &str| kinds.iter().rposition(|known| known == kind);
    assert!(at("runner removed") < at("runner offline") || at("runner offline").is_none(), "{kinds:?}");
}

#[test]
fn a_stopped_agent_finishes_its_job_and_is_removed() {
    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    let (job, mut gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn a_second_signal_cancels_the_job_and_the_agent_is_removed() {
    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("asked to stop:");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_ne!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn an_agent_that_the_server_believes_busy_after_its_job_is_removed_as_soon_as_it_may_be() {
    let forge = Forge::start();
    forge.order(|orders| orders.sticky_busy_ms = 1500);
    let mut container = listening(&forge, &[]);
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    let calls = calls(&forge);
    assert!(calls.iter().any(|call| call == "DELETE pools/ID/agents/ID 400"), "{calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some("DELETE pools/ID/agents/ID 204"));
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn a_killed_predecessors_agent_is_removed_by_the_next_incarnation() {
    let forge = Forge::start();
    let mut container = listening(&forge, &[]);
    let (first, _) = forge.listening();
    container.signal(Signal::SIGKILL);
    container.restart();
    forge.another(first);
    container.wait_line("of an earlier incarnation is not registered any more");
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn what_is_wrong_with_credential_and_pool_is_said_with_its_cure() {
    type Case = (&'static str, fn(&Forge), &'static str);
    let cases: [Case; 6] = [
        ("wrong", |_| {}, "is wrong, expired or revoked"),
        ("wrong", |forge| forge.order(|orders| orders.sign_in = 203), "is wrong, expired or revoked"),
        ("wrong", |forge| forge.order(|orders| orders.sign_in = 302), "is wrong, expired or revoked"),
        ("", |forge| forge.order(|orders| orders.pools = vec!["Other".to_owned()]), "check ADO_POOL"),
        (
            "",
            |forge| forge.order(|orders| orders.unmanaged_pools = vec!["Default".to_owned()]),
            "administrator of the pool",
        ),
        (
            "",
            |forge| forge.order(|orders| orders.deny.extend([("acme".to_owned(), 403)])),
            "Agent Pools (read, manage)",
        ),
    ];
    each(&cases, |(token, order, cure)| {
        let forge = Forge::start();
        order(&forge);
        let mut container = Container::azure(&forge);
        if !token.is_empty() {
            write(&container.path(SECRET), "ado-token-that-is-wrong", 0o400);
        }
        container.start();
        let line = container.wait_line("trying again in");
        assert!(line.contains(cure), "{line}");
        assert!(!line.contains('<'), "no page for browsers in the log: {line}");
        assert_eq!(container.status()["phase"], "denied", "{line}");
        assert_eq!(container.ask(&["health"]).0, 1);
        assert_eq!(calls(&forge).len(), 1, "{:?}", calls(&forge));
        if !token.is_empty() {
            write(&container.path(SECRET), &forge.pat(), 0o400);
            forge.listening();
        }
    });
}

#[test]
fn a_service_principal_registers_and_removes_with_one_token() {
    let forge = Forge::start();
    let principal = ServicePrincipal {
        tenant: "11111111-2222-3333-4444-555555555555".to_owned(),
        client_id: "99999999-8888-7777-6666-555555555555".to_owned(),
        client_secret: "principal~secret+with/signs=".to_owned(),
    };
    forge.order(|orders| orders.service_principals = vec![principal.clone()]);
    let mut container = Container::azure(&forge);
    write(&container.path(SECRET), &principal.client_secret, 0o400);
    container.unset("ADO_PAT_FILE");
    let (url, secret) = (forge.url(), container.text(SECRET));
    container.set_all(&[
        ("ADO_CLIENT_ID", &principal.client_id),
        ("ADO_TENANT_ID", &principal.tenant),
        ("ADO_CLIENT_SECRET_FILE", &secret),
        ("ADO_AUTHORITY_URL", &url),
    ]);
    container.start();
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    assert_eq!(calls(&forge).len(), 3, "token, pool, removal: {:?}", calls(&forge));
    assert!(!container.lines().iter().any(|line| line.contains("principal~secret")));

    write(&container.path(SECRET), "another-secret", 0o400);
    container.restart();
    let line = container.wait_line("trying again in");
    assert!(line.contains("Microsoft Entra ID gives no token") && line.contains("AADSTS"), "{line}");
    assert!(line.contains("ADO_CLIENT_SECRET_FILE"), "{line}");
}

#[test]
fn the_agents_exit_codes_lead_to_a_new_registration() {
    each(&[0, 1, 2, 99], |code| {
        let forge = Forge::start();
        let mut container = listening(&forge, &[]);
        let (first, name) = forge.listening();
        forge.order(|orders| orders.listener_exit = Some(exit(*code)));
        container.wait_line("trying again in");
        assert_ne!(forge.another(first).name, name, "code {code}");
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded), "code {code}");
        assert_eq!(container.exit_code(), 0, "code {code}");
        container.assert_state_empty();
    });
}

fn exit(code: i32) -> ListenerExit {
    ListenerExit { code, text: None, times: 1, runner: None, at_session: false }
}

/// The server wants another version, and the agent ends for it, which it does only where it could rewrite its root.
fn want_another_version(forge: &Forge) {
    forge.order(|orders| {
        orders.wanted_azure_version = Some("99.999.0".to_owned());
        orders.latest_azure_version = "99.999.0".to_owned();
        orders.listener_exit = Some(exit(4));
    });
}

#[test]
fn an_agent_that_must_be_another_version_says_which() {
    let forge = Forge::start();
    want_another_version(&forge);
    let mut container = Container::azure(&forge);
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains("version 99.999.0") && line.contains("OSCR_AGENT_UPDATE"), "{line}");
    assert_eq!(container.status()["phase"], "outdated");
    assert_eq!(container.ask(&["health"]).0, 1);
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn an_agent_that_could_not_become_another_version_says_that_a_newer_one_is_offered() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.wanted_azure_version = Some("99.999.0".to_owned());
        orders.latest_azure_version = "99.999.0".to_owned();
    });
    let mut container = listening(&forge, &[]);
    let line = container.wait_line("offers a newer version of the Azure Pipelines agent");
    assert!(line.contains(" WARN ") && line.contains("pull an image"), "{line}");
    assert!(line.ends_with("or set OSCR_AGENT_UPDATE=true"), "{line}");
    let status = container.status();
    assert_eq!((&status["phase"], status["agent_age"]["urged"].is_string()), (&"listening".into(), true), "{status}");
    assert!(container.ask(&["status"]).1.contains("newer     a newer version is offered"));
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.lines_with("offers a newer version of").len(), 1);
    assert!(!forge.requests().iter().any(|request| request.path.contains("/packages/") && !request.agent));
}

#[test]
fn a_version_that_the_agent_is_told_of_while_it_listens_is_fetched_and_used() {
    let forge = Forge::start();
    let mut container = listening(&forge, &[("OSCR_AGENT_UPDATE", "true")]);
    let (first, _) = forge.listening();
    // It was asked before registering, and would not be asked again for hours.
    forge.order(|orders| {
        orders.wanted_azure_version = Some("99.999.0".to_owned());
        orders.latest_azure_version = "99.999.0".to_owned();
    });
    container.wait_line("offers a newer version of the Azure Pipelines agent than ours: looking for it now");
    forge.another(first);
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.names("var/cache/oscr/agents"), ["99.999.0"]);
    for place in WIPED {
        assert_eq!(container.names(place), Vec::<std::ffi::OsString>::new(), "{place}");
    }
}

#[test]
fn the_wanted_version_is_fetched_proved_and_used_when_asked_for() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.wanted_azure_version = Some("99.999.0".to_owned());
        orders.latest_azure_version = "99.999.0".to_owned();
    });
    let mut container = listening(&forge, &[("OSCR_AGENT_UPDATE", "true")]);
    let work = |forge: &Forge, container: &mut Container<'_>| {
        let new = |seen: &Snapshot| {
            seen.runners.iter().any(|r| r.status == "online" && r.version.as_deref() == Some("99.999.0"))
        };
        forge.wait("an agent of the wanted version", LIMIT, new);
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
    };
    work(&forge, &mut container);
    let fetched = container.path("var/cache/oscr/agents/99.999.0");
    let meta = fs::metadata(fetched.join("bin/Agent.Listener")).expect("it was kept");
    assert_eq!((meta.uid(), meta.mode() & 0o022), (0, 0), "no job can change it");
    // It is there for the next incarnation, without another download.
    let downloads = |forge: &Forge| forge.requests().iter().filter(|request| request.path.ends_with(".tar.gz")).count();
    let before = downloads(&forge);
    assert!(before >= 1);
    container.restart();
    work(&forge, &mut container);
    assert_eq!(downloads(&forge), before);
}

#[test]
fn a_package_that_is_not_what_the_forge_says_is_not_used() {
    let faults = [PackageFault::Hash, PackageFault::Missing, PackageFault::None, PackageFault::Version];
    each(&faults, |fault| {
        let forge = Forge::start();
        want_another_version(&forge);
        forge.order(|orders| orders.package_fault = Some(*fault));
        let mut container = Container::azure(&forge);
        container.set("OSCR_AGENT_UPDATE", "true");
        container.start();
        let line = container.wait_line("trying again in");
        let why = match fault {
            PackageFault::Hash => "SHA-256",
            PackageFault::Missing => "404",
            PackageFault::None => "offers no agent",
            PackageFault::Version => "says that it is 0.0.1",
        };
        assert!(line.contains("no other version could be fetched") && line.contains(why), "{line}");
        assert_eq!(container.status()["phase"], "outdated");
        let kept = || container.names("var/cache/oscr/agents");
        until("nothing of it is kept", || kept().is_empty());
    });
}

#[test]
fn old_agents_of_ours_are_swept_only_when_asked_for() {
    let ours = [("OSCR_NAME_PREFIX", "oscr")];
    let plant = |forge: &Forge| {
        [
            forge.plant_agent(&pool(), "oscr-old-0001", 25, &ours),
            forge.plant_agent(&pool(), "oscr-young-0001", 23, &ours),
            forge.plant_agent(&pool(), "oscr-theirs-0001", 25, &[]),
            forge.plant_agent(&pool(), "other-0001", 25, &[("OSCR_NAME_PREFIX", "other")]),
        ]
    };
    for asked in [false, true] {
        let forge = Forge::start();
        let [old, young, theirs, other] = plant(&forge);
        let mut container = Container::azure(&forge);
        container.set("OSCR_REAP", if asked { "true" } else { "false" });
        container.start();
        container.wait_line("a new phase: listening");
        let left: Vec<u64> = forge.runners().iter().map(|runner| runner.id).collect();
        assert_eq!(left.contains(&old), !asked);
        assert!([young, theirs, other].iter().all(|id| left.contains(id)), "{left:?}");
    }
}

#[test]
fn a_registration_is_kept_over_jobs_and_stops_when_persistent() {
    let forge = Forge::start();
    let mut container = listening(&forge, &[("RUNNER_PERSISTENT", "true"), ("AGENT_LABELS", "gpu")]);
    let (id, _) = forge.listening();
    let work = || {
        let demanding = JobSpec { demands: vec!["gpu".to_owned()], ..job("ls -A; touch mine") };
        let job = forge.wait_job(forge.submit(demanding), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert_eq!(job.runner_id, Some(id));
        assert!(!job.log.contains("\nmine\n"), "{}", job.log);
        forge.listening();
    };
    work();
    work();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners()[0].id, id);
    container.restart();
    forge.listening();
    work();
    let removed = calls(&forge).iter().filter(|call| call.starts_with("DELETE")).count();
    assert_eq!(removed, 0, "{:?}", calls(&forge));
}

#[test]
fn shared_hardware_is_held_while_listening() {
    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    let locks = container.path("locks");
    fs::create_dir(&locks).expect("a directory");
    container.set("RUNNER_LOCK_DIR", &container.text("locks"));
    container.set("RUNNER_RESOURCE_ID", "board-1");
    container.start();
    forge.listening();
    let taken = |locks: &std::path::Path| {
        let lock = fs::OpenOptions::new().write(true).open(locks.join("board-1.lock")).expect("the lock");
        lock.try_lock().is_err()
    };
    assert!(taken(&locks), "while it listens");
    let job = forge.wait_job(forge.job("echo resource=$OSCR_RESOURCE"), LIMIT);
    assert!(job.log.contains("resource=board-1"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert!(!taken(&locks), "after it");
}

#[test]
fn a_forge_that_is_down_is_waited_for() {
    let forge = Forge::start();
    forge.add_fault(Fault {
        matching: Match { path_contains: Some("/pools".to_owned()), agent: Some(false), ..Match::default() },
        times: Some(2),
        status: Some(503),
        ..Fault::default()
    });
    let mut container = listening(&forge, &[]);
    assert_eq!(container.lines_with("trying again in").len(), 2);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
}
