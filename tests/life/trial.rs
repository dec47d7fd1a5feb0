//! The agent is tried before it is used for the first time.

use std::fs;

use crate::harness::{Container, Forge, LIMIT, SECRET, each, until, write, write_program};

const KINDS: [for<'f> fn(&'f Forge) -> Container<'f>; 2] =
    [|forge| Container::new(forge), |forge| Container::azure(forge)];

/// Has the agent do `what` when it is asked for its version.
fn asked_for_its_version(container: &Container<'_>, what: &str) {
    container.replace_listener(&format!("[ \"$1\" = --version ] && {{ {what}; }}"));
}

/// Has the agent fail as without ICU while the file that is given back is there.
fn broken(container: &Container<'_>) -> std::path::PathBuf {
    let broken = container.path("broken");
    write(&broken, "", 0o444);
    asked_for_its_version(container, &format!("[ -e {} ] && {{ echo no ICU >&2; kill -ABRT $$; }}", broken.display()));
    broken
}

/// What is waited for is tried again at once.
fn touch_secret(forge: &Forge, container: &Container<'_>) {
    let new = container.path("run/secrets/new");
    write(&new, &forge.secret(), 0o400);
    fs::rename(&new, container.path(SECRET)).expect("the same directory");
}

#[test]
fn an_agent_is_tried_once_in_a_container_and_another_one_again() {
    each(&KINDS, |container| {
        let forge = Forge::start();
        let mut container = container(&forge);
        let tries = container.path("tries");
        write(&tries, "", 0o666);
        asked_for_its_version(&container, &format!("echo \"as $(id -u) in $PWD\" >>{}", tries.display()));
        let tried = || fs::read_to_string(&tries).expect("our own file").lines().map(str::to_owned).collect::<Vec<_>>();
        container.start();
        let (first, _) = forge.listening();
        assert_eq!(tried(), [format!("as {} in {}", container.uid, container.text("runner/its-version-0"))]);
        assert_eq!(container.names("runner").len(), 1, "its root is gone: {:?}", container.names("runner"));
        container.stop();
        container.restart();
        let second = forge.another(first).id;
        assert_eq!(tried().len(), 1, "it is the same agent");
        container.stop();
        let script = fs::read_to_string(container.listener_program()).expect("the script");
        write_program(&container.listener_program(), &format!("{script}\n"));
        container.restart();
        forge.another(second);
        assert_eq!(tried().len(), 2);
        container.stop();
    });
}

#[test]
fn the_forge_is_asked_meanwhile() {
    each(&KINDS, |container| {
        let forge = Forge::start();
        let mut container = container(&forge);
        let mut gate = container.gate();
        asked_for_its_version(&container, &gate.wait());
        container.start();
        forge.wait("the forge is asked", LIMIT, |seen| !seen.requests.is_empty());
        assert!(forge.runners().is_empty());
        gate.open();
        forge.listening();
        container.stop();
    });
}

#[test]
fn a_stop_ends_a_trial() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    asked_for_its_version(&container, "echo hanging; exec sleep 1000");
    container.start();
    container.wait_line("hanging");
    container.stop();
    assert!(forge.runners().is_empty());
}

#[test]
fn what_was_granted_to_an_agent_that_cannot_run_is_released_and_no_more_is_asked_for() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_REGISTRATION", "jit");
    let broken = broken(&container);
    container.start();
    let said = container.wait_line("trying again in");
    assert!(said.contains("cannot run in this image: ") && said.contains("SIGABRT and said \"no ICU\""), "{said}");
    assert_eq!(container.status()["phase"], "denied");
    touch_secret(&forge, &container);
    until("the second try is over", || container.lines_with("trying again in").len() == 2);
    assert_eq!(forge.calls(), ["POST generate-jitconfig 201", "DELETE ID 204"]);
    assert!(forge.runners().is_empty());
    fs::remove_file(broken).expect("our own file");
    touch_secret(&forge, &container);
    forge.listening();
    assert_eq!(forge.calls().len(), 3, "{:?}", forge.calls());
    container.stop();
}

#[test]
fn a_registration_is_kept_while_another_agent_cannot_run() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("RUNNER_PERSISTENT", "true")]);
    let (id, _) = forge.listening();
    container.stop();
    let broken = broken(&container);
    container.restart();
    container.wait_line("trying again in");
    assert_eq!(container.status()["phase"], "denied");
    fs::remove_file(broken).expect("our own file");
    touch_secret(&forge, &container);
    assert_eq!(forge.listening().0, id);
}
