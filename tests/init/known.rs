//! What is known of the other inits: the cases that they do not keep. Ours keeps all.
//!
//! Versions: tini 0.19, dumb-init 1.2.5, catatonit 0.1.7, as Debian 12 has them.

const TINI: &[&str] = &[
    "children_are_reaped_even_if_sigchld_was_ignored",
    "signals_of_faults_are_forwarded_when_somebody_sends_them",
    "real_time_signals_that_the_c_library_hides_are_forwarded",
    "a_signal_can_be_rewritten",
    "a_signal_can_be_rewritten_to_a_real_time_one",
    "a_signal_can_be_dropped",
    "without_a_terminal_the_child_leads_a_session",
    "ctrl_z_and_fg_work_in_the_shell_above",
    "ctrl_z_without_a_shell_above_stops_nothing_for_good",
    "started_in_the_background_it_leaves_the_terminal_alone",
    "stopped_in_the_background_it_gets_the_terminal_by_fg",
    "running_in_the_background_it_gets_the_terminal_by_fg",
    "the_terminal_is_given_back",
    "stop_signals_stop_the_child_and_sigcont_continues_it",
    "it_stops_with_its_child",
    "a_missing_interpreter_is_named",
    "a_program_of_another_machine_gives_126",
    "nothing_outlives_it_where_it_is_not_pid_1",
    "what_is_left_gets_sigterm_and_a_grace",
    "what_ignores_sigterm_gets_sigkill_after_the_grace",
    "the_grace_ends_when_nothing_is_left",
    "a_signal_during_the_grace_reaches_what_is_left",
    "only_the_standard_streams_are_inherited",
    "the_child_is_told_when_the_init_dies",
    "user_and_group_by_number",
    "a_file_creation_mask",
    "a_working_directory",
    "a_wrong_working_directory_is_named",
    "no_new_privileges",
    "the_init_s_own_directory_is_not_kept_busy",
    "its_own_directory_is_left_before_the_child_begins",
    "listening_sockets_are_handed_on",
    "listening_sockets_of_another_process_are_not",
    "a_user_s_name_brings_all_of_its_groups",
    "a_numeric_user_needs_no_files",
    "an_unknown_user_is_one_clear_line",
    "closed_standard_streams",
    "no_descriptor_is_inherited_below_such_a_filter",
];
const DUMB_INIT: &[&str] = &[
    "orphans_come_to_it_where_it_is_not_pid_1",
    "it_says_so_when_it_is_neither_pid_1_nor_a_subreaper",
    "real_time_signals_that_the_c_library_hides_are_forwarded",
    "a_signal_can_be_rewritten_to_a_real_time_one",
    "stopped_in_the_background_it_gets_the_terminal_by_fg",
    "a_code_can_be_remapped",
    "what_cannot_be_found_gives_127",
    "what_cannot_be_executed_gives_126",
    "a_missing_interpreter_is_named",
    "a_program_of_another_machine_gives_126",
    "nothing_outlives_it_where_it_is_not_pid_1",
    "what_is_left_gets_sigterm_and_a_grace",
    "what_ignores_sigterm_gets_sigkill_after_the_grace",
    "the_grace_ends_when_nothing_is_left",
    "a_signal_during_the_grace_reaches_what_is_left",
    "the_mask_is_the_one_before",
    "ignored_signals_are_the_ones_before",
    "an_ignored_sigpipe_stays_ignored",
    "only_the_standard_streams_are_inherited",
    "the_child_is_told_when_the_init_dies",
    "the_child_is_told_when_the_init_s_parent_dies",
    "user_and_group_by_number",
    "a_file_creation_mask",
    "a_working_directory",
    "a_wrong_working_directory_is_named",
    "no_new_privileges",
    "listening_sockets_are_handed_on",
    "listening_sockets_of_another_process_are_not",
    "a_user_s_name_brings_all_of_its_groups",
    "a_numeric_user_needs_no_files",
    "an_unknown_user_is_one_clear_line",
    "an_image_with_nothing_in_it",
    "leftovers_in_an_image_without_proc",
    "no_descriptor_is_inherited_below_such_a_filter",
];
const CATATONIT: &[&str] = &[
    "children_are_reaped_even_if_sigchld_was_ignored",
    "signals_of_faults_are_forwarded_when_somebody_sends_them",
    "real_time_signals_that_the_c_library_hides_are_forwarded",
    "a_signal_can_be_rewritten",
    "a_signal_can_be_rewritten_to_a_real_time_one",
    "a_signal_can_be_dropped",
    "without_a_terminal_the_child_leads_a_session",
    "bash_below_it_has_job_control",
    "ctrl_z_and_fg_work_in_the_shell_above",
    "started_in_the_background_it_leaves_the_terminal_alone",
    "stopped_in_the_background_it_gets_the_terminal_by_fg",
    "running_in_the_background_it_gets_the_terminal_by_fg",
    "the_terminal_is_given_back",
    "stop_signals_stop_the_child_and_sigcont_continues_it",
    "it_stops_with_its_child",
    "a_code_can_be_remapped",
    "what_cannot_be_found_gives_127",
    "what_cannot_be_executed_gives_126",
    "a_missing_interpreter_is_named",
    "a_program_of_another_machine_gives_126",
    "a_failed_start_is_one_clear_line",
    "nothing_outlives_it_where_it_is_not_pid_1",
    "what_is_left_gets_sigterm_and_a_grace",
    "what_ignores_sigterm_gets_sigkill_after_the_grace",
    "the_grace_ends_when_nothing_is_left",
    "a_signal_during_the_grace_reaches_what_is_left",
    "the_mask_is_the_one_before",
    "only_the_standard_streams_are_inherited",
    "the_child_is_told_when_the_init_dies",
    "the_child_is_told_when_the_init_s_parent_dies",
    "user_and_group_by_number",
    "a_file_creation_mask",
    "a_working_directory",
    "a_wrong_working_directory_is_named",
    "no_new_privileges",
    "the_init_s_own_directory_is_not_kept_busy",
    "its_own_directory_is_left_before_the_child_begins",
    "listening_sockets_of_another_process_are_not",
    "a_user_s_name_brings_all_of_its_groups",
    "a_numeric_user_needs_no_files",
    "an_unknown_user_is_one_clear_line",
    "no_descriptor_is_inherited_below_such_a_filter",
];

/// Kept or not as the scheduler has it: dumb-init leaves its directory when the child is there; what an init sends to a group that its child has not made yet is lost, and so is what
/// dumb-init's child gets while it still has dumb-init's handlers.
const BY_LUCK: &[(&str, &str)] = &[
    ("tini", TO_THE_GROUP),
    ("dumb-init", TO_THE_GROUP),
    ("dumb-init", "its_own_directory_is_left_before_the_child_begins"),
    ("dumb-init", "a_signal_that_waited_before_the_start_reaches_the_child"),
    ("catatonit", TO_THE_GROUP),
];
const TO_THE_GROUP: &str = "a_signal_that_waited_before_the_start_reaches_the_group";

/// How an init stands to a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It keeps it.
    Kept,
    /// It does not.
    NotKept,
    /// Now and then.
    ByLuck,
}

/// How `init` stands to `case`.
pub fn known(init: &str, case: &str) -> Known {
    let missing = match init {
        "tini" => TINI,
        "dumb-init" => DUMB_INIT,
        "catatonit" => CATATONIT,
        _ => return Known::Kept,
    };
    if BY_LUCK.contains(&(init, case)) {
        Known::ByLuck
    } else if missing.contains(&case) {
        Known::NotKept
    } else {
        Known::Kept
    }
}

/// Every case that is named here.
pub fn all_names() -> impl Iterator<Item = &'static str> {
    let by_luck = BY_LUCK.iter().map(|(_, case)| *case);
    let missing = [TINI, DUMB_INIT, CATATONIT].into_iter().flatten().copied();
    missing.chain(by_luck)
}
