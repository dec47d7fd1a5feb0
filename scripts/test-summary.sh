#!/usr/bin/env bash
# test-summary.sh COMMAND…: runs `cargo test …` (or what prints as it does), and then says in one place what each test program's
# tests came to, and which failed. Ends as COMMAND did.
set -euo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
# One pipe for both outputs, so that each result stands after the name of its program. Tests interrupt what they start, and a
# shell that runs us in the background (`&`) leaves those signals ignored for all of it.
env --default-signal=INT,QUIT "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}

printf '\n=== summary of the tests (%s s)\n' "$SECONDS"
# shellcheck disable=SC2016 # they are awk's
awk '
    # What the program before this line came to.
    function over() {
        if (program == "") return
        programs++
        word = failed || broken ? "FAILED" : "ok"
        said = passed " passed"
        if (failed) said = said ", " failed " failed"
        if (ignored) said = said ", " ignored " ignored"
        if (!results) said = "no count of its own"
        if (broken && !failed) said = said "; it failed without saying which test did"
        if (skipped != "") said = said "; " skipped
        if (passed || failed || ignored || broken || skipped != "") printf "%-7s %-14s %s\n", word, program, said
        printf "%s", names
        all += passed
        all_failed += failed
        bad += word == "FAILED"
    }
    function begin(name) {
        over()
        program = name
        results = passed = failed = ignored = broken = 0
        skipped = names = listed = ""
    }
    { gsub(/\033\[[0-9;]*m/, "") }
    /^     Running .* \(.*\)$/ {
        name = $NF
        sub(/^.*\//, "", name)
        sub(/-[0-9a-f]*\)$/, "", name)
        begin(name)
        next
    }
    /^   Doc-tests / { begin("doc " $2); next }
    # The last such list before the result has the names alone.
    /^failures:$/ { listed = ""; next }
    /^    [^ ]/ { listed = listed "            " substr($0, 5) "\n"; next }
    / tests? (are|is) skipped: / || /: skipped, for / { skipped = $0; next }
    /^test result: / {
        results++
        for (i = 4; i < NF; i++) {
            if ($(i + 1) ~ /^passed/) passed += $i
            if ($(i + 1) ~ /^failed/) { failed += $i; if ($i > 0) names = names listed }
            if ($(i + 1) ~ /^ignored/) ignored += $i
        }
        next
    }
    /^error: .*test failed, to rerun pass / { broken = 1 }
    END {
        over()
        if (!programs) print "FAILED  no test program was run"
        else printf "%d passed, %d failed; %d of %d test programs failed\n", all, all_failed, bad, programs
    }
' "$log"
exit "$status"
