//! Faults by table: each step of a life at each forge × each thing that can go wrong there. Every row runs the real binary as PID 1 of a PID
//! namespace against the simulated forge, and ends with a life in which nothing goes wrong and after which nothing may be left.
//!
//! The table is in docs/faults.md, as matrices; `UPDATE_DOCS=1 cargo test --test faults -- the_table` writes it anew. `cargo test --test
//! faults -- grant::` runs the rows of one step, `-- azure::` those of one forge.

#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../life/filter.rs"]
mod filter;
#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../life/forge.rs"]
mod forge;
#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../life/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../life/own_network.rs"]
mod own_network;
#[path = "../life/page.rs"]
mod page;
#[path = "../containers/runner.rs"]
mod runner;

mod agents;
mod azure;
mod given_up;
mod hardware;
mod listener;
mod network;
mod places;
mod points;
mod refused;
mod requests;
mod table;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use runner::Test;
use table::{FORGES, Row};

/// How many rows run at a time, if nobody says.
const AT_A_TIME: usize = 8;

/// Rows that are tried with the images as well, and by which test.
const IN_CONTAINERS: [(&str, &str); 8] = [
    ("grant::401", "a_wrong_token_is_one_clear_line_and_its_correction_is_seen_without_a_restart"),
    ("grant::429_with_retry_after", "a_rate_limits_retry_after_is_obeyed"),
    ("grant::connection_refused", "a_runner_whose_forge_is_down_at_start_registers_when_it_is_back"),
    ("sigkill::listening", "the_registration_of_a_killed_runner_is_removed_by_the_next_incarnation"),
    ("sigkill::a_job_runs", "a_killed_runners_busy_registration_goes_later_and_hinders_nobody"),
    ("sigterm::listening", "a_stopped_idle_runner_leaves_no_registration_within_5_s"),
    ("sigterm::a_job_runs", "a_stopped_runner_finishes_its_job"),
    ("sigterm_twice::a_job_runs", "a_second_stop_signal_cancels_the_job_and_still_unregisters"),
];

fn in_containers(test: &str) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers");
    let files = std::fs::read_dir(folder).expect("tests/containers").flatten();
    let mut texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.any(|text| text.contains(&format!("fn {test}(")))
}

fn rows() -> Vec<Row> {
    let of = [
        requests::rows,
        network::rows,
        agents::rows,
        given_up::rows,
        listener::rows,
        places::rows,
        hardware::rows,
        points::rows,
        refused::rows,
    ];
    let mut rows: Vec<Row> =
        of.iter().flat_map(|of| FORGES.into_iter().flat_map(move |(forge, ..)| of(forge))).collect();
    rows.extend(azure::rows());
    rows.sort_by_key(|row| row.step);
    rows
}

fn main() -> ExitCode {
    let documented = Test {
        name: "the_table_is_the_documentations".to_owned(),
        run: Box::new(|_| {
            let rows = rows();
            let names: BTreeSet<String> = rows.iter().map(Row::name).collect();
            assert_eq!(names.len(), rows.len(), "two rows have one name");
            let mut text = table::markdown(&rows);
            text.push_str("\n## In containers too\n\n| row | test in `tests/containers/` |\n| --- | --- |\n");
            for (row, test) in IN_CONTAINERS {
                assert!(names.contains(row), "there is no row {row}");
                assert!(in_containers(test), "there is no test {test}");
                text.push_str(&format!("| `{row}` | `{test}` |\n"));
            }
            page::keep("docs/faults.md", "faults", &text);
        }),
    };
    let tests = std::iter::once(documented).chain(rows().into_iter().map(Row::test)).collect();
    let others = std::env::var("RUST_TEST_THREADS").ok().and_then(|number| number.parse::<usize>().ok());
    // A row does next to nothing but wait for the time that something takes to be given up.
    runner::run(tests, others.map_or(AT_A_TIME, |others| 2 * others), None)
}
