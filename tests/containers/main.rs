//! The images, compose.yml and `docker run` as users have them, against a simulated forge in a container of its own.
//!
//! Each test has its own compose project (`world.rs`) and removes it at its end, however that comes. `make test` builds the
//! images and sets OSCR_CONTAINER_TESTS; without it nothing is run, and the output says so. Waits are for events: the
//! forge's long polls (`forge.rs`), lines of a container's log, Docker's events (`docker.rs`).

mod boards;
mod build;
mod cleanup;
mod docker;
mod faults;
mod forge;
mod hostile;
mod image;
mod job_containers;
mod jobs_docker;
mod life;
mod official;
mod page;
mod plain;
mod privileges;
mod provider;
mod runner;
mod secrets;
mod shipped;
mod soak;
mod stop;
mod upgrade;
mod world;

use std::process::ExitCode;

use runner::Test;
use shipped::boards as shipped_boards;
use shipped::{monitoring, ollama};
use world::{Mode, World};

/// So many projects at once. A test mostly waits, but each of its containers starts several programs.
const AT_ONCE: usize = 4;

/// A name is the function's own.
macro_rules! table {
    ($($module:ident :: $test:ident),+ $(,)?) => { &[$((stringify!($test), $module::$test)),+] };
}

type WithForge = (&'static str, fn(&World));
type WithoutForge = (&'static str, fn(&str));

/// What must be so however a runner registers, and with whom: what differs is in `provider.rs`. The longest come first: they wait for Docker's health checks.
const IN_ALL_MODES: &[WithForge] = table![
    faults::a_wrong_token_is_one_clear_line_and_its_correction_is_seen_without_a_restart,
    life::what_a_job_leaves_is_gone_after_the_restart,
    life::three_replicas_take_three_jobs_at_once_and_return_by_restart_alone,
    life::a_registration_that_the_forge_forgets_to_remove_is_removed,
    stop::a_stopped_runner_finishes_its_job,
    stop::a_second_stop_signal_cancels_the_job_and_still_unregisters,
    stop::the_registration_of_a_killed_runner_is_removed_by_the_next_incarnation,
    stop::a_killed_runners_busy_registration_goes_later_and_hinders_nobody,
    secrets::a_compose_secret_is_found_by_no_job_and_survives_the_restart,
    secrets::a_token_given_as_a_variable_is_found_by_no_job_either,
    faults::a_runner_whose_forge_is_down_at_start_registers_when_it_is_back,
    faults::a_rate_limits_retry_after_is_obeyed,
    stop::a_stopped_idle_runner_leaves_no_registration_within_5_s,
];

/// What must be so with every forge; how a runner registers does not matter.
const WITH_EVERY_FORGE: &[WithForge] = table![
    life::a_listening_runner_is_healthy,
    life::a_job_can_write_only_to_what_is_wiped,
    shipped::a_job_on_compose_yml_has_neither_sudo_nor_docker,
    plain::the_readmes_docker_run_works_with_default_capabilities,
    plain::a_container_that_is_not_root_works_and_says_what_that_weakens,
    plain::a_wrong_configuration_ends_with_78_before_any_request,
];

/// What shows more with an image that has nothing besides its agent.
const WITH_AZURE: &[WithForge] = table![shipped::with_each_compose_file_a_start_says_what_its_image_lacks];

/// Without a configure step, because there are many incarnations.
const IN_JIT_MODE: &[WithForge] = table![
    boards::a_board_under_fire_is_never_shared_never_leaked_and_never_idle_while_jobs_wait,
    boards::sixty_jobs_of_two_organisations_take_turns_on_two_boards,
    boards::a_hostile_job_can_neither_release_nor_keep_the_board,
    boards::a_killed_hook_gives_its_place_up_and_no_step_runs_without_the_board,
    boards::groups_added_to_the_container_reach_the_job,
];

const IN_TOKEN_MODE: &[WithForge] = table![
    soak::a_pool_under_fire_loses_no_job_leaves_no_ghost_and_does_not_grow,
    shipped_boards::two_organisations_take_turns_on_the_boards_of_compose_boards_yml,
    shipped::a_job_on_compose_docker_dind_yml_has_an_engine,
    shipped::a_job_on_compose_docker_own_yml_has_an_engine_or_the_log_says_why_not,
    shipped::a_job_on_compose_docker_socket_yml_has_the_machines_docker,
    shipped::a_job_on_compose_host_yml_reaches_this_machine_by_a_name,
    shipped::a_job_on_compose_hardened_yml_cannot_change_the_image,
    shipped_boards::a_job_on_compose_boards_hardened_yml_has_its_board_and_cannot_change_the_image,
    shipped::a_job_on_compose_sudo_yml_can_be_root,
    ollama::a_review_on_compose_ollama_yml_reaches_the_model_by_both_names,
    ollama::a_model_is_brought_to_a_machine_without_a_network_and_stays_over_a_stop,
    ollama::what_goes_wrong_with_a_model_is_said_and_ends_no_server,
    monitoring::prometheus_of_compose_monitoring_yml_finds_every_replica,
    monitoring::prometheus_of_compose_monitoring_yml_finds_the_boards,
    plain::the_readmes_tool_cache_survives_its_container_up_to_the_cap,
    upgrade::an_upgrade_as_the_page_has_it_keeps_the_job_and_an_idle_runner,
    plain::a_container_with_dockers_init_works,
    plain::a_container_under_a_filter_that_knows_no_newer_system_calls_works,
    plain::what_a_failing_test_prints_has_the_log_of_every_container,
    plain::a_read_only_container_works_and_cleans_up_after_a_killed_predecessor,
    jobs_docker::a_docker_without_root_beside_the_runner_serves_jobs_and_is_swept,
    jobs_docker::a_runner_works_in_rootless_docker_where_its_root_is_nobody,
    jobs_docker::an_engine_of_its_own_starts_before_the_agent_and_is_gone_with_its_job,
    jobs_docker::what_a_job_left_in_the_hosts_docker_is_removed_and_nothing_else,
    job_containers::a_job_in_a_container_with_a_service_and_an_action_leaves_nothing,
    job_containers::containers_of_a_job_whose_worker_was_killed_are_removed_with_their_volumes,
    job_containers::two_runners_on_one_engine_touch_nothing_of_each_others_or_the_users,
    job_containers::a_start_and_doctor_say_what_containers_of_jobs_would_miss,
    jobs_docker::a_container_job_works_in_an_engine_beside_the_runner_and_in_its_own,
    job_containers::a_job_in_a_container_is_refused_where_pid_1_is_in_a_control_group_of_docker,
    jobs_docker::a_docker_that_does_not_answer_keeps_the_runner_from_taking_jobs,
    privileges::compose_gives_pid_1_six_capabilities_and_its_jobs_none,
    privileges::dockers_default_capabilities_are_given_up,
    privileges::sudo_works_only_in_the_image_for_it_and_the_log_says_what_it_costs,
    boards::a_lock_directory_that_is_not_mounted_is_refused,
    secrets::a_variable_is_handed_to_what_docker_exec_starts_and_a_job_reads_its_own_users,
];

const WITHOUT_FORGE: &[WithoutForge] = table![
    official::every_scenario_of_the_table_is_green_with_the_stand_in,
    official::what_a_run_of_the_table_made_is_gone_when_it_is_interrupted,
    build::oscr_entry_comes_from_dist_or_from_a_registry_with_buildkit_and_without,
    build::the_pages_lines_build_an_image_on_ours,
    build::docker_compose_build_in_a_clone_says_both_ways_where_there_is_no_release,
    build::jobs_find_what_the_page_promises_in_each_image,
    build::a_base_that_lacks_a_promised_tool_ends_the_build_with_its_name,
    image::a_job_can_change_nothing_of_the_image_but_what_is_wiped,
    image::the_image_gives_no_job_a_way_to_root,
    cleanup::what_the_pages_commands_remove_is_all_that_was_made_and_nothing_else,
    image::the_images_say_what_they_are,
    privileges::check_prints_the_posture_of_the_container_that_it_is_in,
    image::the_entry_image_is_one_static_file,
    image::the_entry_is_an_init_for_any_image_that_copies_it,
    image::compose_gives_runners_no_more_than_they_need,
    image::compose_sets_the_limits_that_it_is_told,
    jobs_docker::the_pages_commands_put_the_agent_where_containers_of_jobs_find_it,
    image::each_compose_file_does_the_same_for_every_forge,
    image::compose_files_with_docker_ask_for_control_groups_of_their_own,
    ollama::labels_and_gpus_are_added_by_the_files_that_have_them,
    ollama::compose_ollama_yml_opens_nothing_and_is_on_the_network_of_the_jobs,
];

/// What is left out where everything is as `compose.hardened.yml` makes it: these use `docker run`, and are the same again.
const NOT_COMPOSE: &[&str] = &["a_token_given_as_a_variable_is_found_by_no_job_either"];

/// What is asked of the hardened posture besides.
const IN_HARDENED_MODE: &[WithForge] = table![
    privileges::nothing_but_the_record_outlives_a_restart_of_a_hardened_runner,
    life::a_listening_runner_is_healthy,
    life::a_job_can_write_only_to_what_is_wiped,
];

/// What is asked of it with the other forges: that the place for everything is there.
const HARDENED_ELSEWHERE: &[WithForge] = table![
    life::what_a_job_leaves_is_gone_after_the_restart,
    stop::the_registration_of_a_killed_runner_is_removed_by_the_next_incarnation,
];

/// The test in a world of its own.
fn in_world(&(name, test): &WithForge, mode: Mode) -> Test {
    Test {
        name: format!("{}::{name}", mode.word()),
        run: Box::new(move |name| {
            let world = World::start(name, mode);
            test(&world);
            world.check();
        }),
    }
}

/// The same with runners whose file system cannot be changed.
fn hardened(&(name, test): &WithForge, mode: Mode) -> Test {
    Test {
        name: format!("hardened-{}::{name}", mode.word()),
        run: Box::new(move |name| {
            let world = World::start(name, mode);
            world.harden();
            test(&world);
            world.check();
        }),
    }
}

fn main() -> ExitCode {
    let modes = [Mode::Token, Mode::Jit, Mode::AzureDevOps];
    let all = IN_ALL_MODES.iter().flat_map(|case| modes.map(|mode| in_world(case, mode)));
    let forges = [Mode::Token, Mode::AzureDevOps];
    let every = WITH_EVERY_FORGE.iter().flat_map(|case| forges.map(|mode| in_world(case, mode)));
    let jit = IN_JIT_MODE.iter().map(|case| in_world(case, Mode::Jit));
    let token = IN_TOKEN_MODE.iter().map(|case| in_world(case, Mode::Token));
    let azure = WITH_AZURE.iter().map(|case| in_world(case, Mode::AzureDevOps));
    let repeated = IN_ALL_MODES.iter().filter(|(name, _)| !NOT_COMPOSE.contains(name));
    let elsewhere = HARDENED_ELSEWHERE.iter().map(|case| hardened(case, Mode::AzureDevOps));
    let hardened = repeated.chain(IN_HARDENED_MODE).map(|case| hardened(case, Mode::Token)).chain(elsewhere);
    let without = WITHOUT_FORGE.iter().map(|&(name, test)| Test { name: name.to_owned(), run: Box::new(test) });
    let asked = std::env::var_os("OSCR_CONTAINER_TESTS").is_some_and(|value| !value.is_empty());
    let skip = (!asked).then_some(
        "OSCR_CONTAINER_TESTS is not set. They need Docker and the images of `make images`; `make test` sees to all of it",
    );
    let hostile = hostile::tests().into_iter();
    let with_forge = jit.chain(all).chain(hostile).chain(hardened).chain(every).chain(azure).chain(token);
    runner::run(with_forge.chain(without).collect(), AT_ONCE, skip)
}
