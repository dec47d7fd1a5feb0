//! The settings about Docker for jobs.

use std::time::Duration;

use super::reader::Reader;
use crate::docker::{Endpoint, engine};
use crate::shown::quoted;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerForJobs {
    /// Where it is, if the user says so.
    pub host: Option<Endpoint>,
    /// How long it may take to answer; zero does not ask.
    pub wait: Duration,
    /// An engine of our own.
    pub engine: Option<engine::EngineSettings>,
}

impl DockerForJobs {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let tls = reader.foreign("DOCKER_TLS_VERIFY").is_some_and(|value| value != "0");
        let host = reader.text("DOCKER_HOST").and_then(|value| match Endpoint::parse(&value, tls) {
            Ok(endpoint) => Some(endpoint),
            Err(what) => {
                reader.problem("DOCKER_HOST", what, "write unix:///run/docker.sock or tcp://docker:2375");
                None
            }
        });
        let own = reader.flag("OSCR_DOCKERD").unwrap_or(false);
        if own && host.is_some() {
            reader.problem("OSCR_DOCKERD", "and DOCKER_HOST name two engines", "keep one of them");
        }
        let mtu = reader.text("OSCR_DOCKERD_MTU").and_then(|value| {
            let mtu = value.parse().ok().filter(|mtu| (68..=u16::MAX).contains(mtu));
            if mtu.is_none() {
                reader.problem(
                    "OSCR_DOCKERD_MTU",
                    format!("{} is no MTU", quoted(&value)),
                    "write a number such as 1400",
                );
            }
            mtu
        });
        let mirrors = reader.list("OSCR_DOCKERD_MIRRORS").unwrap_or_default();
        let storage = reader.text("OSCR_DOCKERD_STORAGE");
        let default = Duration::from_secs(if own || host.is_some() { 60 } else { 0 });
        let wait = reader.duration("OSCR_DOCKER_WAIT", default);
        Self { host, wait, engine: own.then_some(engine::EngineSettings { mirrors, mtu, storage }) }
    }
}
