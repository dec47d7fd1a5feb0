//! What the workflows must have so that what the scripts promise holds.

use std::fs;
use std::path::PathBuf;

use crate::project;

/// The jobs of the release's workflow by name, each with its text.
fn jobs() -> Vec<(String, String)> {
    let workflow = fs::read_to_string(project().join(".github/workflows/release.yml")).unwrap();
    let (_, jobs) = workflow.split_once("\njobs:\n").expect("jobs");
    let mut found: Vec<(String, String)> = Vec::new();
    for line in jobs.lines() {
        match line.strip_prefix("  ").and_then(|rest| rest.strip_suffix(':')) {
            Some(name) if !name.starts_with([' ', '#']) => found.push((name.to_owned(), String::new())),
            _ => found.last_mut().map_or((), |(_, text)| *text += &format!("{line}\n")),
        }
    }
    found
}

#[test]
fn only_jobs_that_wait_for_all_that_is_built_and_tested_may_write_or_have_secrets() {
    let jobs = jobs();
    let names: Vec<&str> = jobs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["plan", "test", "build", "images", "release"]);
    for (name, text) in &jobs {
        let writes = text.contains(": write\n") || text.contains("${{ secrets.");
        let waits = match name.as_str() {
            "images" => text.contains("    needs: [plan, test, build]\n"),
            "release" => text.contains("    needs: [plan, images]\n"),
            _ => false,
        };
        assert_eq!(writes, waits, "{name}");
        assert!(text.contains("    permissions:\n"), "{name} has the rights of whoever may change the default");
    }
    let build = &jobs[2].1;
    for machine in ["arch: amd64, runner: ubuntu-24.04,", "arch: arm64, runner: ubuntu-24.04-arm,", "release/try.sh"] {
        assert!(build.contains(machine), "{machine}");
    }
}

/// Without it, GitHub's shell takes a pipe for good whatever its first program says.
#[test]
fn a_pipe_that_breaks_ends_the_step_of_a_workflow() {
    for workflow in fs::read_dir(project().join(".github/workflows")).unwrap() {
        let path = workflow.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\ndefaults:\n  run:\n    shell: bash\n"), "{}", path.display());
    }
}

#[test]
fn every_script_of_a_release_is_called_by_its_workflow_or_by_another() {
    let all = jobs().into_iter().map(|(_, text)| text).collect::<String>();
    let scripts: Vec<PathBuf> =
        fs::read_dir(project().join("scripts/release")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let plan = fs::read_to_string(project().join("scripts/release/plan.sh")).unwrap();
    for script in &scripts {
        let call = format!("scripts/release/{} ", script.file_name().unwrap().to_str().unwrap());
        assert!(all.contains(&call) || plan.contains(&call), "nobody calls {call}");
    }
    for part in all.split("scripts/release/").skip(1) {
        let name = part.split_once([' ', '\n']).unwrap().0;
        assert!(scripts.iter().any(|script| script.ends_with(name)) || name.is_empty(), "there is no {name}");
    }
}
