//! The token is nowhere but where it must be.

use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::{Container, docker};
use crate::world::{RUNNER, World};

/// Looks, as a job, for what a pattern matches: in its environment, in that of all processes and in their arguments, in all
/// files that it may read. A canary in each kind of place proves that the look is good.
const SEARCH: &str = r#"
look() {
    if env | grep -qa "$2"; then echo "$1: own environment"; fi
    for process in /proc/[0-9]* /proc/self/task/[0-9]*; do
        for file in environ cmdline; do
            if grep -qsa "$2" "$process/$file"; then echo "$1: $file of $(cat "$process/comm" 2>/dev/null)"; fi
        done
    done
    grep -rsla --devices=skip --exclude-dir=proc --exclude-dir=sys "$2" / | sed "s/^/$1: file /" || true
}
canary=canary; canary=$canary-7f3a
echo "$canary" >"$HOME/notes"
env "ITS=$canary" sleep 3600 &
bash -c "exec -a '$canary' sleep 3600" &
until grep -qa '[c]anary-7f3a' "/proc/$!/cmdline"; do sleep 0.05; done
look control '[c]anary-7f3a'
look FOUND 'PATTERN'
echo "looked everywhere"
"#;

/// A pattern that matches `secret` and not itself, so that a search does not find its own words.
fn pattern(secret: &str) -> String {
    let (first, rest) = secret.split_at(1);
    format!("[{first}]{rest}")
}

/// What must hold however the token was given.
fn no_job_finds_the_token(world: &World, container: &Container) {
    let pattern = pattern(&world.pat);
    // After the listing below there must be a job running, so that all processes are there: it waits for a file.
    let script = format!("{}\nuntil [ -e /tmp/go-on ]; do sleep 0.1; done", SEARCH.replace("PATTERN", &pattern));
    let job = world.forge.script_on(container.host(), "hostile", &script);
    let log = world.forge.wait_job(job, oscr_sim::forge::JobStatus::InProgress, LIMIT).live;
    assert!(!log.contains(&world.pat));
    container.wait_log("the worker is process", LIMIT);

    // Root in the container, without the capability to look into a process that does not want it.
    let (_, environment) = container.exec("0", "cat /proc/1/environ");
    assert!(!environment.contains(&world.pat), "{environment}");
    let (readable, memory) = container.exec("0", "head -c 1 /proc/1/mem");
    assert!(!readable && memory.contains("ermission denied"), "{memory}");
    let files =
        container.exec("0", &format!("grep -rsla --devices=skip --exclude-dir=proc --exclude-dir=sys '{pattern}' /")).1;
    let beyond: Vec<&str> = files.lines().filter(|file| *file != world.provider().secret()).collect();
    assert!(beyond.is_empty(), "{beyond:?}");

    // Root on the host.
    let processes = docker(&["top", &container.id, "-eo", "pid,args"]);
    assert!(processes.contains(world.provider().worker), "{processes}");
    assert!(!processes.contains(&world.pat), "{processes}");
    let mark = world.provider().settings[0].0;
    let mut looked_into = 0;
    for pid in processes.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()) {
        // None, where Docker is on another machine.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains(&world.pat), "{environment}");
        looked_into += usize::from(environment.contains(mark));
    }
    let local = std::fs::metadata("/var/run/docker.sock").is_ok() && std::env::var_os("DOCKER_HOST").is_none();
    assert!(looked_into > 0 || !local, "{processes}");

    // As root: Docker hands the container's variables to what it starts, and the job may look into what is its own user's.
    container.must_exec("0", "touch /tmp/go-on");
    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    for kind in ["environ of sleep", "cmdline of sleep", "file /home/runner/notes"] {
        assert!(job.log.contains(&format!("control: {kind}")), "{}", job.log);
    }
    assert!(job.log.contains("looked everywhere"), "{}", job.log);
    assert!(!job.log.contains("FOUND"), "{}", job.log);
    assert!(!job.log.contains(&world.pat));
    assert!(!container.logs().contains(&world.pat));
}

pub fn a_compose_secret_is_found_by_no_job_and_survives_the_restart(world: &World) {
    let container = world.up_one();
    let first = world.forge.wait_runner(container.host(), 0);
    let secret = world.provider().secret();
    let guarded = |when: &str| {
        let mode = container.must_exec("0", &format!("stat -c '%u:%g %a' {secret}"));
        assert_eq!(mode.trim(), "0:0 400", "{when}");
        let (readable, said) = container.exec(RUNNER, &format!("cat {secret}"));
        assert!(!readable, "{when}: {said}");
    };
    guarded("at first");
    let facts = container.inspect().to_string();
    assert!(!facts.contains(&world.pat), "{facts}");
    no_job_finds_the_token(world, &container);

    world.forge.wait_runner(container.host(), first.id);
    assert_eq!(container.inspect()["RestartCount"], 1);
    guarded("after the restart");
}

pub fn a_token_given_as_a_variable_is_found_by_no_job_either(world: &World) {
    let container = world.docker_run(&[]);
    world.forge.wait_runner(container.host(), 0);
    // That is Docker's doing, and why the log recommends a file.
    assert!(container.inspect().to_string().contains(&world.pat));
    container.wait_log(&format!("use {}", world.provider().token_file()), LIMIT);
    no_job_finds_the_token(world, &container);
}

/// Looks, as a job, into the environments of others, once after each of two things that are done beside it.
const LOOK: &str = r#"
for who in root own; do
    until [ -e "/tmp/$who" ]; do sleep 0.1; done
    for process in /proc/[0-9]*; do
        if grep -qsa 'PATTERN' "$process/environ"; then echo "beside $who: $(cat "$process/comm")"; fi
    done
    echo "looked beside $who"
    touch "/tmp/$who.looked"
done
"#;

pub fn a_variable_is_handed_to_what_docker_exec_starts_and_a_job_reads_its_own_users(world: &World) {
    let container = world.docker_run(&[]);
    world.forge.wait_runner(container.host(), 0);
    let job = world.forge.script_on(container.host(), "look", &LOOK.replace("PATTERN", &pattern(&world.pat)));
    for (who, user) in [("root", "0"), ("own", RUNNER)] {
        docker(&["exec", "--detach", "--user", user, &container.id, "sleep", "100000"]);
        container.must_exec("0", &format!("touch /tmp/{who}; until [ -e /tmp/{who}.looked ]; do sleep 0.1; done"));
    }
    let job = world.forge.finished(job);
    assert!(job.log.contains("looked beside root") && !job.log.contains("beside root: "), "{}", job.log);
    // This is what docs/security.md warns of, and not ours to change.
    assert!(job.log.contains("beside own: sleep"), "{}", job.log);
}
