//! A machine that is rid of OSCR, by the commands of docs/hosts.md.

use serde_json::Value;

use crate::docker::{self, command, docker};
use crate::page::commands;
use crate::world::{Mode, World, root};

pub fn what_the_pages_commands_remove_is_all_that_was_made_and_nothing_else(name: &str) {
    let world = World::start(name, Mode::Token);
    let page = std::fs::read_to_string(root().join("docs/hosts.md")).expect("the page can be read");
    let image = world.another_image();
    let tag = format!("export OSCR_TAG={}\n", world.name());
    // Each of these has a volume without a name.
    world.harden();
    docker::run(&mut world.shell(&format!("{tag}docker compose up --detach --scale github-runner=2")));
    world.forge.wait_idle(2);
    let mounts: Vec<Value> = world.containers().iter().map(|runner| runner.inspect()["Mounts"].clone()).collect();
    let mounts = mounts.iter().filter_map(Value::as_array).flatten().filter(|mount| mount["Type"] == "volume");
    let volumes: Vec<&str> = mounts.filter_map(|mount| mount["Name"].as_str()).collect();
    assert_eq!(volumes.len(), 2, "{volumes:?}");
    let bystander = format!("{}-of-another", world.name());
    docker(&["volume", "create", &bystander]);

    // Here the forge goes with the project, and no runner could leave it any more.
    docker::run(&mut world.shell(&format!("{tag}docker compose stop github-runner")));
    world.check();
    let images = commands(&page, "cleanup:images");
    // Others on this machine have images too: of all tags, this test's own.
    let everybodys = "'oddessentials/oscr-*'";
    assert!(images.contains(everybodys), "{images}");
    let images = images.replace(everybodys, &format!("'{image}'"));
    docker::run(&mut world.shell(&format!("{tag}{}{images}", commands(&page, "cleanup:project"))));

    let gone = |kind: &str, name: &str| !docker::output(&mut command(&[kind, "inspect", name])).status.success();
    let kept = !gone("volume", &bystander);
    docker(&["volume", "rm", "--force", &bystander]);
    assert!(kept, "the volume of another was removed");
    assert!(volumes.iter().all(|volume| gone("volume", volume)), "{volumes:?}");
    assert!(gone("image", &image), "{image}");
    let ours = format!("label=com.docker.compose.project={}", world.name());
    for list in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
        let left = docker(&[list, &["--quiet", "--filter", &ours]].concat());
        assert!(left.is_empty(), "{list:?}: {left}");
    }
}
