//! The forge refuses, is away, or has had enough.

use oscr_sim::patience::LIMIT;
use serde_json::json;

use crate::docker::until;
use crate::world::World;

pub fn a_wrong_token_is_one_clear_line_and_its_correction_is_seen_without_a_restart(world: &World) {
    let wrong = "ghp_thisTokenWasRevoked00000000000000000";
    let file = world.pat_from_file(wrong);
    let container = world.up_one();
    let first = world.mode.request();
    world.forge.wait("requests=1&status=401", LIMIT).unwrap_or_else(|why| panic!("the token should be tried: {why}"));
    let began = container.inspect()["State"]["StartedAt"].clone();

    container.wait_event("health_status: unhealthy", LIMIT);
    let log = container.logs();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("401") && errors[0].contains(&world.provider().token_file()), "{}", errors[0]);
    assert!(!log.contains(wrong), "{log}");
    let facts = container.inspect();
    assert_eq!(facts["State"]["Running"], true);
    assert_eq!(facts["RestartCount"], 0);
    assert_eq!(container.status()["phase"], "denied");

    // It tries again without help, and slowly: at this pace there are three attempts in the first two minutes.
    world
        .forge
        .wait(&format!("requests=2&status=401&path={first}"), LIMIT)
        .unwrap_or_else(|why| panic!("the token should be tried again: {why}"));
    let requests = world.forge.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    let pause = millis(&requests[1]) - millis(&requests[0]);
    assert!(pause >= 20_000, "{pause} ms");

    let retry = container.status()["next_retry"].as_str().map(humantime::parse_rfc3339).expect("it says when");
    // As an editor or `cat` would: the same file, new content.
    std::fs::write(&file, &world.pat).expect("the secret can be corrected");
    world.forge.wait_idle(1);
    // Not because it was time to try again.
    let third = world.forge.requests()[2].at;
    assert!(std::time::SystemTime::from(third) < retry.expect("RFC 3339"), "{third}");
    let facts = container.inspect();
    assert_eq!(facts["State"]["StartedAt"], began);
    assert_eq!(facts["RestartCount"], 0);
    assert_eq!(world.containers(), [container]);
}

fn millis(request: &oscr_sim::forge::RequestRecord) -> i64 {
    request.at.as_millisecond()
}

pub fn a_runner_whose_forge_is_down_at_start_registers_when_it_is_back(world: &World) {
    world.stop_forge();
    let container = world.up_without_forge();
    container.wait_log("trying again in", LIMIT);
    let began = container.inspect()["State"]["StartedAt"].clone();
    // It tries again in between, which may last for a moment.
    until("it should wait until it tries again", || container.status()["phase"] == "backing-off");
    world.start_forge();
    world.forge.wait_idle(1);
    let facts = container.inspect();
    assert_eq!(facts["RestartCount"], 0);
    assert_eq!(facts["State"]["StartedAt"], began);
}

pub fn a_rate_limits_retry_after_is_obeyed(world: &World) {
    const ASKED: i64 = 6;
    let path = world.mode.request();
    world.forge.fault(json!({
        "match": {"path_contains": path, "agent": false},
        "times": 1,
        "status": 429,
        "headers": {"Retry-After": ASKED.to_string()},
        "body": {"message": "You have exceeded a secondary rate limit."},
    }));
    let container = world.up_one();
    world.forge.wait_idle(1);
    let mut requests = world.forge.requests_for(path);
    requests.retain(|request| request.path.ends_with(path));
    let statuses: Vec<_> = requests.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [Some(429), Some(world.provider().registered)]);
    let pause = millis(&requests[1]) - millis(&requests[0]);
    // And not as long as where the forge names no time.
    assert!((ASKED * 1000..55_000).contains(&pause), "{pause} ms");
    assert_eq!(container.inspect()["RestartCount"], 0);
}
