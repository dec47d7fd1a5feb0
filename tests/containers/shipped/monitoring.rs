//! `compose.monitoring.yml`: Prometheus and Grafana beside the runners.

use std::fs;
use std::thread;
use std::time::Instant;

use oscr_sim::patience::{LIMIT, patient};

use super::boards::with_boards;
use super::{Shipped, wait_listening};
use crate::boards::LOOK;
use crate::docker::{self, command};
use crate::world::{IMAGE, World, root};

/// Prometheus' image, made of Debian's, under the name that the file has.
fn prometheus_image(world: &World) {
    let program = root().join(".tools/prometheus/usr/bin/prometheus");
    let program = if program.exists() { program } else { "/usr/bin/prometheus".into() };
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(&program, folder.path().join("prometheus")).expect("scripts/setup.sh tests fetches Prometheus");
    let file = format!("FROM {IMAGE}\nCOPY prometheus /bin/prometheus\nENTRYPOINT [\"/bin/prometheus\"]\n");
    fs::write(folder.path().join("Dockerfile"), file).expect("a file");
    let name = world.image_name("prom/prometheus", "");
    docker::run(command(&["build", "--quiet", "--tag", &name]).arg(folder.path()));
}

/// Grafana's image is in no package. This one stands where it does, as its user, and says which of the files it finds.
fn grafana_image(world: &World) {
    let look = "cd /etc && cat grafana/provisioning/*/*.yml oscr/dashboards/oscr.json >/dev/null && touch /var/lib/grafana/kept && \
        echo \"all is there for $GF_SECURITY_ADMIN_PASSWORD\" && sleep infinity";
    let file = format!(
        "FROM {IMAGE}\nRUN install -d -o 472 /var/lib/grafana\nUSER 472\nENTRYPOINT [\"sh\", \"-c\", {}]\n",
        serde_json::json!(look)
    );
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("Dockerfile"), file).expect("a file");
    let name = world.image_name("grafana/grafana", "");
    docker::run(command(&["build", "--quiet", "--tag", &name]).arg(folder.path()));
}

/// All of it, brought up with so many runners, which Prometheus must find.
fn monitored<'a>(
    world: &'a World,
    set_up: impl FnOnce(&[(&str, &str)]) -> Shipped<'a>,
    scales: &[&str],
    runners: usize,
) {
    prometheus_image(world);
    grafana_image(world);
    // For what its volumes are called when the world is removed.
    world.also("compose.monitoring.yml");
    let tag = world.tag();
    let shipped = set_up(&[
        ("OSCR_METRICS_ADDR", "0.0.0.0:9464"),
        ("GRAFANA_PASSWORD", "of-a-test"),
        ("PROMETHEUS_TAG", &tag),
        ("GRAFANA_TAG", &tag),
        ("PROMETHEUS_PORT", "0"),
        ("GRAFANA_PORT", "0"),
    ]);
    let scales = scales.iter().flat_map(|scale| ["--scale", scale]);
    shipped.compose(&["up", "--detach"].into_iter().chain(scales).collect::<Vec<_>>());
    wait_listening(world, runners);
    shipped.containers("grafana").remove(0).wait_log("all is there for of-a-test", LIMIT);
    assert!(shipped.compose(&["port", "grafana", "3000"]).starts_with("127.0.0.1:"));
    let address = shipped.compose(&["port", "prometheus", "9090"]);
    let query = format!("http://{}/api/v1/query?query=sum(up%7Bjob%3D%22oscr%22%7D)", address.trim());
    let until = Instant::now() + patient(LIMIT);
    loop {
        let seen = ureq::get(&query).call().and_then(|mut answer| answer.body_mut().read_to_string());
        if seen.as_ref().is_ok_and(|seen| seen.contains(&format!("\"{runners}\"]"))) {
            return;
        }
        assert!(Instant::now() < until, "Prometheus should find {runners} runners: {seen:?}");
        thread::sleep(LOOK);
    }
}

pub fn prometheus_of_compose_monitoring_yml_finds_every_replica(world: &World) {
    let files = "compose.yml:compose.monitoring.yml";
    monitored(world, |values| Shipped::of_compose_yml(world, files, values), &["github-runner=2"], 2);
}

pub fn prometheus_of_compose_monitoring_yml_finds_the_boards(world: &World) {
    let files = "compose.boards.yml:compose.monitoring.yml";
    let some = ["acme-board-1=2", "acme-board-2=0", "umbrella-board-1=0"];
    monitored(world, |values| with_boards(world, files, values), &some, 3);
}
