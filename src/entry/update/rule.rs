//! What `OSCR_AGENT_UPDATE` comes to in this container.

use std::fmt;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Uid;

use crate::config::{AgentUpdate, Common};
use crate::entry::schedule::When;
use crate::provider::{Provider, Releasing};

/// The setting, and when newer agents are fetched by it; or why none is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    setting: AgentUpdate,
    /// When, or why never.
    pub when: Result<When, &'static str>,
    /// Whether one could be fetched and kept here at all.
    able: bool,
}

impl Rule {
    /// The rule for a runner of this configuration.
    pub(crate) fn of(common: &Common, provider: &dyn Provider) -> Self {
        let setting = common.agent_update;
        let able = able(common, provider);
        let when = match setting {
            AgentUpdate::No => Err("it is switched off"),
            AgentUpdate::Yes => able.map(|()| When::AtOnce),
            AgentUpdate::Auto if !provider.starves_old_agents() => {
                Err("only github.com and *.ghe.com give no jobs to old agents")
            }
            AgentUpdate::Auto => able.map(|()| When::InTime),
        };
        Self { setting, when, able: able.is_ok() }
    }

    /// What becomes of a newer agent of this title that the forge offers, or what a person can do about it.
    pub(super) fn answer(&self, title: &str) -> String {
        match (&self.when, self.able) {
            (Ok(_), _) => format!("looking for it now (OSCR_AGENT_UPDATE is {self})"),
            (Err(_), true) => format!("pull an image with a newer {title}, or set OSCR_AGENT_UPDATE=true"),
            (Err(_), false) => format!("pull an image with a newer {title}"),
        }
    }

    /// Whether somebody asked for what cannot be.
    pub(crate) fn disappoints(&self) -> bool {
        self.setting == AgentUpdate::Yes && self.when.is_err()
    }
}

/// Why none could be asked for.
pub(super) const NOT_OFFERED: &str = "this forge offers no versions of its agent";

/// Why no agent could be fetched and kept here.
fn able(common: &Common, provider: &dyn Provider) -> Result<(), &'static str> {
    match provider.releasing(false) {
        Releasing::Request => {}
        Releasing::ByForge => return Err("a just-in-time configuration that is given can ask the forge nothing"),
        Releasing::Command(_) => return Err("a registration token can ask the forge nothing"),
    }
    if provider.package().is_none() {
        return Err(NOT_OFFERED);
    }
    if !Uid::effective().is_root() {
        return Err("the container does not run as root, so jobs could change what is fetched");
    }
    // Where they would be kept, or what is above it.
    let kept = common.places.fetched_agents();
    let existing = kept.ancestors().find(|place| place.exists()).unwrap_or(common.places.root());
    let read_only = |place| statvfs(place).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY));
    if [common.places.root(), existing].into_iter().any(read_only) {
        return Err("the file system is read-only");
    }
    Ok(())
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.setting, &self.when) {
            (AgentUpdate::Auto, Ok(_)) => f.write_str("auto: true"),
            (AgentUpdate::Auto, Err(why)) => write!(f, "auto: false, because {why}"),
            (AgentUpdate::Yes, Ok(_)) => f.write_str("true"),
            (AgentUpdate::Yes, Err(why)) => write!(f, "true, but nothing is fetched: {why}"),
            (AgentUpdate::No, _) => f.write_str("false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::provider::{FORGES, configure};

    fn rule<const N: usize>(settings: [(&str, &str); N]) -> String {
        let root = tempfile::tempdir().unwrap();
        let mut all = vec![("OSCR_ROOT", root.path().to_str().unwrap())];
        all.extend(settings);
        let all = all.into_iter().map(|(name, value)| (name.into(), value.into()));
        let configured = configure(FORGES, &Environment::new(all)).map_err(|problems| format!("{problems:?}")).unwrap();
        Rule::of(&configured.common, configured.provider.as_ref()).to_string()
    }

    #[test]
    fn auto_is_true_only_where_old_agents_get_no_jobs_and_a_newer_one_can_be_asked_for() {
        let owner = ("GITHUB_OWNER", "o");
        let pat = ("GITHUB_PAT", "a-token");
        let root = Uid::effective().is_root();
        for host in ["github.com", "acme.ghe.com", "https://www.github.com"] {
            let found = rule([owner, pat, ("GITHUB_HOST", host)]);
            assert_eq!(found == "auto: true", root, "{host}: {found}");
        }
        for host in ["github.example.com", "http://127.0.0.1", "evilghe.com", "github.com.example.com"] {
            let found = rule([owner, pat, ("GITHUB_HOST", host)]);
            assert!(found.starts_with("auto: false, because only github.com"), "{host}: {found}");
        }
        let found = rule([owner, ("RUNNER_TOKEN", "a-token")]);
        assert_eq!(found, "auto: false, because a registration token can ask the forge nothing");
        let azure = [("CI_PROVIDER", "azure-devops"), ("ADO_ORG_URL", "https://dev.azure.com/acme"), ("ADO_PAT", "t")];
        assert!(rule(azure).starts_with("auto: false"));
    }

    #[test]
    fn what_was_a_flag_is_still_understood() {
        let github = [("GITHUB_OWNER", "o"), ("GITHUB_PAT", "a-token")];
        let of = |value| rule([github[0], github[1], ("OSCR_AGENT_UPDATE", value)]);
        for value in ["false", "no", "OFF", "0"] {
            assert_eq!(of(value), "false", "{value}");
        }
        for value in ["true", "Yes", "on", "1"] {
            assert!(of(value).starts_with("true"), "{value}");
        }
        assert!(of("AUTO").starts_with("auto"));
        assert!(rule([github[0], ("RUNNER_TOKEN", "t"), ("OSCR_AGENT_UPDATE", "true")]).contains("nothing is fetched"));
    }
}
