//! Docker for jobs, as `doctor`, `check` and a start find it: whether it is there, and whether containers of jobs can work with it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::in_use::InUse;
use super::state::StateFile;
use crate::config::{Common, Places};
use crate::docker::{DEFAULT_SOCKET, Docker, DockerError, Endpoint, Interface, in_group_of_docker, interface};
use crate::os::Identity;
use crate::os::access::{WRITE, may};
use crate::os::mounts;
use crate::provider::Provider;
use crate::provider::finding::{Finding, Verdict};

const TOPIC: &str = "docker";
/// From Docker 29 on, whose newest interface this was at first, neither daemons nor clients speak an older one than the other.
const CLIENT_29: Interface = (1, 52);
const OLDEST_29: Interface = (1, 44);
/// How long it may take to say what it is, and what it sees of us.
const LOOK: Duration = Duration::from_secs(5);
/// What job containers need is told in full there.
const PAGE: &str = "docs/docker.md";

/// The Docker that jobs have, if they have one.
pub(super) fn endpoint(common: &Common) -> Option<Endpoint> {
    let usual = common.places.docker_socket();
    match &common.docker.host {
        Some(endpoint) => Some(endpoint.clone()),
        None if common.docker.engine.is_some() || usual.exists() => Some(Endpoint::Socket(usual)),
        None => None,
    }
}

/// All that can be said of it: one that does not answer, or that jobs may not use, is a fault.
pub(super) fn examine(
    common: &Common,
    provider: &dyn Provider,
    identity: Option<&Identity>,
) -> io::Result<Vec<Finding>> {
    let Some(endpoint) = endpoint(common) else {
        return Ok(vec![Finding::ok(TOPIC, format!("jobs have none ({PAGE} says how they can)"))]);
    };
    let mut found: Vec<Finding> = groups(&common.places).into_iter().collect();
    if common.docker.engine.is_some() && !common.places.docker_socket().exists() {
        found.push(Finding::skip(TOPIC, "the engine of its own (OSCR_DOCKERD) runs only while the runner does"));
        return Ok(found);
    }
    let docker = match Docker::at(&endpoint) {
        Ok(Some(docker)) => docker,
        Ok(None) => {
            found
                .push(Finding::skip(TOPIC, format!("Docker at {endpoint} speaks TLS, and is not looked at from here")));
            return Ok(found);
        }
        Err(error) => {
            found.push(Finding::fail(TOPIC, error.to_string(), "check DOCKER_HOST"));
            return Ok(found);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let speaks = timeout(LOOK, docker.speaks()).await;
        match speaks
            .map_or_else(|_| Err("it takes too long".to_owned()), |said| said.map_err(|error| error.to_string()))
        {
            Err(error) => {
                let cure = "have that daemon run: the log of its container says why it does not; or mount the socket of one that does \
                            (compose.docker-socket.yml)";
                found.push(Finding::fail(TOPIC, format!("nobody answers: {error}"), cure));
            }
            Ok(speaks) => {
                let shown = speaks.newest.map_or_else(|| "unknown".to_owned(), shown);
                let what = format!("Docker {} answers at {endpoint} (API {shown})", speaks.version);
                found.push(Finding::ok(TOPIC, what));
                // One that is not there was judged already.
                found.extend(client_speaks().ok().map(|client_has| client(client_has, speaks.oldest, speaks.newest)));
                found.extend(containers(common, provider, &docker).await);
            }
        }
    });
    if let (Some(identity), Endpoint::Socket(socket)) = (identity, &endpoint)
        && !may(identity, socket, WRITE)
    {
        let cure = match fs::metadata(socket).map(|meta| meta.gid()).unwrap_or_default() {
            0 => "OSCR_DOCKER_GID0=true, if jobs may be root on the host".to_owned(),
            group => format!("let group {group} write to the socket"),
        };
        found.push(Finding::fail(TOPIC, format!("jobs may not use {}", socket.display()), cure));
    }
    Ok(found)
}

/// Whether agents refuse job containers because of where this container's PID 1 is.
pub(super) fn groups(places: &Places) -> Option<Finding> {
    let groups = fs::read_to_string(places.groups_of_init()).ok()?;
    in_group_of_docker(&groups).then(|| {
        Finding::warn(
            TOPIC,
            "container jobs and services are refused: /proc/1/cgroup has «:/docker/», by which the agent takes itself to be in a \
             container of Docker",
            "give the container a namespace of control groups: cgroup: private in Compose, docker run --cgroupns private",
        )
    })
}

/// Whether the containers of jobs find their files and their socket in this Docker. It is asked, and nothing is started there.
pub(super) async fn containers(common: &Common, provider: &dyn Provider, docker: &Docker) -> Vec<Finding> {
    let asked = timeout(LOOK, seen(common, provider, docker)).await;
    asked.unwrap_or_else(|_| vec![unknown("it takes too long")])
}

fn unknown(why: &str) -> Finding {
    Finding::skip(TOPIC, format!("whether it sees the files of jobs cannot be told: {why}"))
}

async fn seen(common: &Common, provider: &dyn Provider, docker: &Docker) -> Vec<Finding> {
    if common.docker.engine.is_some() {
        // It is in this container, and sees what we see.
        return Vec::new();
    }
    // Some interfaces like Docker's answer otherwise, and so do filters before it.
    match docker.sees(Path::new("/oscr/is/not/there")).await {
        Ok(Some(false)) => {}
        Ok(_) => return vec![unknown("it does not say what it sees")],
        Err(error) => return vec![unknown(&error.to_string())],
    }
    let found = async {
        let mut found = vec![paths(common, provider, docker).await?];
        found.extend(socket(docker).await?);
        Ok::<_, DockerError>(found)
    };
    found.await.unwrap_or_else(|error| vec![unknown(&error.to_string())])
}

/// A file that is there for as long as this is.
struct Mark(PathBuf);

impl Mark {
    fn make(directory: &Path) -> Option<Self> {
        let name = format!(".oscr-{}-{:08x}", std::process::id(), getrandom::u32().unwrap_or_default());
        let file = directory.join(name);
        OpenOptions::new().write(true).create_new(true).open(&file).ok()?;
        Some(Self(file))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a path means the same to Docker and to jobs: it must see a file that was made here this moment under a name of its own.
/// The agent's programs need only be there: which version they are cannot be seen.
async fn paths(common: &Common, provider: &dyn Provider, docker: &Docker) -> Result<Finding, DockerError> {
    let (mut looked, mut unseen) = (0, Vec::new());
    for place in [common.work_directory.clone(), common.places.agent_directories()] {
        let Some(mark) = Mark::make(&place) else { continue };
        looked += 1;
        if docker.sees(&mark.0).await? == Some(false) {
            unseen.push(place.display().to_string());
        }
    }
    let listener = provider.agent().listener;
    let fetched = StateFile::read(&common.places.state()).and_then(|state| state.agent);
    let externals = InUse::of(&common.places, listener, fetched.as_ref()).place.join("externals");
    if externals.exists() && docker.sees(&externals).await? == Some(false) {
        unseen.push(externals.display().to_string());
    }
    if looked == 0 {
        return Ok(Finding::skip(TOPIC, "whether it sees the files of jobs cannot be told: none can be made here"));
    }
    if unseen.is_empty() {
        return Ok(Finding::ok(TOPIC, "it sees the files of jobs by the same paths"));
    }
    Ok(Finding::warn(
        TOPIC,
        format!(
            "Docker does not see what is in {}: container jobs find no files there, and `docker run -v` gives an empty directory",
            unseen.join(", ")
        ),
        format!("have the same files at the same path on both sides, as in {PAGE}"),
    ))
}

/// Whether containers of jobs get the socket that jobs have: agents mount the usual one, whatever `DOCKER_HOST` says, and Docker makes
/// a directory where nothing is.
async fn socket(docker: &Docker) -> Result<Option<Finding>, DockerError> {
    let usual = Path::new(DEFAULT_SOCKET);
    let source = match docker.endpoint() {
        Endpoint::Socket(socket) => docker.source_of(socket, &mounts::list().unwrap_or_default()).await?,
        Endpoint::Tcp(_) | Endpoint::Tls(_) => None,
    };
    let elsewhere = source.filter(|source| source != usual && source != Path::new("/run/docker.sock"));
    let cure = |source: &Path| format!("on Docker's machine: ln -sfT {} {DEFAULT_SOCKET}", source.display());
    if docker.sees(usual).await? == Some(false) {
        return Ok(Some(Finding::warn(
            TOPIC,
            format!(
                "containers of jobs are given the {DEFAULT_SOCKET} of Docker's machine, where there is none: Docker makes a directory \
                 there"
            ),
            elsewhere.map_or_else(|| format!("have Docker listen there too ({PAGE})"), |source| cure(&source)),
        )));
    }
    Ok(elsewhere.map(|source| {
        Finding::warn(
            TOPIC,
            format!(
                "containers of jobs are given the {DEFAULT_SOCKET} of Docker's machine, and jobs {}: what there is may be a \
                 directory, or another Docker's",
                source.display()
            ),
            format!("if it is no link to that, {}; then leave OSCR_DOCKER_SOCKET unset ({PAGE})", cure(&source)),
        )
    }))
}

/// Whether Docker, which takes clients of this `oldest` interface and has this `newest` one, and the client of this image understand
/// each other. Agents have no other one.
fn client(speaks: Option<Interface>, oldest: Option<Interface>, newest: Option<Interface>) -> Finding {
    match (speaks, oldest) {
        (Some(client), Some(oldest)) if client < oldest => Finding::warn(
            TOPIC,
            format!("the client here speaks API {}, and this Docker takes none below {}", shown(client), shown(oldest)),
            format!("build the image on a newer BASE_IMAGE, whose client is newer ({PAGE})"),
        ),
        (Some(client), _) if client >= CLIENT_29 && newest.is_some_and(|newest| newest < OLDEST_29) => Finding::warn(
            TOPIC,
            format!("the client here speaks API {} to {}, and this Docker is older", shown(OLDEST_29), shown(client)),
            format!("have Docker 25 or newer, or build the image on an older BASE_IMAGE ({PAGE})"),
        ),
        (Some(client), _) => Finding::ok(TOPIC, format!("the client here speaks API {}", shown(client))),
        (None, _) => Finding::skip(TOPIC, "the client here does not say which API it speaks"),
    }
}

/// The newest interface that the client has. It is asked where no Docker is, whose answer would be a compromise.
fn client_speaks() -> io::Result<Option<Interface>> {
    let mut command = Command::new("docker");
    command.args(["--host", "unix:///dev/null", "version", "--format", "{{.Client.DefaultAPIVersion}}"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/");
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    Ok(interface(&String::from_utf8_lossy(&said.stdout)))
}

fn shown((major, minor): Interface) -> String {
    format!("{major}.{minor}")
}

/// What of these somebody must know before a job finds out.
pub(super) fn warnings(found: &[Finding]) -> impl Iterator<Item = String> {
    let grave = found.iter().filter(|finding| finding.verdict >= Verdict::Warn);
    grave.map(|finding| format!("{}; {}", finding.what, finding.cure.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_too_old_or_too_new_is_told() {
        let verdict = |speaks, oldest| client(speaks, oldest, Some((1, 52))).verdict;
        assert_eq!(verdict(Some((1, 41)), Some((1, 44))), Verdict::Warn);
        assert_eq!(verdict(Some((1, 44)), Some((1, 44))), Verdict::Ok);
        assert_eq!(verdict(Some((1, 41)), Some((1, 12))), Verdict::Ok);
        assert_eq!(verdict(Some((1, 41)), None), Verdict::Ok);
        assert_eq!(verdict(None, Some((1, 44))), Verdict::Skip);
        let old = client(Some((1, 41)), Some((1, 44)), Some((1, 52))).to_string();
        assert!(old.contains("API 1.41") && old.contains("below 1.44") && old.contains("cure: "), "{old}");
        // The other way round.
        let newer = |client_has| client(Some(client_has), Some((1, 12)), Some((1, 41))).verdict;
        assert_eq!((newer((1, 52)), newer((1, 51))), (Verdict::Warn, Verdict::Ok));
    }
}
