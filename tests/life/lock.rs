//! Shared hardware as people see it: who is named to whom, what can be asked without rights, waits with an end, and directories that
//! several people, or no two containers, share.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use oscr_sim::forge::JobSpec;
use oscr_sim::protocol::JobResult;
use serde_json::Value;

use crate::boards::{Boards, Person, finished};
use crate::harness::{Container, Forge, Gate, LIMIT, allow, until};

/// The group of a laboratory, and two people of it.
const GROUP: u32 = 54_321;
const PEOPLE: [u32; 2] = [54_331, 54_332];
/// Somebody else.
const STRANGER: u32 = 54_399;

/// `oscr-entry lock …` by somebody who is not root, outside of all containers.
fn by(user: u32, group: u32, boards: &Boards, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), &format!("--groups={group}")]);
    command.arg(program(boards)).arg("lock").arg("--dir").arg(boards.path()).args(arguments);
    command
}

/// The binary where everybody may run it.
fn program(boards: &Boards) -> PathBuf {
    let program = boards.path().join("oscr-entry");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_oscr-entry"), &program).expect("a copy");
        allow(&program, 0o755);
    }
    program
}

fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Whether all locks are shown to processes on this side of the containers.
fn sees_all() -> bool {
    fs::metadata("/proc/self/ns/pid").expect("/proc").ino() == 0xefff_fffc
}

/// A runner of an organisation.
fn runner_of<'f>(forge: &'f Forge, boards: &Boards, owner: &str, settings: &[(&str, &str)]) -> Container<'f> {
    let mut container = boards.runner(forge, settings);
    container.set("GITHUB_OWNER", owner);
    container.unset("GITHUB_REPO");
    container
}

fn job_of(forge: &Forge, repository: &str, script: &str) -> u64 {
    forge.submit(JobSpec { repository: Some(repository.to_owned()), ..JobSpec::script("job", script) })
}

/// A job of a repository that is nobody else's business has the board, until the gate is opened.
fn secret_holder<'f>(forge: &'f Forge, boards: &Boards, settings: &[(&str, &str)]) -> (Container<'f>, Gate) {
    let mut container = runner_of(forge, boards, "acme", settings);
    let gate = container.gate();
    container.start();
    let job = job_of(forge, "acme/secret", &gate.wait());
    forge.wait_log(job, "at the gate");
    (container, gate)
}

/// Starts a command that says that it has the board, and waits for that. It lets go when its input ends.
fn holding(mut command: Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary");
    let mut line = [0; 7];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("it has the board");
    child
}

fn let_go(mut child: Child) {
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"\n").expect("it reads");
    drop(input);
    assert!(finished(child).success());
}

#[test]
fn a_person_is_named_to_jobs_by_login_host_and_program_and_by_their_note() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let script = ["sh", "-c", "echo has it; read line", "--password=hunter2"];
    let mut run = boards.command(&["run", "--note", "soldering\u{1b}[2J until noon", "board-1", "--"]);
    let person = holding({
        run.args(script).env("SUDO_USER", "alice");
        run
    });
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("text");
    let holder = &boards.status("board-1")["holder"];
    let who = holder["who"].as_str().expect("a name");
    assert_eq!(who, format!("alice on {host} (sh, process {})", person.id()));
    assert_eq!(holder["note"], "soldering[2J until noon");

    let mut container = boards.runner(&forge, &[]);
    container.start();
    let job = forge.job("echo ran");
    forge.wait_log(job, &format!("waiting for board-1: held by {who} (soldering[2J until noon) since 20"));
    let_go(person);
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    container.exit_code();
    assert!(!job.log.contains("hunter2") && container.lines_with("hunter2").is_empty(), "{}", job.log);

    // Without sudo it is whoever logged in, or whose process it is.
    let unnamed = holding({
        let mut run = boards.command(&["run", "board-1", "--"]);
        run.args(script).env_remove("SUDO_USER");
        run
    });
    let holder = boards.status("board-1")["holder"]["who"].as_str().expect("a name").to_owned();
    assert!(
        holder.ends_with(&format!(" on {host} (sh, process {})", unnamed.id())) && !holder.starts_with(' '),
        "{holder}"
    );
    let_go(unnamed);
}

#[test]
fn a_job_of_another_repository_is_told_the_owner_alone_of_who_has_its_board() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let (mut holder, mut gate) = secret_holder(&forge, &boards, &[]);
    let run = "acme/secret/actions/runs/";
    assert!(boards.status("board-1")["holder"]["run_url"].as_str().is_some_and(|url| url.contains(run)));

    let cases = [
        ("umbrella", "umbrella/os", "owner", false),
        ("initech", "initech/tps", "all", true),
        ("acme", "acme/other", "", false),
        ("acme", "acme/secret", "owner", true),
    ];
    let mut waiting = Vec::new();
    for (place, (owner, repository, tell, all)) in cases.into_iter().enumerate() {
        let mut container = runner_of(&forge, &boards, owner, &[("OSCR_LOCK_TELL", tell)]);
        container.start();
        let job = job_of(&forge, repository, "true");
        forge.wait_log(job, "waiting for board-1: held by ");
        boards.wait_queue("board-1", place + 1);
        let live = forge.snapshot().jobs.into_iter().find(|known| known.id == job).expect("the job").live;
        assert_eq!(live.contains(run), all, "{repository}: {live}");
        assert_eq!(live.contains("held by a runner of acme since 20"), !all, "{repository}: {live}");
        let report = container.status()["queue"]["report"].to_string();
        assert_eq!(report.contains(run), all, "{repository}: {report}");
        waiting.push((container, job, all));
    }
    gate.open();
    holder.exit_code();
    for (mut container, job, all) in waiting {
        let job = forge.wait_job(job, LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        container.exit_code();
        let said: Vec<String> =
            container.lines_with("waiting for").into_iter().filter(|line| line.contains(run)).collect();
        assert_eq!(said.is_empty(), !all, "{said:#?}");
    }
}

#[test]
fn whoever_may_read_the_directory_is_told_who_has_a_board_and_never_that_a_held_one_is_free() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let (mut holder, mut gate) = secret_holder(&forge, &boards, &[]);
    let look = |arguments: &[&str]| words(&by(STRANGER, STRANGER, &boards, arguments).output().expect("setpriv"));
    let (code, text, error) = look(&["status"]);
    let (_, json, _) = look(&["status", "--json", "board-1"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert!(text.contains("held by a runner of acme since 20") && !text.contains("secret"), "{text}{error}");
    assert!(text.contains("who waits is not for this user to see"), "{text}");
    assert_eq!((&json[0]["held"], &json[0]["queue_seen"]), (&Value::Bool(true), &Value::Bool(false)), "{json}");
    if sees_all() {
        assert_eq!((code, &json[0]["state"]), (Some(0), &Value::from("held")), "{text}{json}");
    }

    // In another namespace of processes the kernel shows none of these locks.
    let elsewhere = || {
        let mut command = Command::new("unshare");
        command.args([
            "--fork",
            "--pid",
            "--mount-proc",
            "setpriv",
            "--reuid=54399",
            "--regid=54399",
            "--clear-groups",
        ]);
        command.arg(program(&boards)).arg("lock").arg("--dir").arg(boards.path()).args(["status", "board-1"]);
        let text = words(&command.output().expect("unshare"));
        let json = words(&command.arg("--json").output().expect("unshare"));
        (text, json)
    };
    let (text, json) = elsewhere();
    assert!(text.1.contains("recorded as held by a runner of acme") && text.0 == Some(1), "{text:?}");
    assert!(json.1.contains("\"state\":\"recorded\"") && json.0 == Some(1), "{json:?}");

    // To wait, the lock must be opened.
    let (code, _, error) = look(&["wait-free", "board-1"]);
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("board-1.lock") && error.contains("run it as root"), "{error}");
    assert_eq!(look(&["run", "board-1", "--", "true"]).0, Some(78));

    gate.open();
    holder.exit_code();
    until("the board is free", || boards.status("board-1")["held"] == false);
    let (code, text, _) = look(&["status"]);
    if sees_all() {
        assert_eq!((code, text.lines().next()), (Some(0), Some("board-1  free")), "{text}");
    }
    let (text, json) = elsewhere();
    assert!(!text.1.contains("free") && text.1.contains("recorded") && text.0 == Some(1), "{text:?}");
    assert!(!json.1.contains("free\"") && json.0 == Some(1), "{json:?}");
}

#[test]
fn who_only_looks_needs_no_directory_that_can_be_written() {
    let boards = Boards::new();
    let person = boards.somebody("board-1");
    // Root may write what is not mounted read-only.
    let within = |arguments: &str| {
        let (program, place) = (program(&boards), boards.path().display().to_string());
        let script = format!(
            "mount --bind {place} {place}; mount -o remount,bind,ro {place}; exec {} lock --dir {place} {arguments}",
            program.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script]);
        command
    };
    let (code, text, error) = words(&within("status").output().expect("unshare"));
    assert_eq!((code, text.starts_with("board-1  held by something")), (Some(0), true), "{text}{error}");
    let waiter = within("wait-free board-1").spawn().expect("unshare");
    drop(person);
    assert!(finished(waiter).success());

    // No job gets it beside one who has it shared.
    let mut shared = Command::new("flock");
    shared.arg("--shared").arg(boards.path().join("board-1.lock")).args(["sh", "-c", "echo has it; read line"]);
    let person = holding(shared);
    let (_, text, error) = words(&within("status").output().expect("unshare"));
    assert!(text.starts_with("board-1  held by something"), "{text}{error}");
    let waiter = within("wait-free board-1").spawn().expect("unshare");
    let call = format!("{} ", libc::SYS_flock);
    until("it waits", || {
        fs::read_to_string(format!("/proc/{}/syscall", waiter.id())).is_ok_and(|now| now.starts_with(&call))
    });
    let_go(person);
    assert!(finished(waiter).success());
}

#[test]
fn people_of_the_directorys_group_share_its_boards_and_a_group_that_jobs_have_is_refused() {
    let (forge, boards) = (Forge::start(), Boards::new());
    program(&boards);
    std::os::unix::fs::chown(boards.path(), None, Some(GROUP)).expect("root");
    fs::set_permissions(boards.path(), fs::Permissions::from_mode(0o770)).expect("our own");
    let take = ["run", "board-1", "--", "sh", "-c", "echo has it; read line"];
    let first = holding(by(PEOPLE[0], GROUP, &boards, &take));
    let second = by(PEOPLE[1], GROUP, &boards, &["run", "board-1", "--", "true"]).spawn().expect("setpriv");
    boards.wait_queue("board-1", 1);
    let status = words(&by(PEOPLE[1], GROUP, &boards, &["status"]).output().expect("setpriv")).1;
    assert!(status.contains("held by ") && status.contains("(sh, process") && status.contains("  1. "), "{status}");
    let_go(first);
    assert!(finished(second).success());
    // One that is killed leaves what the other can clear away.
    let mut killed = holding(by(PEOPLE[1], GROUP, &boards, &take));
    killed.kill().expect("our child");
    killed.wait().expect("our child");
    assert!(by(PEOPLE[0], GROUP, &boards, &["run", "board-1", "--", "true"]).status().expect("setpriv").success());
    for (name, mode) in [("board-1.lock", 0o660), ("board-1.queue", 0o2770), ("board-1.queue/.mutex", 0o660)] {
        let meta = fs::metadata(boards.path().join(name)).expect(name);
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (GROUP, mode), "{name}");
    }
    // Where the group may not write, it gets nothing.
    fs::set_permissions(boards.path(), fs::Permissions::from_mode(0o750)).expect("our own");
    assert!(boards.command(&["run", "board-2", "--", "true"]).status().expect("the binary").success());
    assert_eq!(fs::metadata(boards.path().join("board-2.lock")).expect("it").mode() & 0o777, 0o600);

    fs::set_permissions(boards.path(), fs::Permissions::from_mode(0o770)).expect("our own");
    let mut container = boards.runner(&forge, &[]);
    std::os::unix::fs::chown(boards.path(), None, Some(container.uid)).expect("root");
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line("can be opened by the agent's user");
    assert_eq!(container.ask(&["check"]).0, 78);
}

#[test]
fn a_wait_may_have_an_end_which_names_the_holder() {
    let boards = Boards::new();
    let person = holding(boards.command(&["run", "board-1", "--", "sh", "-c", "echo has it; read line"]));
    let run = |arguments: &[&str]| {
        let arguments = [&["run"], arguments, &["--", "sh", "-c", "echo has $OSCR_RESOURCE"]].concat();
        words(&boards.command(&arguments).output().expect("the binary"))
    };
    let named = format!("board-1 is held by {}", boards.status("board-1")["holder"]["who"].as_str().expect("a name"));
    for (arguments, code, said) in [
        (&["--timeout", "0", "board-1"][..], 73, "board-1 is taken: "),
        (&["--timeout", "1", "board-1"], 73, "board-1 did not become free within 1s: "),
        (&["--timeout", "0", "--conflict-exit-code", "5", "board-1"], 5, "board-1 is taken: "),
        (&["--timeout", "1s", "--conflict-exit-code", "0", "board-1"], 0, "board-1 did not become free within 1s: "),
        (&["--timeout", "0", "board-0,board-1"], 73, "board-1 is taken: "),
    ] {
        let (ended, text, error) = run(arguments);
        assert_eq!((ended, text.as_str()), (Some(code), ""), "{arguments:?}: {error}");
        assert!(error.contains(said) && error.contains(&named), "{arguments:?}: {error}");
        assert_eq!(boards.status("board-1")["queue"].as_array().map(Vec::len), Some(0));
        assert_eq!(boards.status("board-0")["held"], false);
    }
    assert_eq!(run(&["--timeout", "0", "board-1|board-2"]).1, "has board-2\n");
    let (code, _, error) = run(&["--conflict-exit-code", "256", "board-1"]);
    assert_eq!(code, Some(64), "{error}");
    let_go(person);
    for timeout in ["0", "2h"] {
        assert_eq!(run(&["--timeout", timeout, "board-1"]).1, "has board-1\n", "{timeout}");
    }
    boards.assert_free("board-1");
}

#[test]
fn a_full_disk_keeps_nobody_from_a_board() {
    let boards = Boards::new();
    let (program, place) = (program(&boards), boards.path().join("small"));
    fs::create_dir(&place).expect("a directory");
    for (options, fill) in [("size=4k", "head -c 4096 /dev/zero >full"), ("nr_inodes=3", "touch full")] {
        let script = format!(
            "place={}; mount -t tmpfs -o mode=755,{options} tmpfs \"$place\"; cd \"$place\"; touch board-1.lock; {fill}; \
             exec {} lock --dir \"$place\" run board-1 -- echo has it",
            place.display(),
            program.display()
        );
        let mut command = Command::new("unshare");
        let (code, text, error) = words(&command.args(["--mount", "sh", "-ec", &script]).output().expect("unshare"));
        assert_eq!((code, text.as_str()), (Some(0), "has it\n"), "{options}: {error}");
        assert!(error.contains("board-1 is held without a record of who has it"), "{options}: {error}");
    }
}

#[test]
fn of_several_boards_only_the_missing_one_is_named_when_the_wait_is_over() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = Person::with(&boards.path().join("power-2.lock"));
    let wanted = [("RUNNER_RESOURCE_ID", "board-1,power-2"), ("OSCR_LOCK_TIMEOUT", "3")];
    let mut container = boards.runner(&forge, &wanted);
    container.start();
    let job = forge.wait_job(forge.job("echo never"), LIMIT);
    let over = "power-2 did not become free within 3s: power-2 is held by something that leaves no record";
    assert!(job.log.contains(over) && !job.log.contains("board-1: held"), "{}", job.log);
    container.exit_code();
    boards.assert_free("board-1");
}

#[test]
fn the_record_of_a_listeners_board_names_the_runner_and_then_its_run() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_SCOPE", "listener")]);
    let mut gate = container.gate();
    container.start();
    let (id, _) = forge.listening();
    let runners = forge.runners();
    let name = &runners.iter().find(|runner| runner.id == id).expect("it is listed").name;
    let first = boards.status("board-1")["holder"].clone();
    assert_eq!((first["who"].as_str(), first.get("run_url")), (Some(name.as_str()), None), "{first}");
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    let holder = boards.status("board-1")["holder"].clone();
    assert_eq!(holder["who"].as_str(), Some(name.as_str()), "{holder}");
    assert!(holder["run_url"].as_str().is_some_and(|url| url.contains("/o/r/actions/runs/")), "{holder}");
    assert_eq!(holder["since"], first["since"], "it has had it all the time");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    container.exit_code();
    boards.assert_free("board-1");
}

#[test]
fn the_record_of_an_azure_agents_board_names_the_agent_and_then_its_job() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = Container::azure(&forge);
    container.set_all(&[("RUNNER_RESOURCE_ID", "board-1"), ("RUNNER_LOCK_DIR", &boards.path().display().to_string())]);
    let mut gate = container.gate();
    container.start();
    let (id, _) = forge.listening();
    let runners = forge.runners();
    let name = &runners.iter().find(|runner| runner.id == id).expect("it is listed").name;
    assert_eq!(boards.status("board-1")["holder"]["who"].as_str(), Some(name.as_str()));
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    until("the record names the job", || boards.status("board-1")["holder"]["job"] == "job");
    assert_eq!(boards.status("board-1")["holder"]["owner"], "acme");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    container.exit_code();
}

#[test]
fn a_volume_without_a_name_is_refused_at_start_by_check_and_by_doctor() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let volume = boards.path().join("volumes").join("0123456789abcdef".repeat(4)).join("_data");
    fs::create_dir_all(&volume).expect("a directory");
    let mut container = boards.runner(&forge, &[]);
    let place = boards.path().join("mounted");
    fs::create_dir(&place).expect("a directory");
    container.set("RUNNER_LOCK_DIR", &place.display().to_string());
    let mount = format!("mount --bind {} {}", volume.display(), place.display());
    container.mount(&volume, &place);
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line("a volume without a name");
    assert!(forge.calls().is_empty());
    for (command, code) in [("check", 78), ("doctor", 1)] {
        let (ended, text, error) = words(&container.command_after(&mount, &[command]).output().expect("unshare"));
        assert_eq!(ended, Some(code), "{command}: {text}{error}");
        assert!(format!("{text}{error}").contains("a volume without a name"), "{command}: {text}{error}");
    }
    // The same directory by its own name is the host's.
    assert_eq!(container.ask(&["check"]).0, 0);
}
