//! The user's hooks around a job.

use std::fs;
use std::os::unix::fs::symlink;

use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, allow, write, write_program};

fn hook(container: &Container<'_>, name: &str, text: &str) {
    let path = container.path("etc/oscr/hooks.d").join(name);
    write_program(&path, &format!("#!/bin/bash\n{text}\n"));
}

#[test]
fn they_run_in_order_before_and_after_and_change_the_jobs_environment() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    hook(&container, "job-started/20-second", "echo \"hook two $FROM\"; echo TWO=2 >>$GITHUB_ENV");
    hook(&container, "job-started/10-first.sh", "echo hook one; echo ONE=1 >>$GITHUB_ENV");
    // No hook, by its name.
    hook(&container, "job-started/.15-off", "echo never");
    allow(&container.path("etc/oscr/hooks.d/job-started/.15-off"), 0o644);
    hook(&container, "job-completed/10-last", "echo \"hook last as $(id -u) for $GITHUB_REPOSITORY\"");
    container.start();
    let job = forge.wait_job(forge.job("echo \"step $ONE$TWO\""), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let at = |text: &str| job.log.find(text).unwrap_or_else(|| panic!("no {text:?} in {}", job.log));
    let last = format!("hook last as {} for o/r", container.uid);
    let order = [at("hook one"), at("hook two"), at("step 12"), at(&last)];
    assert!(order.is_sorted(), "{order:?} {}", job.log);
    assert!(!job.log.contains("never"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.lines_with("a job begins").len(), 1);
    assert_eq!(container.lines_with("the job's steps are over").len(), 1);
}

#[test]
fn a_hook_that_fails_fails_the_job_before_its_first_step() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    hook(&container, "job-started/10-no", "echo no board; exit 9");
    hook(&container, "job-started/20-later", "echo later");
    container.start();
    let job = forge.wait_job(forge.job("echo the step ran"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.log.contains("no board"), "{}", job.log);
    assert!(job.log.contains("exit code 9"), "{}", job.log);
    let said = |text: &&String| text.contains("job-started/10-no failed: exit status: 9");
    assert_eq!(job.annotations.iter().filter(said).count(), 1, "{:?}", job.annotations);
    for absent in ["later", "\nthe step ran"] {
        assert!(!job.log.contains(absent), "{absent}: {}", job.log);
    }
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn what_an_operators_hook_says_to_the_agent_reaches_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    hook(&container, "job-started/10-says", "echo '::error title=Lab::the%0Apower is off'");
    container.start();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(job.annotations, ["the\npower is off"]);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn hooks_that_the_user_named_to_the_agent_run_behind_them() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    hook(&container, "job-started/10-ours", "echo hook of the folder");
    let own = container.path("own.sh");
    write_program(&own, "echo hook of the variable\n");
    container.set("ACTIONS_RUNNER_HOOK_JOB_STARTED", &own.display().to_string());
    container.start();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let folder = job.log.find("hook of the folder");
    let variable = job.log.find("hook of the variable");
    assert!(folder.is_some() && folder < variable, "{}", job.log);
}

#[test]
fn a_job_cannot_change_what_runs_around_the_next_one() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    hook(&container, "job-started/10-ours", "true");
    container.start();
    let root = container.text("");
    let attempt = forge.job(&format!(
        "for file in run/oscr/hooks/job-started.sh etc/oscr/hooks.d/job-started/10-ours usr/local/bin/oscr-entry \
         opt/oscr/agent/bin/Runner.Listener var/lib/oscr/state.json run/secrets/github_pat; do\n\
         ( echo evil >{root}/$file ) 2>/dev/null && echo wrote $file\n\
         rm -f {root}/$file 2>/dev/null && echo removed $file\n\
         done; for bin in {root}/runner/*/bin; do ( echo evil >$bin/Runner.Worker ) 2>/dev/null && echo wrote worker\n\
         mv $bin $bin.old 2>/dev/null && echo moved bin; done; true"
    ));
    let job = forge.wait_job(attempt, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    for did in ["\nwrote", "\nremoved", "\nmoved"] {
        assert!(!job.log.contains(did), "{}", job.log);
    }
    assert!(fs::metadata(container.path("run/oscr/hooks/job-started.sh")).is_ok());
}

#[test]
fn hooks_are_run_by_the_agents_newest_node_and_by_powershell() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    for node in ["node9", "node24", "node30_alpine"] {
        let program = container.path("opt/oscr/agent/externals").join(node).join("bin/node");
        write_program(&program, &format!("#!/bin/sh\necho {node} runs $(basename \"$1\") with $2.\n"));
    }
    write_program(&container.path("opt/tools/pwsh"), "#!/bin/sh\necho pwsh \"$1 $2\"\n");
    let path = format!("{}:{}", container.text("opt/tools"), container.setting("PATH"));
    container.set("PATH", &path);
    // None of them could be executed by itself.
    for name in ["job-started/10-first.js", "job-started/20-second.ps1"] {
        write(&container.path("etc/oscr/hooks.d").join(name), "first();\n", 0o755);
    }
    let own = container.path("own.js");
    write(&own, "last();\n", 0o644);
    container.set("ACTIONS_RUNNER_HOOK_JOB_STARTED", &own.display().to_string());
    container.start();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let second = container.path("etc/oscr/hooks.d/job-started/20-second.ps1");
    let said = [
        "node24 runs 10-first.js with .".to_owned(),
        format!("pwsh -command . '{}'", second.display()),
        "node24 runs own.js with .".to_owned(),
    ];
    let at: Vec<usize> =
        said.iter().map(|line| job.log.find(line).unwrap_or_else(|| panic!("no {line:?} in {}", job.log))).collect();
    assert!(at.is_sorted(), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_hook_whose_interpreter_is_missing_fails_its_job_and_says_what_to_add() {
    let cases =
        [("10-hook.js", "Node.js, which is neither in "), ("10-hook.ps1", "PowerShell, and no pwsh is in PATH: ")];
    for (name, words) in cases {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        // All that this machine has, but what is missing.
        let tools = container.path("opt/tools");
        fs::create_dir_all(&tools).expect("a directory");
        for directory in std::env::split_paths(container.setting("PATH")) {
            for program in fs::read_dir(directory).into_iter().flatten().flatten() {
                if !["node", "pwsh"].iter().any(|missing| program.file_name() == *missing) {
                    // The first of a name is found first.
                    let _ = symlink(program.path(), tools.join(program.file_name()));
                }
            }
        }
        container.set("PATH", &tools.display().to_string());
        write(&container.path("etc/oscr/hooks.d/job-started").join(name), "first();\n", 0o755);
        container.start();
        let job = forge.wait_job(forge.job("echo the 'step' ran"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
        assert!(!job.log.contains("the step ran"), "{}", job.log);
        let said = format!("job-started/{name} cannot be run: it needs {words}");
        let told = |text: &&String| text.contains(&said) && text.contains("to the image");
        assert_eq!(job.annotations.iter().filter(told).count(), 1, "{:?}", job.annotations);
        assert_eq!(container.exit_code(), 0);
    }
}

#[test]
fn a_hook_that_names_no_shell_is_run_by_sh() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let event = container.path("etc/oscr/hooks.d/job-started");
    write_program(&event.join("10-plain"), "echo plain hook ${0##*/}\n");
    container.start();
    let job = forge.wait_job(forge.job("echo the step ran"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("plain hook 10-plain"), "{}", job.log);
    container.exit_code();

    write(&event.join("20-foreign"), "\u{7f}ELF\u{2}\0\0\n", 0o755);
    container.restart();
    let job = forge.wait_job(forge.job("echo never"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
    assert!(job.log.contains("20-foreign cannot be run"), "{}", job.log);
}
