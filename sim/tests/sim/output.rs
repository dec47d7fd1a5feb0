//! What the stand-in prints in whole lives, held against a recorded life of the official runner.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use oscr_sim::forge::{ForgeHandle, JobSpec, LostAssignments, Scope};
use oscr_sim::protocol::{JobResult, Step};
use serde_json::json;

use crate::common::{Agent, LIMIT, Running, Stream, api, forge};

const NAME: &str = "oscr-vm-d636";

/// A life, over.
struct Life {
    root: String,
    work: String,
    forge: String,
    /// What the configure step printed.
    configured: Vec<String>,
    listened: Vec<String>,
    errors: Vec<String>,
}

/// An agent as `oscr-entry` makes one.
fn agent() -> Agent {
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
    for (variable, name) in [("STARTED", "job-started.sh"), ("COMPLETED", "job-completed.sh")] {
        let hook = agent.root.join(name);
        fs::write(&hook, "true\n").expect("a hook");
        agent.set(&format!("ACTIONS_RUNNER_HOOK_JOB_{variable}"), &hook.to_string_lossy());
    }
    agent
}

fn work(agent: &Agent) -> String {
    agent.root.join("work-folder").to_string_lossy().into_owned()
}

/// Configures an agent by a token, and gives what that printed.
fn configure(agent: &Agent, forge: &ForgeHandle) -> Vec<String> {
    let (status, _, made) = api(forge, "POST", "/repos/acme/app/actions/runners/registration-token", None);
    assert_eq!(status, 201);
    let (url, work) = (format!("{}/acme/app", forge.url()), work(agent));
    let arguments = ["--url", &url, "--name", NAME, "--work", &work, "--labels", "linux,docker,self-hosted"];
    let arguments = [&["configure", "--unattended", "--disableupdate", "--ephemeral"], &arguments[..]].concat();
    let mut command = agent.command(&arguments);
    command.env("ACTIONS_RUNNER_INPUT_TOKEN", made["token"].as_str().expect("a token"));
    let mut running = Running::start(command);
    assert_eq!(running.code(), Some(0), "{:#?}", running.seen);
    assert_eq!(running.of(Stream::Err), [""; 0]);
    running.of(Stream::Out).to_vec()
}

/// Gives an agent the files of a configuration.
fn jit(agent: &mut Agent, forge: &ForgeHandle) {
    let ask = json!({"name": NAME, "runner_group_id": 1, "labels": ["self-hosted"], "work_folder": work(agent)});
    let (status, _, made) = api(forge, "POST", "/repos/acme/app/actions/runners/generate-jitconfig", Some(ask));
    assert_eq!(status, 201, "{made}");
    agent.set("ACTIONS_RUNNER_INPUT_JITCONFIG", made["encoded_jit_config"].as_str().expect("text"));
}

/// The recorded job.
fn job() -> JobSpec {
    let scripts = ["echo step one", "echo step two; env | sort | head -3", "for i in $(seq 30); do echo out $i; done"];
    JobSpec::steps("small", scripts.map(|run| Step { run: run.into(), ..Step::default() }).into())
}

/// The rest of a life: the recorded job.
fn live(forge: &ForgeHandle, agent: &Agent, configured: Vec<String>) -> Life {
    let mut running = agent.run(&["--startuptype", "service"]);
    let id = forge.submit(job());
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    Life {
        root: agent.root.to_string_lossy().into_owned(),
        work: work(agent),
        forge: forge.url(),
        configured,
        listened: running.of(Stream::Out).to_vec(),
        errors: running.of(Stream::Err).to_vec(),
    }
}

fn by_token(forge: &ForgeHandle) -> Life {
    let agent = agent();
    let configured = configure(&agent, forge);
    live(forge, &agent, configured)
}

fn by_jit(forge: &ForgeHandle) -> Life {
    let mut agent = agent();
    jit(&mut agent, forge);
    live(forge, &agent, Vec::new())
}

impl Life {
    /// All lines with text, in the recording's names.
    fn lines(&self) -> Vec<String> {
        let named = |line: &String| {
            let line = line.replace(&self.work, "/work").replace(&self.root, "/runner/oscr-vm-d636");
            let line =
                line.replace(&self.forge, "http://forge").replace("/runner/oscr-vm-d636/job-", "/run/oscr/hooks/job-");
            normal(&line)
        };
        let lines = self.configured.iter().chain(&self.listened).map(named);
        lines.filter(|line| !line.is_empty()).collect()
    }
}

fn recorded() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings/github-token-life.txt");
    fs::read_to_string(path).expect("a recording").lines().map(normal).filter(|line| !line.is_empty()).collect()
}

/// A line with `#` for each id, each time, and each word with a digit in it.
fn normal(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let mut text = String::new();
    let mut rest = line.trim_end();
    while let Some(first) = rest.chars().next() {
        if let Some(after) = id(rest) {
            text.push('#');
            rest = after;
            continue;
        }
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, after) = rest.split_at(end);
        text.push_str(if word.bytes().any(|b| b.is_ascii_digit()) { "#" } else { word });
        rest = after;
    }
    text
}

/// What follows an id such as `d34466f9-81be-4cd4-b279-9e49e5484ce9`.
fn id(text: &str) -> Option<&str> {
    let (id, rest) = text.split_at_checked(36)?;
    let fits = |(at, byte): (usize, u8)| {
        if [8, 13, 18, 23].contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    id.bytes().enumerate().all(fits).then_some(rest)
}

/// Whether a line has a prefix of a worker's.
fn is_workers(line: &str) -> bool {
    line.starts_with("[WORKER ")
}

/// The lines of which others have too few.
fn lacking(lines: &[String], others: &[String]) -> Vec<String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for line in others {
        *left.entry(line).or_default() += 1;
    }
    let mut lacks = |line: &str| match left.get_mut(line).filter(|left| **left > 0) {
        Some(left) => {
            *left -= 1;
            false
        }
        None => true,
    };
    lines.iter().filter(|line| lacks(line)).cloned().collect()
}

/// Recorded lines of the worker that the stand-in's has not.
const MISSING: [&str; 10] = [
    // The recorded job has another name than the one that it is shown by, and its forge and its workflow have other names.
    r#"Worker]       "value": "build""#,
    r#"Worker]   "jobName": "build","#,
    r#"Worker]           "ServerName": "wireforge","#,
    r#"Worker]           "v": "ci""#,
    r#"Worker]           "v": "build""#,
    // In how many lots lines and files are sent is a matter of time.
    "JobServerQueue] Try to append # batches web console lines for record '#', success rate: #/#.",
    "JobServerQueue] Try to append # batches web console lines for record '#', success rate: #/#.",
    "JobServerQueue] Try to upload # log files or attachments, success rate: #/#.",
    "JobServerQueue] Try to upload # log files or attachments, success rate: #/#.",
    "JobServerQueue] Tried to upload # file(s) to results, success rate: #/#.",
];

#[test]
fn a_life_by_token_is_told_as_it_was_recorded() {
    let life = by_token(&forge());
    assert_eq!(life.errors, [""; 0]);
    let [ours, recorded] = [life.lines(), recorded()];
    let listeners = |lines: &[String]| -> Vec<String> { lines.iter().filter(|l| !is_workers(l)).cloned().collect() };
    assert_eq!(listeners(&ours), listeners(&recorded));
    let missing = lacking(&recorded, &ours);
    let mut missing: Vec<&str> = missing.iter().filter_map(|line| line.split_once("INFO ")).map(|(_, l)| l).collect();
    let mut known = MISSING.to_vec();
    missing.sort_unstable();
    known.sort_unstable();
    assert_eq!(missing, known);
    // What is new is of the job's message, or of the time that things take.
    for line in lacking(&ours, &recorded) {
        assert!(line.contains(" INFO Worker] ") || line.contains(" INFO JobServerQueue] "), "{line}");
    }
}

/// The numbers of lines are what was counted with eleven lines of `oscr-entry`.
#[test]
fn the_volumes_are_those_of_the_official_runner() {
    #[track_caller]
    fn near(lines: usize, counted: usize) {
        assert!((lines + 11).abs_diff(counted) * 10 <= counted, "{lines} lines and 11 instead of {counted}");
    }
    let idle = |life: &Life| {
        let lines = life.lines();
        lines.iter().position(|line| line.contains("Acknowledging runner request")).expect("a job")
    };
    let forge = forge();
    let life = by_token(&forge);
    near(idle(&life), 378);
    near(life.lines().len(), 1447);
    let errors = |lines: &[String]| lines.iter().filter(|line| line.contains(" ERR  ")).count();
    assert_eq!((errors(&life.configured), errors(&life.listened)), (0, 54));
    let life = by_jit(&forge);
    near(idle(&life), 133);
    assert_eq!((errors(&life.listened), life.errors.len()), (54, 0));
}

#[test]
fn an_agent_with_its_files_says_the_same_words_for_people_as_a_listener_that_was_configured() {
    let forge = forge();
    let words = |life: &Life| -> Vec<String> {
        let traced = |line: &str| line.starts_with('[') && !line.contains(" Terminal] ");
        life.listened.iter().filter(|line| !traced(line)).map(|line| normal(line)).collect()
    };
    let [token, jit] = [by_token(&forge), by_jit(&forge)].map(|life| words(&life));
    assert_eq!(token, jit);
    assert_eq!(jit.iter().filter(|line| line.contains("Listening for Jobs")).count(), 2);
}

#[test]
fn the_secrets_of_a_job_are_nowhere() {
    let forge = forge();
    let mut agent = agent();
    jit(&mut agent, &forge);
    let mut running = agent.run(&[]);
    let id = forge.submit(JobSpec::script("secret", "true"));
    forge.wait_job(id, LIMIT);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("\"AccessToken\": \"***\""), "{:#?}", running.seen);
    let printed = running.seen.join("\n") + &agent.diag();
    let variable = "\"value\": \"***\"";
    assert_eq!(running.seen.iter().filter(|line| line.contains(variable)).count(), 2);
    // How tokens of a job, and tokens of the forge begin.
    for secret in ["ghs_", "\"eyJ", "Bearer "] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[test]
fn an_error_stands_plain_on_standard_error_and_traced_on_standard_output() {
    let forge = forge();
    forge.order(|o| o.session_conflicts = 1);
    let mut agent = agent();
    jit(&mut agent, &forge);
    let life = live(&forge, &agent, Vec::new());
    let words = "A session for this runner already exists.";
    assert_eq!(life.errors.last().map(String::as_str), Some(words), "{:?}", life.errors);
    assert_eq!(life.errors.len(), 2);
    let traced: Vec<&String> = life.listened.iter().filter(|line| line.contains(words)).collect();
    assert_eq!(traced.len(), 1);
    assert!(traced[0].starts_with("[RUNNER ") && traced[0].ends_with(&format!(" ERR  Terminal] WRITE ERROR: {words}")));
    // Each try says that there is a connection.
    assert_eq!(life.listened.iter().filter(|line| *line == "√ Connected to GitHub").count(), 2);
}

#[test]
fn what_becomes_of_an_offered_job_is_only_traced() {
    let forge = forge();
    forge.order(|o| o.lost_assignments = Some(LostAssignments { times: 1, status: 409, consume: false }));
    let mut agent = agent();
    jit(&mut agent, &forge);
    let life = live(&forge, &agent, Vec::new());
    let traces = |part: &str| -> Vec<&str> {
        let lines = life.listened.iter().chain(&life.errors).filter(|line| line.contains(part));
        lines.map(|line| line.split_once(" INFO ").expect("a trace").1).collect()
    };
    let acknowledged = traces("Acknowledging runner request");
    assert_eq!(acknowledged.len(), 2);
    assert!(acknowledged.iter().all(|line| line.starts_with("BrokerMessageListener] Acknowledging")));
    let skipped = traces("Skipping message Job");
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0].starts_with("Runner] Skipping message Job. Job message not found '"));
}

/// Both ways in which two traces of a listener mix, and the one of a worker.
#[track_caller]
fn assert_mixed(life: &Life) {
    let foreign = "AAD Correlation ID for this token request: Unknown";
    let lines: Vec<String> = life.listened.iter().map(|line| normal(line)).collect();
    let at = |line: &str| lines.iter().position(|known| known == line).unwrap_or_else(|| panic!("no {line:?}"));
    let (listener, worker) = ("[RUNNER #-#-# #:#:# INFO ", "[WORKER #-#-# #:#:# INFO ");
    let tangled = at(&format!("{listener}GitHubActionsService] {listener}Terminal] {foreign}"));
    assert_eq!(
        lines[tangled + 1..][..2],
        ["WRITE LINE: Current runner version: '#.#.#'", "Current runner version: '#.#.#'"]
    );
    let intruded = at(&format!("{listener}GitHubActionsService] #-#-# #:#:#: Listening for Jobs"));
    assert_eq!(lines[intruded + 1], foreign);
    let lost =
        lines.iter().position(|line| line.starts_with(worker) && line[1..].contains(worker)).expect("a worker's");
    assert!(lines[lost + 1].starts_with("No proxy settings were found"), "{}", lines[lost + 1]);
}

#[test]
fn the_traces_of_each_agent_mix_by_order() {
    let forge = forge();
    forge.order(|o| o.mixed_traces = true);
    assert_mixed(&by_token(&forge));
}

#[test]
fn the_traces_of_the_seventeenth_life_of_thirty_mix_by_themselves() {
    let forge = forge();
    let scope = Scope::from_url_path("acme/other").expect("a repository");
    // Sixteen before it, which ask how to be and go no further.
    for _ in 0..16 {
        let other = forge.plant_runner(&scope, "other", true);
        assert_eq!(api(&forge, "GET", &format!("/_sim/agent/{other}?at=session"), None).0, 200);
        forge.unregister(other);
    }
    assert_mixed(&by_jit(&forge));
}
