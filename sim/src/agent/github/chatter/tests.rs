//! The chatter against the recorded life.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;

use super::*;
use crate::agent::trace::tests::untimed;

/// All phases, in the order of a life with three steps.
const LIFE: [Phase; 28] = [
    Phase::Configure,
    Phase::Configuring,
    Phase::Authenticating,
    Phase::Connected,
    Phase::Registering,
    Phase::Registered,
    Phase::Settings,
    Phase::ConfigureEnd,
    Phase::Start,
    Phase::Session,
    Phase::Listening,
    Phase::JobOffered,
    Phase::JobTaken,
    Phase::WorkerStarting,
    Phase::WorkerStarted,
    Phase::JobReceived,
    Phase::JobSetUp,
    Phase::HookStart,
    Phase::StepStart,
    Phase::StepEnd,
    Phase::JobFinalize,
    Phase::WorkerEnd,
    Phase::WorkerGone,
    Phase::JobReported,
    Phase::JobDone,
    Phase::PollCancelled,
    Phase::ListenerEnd,
    Phase::CleanUp,
];

/// The lines of the recorded life, with `TIME` for each time.
pub(super) fn recorded() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings/github-token-life.txt");
    fs::read_to_string(path).unwrap().lines().map(untimed).collect()
}

/// The names of the recorded life.
fn names() -> Names {
    let text = |text: &str| text.to_owned();
    let mut names = Names {
        root: text("/runner/oscr-vm-d636"),
        work: text("/work"),
        agent: 1,
        name: text("oscr-vm-d636"),
        version: text("2.336.0"),
        forge: text("http://forge"),
        url: text("http://forge/acme/app"),
        labels: text("linux,docker,self-hosted"),
        by_token: true,
        once: true,
        session: text("300178a2-d19c-41a8-a0b2-eb845d8e2b0f"),
        ..Names::default()
    };
    names.job = JobNames {
        id: text("d34466f9-81be-4cd4-b279-9e49e5484ce9"),
        plan: text("eb7b74d7-cced-44b6-96c7-4c2858677e38"),
        timeline: text("4c0e5f3f-a909-4afc-8155-1e91053b24b9"),
        request: text("2"),
        repository: text("acme/app"),
        steps: 4,
        worker: 279,
        result: text("Succeeded"),
        ..JobNames::default()
    };
    names
}

fn step(sort: Sort, title: &str, condition: &str, id: &str, arguments: &str, pid: u32) -> StepNames {
    StepNames {
        id: id.to_owned(),
        title: title.to_owned(),
        condition: condition.to_owned(),
        arguments: arguments.to_owned(),
        sort,
        context: "__run_0".to_owned(),
        pid,
        result: "Succeeded".to_owned(),
        first: sort == Sort::Started,
        ..StepNames::default()
    }
}

/// What is traced, as lines with text.
pub(super) fn traced(worker: bool, work: impl FnOnce(&Trace)) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["out", "err"].map(|name| folder.path().join(name));
    let [out, err] = paths.each_ref().map(|path| File::create(path).unwrap());
    work(&Trace::to(out, err, worker));
    let text = fs::read_to_string(&paths[0]).unwrap();
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(untimed).collect()
}

fn phases(worker: bool, names: &Names, phases: &[Phase]) -> Vec<String> {
    traced(worker, |trace| phases.iter().for_each(|phase| chatter(trace, *phase, names)))
}

fn place(phase: Phase) -> usize {
    LIFE.iter().position(|known| *known == phase).unwrap()
}

/// All that a worker traces without the message: its two hooks, and three steps.
fn worker(names: &Names) -> Vec<String> {
    let started = ["3a711879-fb53-4b5f-8b5f-b704e228a2a5", "-e /run/oscr/hooks/job-started.sh"];
    let completed = ["3df253c5-abb5-493b-ae13-72a63f2eb151", "-e /run/oscr/hooks/job-completed.sh"];
    let run = ["ad5dc2f8-bbf5-4d86-8f9f-a379976460a0", "-e /work/_temp/00f4f197-745a-49bd-b313-6fee34bfc014.sh"];
    let steps = [
        step(Sort::Started, "Set up runner", "always()", started[0], started[1], 315),
        step(Sort::Step, "Run echo step one", "success()", run[0], run[1], 317),
        step(Sort::Step, "Run echo step one", "success()", run[0], run[1], 317),
        step(Sort::Step, "Run echo step one", "success()", run[0], run[1], 317),
        step(Sort::Completed, "Complete runner", "always()", completed[0], completed[1], 325),
    ];
    let mut lines = phases(true, names, &[Phase::JobReceived, Phase::JobSetUp]);
    for step in steps {
        let start = if step.sort == Sort::Step { Phase::StepStart } else { Phase::HookStart };
        lines.extend(phases(true, &Names { step, ..names.clone() }, &[start, Phase::StepEnd]));
    }
    lines.extend(phases(true, names, &[Phase::JobFinalize, Phase::WorkerEnd]));
    lines
}

/// All that the listener's program traces, and the configure step's.
fn listener(names: &Names) -> Vec<String> {
    let [received, gone] = [Phase::JobReceived, Phase::WorkerGone].map(place);
    phases(false, names, &[&LIFE[..received], &LIFE[gone..]].concat())
}

fn near(count: usize, of: usize) {
    assert!(count.abs_diff(of) * 10 <= of, "{count} lines instead of {of}");
}

#[test]
fn each_phase_has_texts_and_each_text_a_phase() {
    let headings: Vec<&str> = TEXTS.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')).collect();
    let phases: Vec<&str> = headings.iter().copied().filter(|heading| !heading.starts_with('.')).collect();
    let named: Vec<String> = LIFE.iter().map(|phase| format!("{phase:?}")).collect();
    assert_eq!(phases, named);
    let included: Vec<&str> = TEXTS.lines().filter_map(|line| line.rsplit_once('+').map(|(_, block)| block)).collect();
    for block in headings.iter().filter_map(|heading| heading.strip_prefix('.')) {
        assert!(included.contains(&block), "{block} is in no phase");
    }
}

#[test]
fn every_entry_is_well_formed_and_every_name_in_it_is_known() {
    let names = names();
    for line in TEXTS.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])) {
        let entry = match line.strip_prefix('@') {
            Some(marked) => {
                let (mark, entry) = marked.split_once(' ').unwrap();
                assert!(["first", "context", "token", "once", "job"].contains(&mark), "{line}");
                entry
            }
            None => line,
        };
        if let Some(block) = entry.strip_prefix('+') {
            assert!(section(&format!(".{block}")).next().is_some(), "{line}");
            continue;
        }
        let level = entry.split(' ').next().unwrap();
        assert!(entry == "SAY" || ["INFO", "WARN", "ERR"].contains(&level) && entry.contains('|'), "{line}");
        for (at, _) in entry.match_indices('{') {
            let name = entry[at + 1..].split_once('}').map(|(name, _)| name);
            let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
            if let Some(name) = name.filter(is_name) {
                assert!(names.value(name).is_some(), "{line}");
            }
        }
    }
}

#[test]
fn the_volumes_are_those_of_the_official_runner() {
    let names = names();
    // Words for people, and traces that the programs make by themselves, are not among them.
    let configured = phases(false, &names, &LIFE[..place(Phase::Start)]);
    let by_token = phases(false, &names, &LIFE[place(Phase::Start)..=place(Phase::Listening)]);
    let banner = traced(false, banner);
    let said = 6 + 5;
    near(configured.len() + by_token.len() + banner.len() + said, 378);
    let by_jit = Names { by_token: false, ..names.clone() };
    near(phases(false, &by_jit, &LIFE[place(Phase::Start)..=place(Phase::Listening)]).len() + 5, 133);
    let message = 318;
    let [listener, worker] = [listener(&names), worker(&names)];
    near(listener.len() + worker.len() + banner.len() + said + message + 12, 1447);
    let errors = |lines: &[String]| lines.iter().filter(|line| line.starts_with("[RUNNER TIME ERR  ")).count();
    assert_eq!((errors(&listener), errors(&worker)), (54, 0));
}

#[test]
fn nearly_every_line_is_a_recorded_one_as_often_as_it_was_recorded() {
    let mut known: HashMap<String, usize> = HashMap::new();
    for line in recorded() {
        *known.entry(line).or_default() += 1;
    }
    let names = names();
    let lines = [listener(&names), worker(&names), traced(false, banner)].concat();
    let (mut new, count) = (Vec::new(), lines.len());
    for line in lines {
        match known.get_mut(&line).filter(|left| **left > 0) {
            Some(left) => *left -= 1,
            None => new.push(line),
        }
    }
    // Times, and the numbers of processes and records.
    assert!(new.len() * 10 < count, "{} of {count} are new:\n{}", new.len(), new.join("\n"));
    let form = |line: &str| line.replace(|c: char| c.is_ascii_hexdigit() || c == '-', "");
    let forms: HashSet<String> = recorded().iter().map(|line| form(line)).collect();
    for line in new {
        assert!(forms.contains(&form(&line)), "{line}");
    }
}

#[test]
fn without_a_job_nothing_is_said_of_one() {
    let idle = Names { job: JobNames::default(), ..names() };
    let lines = phases(false, &idle, &[Phase::PollCancelled, Phase::ListenerEnd]);
    assert!(lines[0].contains("&status=Online&"), "{}", lines[0]);
    assert!(lines.iter().all(|line| !line.contains("WorkerDispatcher for job")));
    assert!(lines.last().unwrap().ends_with("Deleting Runner Session..."));
}

#[test]
fn what_is_said_of_processes_and_scopes_has_its_form() {
    let ran = Duration::from_nanos(3_694_994_819_900);
    assert_eq!(finished(279, 100, ran), "Finished process 279 with exit code 100, and elapsed time 01:01:34.9948199.");
    let api = |url: &str| Names { url: url.to_owned(), forge: "http://forge".to_owned(), ..Names::default() }.api();
    assert_eq!(api("http://forge/acme/app"), "http://forge/api/v3/repos/acme/app");
    assert_eq!(api("http://forge/acme"), "http://forge/api/v3/orgs/acme");
    assert_eq!(api("http://forge/enterprises/corp"), "http://forge/api/v3/enterprises/corp");
    let mut job = JobNames::default();
    job.measure(b"abc");
    assert_eq!((job.length, &job.hash[..8]), (3, "ba7816bf"));
}

#[test]
fn words_of_the_configure_step_that_no_trace_tells_of() {
    let lines = traced(false, |trace| {
        heading(trace, "Authentication");
        success(trace, "Connected to GitHub");
    });
    assert_eq!(lines, ["# Authentication", "√ Connected to GitHub"]);
}
