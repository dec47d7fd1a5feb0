//! The six jobs.

use clap::ValueEnum;

use crate::forge::JobSpec;

/// Whose runners are shown.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Provider {
    Github,
    AzureDevops,
}

impl Provider {
    /// The service of the compose project.
    pub(super) fn service(self) -> &'static str {
        match self {
            Self::Github => "github-runner",
            Self::AzureDevops => "azure-devops-agent",
        }
    }

    /// A job's variables for its workspace, its temporary files, its tools, and the mark by which the agent finds orphans.
    fn variables(self) -> [&'static str; 4] {
        match self {
            Self::Github => ["GITHUB_WORKSPACE", "RUNNER_TEMP", "RUNNER_TOOL_CACHE", "RUNNER_TRACKING_ID"],
            Self::AzureDevops => {
                ["BUILD_SOURCESDIRECTORY", "AGENT_TEMPDIRECTORY", "AGENT_TOOLSDIRECTORY", "VSTS_PROCESS_LOOKUP_ID"]
            }
        }
    }

    /// A job whose script knows the variables by names of their own.
    fn job(self, name: &str, script: &str) -> JobSpec {
        let [workspace, temp, tools, tracking] = self.variables();
        let names = format!("workspace=${workspace} temp=${temp} tools=${tools} tracking={tracking}\n");
        JobSpec::script(name, &(names + script))
    }
}

/// Leaves something everywhere where a job can write, and processes that hide from the agent's own cleaning.
const MESS: &str = r#"
mark=oscr-demo-litter
left=0
for folder in "$workspace" "$temp" "$tools" "$HOME" /tmp /var/tmp /dev/shm; do
    echo litter >"$folder/$mark" && left=$((left + 1))
done
mkdir -p "$workspace/$mark.d/locked" && touch "$workspace/$mark.d/locked/file"
chmod 0 "$workspace/$mark.d/locked"
echo "echo $mark" >>"$HOME/.bashrc"
# In a session of its own, without the mark by which the agent finds orphans. Its first child becomes a zombie: the process that
# bash turns into never waits for it.
setsid env -u "$tracking" bash -c '(exit 0) & exec -a oscr-demo-litter sleep 3600' </dev/null >/dev/null 2>&1 &
sleep 3
echo "left: $left files, a locked folder, a line in .bashrc, a background process, a zombie"
"#;

/// Looks for all that [`MESS`] leaves; each finding is a line that begins with [`FINDING`].
const SEARCH: &str = r#"
mark=oscr-demo-litter
found=0
say() { echo "leftover: $1"; found=$((found + 1)); }
for folder in "$workspace" "$temp" "$tools" "$HOME" /tmp /var/tmp /dev/shm; do
    for path in "$folder/$mark"*; do
        if [ -e "$path" ]; then say "$path"; fi
    done
done
if grep -qs "$mark" "$HOME/.bashrc"; then say "$HOME/.bashrc"; fi
for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q "^$mark"; then say "process ${process#/proc/}"; fi
    if grep -qs '^State:.Z' "$process/status"; then say "zombie ${process#/proc/}"; fi
done
sleep 1
echo "looked everywhere: $found found"
[ "$found" -eq 0 ]
"#;

/// How a finding's line begins.
pub(super) const FINDING: &str = "leftover: ";
/// How the line begins that says that the mess was made.
pub(super) const MESS_MADE: &str = "left: 7 files";
/// How the line begins that says that the search went to its end.
pub(super) const SEARCHED: &str = "looked everywhere: ";

pub(super) const MESS_NAME: &str = "leave a mess";
pub(super) const SEARCH_NAME: &str = "look for leftovers";
pub(super) const LONG_NAME: &str = "long build";

fn counting(name: &str, seconds: u32, runner: Option<&str>) -> JobSpec {
    let script = format!("for i in $(seq {seconds}); do sleep 1; echo \"$i of {seconds}\"; done");
    JobSpec { runner: runner.map(str::to_owned), ..JobSpec::script(name, &script) }
}

/// Leaves a mess on one container.
pub(super) fn mess(provider: Provider, host: &str) -> JobSpec {
    JobSpec { runner: Some(host.into()), ..provider.job(MESS_NAME, MESS) }
}

/// Looks for it, on the same container.
pub(super) fn search(provider: Provider, host: &str) -> JobSpec {
    JobSpec { runner: Some(host.into()), ..provider.job(SEARCH_NAME, SEARCH) }
}

/// The job whose container is stopped meanwhile.
pub(super) fn long(host: &str) -> JobSpec {
    counting(LONG_NAME, 12, Some(host))
}

/// The others, for whoever is free.
pub(super) fn others() -> [JobSpec; 3] {
    [counting("unit tests", 6, None), counting("lint", 2, None), counting("package", 4, None)]
}
