//! The forges that there are: adding one is a folder beside this file, an image, and a line here.

use super::contract::Forge;
use super::{azure_devops, github};
use crate::config::table::{COMMON, Kind};

/// All forges. The first is the one of a container that names none.
pub const FORGES: &[Forge] = &[github::FORGE, azure_devops::FORGE];

/// Whether a variable of this name is itself a secret, for whatever forge and under whatever name.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let settings = FORGES.iter().map(|forge| forge.settings).chain([COMMON]).flatten();
    settings
        .filter(|setting| setting.kind == Kind::Secret)
        .any(|setting| setting.name == name || setting.aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_setting_is_known_under_all_its_names() {
        for name in [
            "GITHUB_PAT",
            "ACCESS_TOKEN",
            "GH_PAT",
            "RUNNER_TOKEN",
            "GITHUB_APP_PRIVATE_KEY",
            "APP_PRIVATE_KEY",
            "ACTIONS_RUNNER_INPUT_JITCONFIG",
            "ADO_PAT",
            "AZP_TOKEN",
            "ADO_CLIENT_SECRET",
        ] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("GITHUB_PAT_FILE") && !is_secret("GITHUB_OWNER"));
    }
}
