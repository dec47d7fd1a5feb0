//! Containers that a job asks for beside its steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job's own container, or one of its services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerSpec {
    /// The image's name.
    pub image: String,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Mounts, `SOURCE:TARGET[:ro]`; a target alone is an anonymous volume.
    pub volumes: Vec<String>,
    /// Published ports, as `docker create --publish` takes them.
    pub ports: Vec<String>,
    /// Further options of `docker create`, one text.
    pub options: Option<String>,
}

impl ContainerSpec {
    /// A container of an image as it is.
    #[must_use]
    pub fn of(image: &str) -> Self {
        Self { image: image.into(), ..Self::default() }
    }
}
