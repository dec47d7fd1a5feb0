//! The shipped alerts and the dashboard, read by a real Prometheus that scrapes real runners.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{Container, Forge, outcome, until};
use crate::operator::address;

/// Panels of which nothing is known without shared hardware, caches with a cap, or agents that are fetched.
const EMPTY: [&str; 2] = ["Wait for shared hardware", "Age of agents"];

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// A program of Debian's package `prometheus`: the machine's, or the one that `scripts/setup.sh tests` unpacked.
fn program(name: &str) -> Command {
    let unpacked = shipped(".tools/prometheus/usr/bin").join(name);
    Command::new(if unpacked.exists() { unpacked } else { name.into() })
}

/// A server in a folder of its own, on a port that it chose.
struct Prometheus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(targets: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs: [{{job_name: oscr, static_configs: [{{targets: {targets:?}}}]}}]\n",
            shipped("monitoring/prometheus-rules.yml"),
        );
        fs::write(&config, text).expect("a file");
        let mut process = program("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .expect("Prometheus can be started: scripts/setup.sh tests fetches it");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let said = lines.by_ref().find(|line| line.contains("Listening on")).expect("it listens");
        let address = said.rsplit("address=").next().expect("an address").trim().to_owned();
        // It must never find its log full.
        std::thread::spawn(move || lines.for_each(drop));
        let ready = format!("http://{address}/-/ready");
        until("Prometheus is ready", || ureq::get(&ready).call().is_ok());
        Self { process, address, _folder: folder }
    }

    /// What its API answers.
    fn ask(&self, path: &str, query: Option<&str>) -> Value {
        let mut request = ureq::get(format!("http://{}/api/v1/{path}", self.address));
        if let Some(query) = query {
            request = request.query("query", query);
        }
        let agent = request.config().http_status_as_error(false).build();
        let text = agent.call().and_then(|mut answer| answer.body_mut().read_to_string()).expect("it answers");
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// The results of a query, which must be a good one.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.ask("query", Some(query));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("results").clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn each_alert_is_quiet_and_fires_as_its_cases_say() {
    let cases = fs::read_to_string(shipped("tests/life/alerts.yml")).expect("the cases");
    let rules = fs::read_to_string(shipped("monitoring/prometheus-rules.yml")).expect("the rules");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let quiet = format!("{{alertname: {alert}, eval_time: ");
        let fires = format!("- alertname: {alert}\n");
        assert!(cases.contains(&quiet) && cases.contains(&fires), "tests/life/alerts.yml lacks cases of {alert}");
    }
    let mut test = program("promtool");
    test.args(["test", "rules"]).arg(shipped("tests/life/alerts.yml"));
    let (code, said, errors) = outcome(test);
    assert_eq!(code, 0, "{said}{errors}");
    let mut check = program("promtool");
    check.args(["check", "config"]).arg(shipped("monitoring/prometheus.yml"));
    let (code, said, errors) = outcome(check);
    assert_eq!(code, 0, "{said}{errors}");
}

#[test]
fn a_real_prometheus_evaluates_every_query_of_alerts_and_dashboard_on_real_runners() {
    let forge = Forge::start();
    let served = [("OSCR_METRICS_ADDR", "127.0.0.1:0")];
    let mut one = Container::listening(&forge, &served);
    forge.job("true");
    one.restart();
    let mut other = Container::new(&forge);
    other.set_all(&served);
    other.start();
    let targets = [&one, &other].map(address);
    let prometheus = Prometheus::start(&targets);
    // Once tells nothing of what grows.
    let listens = "count_over_time(oscr_info[5m]) > 1 and on (instance) oscr_phase{phase=\"listening\"} == 1";
    until("both runners are seen twice, and listen", || prometheus.query(listens).len() == 2);

    let rules = || prometheus.ask("rules", None)["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    until("all rules are evaluated", || {
        let rules = rules();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")
    });
    for rule in rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "good runners: {rule}");
    }

    let dashboard = fs::read_to_string(shipped("monitoring/grafana-dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("it is JSON");
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // What Grafana puts in for "All".
            let query = target["expr"].as_str().expect("a query").replace("$replica", ".*");
            assert!(!query.contains('$'), "{query}");
            let found = prometheus.query(&query);
            let title = panel["title"].as_str().expect("a title");
            assert!(!found.is_empty() || EMPTY.contains(&title), "{title}: nothing comes of {query}");
            queries += 1;
        }
    }
    assert!(queries > 20, "{queries}");
}
