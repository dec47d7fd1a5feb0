//! Azure DevOps: its answers, its agent, and what neither may be told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{
    ForgeHandle, JobSpec, ListenerExit, ListenerTrouble, LostAssignments, PackageFault, ServicePrincipal,
};
use oscr_sim::protocol::{Condition, JobResult, Step, Trouble};
use serde_json::{Value, json};

use crate::common::{Agent, LIMIT, Running, forge};

const POOLS: &str = "/acme/_apis/distributedtask/pools";

/// A request to Azure DevOps as OSCR sends it.
pub fn api(forge: &ForgeHandle, method: &str, path: &str) -> (u16, Value) {
    api_as(forge, method, path, &format!("Basic {}", BASE64.encode(format!(":{}", forge.pat()))))
}

fn api_as(forge: &ForgeHandle, method: &str, path: &str, authorization: &str) -> (u16, Value) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    let agent = config.max_redirects_will_error(false).build().new_agent();
    let mark = if path.contains('?') { '&' } else { '?' };
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}{mark}api-version=5.1", forge.url()))
        .header("accept", "application/json")
        .header("user-agent", "test")
        .header("authorization", authorization);
    let mut answer = agent.run(request.body(()).expect("a valid request")).expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a text");
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub fn configure(agent: &Agent, forge: &ForgeHandle, name: &str, more: &[&str]) -> Output {
    let url = format!("{}/acme", forge.url());
    let mut arguments = vec!["configure", "--unattended", "--acceptTeeEula", "--url", &url, "--auth", "pat"];
    arguments.extend(["--pool", "Default", "--agent", name, "--work", "_work"]);
    arguments.extend(more);
    agent.command(&arguments).env("VSTS_AGENT_INPUT_TOKEN", forge.pat()).output().expect("the listener starts")
}

/// A configured agent that listens for one job.
pub fn listening(forge: &ForgeHandle, name: &str) -> (Agent, Running) {
    let agent = Agent::of(Kind::Azure);
    let done = configure(&agent, forge, name, &[]);
    assert!(done.status.success(), "{done:?}");
    let running = listen(&agent, forge, name);
    (agent, running)
}

pub fn listen(agent: &Agent, forge: &ForgeHandle, name: &str) -> Running {
    let mut running = agent.run(&["--once", "--startuptype", "service"]);
    running.expect_line("Listening for Jobs");
    forge.wait(&format!("{name} polls"), LIMIT, |s| {
        s.runners.iter().any(|r| r.name == name && r.status == "online")
            && s.requests.iter().any(|r| r.path.ends_with("/messages") && r.status.is_none())
    });
    running
}

pub fn no_violations(forge: &ForgeHandle) {
    assert_eq!(forge.contract_violations(), Vec::<String>::new());
}

#[test]
fn an_agent_takes_one_job_and_stays_listed() {
    let forge = forge();
    let (agent, mut running) = listening(&forge, "one");
    let settings = fs::read_to_string(agent.root.join(".agent")).expect("settings");
    assert!(settings.starts_with('\u{feff}'), "{settings}");
    let id = forge.submit(JobSpec {
        pool: Some("Default".into()),
        ..JobSpec::script("greet", "echo hello $SYSTEM_TEAMPROJECT $TF_BUILD; tr '\\0' '\\n' </proc/$PPID/comm; pwd")
    });
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    for part in ["hello playground True\n", "Agent.Worker\n", &format!("{}\n", agent.root.join("_work/1/s").display())]
    {
        assert!(job.log.contains(part), "{part:?} in {}", job.log);
    }
    assert_eq!(running.code(), Some(0));
    for marker in ["Running job: greet", "Job greet completed with result: Succeeded"] {
        assert!(running.said(marker), "{marker}: {:#?}", running.seen);
    }
    let left = forge.runners();
    assert_eq!((left.len(), left[0].status.as_str(), left[0].pool.as_deref()), (1, "offline", Some("Default")));
    assert!(agent.root.join(".agent").exists());
    no_violations(&forge);
}

#[test]
fn pools_and_agents_are_found_by_name_and_removed_by_id() {
    let forge = forge();
    forge.order(|o| {
        o.pools.push("Boards".into());
        o.unmanaged_pools.push("Boards".into());
    });
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "named", &[]).status.success());
    assert_eq!(api(&forge, "GET", &format!("{POOLS}?poolName=boards")).1["value"][0]["id"], 2);
    assert_eq!(api(&forge, "GET", &format!("{POOLS}?poolName=boards&actionFilter=manage")).1["count"], 0);
    assert_eq!(api(&forge, "GET", &format!("{POOLS}?poolName=Default&actionFilter=manage")).1["value"][0]["size"], 1);
    let (_, found) = api(&forge, "GET", &format!("{POOLS}/1/agents?agentName=named&includeCapabilities=true"));
    let one = &found["value"][0];
    assert_eq!((&one["status"], &one["systemCapabilities"]["Agent.Name"]), (&json!("offline"), &json!("named")));
    let path = format!("{POOLS}/1/agents/{}", one["id"]);
    let (_, plain) = api(&forge, "GET", &path);
    assert_eq!((&plain["name"], plain.get("systemCapabilities")), (&json!("named"), None));
    assert_eq!(api(&forge, "DELETE", &path), (204, Value::String(String::new())));
    let (status, gone) = api(&forge, "DELETE", &path);
    assert_eq!((status, &gone["typeKey"]), (404, &json!("TaskAgentNotFoundException")));
    let (status, no_pool) = api(&forge, "GET", &format!("{POOLS}/9/agents/1"));
    assert_eq!((status, &no_pool["typeKey"]), (404, &json!("TaskAgentPoolNotFoundException")));
    // A collection of Azure DevOps Server has two segments.
    assert_eq!(api(&forge, "GET", "/tfs/Collection/_apis/distributedtask/pools?poolName=Default").1["count"], 1);
    no_violations(&forge);
}

#[test]
fn a_busy_agent_cannot_be_removed_whether_its_job_runs_or_only_sticks() {
    let forge = forge();
    let (agent, mut running) = listening(&forge, "busy");
    let gate = agent.root.join("gate");
    let id = forge.submit(JobSpec::script("waits", &format!("until test -e {}; do sleep 0.01; done", gate.display())));
    let seen = forge.wait("it runs", LIMIT, |s| s.events.iter().any(|e| e.kind == "job_started"));
    let path = format!("{POOLS}/1/agents/{}", seen.runners[0].id);
    let assigned = api(&forge, "GET", &format!("{path}?includeAssignedRequest=true")).1;
    assert_eq!(assigned["assignedRequest"]["jobName"], "waits");
    let (status, refused) = api(&forge, "DELETE", &path);
    assert_eq!((status, &refused["typeKey"]), (400, &json!("TaskAgentJobStillRunningException")));
    assert_eq!(refused["message"], "Agent \"busy\" is running a job for pool \"Default\"");
    forge.order(|o| o.sticky_busy_ms = 3_600_000);
    fs::write(gate, "").expect("the gate");
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert_eq!(api(&forge, "DELETE", &path).0, 400);
}

#[test]
fn whoever_is_not_known_is_led_to_a_page_in_the_way_that_is_ordered() {
    let forge = forge();
    for (sign_in, status) in [(401, 401), (203, 203), (302, 302)] {
        forge.order(|o| o.sign_in = sign_in);
        let (got, body) = api_as(&forge, "GET", POOLS, &format!("Basic {}", BASE64.encode(":another")));
        assert_eq!(got, status);
        assert!(status == 302 || body.as_str().is_some_and(|page| page.contains("Sign In")), "{body}");
        let refused = Agent::of(Kind::Azure);
        let url = format!("{}/acme", forge.url());
        let mut command = refused.command(&["configure", "--unattended", "--url", &url, "--agent", "x"]);
        let done = command.env("VSTS_AGENT_INPUT_TOKEN", "another").output().expect("it starts");
        assert_eq!(done.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&done.stderr).contains("You are not authorized to access"), "{done:?}");
    }
    forge.order(|o| {
        o.deny.insert("acme".into(), 403);
    });
    let (status, body) = api(&forge, "GET", POOLS);
    assert_eq!((status, &body["typeKey"]), (403, &json!("AccessDeniedException")));
}

#[test]
fn configure_says_what_is_wrong_and_ends_with_1() {
    let forge = forge();
    forge.order(|o| {
        o.pools.push("Seen".into());
        o.unmanaged_pools.push("Seen".into());
    });
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "taken", &[]).status.success());
    let again = configure(&agent, &forge, "taken", &[]);
    assert_eq!(again.status.code(), Some(1));
    for (name, more, words) in [
        ("taken", ["--pool", "Default"], "already contains an agent with name taken"),
        ("new", ["--pool", "Nowhere"], "Agent pool not found: 'Nowhere'"),
        ("new", ["--pool", "Seen"], "needs Manage permissions for pool Seen"),
    ] {
        let done = configure(&Agent::of(Kind::Azure), &forge, name, &more);
        assert_eq!(done.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&done.stderr).contains(words), "{done:?}");
    }
    assert!(configure(&Agent::of(Kind::Azure), &forge, "taken", &["--Replace"]).status.success());
    assert_eq!(forge.runners().len(), 1);
}

#[test]
fn a_service_principal_configures_and_its_secret_belongs_to_the_directory_alone() {
    let forge = forge();
    let principal =
        ServicePrincipal { tenant: "t-1".into(), client_id: "c-1".into(), client_secret: "quite/secret~1".into() };
    forge.order(|o| o.service_principals.push(principal));
    let agent = Agent::of(Kind::Azure);
    let url = format!("{}/acme", forge.url());
    let mut arguments = vec!["configure", "--unattended", "--url", &url, "--auth", "SP", "--pool", "Default"];
    arguments.extend(["--agent", "principal", "--clientid", "c-1", "--tenantid", "t-1"]);
    let mut command = agent.command(&arguments);
    let wrong = command.env("VSTS_AGENT_INPUT_CLIENTSECRET", "wrong").output().expect("it starts");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("AADSTS7000215"), "{wrong:?}");
    let done = command.env("VSTS_AGENT_INPUT_CLIENTSECRET", "quite/secret~1").output().expect("it starts");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(forge.runners().len(), 1);
    no_violations(&forge);
}

#[test]
fn the_environment_becomes_capabilities_but_for_what_is_ignored() {
    let forge = forge();
    let mut agent = Agent::of(Kind::Azure);
    agent.set("COLOUR", "blue");
    agent.set("HIDDEN", "green");
    agent.set("ENDLESS", &"x".repeat(1024));
    agent.set("VSO_AGENT_IGNORE", "PATH,hidden");
    fs::write(agent.root.join(".capabilities"), "gpu=yes\nboard = nucleo\n").expect("a file");
    assert!(configure(&agent, &forge, "open", &[]).status.success());
    let seen = forge.runners()[0].capabilities.clone();
    assert_eq!(seen.system.get("COLOUR").map(String::as_str), Some("blue"));
    for name in ["HIDDEN", "PATH", "ENDLESS", "VSO_AGENT_IGNORE", "VSTS_AGENT_INPUT_TOKEN"] {
        assert_eq!(seen.system.get(name), None);
    }
    assert_eq!(seen.user.get("board").map(String::as_str), Some("nucleo"));
    no_violations(&forge);
    // What was written later counts from the next session on.
    fs::write(agent.root.join(".capabilities"), "gpu=no\n").expect("a file");
    let _running = listen(&agent, &forge, "open");
    assert_eq!(forge.runners()[0].capabilities.user.get("gpu").map(String::as_str), Some("no"));
}

#[test]
fn a_secret_among_the_capabilities_is_a_violation_that_does_not_repeat_it() {
    let forge = forge();
    let mut agent = Agent::of(Kind::Azure);
    agent.set("OOPS", &format!("https://user:{}@host", forge.pat()));
    assert!(configure(&agent, &forge, "leaky", &[]).status.success());
    let found = forge.contract_violations();
    assert!(found.iter().any(|v| v.contains("/agents: a personal access token in the body")), "{found:?}");
    assert!(!format!("{found:?}").contains(&forge.pat()), "{found:?}");
}

#[test]
fn a_request_that_breaks_the_reference_is_noticed() {
    let forge = forge();
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let authorization = format!("Basic {}", BASE64.encode(format!(":{}", forge.pat())));
    let url = format!("{}/acme/_apis/distributedtask/pools?poolNme=x", forge.url());
    let _ = agent.get(&url).header("authorization", authorization).call().expect("an answer");
    let broken = forge.contract_violations().join("\n");
    for part in ["api-version is None", "unknown query parameter poolNme", "wanted application/json"] {
        assert!(broken.contains(part), "{part}: {broken}");
    }
}

#[test]
fn jobs_find_agents_by_pool_and_demands() {
    let forge = forge();
    forge.order(|o| o.pools.push("Boards".into()));
    let (with, without, elsewhere) = (Agent::of(Kind::Azure), Agent::of(Kind::Azure), Agent::of(Kind::Azure));
    fs::write(with.root.join(".capabilities"), "board=nucleo\n").expect("a file");
    fs::write(elsewhere.root.join(".capabilities"), "board=nucleo\n").expect("a file");
    for (agent, name, pool) in
        [(&with, "with", "Default"), (&without, "without", "Default"), (&elsewhere, "elsewhere", "Boards")]
    {
        assert!(configure(agent, &forge, name, &["--pool", pool]).status.success());
    }
    let _listening = [&with, &without, &elsewhere].map(|agent| agent.run(&["--once"]));
    forge.wait_idle(3, LIMIT);
    let ask = |demand: &str| JobSpec {
        pool: Some("default".into()),
        demands: vec![demand.into()],
        ..JobSpec::script("demanding", "true")
    };
    let nobody = forge.submit(ask("board -equals other"));
    let job = forge.submit(ask("Board -equals NUCLEO"));
    assert_eq!(forge.wait_job(job, LIMIT).runner.as_deref(), Some("with"));
    let job = forge.submit(JobSpec { pool: Some("Boards".into()), ..ask("board") });
    assert_eq!(forge.wait_job(job, LIMIT).runner.as_deref(), Some("elsewhere"));
    assert_eq!(forge.job(nobody).expect("it is there").runner, None);
}

#[test]
fn a_stopped_agent_fails_its_job_and_skips_all_further_steps() {
    let forge = forge();
    let (_agent, mut running) = listening(&forge, "stopped");
    let step = |run: &str, condition| Step { run: run.into(), condition, ..Step::default() };
    let steps = vec![step("echo started; exec sleep 60", Condition::Success), step("echo always", Condition::Always)];
    let id = forge.submit(JobSpec::steps("long", steps));
    forge.wait("the step runs", LIMIT, |s| s.jobs.iter().any(|j| j.live.contains("started\n")));
    running.signal(Signal::SIGINT);
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.log.contains("The agent has received a shutdown signal"), "{}", job.log);
    assert!(!job.log.contains("\nalways\n"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
}

#[test]
fn an_agent_that_is_told_to_update_ends_with_4_and_gets_no_job() {
    let forge = forge();
    let (agent, mut running) = listening(&forge, "old");
    forge.order(|o| o.wanted_azure_version = Some("99.999.0".into()));
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(running.code(), Some(4));
    for words in [
        "Agent update in progress, do not shutdown agent.",
        "Downloading 99.999.0 agent",
        "Agent will exit shortly for update, should back online within 10 seconds.",
    ] {
        assert!(running.said(words), "{words}: {:#?}", running.seen);
    }
    assert_eq!(forge.job(id).expect("it is there").runner, None);
    agent.until("the script of the update ends", |agent| agent.root.join("update.finished").exists());
    // It is of that version now, and content.
    let mut running = agent.run(&["--once"]);
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}

#[test]
fn listeners_end_with_the_code_that_is_ordered() {
    let forge = forge();
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "told", &[]).status.success());
    for (code, at_session) in [(1, true), (2, false), (3, false), (4, true)] {
        let exit = ListenerExit { code, text: None, times: 1, runner: None, at_session };
        forge.order(|o| o.listener_exit = Some(exit));
        assert_eq!(agent.run(&["--once"]).code(), Some(code));
    }
}

#[test]
fn a_second_session_is_refused_until_the_limit_and_ends_with_1() {
    let forge = forge();
    forge.order(|o| o.conflict_limit_ms = Some(100));
    let (agent, _running) = listening(&forge, "twice");
    let mut second = agent.run(&["--once"]);
    assert_eq!(second.code(), Some(1));
    assert!(second.said("A session for this agent already exists."), "{:#?}", second.seen);
}

#[test]
fn a_lost_request_is_skipped_and_somebody_else_gets_the_job() {
    let forge = forge();
    forge.order(|o| o.lost_assignments = Some(LostAssignments { times: 1, status: 404, consume: false }));
    let (agent, mut running) = listening(&forge, "unlucky");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert!(agent.diag().contains("Skipping message Job"));
}

#[test]
fn a_listener_whose_registration_went_leaves_with_its_files() {
    let forge = forge();
    forge.order(|o| o.end_polls_on_delete = true);
    let (agent, mut running) = listening(&forge, "deleted");
    let id = forge.runners()[0].id;
    assert_eq!(api(&forge, "DELETE", &format!("{POOLS}/1/agents/{id}")).0, 204);
    assert_eq!(running.code(), Some(0));
    assert!(agent.root.join(".agent").exists());
    assert_eq!(agent.run(&["--once"]).code(), Some(1));
}

#[test]
fn listeners_crash_hang_and_hear_nothing_when_ordered() {
    let forge = forge();
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "trouble", &[]).status.success());
    let order = |kind| forge.order(|o| o.listener_trouble = Some(ListenerTrouble { kind, times: 1 }));
    order(Trouble::Crash);
    assert_eq!(agent.run(&["--once"]).code(), None);
    assert!(forge.let_go(forge.runners()[0].id));
    order(Trouble::Deaf);
    let mut deaf = listen(&agent, &forge, "trouble");
    deaf.signal(Signal::SIGINT);
    deaf.signal(Signal::SIGTERM);
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(deaf.code(), Some(0));
    order(Trouble::Hang);
    let mut hung = agent.run(&["--once"]);
    hung.expect_line("Listening for Jobs");
    hung.signal(Signal::SIGINT);
    hung.signal(Signal::SIGKILL);
    assert_eq!(hung.code(), None);
}

#[test]
fn remove_needs_the_credential_and_takes_registration_and_files() {
    let forge = forge();
    let agent = Agent::of(Kind::Azure);
    assert!(configure(&agent, &forge, "gone", &[]).status.success());
    let without = agent.command(&["remove", "--unattended", "--auth", "PAT"]).output().expect("it starts");
    assert_eq!((without.status.code(), forge.runners().len()), (Some(1), 1));
    let mut remove = agent.command(&["remove", "--unattended", "--auth", "PAT"]);
    let removed = remove.env("VSTS_AGENT_INPUT_TOKEN", forge.pat()).output().expect("it starts");
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(forge.runners().len(), 0);
    assert!(!agent.root.join(".agent").exists());
    let again = remove.output().expect("it starts");
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("config files are missing. Skipping"));
}

#[test]
fn a_package_of_another_version_is_an_agent_of_that_version() {
    let forge = forge();
    forge.order(|o| o.latest_azure_version = "4.999.1".into());
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let path = format!("/acme/_apis/distributedtask/packages/agent/linux-{arch}?$top=1");
    let (status, offer) = api(&forge, "GET", &path);
    assert_eq!((status, &offer["count"]), (200, &json!(1)));
    let package = &offer["value"][0];
    assert_eq!(package["version"], json!({"major": 4, "minor": 999, "patch": 1}));
    let url = package["downloadUrl"].as_str().expect("an address");
    let fetch = || ureq::get(url).call().map(|mut answer| answer.body_mut().with_config().limit(1 << 30).read_to_vec());
    let bytes = fetch().expect("an answer").expect("the whole archive");
    let sum: String = {
        use sha2::{Digest as _, Sha256};
        Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()
    };
    assert_eq!(package["hashValue"], json!(sum));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice())).unpack(folder.path()).expect("an archive");
    let version = Command::new(folder.path().join("bin/Agent.Listener")).arg("--version").output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&version.stdout), "4.999.1\n");

    forge.order(|o| o.package_fault = Some(PackageFault::Hash));
    assert_ne!(api(&forge, "GET", &path).1["value"][0]["hashValue"], json!(sum));
    forge.order(|o| o.package_fault = Some(PackageFault::Missing));
    assert!(fetch().is_err());
    forge.order(|o| o.package_fault = Some(PackageFault::None));
    assert_eq!(api(&forge, "GET", &path).1["count"], 0);
    no_violations(&forge);
}

#[test]
fn config_and_run_scripts_lead_to_the_listener() {
    let forge = forge();
    let agent = Agent::of(Kind::Azure);
    let script = |name: &str| -> PathBuf { agent.root.join(name) };
    let mode = fs::metadata(script("config.sh")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let url = format!("{}/acme", forge.url());
    let mut config = Command::new(script("config.sh"));
    config.args(["--unattended", "--url", &url, "--pool", "Default", "--agent", "scripted"]);
    config.env("AGENT_ALLOW_RUNASROOT", "1").env("VSTS_AGENT_INPUT_TOKEN", forge.pat());
    let done = config.output().expect("it starts");
    assert!(done.status.success(), "{done:?}");
    let mut run = Command::new(script("run.sh"));
    run.arg("--once").env("AGENT_ALLOW_RUNASROOT", "1");
    let mut running = Running::start(run);
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}
