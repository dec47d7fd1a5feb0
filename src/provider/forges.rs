//! The forges that there are: adding one is a folder beside this file, an image, and a line here.

use super::contract::Forge;
use super::{azure_devops, github};
use crate::config::table::{COMMON, SettingKind};

/// Some forges, of which a runner may serve one. The first is that of a container which names none.
#[derive(Debug, Clone, Copy)]
pub struct Forges(pub &'static [Forge]);

/// All that there are.
pub const FORGES: Forges = Forges(&[github::FORGE, azure_devops::FORGE]);

impl Forges {
    /// The one of a container that names none.
    #[must_use]
    pub const fn usual(self) -> &'static Forge {
        &self.0[0]
    }

    /// The one with this name.
    #[must_use]
    pub fn named(self, name: &str) -> Option<&'static Forge> {
        self.0.iter().find(|forge| forge.name == name)
    }

    /// Whether a variable of this name is itself a secret, for whatever forge and under whatever name.
    #[must_use]
    pub fn is_secret(self, name: &str) -> bool {
        let settings = self.0.iter().map(|forge| forge.settings).chain([COMMON]).flatten();
        settings
            .filter(|setting| setting.kind == SettingKind::Secret)
            .any(|setting| setting.names().any(|known| known == name))
    }
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
            assert!(FORGES.is_secret(name), "{name}");
        }
        assert!(!FORGES.is_secret("GITHUB_PAT_FILE") && !FORGES.is_secret("GITHUB_OWNER"));
    }
}
