//! A new image for a pool at work, by the commands of docs/upgrading.md.

use std::thread;
use std::time::Duration;

use oscr_sim::forge::JobStatus;
use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker;
use crate::page::commands;
use crate::world::{World, root};

/// Between two looks at the pool.
const LOOK: Duration = Duration::from_millis(200);

pub fn an_upgrade_as_the_page_has_it_keeps_the_job_and_an_idle_runner(world: &World) {
    let page = std::fs::read_to_string(root().join("docs/upgrading.md")).expect("the page can be read");
    let image = world.another_image();
    // What the page has people write into .env.
    let settings = format!("export OSCR_TAG={}", world.name());
    let script = format!("{}{settings}\n{}", commands(&page, "upgrade:before"), commands(&page, "upgrade:after"));

    let old = world.up(3);
    world.forge.wait_idle(3);
    let busy = &old[0];
    // It ends at some time, whatever comes, because the commands wait for it.
    let wait = "for _ in $(seq 600); do [ -e /tmp/go-on ] && break; sleep 0.1; done; echo the 'last step'";
    let job = world.forge.script_on(busy.host(), "long", wait);
    world.forge.wait_job(job, JobStatus::InProgress, LIMIT);
    busy.wait_log("the worker is process", LIMIT);

    let mut looks = 0;
    let mut gaps = Vec::new();
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| docker::run(&mut world.shell(&script)));
        scope.spawn(|| {
            // A gap would be now: the idle ones are gone, and the job goes on.
            for idle in &old[1..] {
                idle.wait_event("die", LIMIT);
            }
            assert_eq!(world.forge.job(job).status, JobStatus::InProgress, "the stop waits for the job");
            busy.must_exec("0", "touch /tmp/go-on");
        });
        while !upgrade.is_finished() {
            let runners = world.forge.runners();
            looks += 1;
            if !runners.iter().any(|runner| runner.status == "online" && !runner.busy) {
                gaps.push(runners);
            }
            thread::sleep(LOOK);
        }
    });
    assert!(gaps.is_empty(), "at {} of {looks} looks no runner was idle and online, first: {:?}", gaps.len(), gaps[0]);
    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("the last step"), "{}", job.log);

    // Of the old ones nothing is left, and Compose has nothing to change.
    let new = world.containers();
    assert_eq!(new.len(), 3, "{new:?}");
    for container in &new {
        assert_eq!(container.inspect()["Config"]["Image"], image.as_str());
    }
    assert_eq!(world.forge.runners().len(), 3, "{:?}", world.forge.runners());
    docker::run(&mut world.shell(&format!("{settings}\ndocker compose up --detach --scale github-runner=3")));
    assert_eq!(world.containers(), new);
}
