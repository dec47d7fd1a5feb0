//! What differs between the forges in the tests that are the same for all: data, so that each test is written once.

/// A forge, the service of its runners, and how its agent calls things.
#[derive(Debug)]
pub struct Provider {
    /// The value of `CI_PROVIDER`, which is also the Compose profile.
    pub name: &'static str,
    pub service: &'static str,
    /// The image without its tag.
    pub repository: &'static str,
    /// The setting of the token; the secret's file is its lower-case name.
    pub token: &'static str,
    /// The settings besides the token, and the first of them is needed.
    pub settings: &'static [(&'static str, &'static str)],
    /// Where runners are registered, as the simulated forge shows it.
    pub scope: &'static str,
    /// The forge itself removes a registration that had its job.
    pub ephemeral: bool,
    /// The status of the request by which a runner registers, when all is well.
    pub registered: u16,
    /// The status with which a busy registration's removal is refused.
    pub busy: u16,
    pub worker: &'static str,
    /// How the agent calls itself in a job's log.
    pub noun: &'static str,
    /// A job's own names for its workspace, its temporary files, and the mark by which the agent finds orphans.
    job_variables: [&'static str; 3],
}

pub static GITHUB: Provider = Provider {
    name: "github",
    service: "github-runner",
    repository: "oddessentials/oscr-github",
    token: "GITHUB_PAT",
    settings: &[("GITHUB_OWNER", "acme"), ("GITHUB_REPO", "widgets"), ("GITHUB_HOST", "http://forge")],
    scope: "repos/acme/widgets",
    ephemeral: true,
    registered: 201,
    busy: 422,
    worker: "Runner.Worker",
    noun: "runner",
    job_variables: ["GITHUB_WORKSPACE", "RUNNER_TEMP", "RUNNER_TRACKING_ID"],
};

pub static AZURE_DEVOPS: Provider = Provider {
    name: "azure-devops",
    service: "azure-devops-agent",
    repository: "oddessentials/oscr-azure-devops",
    token: "ADO_PAT",
    settings: &[("ADO_ORG_URL", "http://forge/acme"), ("ADO_POOL", "Default")],
    scope: "pools/acme/Default",
    ephemeral: false,
    registered: 200,
    busy: 400,
    worker: "Agent.Worker",
    noun: "agent",
    job_variables: ["BUILD_SOURCESDIRECTORY", "AGENT_TEMPDIRECTORY", "VSTS_PROCESS_LOOKUP_ID"],
};

impl Provider {
    /// The file in which a container finds the token.
    pub fn secret(&self) -> String {
        format!("/run/secrets/{}", self.token.to_lowercase())
    }

    /// The setting that names a file with the token.
    pub fn token_file(&self) -> String {
        format!("{}_FILE", self.token)
    }

    /// A job's script with `$workspace`, `$temp` and `$tracking`.
    pub fn script(&self, script: &str) -> String {
        let [workspace, temp, tracking] = self.job_variables;
        format!("workspace=${workspace} temp=${temp} tracking={tracking}\n{script}")
    }
}
