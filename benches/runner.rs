//! A runner that a bench starts by itself: where it lives, its settings, and what it owns.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Gives a place these permissions.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Copies a program that is to be measured.
pub fn copy_entry(entry: &Path, to: &Path) {
    fs::copy(entry, to).unwrap();
    // One that was just written is dirty in the page cache, and would be counted as such.
    fs::File::open(to).unwrap().sync_all().unwrap();
}

/// Copies the stand-in's programs: the agent's user must be able to reach what it executes.
pub fn copy_agent(programs: &Path, stage: &Path) {
    fs::create_dir_all(stage).unwrap();
    for program in ["runner-listener", "runner-worker"] {
        fs::copy(programs.join(program), stage.join(program)).unwrap();
    }
}

/// Makes a root in which a runner finds what it needs.
pub fn lay_out(root: &Path, stage: &Path) {
    for directory in ["tmp", "var/tmp", "dev/shm"] {
        fs::create_dir_all(root.join(directory)).unwrap();
        set_mode(&root.join(directory), 0o1777);
    }
    oscr_sim::agent::install(oscr_sim::agent::Kind::GitHub, stage, &root.join("opt/oscr/agent")).unwrap();
}

/// Sets what a runner of this forge below this root must be told; all else is as shipped.
pub fn tell(command: &mut Command, root: &Path, forge: &str, secret: &Path) {
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("OSCR_ROOT", root)
        .env("RUNNER_WORKDIR", root.join("work"))
        .env("OSCR_AGENT_USER", "4711")
        .env("CI_PROVIDER", "github")
        .env("GITHUB_HOST", forge)
        .env("GITHUB_OWNER", "o")
        .env("GITHUB_REPO", "r")
        .env("GITHUB_PAT_FILE", secret);
}

/// Private_Dirty and Pss of a process, in kB.
pub fn memory(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("Private_Dirty:"), field("Pss:"))
}
