//! The numbers as a page of Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::counters::{Histogram, Metrics, Registered};
use super::families::{
    AGENT_FAILURES, AGENT_NEWER, AGENT_RELEASED, API_LEFT, API_LIMIT, API_REQUESTS, API_RESET, DISK_FREE, DISK_LEAST,
    EVICTED, Family, GHOST_JOBS, HEALTHY, INCARNATIONS, INFO, JOB_SECONDS, JOBS, JOBS_WITHOUT_HOOK, LEFT_IN_DOCKER,
    LEFTOVERS, LOCK_WAIT_SECONDS, LOG_LOST, MetricKind, PHASE, PHASE_SINCE, REGISTRATIONS, REMOVAL_SECONDS, SET_ASIDE,
    STARTED, WIPE_SECONDS,
};
use super::job_result::JobResult;

/// What is shown besides the counts: how things are at this moment. Times are in seconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Now {
    /// The container, for telling replicas apart.
    pub replica: String,
    /// The version of OSCR.
    pub version: String,
    /// The version of the agent, once known.
    pub agent: String,
    /// `CI_PROVIDER`.
    pub provider: String,
    /// Whose runner it is.
    pub scope: String,
    pub phase: &'static str,
    /// All phases that there are.
    pub phases: Vec<&'static str>,
    /// Since when it is in its phase.
    pub phase_since: u64,
    /// When the incarnation began.
    pub started: u64,
    /// What the health check says.
    pub healthy: bool,
    /// Registrations that are still to be let go.
    pub leftovers: u64,
    /// What jobs left in Docker and is still to be removed.
    pub left_in_docker: u64,
    /// The shared hardware that is wanted, and whether it is set aside.
    pub hardware: Vec<(String, bool)>,
    /// When the agent in use was released, if that is known.
    pub agent_released: Option<u64>,
    /// Whether a newer one is offered.
    pub agent_newer: bool,
    /// How many attempts in a row to fetch it have failed.
    pub agent_failures: u32,
    /// Places on disk: free bytes, and how many must be free.
    pub disk: Vec<(String, u64, u64)>,
}

/// All that was counted, and how things are.
pub(super) fn text(metrics: &Metrics, now: &Now) -> String {
    let counters = &metrics.counters;
    let mut page = Page { text: String::with_capacity(8 * 1024), replica: escaped(&now.replica) };
    page.samples(INFO, [(vec![now.version.as_str(), &now.agent, &now.provider, &now.scope], 1)]);
    page.samples(PHASE, now.phases.iter().map(|phase| (vec![*phase], u64::from(*phase == now.phase))));
    page.samples(PHASE_SINCE, [(vec![], now.phase_since)]);
    page.samples(HEALTHY, [(vec![], u64::from(now.healthy))]);
    page.samples(STARTED, [(vec![], now.started)]);
    page.samples(INCARNATIONS, [(vec![], counters.incarnations)]);
    // All of the few results are always there, so that the first of a kind is an increase and not a new series.
    let of = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
    page.samples(JOBS, JobResult::ALL.map(|result| (vec![result.name()], of(&counters.jobs, result.name()))));
    page.samples(GHOST_JOBS, [(vec![], counters.ghost_jobs)]);
    page.histogram(JOB_SECONDS, &counters.job_seconds);
    page.samples(JOBS_WITHOUT_HOOK, [(vec![], u64::from(metrics.jobs_without_hook))]);
    page.histogram(LOCK_WAIT_SECONDS, &counters.lock_wait_seconds);
    page.histogram(WIPE_SECONDS, &counters.wipe_seconds);
    page.histogram(REMOVAL_SECONDS, &counters.removal_seconds);
    page.samples(REGISTRATIONS, Registered::NAMES.map(|name| (vec![name], of(&counters.registrations, name))));
    page.samples(LEFTOVERS, [(vec![], now.leftovers)]);
    page.samples(LEFT_IN_DOCKER, [(vec![], now.left_in_docker)]);
    page.samples(SET_ASIDE, now.hardware.iter().map(|(id, aside)| (vec![id.as_str()], u64::from(*aside))));
    page.samples(API_REQUESTS, counters.api_requests.iter().map(|(code, count)| (vec![code.as_str()], *count)));
    let limit = metrics.rate_limit;
    let maybe = |value: Option<u64>| value.map(|value| (vec![], value));
    page.samples(API_LEFT, maybe(limit.map(|limit| limit.remaining)));
    page.samples(API_LIMIT, maybe(limit.and_then(|limit| limit.limit)));
    page.samples(API_RESET, maybe(limit.and_then(|limit| limit.reset)));
    page.samples(AGENT_RELEASED, maybe(now.agent_released));
    page.samples(AGENT_NEWER, [(vec![], u64::from(now.agent_newer))]);
    page.samples(AGENT_FAILURES, [(vec![], u64::from(now.agent_failures))]);
    page.samples(DISK_FREE, now.disk.iter().map(|(place, free, _)| (vec![place.as_str()], *free)));
    page.samples(DISK_LEAST, now.disk.iter().map(|(place, _, least)| (vec![place.as_str()], *least)));
    page.samples(EVICTED, [(vec![], counters.evicted_bytes)]);
    page.samples(LOG_LOST, [(vec![], counters.log_lines_lost)]);
    page.text
}

struct Page {
    text: String,
    replica: String,
}

impl Page {
    fn head(&mut self, family: Family) {
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        let _ = write!(self.text, "# HELP {0} {1}\n# TYPE {0} {kind}\n", family.name, family.help);
    }

    /// Samples of one number each. A family without samples is left out.
    fn samples<'v>(&mut self, family: Family, samples: impl IntoIterator<Item = (Vec<&'v str>, u64)>) {
        let mut first = true;
        for (values, number) in samples {
            if std::mem::take(&mut first) {
                self.head(family);
            }
            let _ = write!(self.text, "{}{{replica=\"{}\"", family.name, self.replica);
            for (label, value) in family.labels.iter().zip(values) {
                let _ = write!(self.text, ",{label}=\"{}\"", escaped(value));
            }
            let _ = writeln!(self.text, "}} {number}");
        }
    }

    fn histogram(&mut self, family: Family, histogram: &Histogram) {
        let MetricKind::Histogram(bounds) = family.kind else { return };
        self.head(family);
        let (name, replica) = (family.name, &self.replica);
        let mut total = 0u64;
        for (at, bound) in bounds.iter().enumerate() {
            total = total.saturating_add(histogram.counts.get(at).copied().unwrap_or(0));
            let _ = writeln!(self.text, "{name}_bucket{{replica=\"{replica}\",le=\"{bound}\"}} {total}");
        }
        total = total.saturating_add(histogram.counts.get(bounds.len()).copied().unwrap_or(0));
        let _ = writeln!(self.text, "{name}_bucket{{replica=\"{replica}\",le=\"+Inf\"}} {total}");
        let _ = writeln!(self.text, "{name}_sum{{replica=\"{replica}\"}} {:.3}", histogram.sum);
        let _ = writeln!(self.text, "{name}_count{{replica=\"{replica}\"}} {total}");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => plain.push_str("\\\\"),
            '"' => plain.push_str("\\\""),
            '\n' => plain.push_str("\\n"),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::counters::tests::some;
    use super::super::counters::{Counters, RateLimit};
    use super::super::families::FAMILIES;
    use super::*;

    fn here() -> Now {
        Now {
            replica: "a\"b\\c\nd".to_owned(),
            phase: "listening",
            phases: vec!["listening", "running"],
            agent_released: Some(5),
            disk: vec![("/work".to_owned(), 7, 3)],
            hardware: vec![("board-1".to_owned(), true), ("board-2".to_owned(), false)],
            ..Now::default()
        }
    }

    #[test]
    fn a_duration_counts_for_its_bound_and_all_above() {
        let page = text(&some(), &here());
        for line in [
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="10"} 2"#,
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="30"} 3"#,
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="21600"} 3"#,
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="+Inf"} 4"#,
            r#"oscr_job_seconds_sum{replica="a\"b\\c\nd"} 100026.000"#,
            r#"oscr_job_seconds_count{replica="a\"b\\c\nd"} 4"#,
            r#"oscr_phase{replica="a\"b\\c\nd",phase="running"} 0"#,
            r#"oscr_disk_least_bytes{replica="a\"b\\c\nd",place="/work"} 3"#,
            r#"oscr_hardware_set_aside{replica="a\"b\\c\nd",resource="board-1"} 1"#,
            r#"oscr_hardware_set_aside{replica="a\"b\\c\nd",resource="board-2"} 0"#,
        ] {
            assert!(page.lines().any(|known| known == line), "{line}\n{page}");
        }
    }

    #[test]
    fn every_line_is_of_a_known_family_with_its_own_labels() {
        let mut metrics = some();
        metrics.rate_limit = Some(RateLimit { remaining: 1, limit: Some(2), reset: Some(3) });
        let page = text(&metrics, &here());
        let mut seen = Vec::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            let family = FAMILIES
                .iter()
                .find(|family| match family.kind {
                    MetricKind::Histogram(_) => {
                        name.strip_prefix(family.name).is_some_and(|rest| rest.starts_with('_'))
                    }
                    _ => name == family.name,
                })
                .unwrap_or_else(|| panic!("{line}"));
            for label in family.labels {
                assert!(line.contains(&format!(",{label}=\"")), "{line}");
            }
            seen.push(family.name);
        }
        seen.dedup();
        let all: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(seen, all, "each family is written, once, in order");
    }

    #[test]
    fn fuzz_counters() {
        crate::fuzz::run("counters", |bytes| {
            let counters = Counters::read(bytes);
            if let Some(counters) = &counters {
                let metrics = Metrics { counters: counters.clone(), ..Metrics::default() };
                for line in text(&metrics, &here()).lines().filter(|line| !line.starts_with('#')) {
                    let number = line.rsplit(' ').next().unwrap();
                    assert!(line.starts_with("oscr_") && number.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
                }
            }
            counters
                .map(|counters| (counters.jobs.len(), counters.api_requests.len(), counters.job_seconds.counts.len()))
        });
    }
}
