//! A model beside the runners: `compose.ollama.yml` as users have it, with a stand-in for Ollama; and what it and the files for GPUs add,
//! which nothing here can start.

use std::fs;
use std::time::{Duration, Instant};

use oscr_sim::forge::JobSpec;
use oscr_sim::patience::{LIMIT, patient};
use serde_json::{Value, json};

use super::{Shipped, succeeded, wait_healthy};
use crate::docker::{self, Container, GRACE, command, until};
use crate::image::config_of;
use crate::jobs_docker::rootless_works_here;
use crate::world::{IMAGE, World};

const MODEL: &str = "qwen2.5-coder:7b";

/// An image with the stand-in, which has a shell, as Ollama's.
fn image(world: &World) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ollama"), include_str!("ollama-stand-in.pl")).expect("a file");
    let file = format!("FROM {IMAGE}\nCOPY ollama /bin/ollama\nRUN [\"chmod\", \"0755\", \"/bin/ollama\"]\n");
    fs::write(folder.path().join("Dockerfile"), file).expect("a file");
    let name = world.image_name("oddessentials/oscr-ollama-stand-in", "");
    docker::run(command(&["build", "--quiet", "--tag", &name]).arg(folder.path()));
    name
}

/// The model's service alone.
fn model(world: &World, settings: &[(&str, &str)]) -> Container {
    let image = image(world);
    let own = [("OLLAMA_IMAGE", image.as_str())];
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.ollama.yml", &[&own, settings].concat());
    shipped.compose(&["up", "--detach", "ollama"]);
    shipped.containers("ollama").remove(0)
}

/// Waits for the health check, run by hand: Docker's own comes later, and tells nothing of a restart.
#[track_caller]
fn wait_warm(container: &Container) {
    until("the model should be in memory", || container.exec("0", "bash /opt/oscr/serve.sh healthy").0);
}

#[track_caller]
fn ends_at_once(container: &Container) {
    let started = Instant::now();
    container.stop(GRACE).join().expect("docker stop succeeds");
    assert!(started.elapsed() < patient(Duration::from_secs(10)), "{:?}", started.elapsed());
    assert_eq!(container.inspect()["State"]["ExitCode"], 0);
}

/// How often the model's service said so.
fn count(container: &Container, line: &str) -> usize {
    container.logs().lines().filter(|said| said.contains(line)).count()
}

pub fn a_review_on_compose_ollama_yml_reaches_the_model_by_both_names(world: &World) {
    let image = image(world);
    // For what its volume is called when the world is removed.
    world.also("compose.ollama.yml");
    let shipped = Shipped::of_compose_yml(
        world,
        "compose.yml:compose.ollama.yml",
        &[
            ("OLLAMA_IMAGE", &image),
            ("OLLAMA_MODEL", MODEL),
            // What the user has stays.
            ("RUNNER_LABELS", "mine"),
            ("OSCR_JOB_ENV", "OSCR_LOG"),
            ("OSCR_LOG", "text"),
            // And no proxy is asked for the model.
            ("HTTP_PROXY", "http://proxy.invalid:3128"),
            ("NO_PROXY", "forge"),
        ],
    );
    let runner = shipped.up_one();
    let model = shipped.containers("ollama").remove(0);
    // It was started once the model was in memory.
    wait_healthy(&model);
    let moment = |container: &Container| container.inspect()["State"]["StartedAt"].as_str().expect("a time").to_owned();
    assert_eq!((count(&model, "is in memory"), moment(&model) < moment(&runner)), (1, true));
    let script = "\
        echo \"base $OLLAMA_BASE_URL, model $OLLAMA_MODEL, own $OSCR_LOG\"\n\
        ask='{\"model\":\"'$OLLAMA_MODEL'\",\"prompt\":\"Is this good?\"}'\n\
        for name in ollama ollama-sidecar; do\n\
          echo \"$name has $(curl -sf http://$name:11434/api/tags)\"\n\
          curl -sf http://$name:11434/api/generate --data \"$ask\" >/dev/null\n\
        done\n";
    let labels = ["ai-review", "mine", "self-hosted"].map(str::to_owned).to_vec();
    let job = succeeded(world, world.forge.submit(&JobSpec { labels, ..JobSpec::script("review", script) }));
    for part in [
        format!("base http://ollama:11434, model {MODEL}, own text\n"),
        format!("ollama has {{\"models\":[{{\"name\":\"{MODEL}\"}}]}}\n"),
        format!("ollama-sidecar has {{\"models\":[{{\"name\":\"{MODEL}\"}}]}}\n"),
    ] {
        assert!(job.log.contains(&part), "{part}: {}", job.log);
    }
    assert_eq!(count(&model, "prompt «Is this good?»"), 2);

    // Neither a new container nor a server that crashed has it pulled again.
    shipped.compose(&["up", "--detach", "--force-recreate", "ollama"]);
    let model = shipped.containers("ollama").remove(0);
    wait_warm(&model);
    // All that PID 1 has started and waits for.
    model.must_exec("0", "kill -KILL $(cat /proc/1/task/1/children)");
    model.wait_log("the server has ended with 137", LIMIT);
    wait_warm(&model);
    assert_eq!(model.inspect()["RestartCount"], 1);
    assert_eq!((count(&model, "is in memory"), count(&model, "stays for -1, prompt «»")), (2, 2));
    assert_eq!(count(&model, "/api/pull"), 0);

    // A runner beside a daemon is in the network of that one's container.
    if rootless_works_here() {
        world.also("compose.docker-dind.yml");
        let files = "compose.yml:compose.ollama.yml:compose.docker-dind.yml";
        let shipped = Shipped::of_compose_yml(world, files, &[]);
        shipped.compose(&["up", "--detach", "--no-deps", "docker"]);
        let ask = "for name in ollama ollama-sidecar; do curl -sf http://$name:11434/api/version || exit 1; done";
        shipped.containers("docker").remove(0).must_exec("0", ask);
    }
}

pub fn a_model_is_brought_to_a_machine_without_a_network_and_stays_over_a_stop(world: &World) {
    world.also("compose.ollama.yml");
    let elsewhere = model(world, &[("OLLAMA_MODEL", MODEL)]);
    wait_warm(&elsewhere);
    assert_eq!(count(&elsewhere, "/api/pull"), 1);
    // As docs/local-model.md has it.
    let archive = world.folder.path().join("models.tar");
    let file = fs::File::create(&archive).expect("a file");
    let export = command(&["exec", &elsewhere.id, "tar", "-C", "/root/.ollama", "-c", "models"]).stdout(file).status();
    assert!(export.is_ok_and(|status| status.success()));
    elsewhere.must_exec("0", "rm -r /root/.ollama/models");

    let container = model(world, &[("OLLAMA_MODEL", MODEL), ("OLLAMA_PULL", "false")]);
    let line = format!("{MODEL} is not here, and OLLAMA_PULL is false");
    container.wait_log(&line, LIMIT);
    let (warm, said) = container.exec("0", "bash /opt/oscr/serve.sh healthy");
    assert!(!warm && said.contains("is not in memory yet"), "{said}");
    // It is looked for again, and what is wrong is said once.
    until("it should be looked for twice", || count(&container, "/api/show") > 1);
    let import = ["exec", "--interactive", &container.id, "tar", "-C", "/root/.ollama", "--no-same-owner", "-x"];
    docker::run(command(&import).stdin(fs::File::open(archive).expect("a file")));
    wait_warm(&container);
    assert_eq!(count(&container, &line), 1);
    ends_at_once(&container);
    container.start();
    wait_warm(&container);
    assert_eq!((count(&container, "is in memory"), count(&container, "/api/pull")), (2, 0));
}

pub fn what_goes_wrong_with_a_model_is_said_and_ends_no_server(world: &World) {
    world.also("compose.ollama.yml");
    for (name, line) in [
        ("unknown:1b", "could not be pulled, which is tried again in 5 s: pull model manifest: file does not exist"),
        ("large:70b", "could not be loaded, which is tried again in 5 s: model requires more system memory (8.0 GiB)"),
        ("hanging:1b", "stand-in: /api/pull hanging:1b"),
    ] {
        let container = model(world, &[("OLLAMA_MODEL", name)]);
        container.wait_log(line, LIMIT);
        container.must_exec("0", "ollama list");
        assert_eq!(container.inspect()["RestartCount"], 0, "{name}");
        ends_at_once(&container);
    }
    // Without a server there is nothing to wait for.
    let container = model(world, &[("OLLAMA_MODEL", "silent"), ("OLLAMA_START_LIMIT", "1")]);
    container.wait_log("the server did not answer within 1 s", LIMIT);
    container.wait_event("die", LIMIT);
}

/// What is asked of Docker for a service's GPUs.
fn devices(service: &Value) -> &Value {
    &service["deploy"]["resources"]["reservations"]["devices"]
}

pub fn labels_and_gpus_are_added_by_the_files_that_have_them(_: &str) {
    let gpu = json!([{ "driver": "nvidia", "count": -1, "capabilities": ["gpu", "compute", "utility"] }]);
    let review = json!("ai-review");
    let more = |files: &str, file| format!("{files}:{file}");
    let on_gpus = "compose.yml:compose.ollama.yml:compose.ollama-gpu.yml";
    for (files, labels, for_jobs, for_model) in [
        ("compose.yml".to_owned(), [Value::Null, Value::Null], false, false),
        ("compose.yml:compose.ollama.yml".to_owned(), [review.clone(), Value::Null], false, false),
        ("compose.yml:compose.gpu.yml".to_owned(), [Value::Null, json!("gpu")], true, false),
        ("compose.yml:compose.ollama.yml:compose.gpu.yml".to_owned(), [review.clone(), json!("gpu")], true, false),
        (more("compose.yml:compose.gpu.yml", "compose.ollama.yml"), [review.clone(), json!("gpu")], true, false),
        (on_gpus.to_owned(), [review.clone(), json!("gpu")], true, true),
        (
            more(&more("compose.yml:compose.gpu.yml", "compose.ollama-gpu.yml"), "compose.ollama.yml"),
            [review.clone(), json!("gpu")],
            true,
            true,
        ),
        (more(on_gpus, "compose.gpu.yml"), [review.clone(), json!("gpu")], true, true),
    ] {
        let names: Vec<&str> = files.split(':').collect();
        let config = config_of(&names, &[("GITHUB_PAT", "x"), ("RUNNER_LABELS", "mine"), ("OSCR_JOB_ENV", "MINE")]);
        for service in ["github-runner", "azure-devops-agent"] {
            let runner = &config["services"][service];
            let environment = &runner["environment"];
            let added = ["OLLAMA", "GPU"].map(|who| environment[format!("OSCR_ADD_LABELS_{who}")].clone());
            assert_eq!(added, labels, "{files}: {service}");
            assert_eq!((&environment["RUNNER_LABELS"], &environment["OSCR_JOB_ENV"]), (&json!("mine"), &json!("MINE")));
            assert_eq!(devices(runner), if for_jobs { &gpu } else { &Value::Null }, "{files}: {service}");
        }
        assert_eq!(devices(&config["services"]["ollama"]), if for_model { &gpu } else { &Value::Null }, "{files}");
    }
}

pub fn compose_ollama_yml_opens_nothing_and_is_on_the_network_of_the_jobs(_: &str) {
    let config = config_of(&["compose.yml", "compose.ollama.yml", "compose.docker-dind.yml"], &[("GITHUB_PAT", "x")]);
    let model = &config["services"]["ollama"];
    for absent in ["ports", "container_name", "privileged", "devices", "network_mode", "profiles"] {
        assert!(model[absent].is_null(), "{absent}: {}", model[absent]);
    }
    assert_eq!(model["mem_limit"], "8589934592");
    assert_eq!(model["networks"], json!({ "default": { "aliases": ["ollama-sidecar"] } }));
    // A runner beside a daemon has the daemon's network, which is the model's.
    for (runner, daemon) in [("github-runner", "docker"), ("azure-devops-agent", "azure-docker")] {
        let runner = &config["services"][runner];
        assert_eq!(runner["network_mode"], format!("service:{daemon}"));
        assert_eq!(runner["depends_on"]["ollama"]["condition"], "service_healthy");
        assert!(config["services"][daemon]["networks"].get("default").is_some(), "{}", config["services"][daemon]);
    }
    for (given, exceptions) in [
        (&[][..], "ollama,ollama-sidecar"),
        (&[("NO_PROXY", "a,b")], "ollama,ollama-sidecar,a,b"),
        (&[("no_proxy", "c")], "ollama,ollama-sidecar,c"),
        (&[("NO_PROXY", "a"), ("no_proxy", "c")], "ollama,ollama-sidecar,c"),
    ] {
        let config = config_of(&["compose.yml", "compose.ollama.yml"], given);
        let environment = &config["services"]["github-runner"]["environment"];
        for name in ["NO_PROXY", "no_proxy"] {
            assert_eq!(environment[name], exceptions, "{name} of {given:?}");
        }
    }
}
