//! What `make test` says last: one line for each test program, and the names of the tests that failed.

use std::process::Command;

/// Runs `script` below the summary, as the Makefile runs cargo: the exit code, what it prints before the summary, and the summary.
fn summary(script: &str) -> (Option<i32>, String, Vec<String>) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/test-summary.sh");
    let output = Command::new(program).args(["bash", "-c", script]).output().expect("bash runs it");
    let text = String::from_utf8(output.stdout).expect("text");
    let (before, after) = text.split_once("\n=== summary of the tests (").expect("a summary");
    (output.status.code(), before.to_owned(), after.lines().skip(1).map(str::to_owned).collect())
}

/// What cargo prints, with both kinds of runners of ours.
const CARGO: &str = r#"
cat >&2 <<'END'
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.10s
     Running unittests src/lib.rs (target/x86_64-unknown-linux-musl/debug/deps/oscr-0123456789abcdef)
END
cat <<'END'

running 3 tests
test one ... ok
test two ... ignored
test three ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

END
echo '     Running tests/containers/main.rs (target/x86_64-unknown-linux-musl/debug/deps/containers-0123456789abcdef)' >&2
cat <<'END'

7 container tests are skipped: OSCR_CONTAINER_TESTS is not set

END
echo '     Running tests/life/main.rs (target/x86_64-unknown-linux-musl/debug/deps/life-0123456789abcdef)' >&2
cat <<'END'

running 2 tests
test stop::good ... ok
test stop::bad ... FAILED

failures:

---- stop::bad stdout ----
    a line of its output

failures:
    stop::bad

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

END
echo 'error: test failed, to rerun pass `-p oscr --test life`' >&2
echo '     Running tests/wipe.rs (target/x86_64-unknown-linux-musl/debug/deps/wipe-0123456789abcdef)' >&2
echo 'running 2 tests'
echo 'error: test failed, to rerun pass `-p oscr --test wipe`' >&2
echo '   Doc-tests oscr' >&2
echo
echo 'test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s'
exit 101
"#;

#[test]
fn each_program_has_its_line_and_each_failed_test_its_name() {
    let (code, before, summary) = summary(CARGO);
    assert_eq!(code, Some(101));
    assert!(before.contains("test stop::bad ... FAILED") && before.contains("Finished `test` profile"), "{before}");
    let expected = [
        "ok      oscr           2 passed, 1 ignored",
        "ok      containers     no count of its own; 7 container tests are skipped: OSCR_CONTAINER_TESTS is not set",
        "FAILED  life           1 passed, 1 failed",
        "            stop::bad",
        "FAILED  wipe           no count of its own; it failed without saying which test did",
        "3 passed, 1 failed; 2 of 5 test programs failed",
    ];
    assert_eq!(summary, expected);
}

#[test]
fn what_does_not_compile_is_shown_and_fails() {
    let (code, before, summary) = summary("echo 'error[E0425]: cannot find value' >&2; exit 101");
    assert_eq!(code, Some(101));
    assert!(before.contains("E0425"), "{before}");
    assert_eq!(summary, ["FAILED  no test program was run"]);
}

#[test]
fn what_is_well_ends_well() {
    let (code, _, summary) = summary(
        "echo '     Running tests/life/main.rs (target/debug/deps/life-0123456789abcdef)'; echo 'test result: ok. 5 passed; 0 failed'",
    );
    assert_eq!((code, summary.len()), (Some(0), 2));
}

#[test]
fn make_test_runs_every_program_whatever_fails_and_sums_up() {
    let makefile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile")).expect("it is there");
    let (_, recipe) = makefile.split_once("\ntest: ").expect("a target called test");
    let (recipe, _) = recipe.split_once("\n\n").expect("an empty line after it");
    for part in ["scripts/test-summary.sh", "--workspace", "--no-fail-fast", "-- $(TEST_ARGS)"] {
        assert!(recipe.contains(part), "{part}: {recipe}");
    }
}

#[test]
fn what_a_test_interrupts_ends_though_we_run_in_the_background() {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/test-summary.sh");
    // As a shell without job control starts what ends in `&`.
    let background = format!("trap '' INT QUIT; exec '{program}' sh -c 'kill -INT $$; echo it goes on'");
    let output = Command::new("bash").args(["-c", &background]).output().expect("bash runs it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && !text.contains("it goes on"), "{text}");
}
