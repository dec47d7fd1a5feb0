//! What has another name by now: where the forge leads on to the very same thing, questions and removals go after it, and no
//! credential goes anywhere else.

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, Match};

use crate::forge_refusals::{ODD, container, refusal, says, told};
use crate::harness::{Container, Forge, each};

/// A container whose runner is registered with what gets another name: the old one, the new one, and the settings that name it.
type Renamed<'f> = (Container<'f>, &'static str, &'static str, [(&'static str, String); 2]);

fn to_be_renamed<'f>(forge: &'f Forge, what: &str) -> Renamed<'f> {
    let set = |name, value: &str| (name, value.to_owned());
    match what {
        "repository" => {
            let settings = [set("GITHUB_OWNER", "new"), set("GITHUB_REPO", "name")];
            (Container::new(forge), "repos/o/r", "repos/new/name", settings)
        }
        "organisation" => {
            let mut container = Container::new(forge);
            container.unset("GITHUB_REPO");
            (container, "orgs/o", "orgs/new", [set("GITHUB_OWNER", "new"), set("GITHUB_REPO", "")])
        }
        _ => {
            let url = format!("{}/new", forge.url());
            (Container::azure(forge), "acme", "new", [set("ADO_ORG_URL", &url), set("ADO_POOL", "Default")])
        }
    }
}

const RENAMED: [(&str, &str); 3] = [("repository", "new/name"), ("organisation", "new"), ("Azure DevOps", "/new")];

#[test]
fn an_idle_runner_of_what_was_renamed_is_removed_and_the_log_says_the_new_name() {
    each(&RENAMED, |(what, name)| {
        let forge = Forge::start();
        let (mut container, old, new, _) = to_be_renamed(&forge, what);
        container.start();
        forge.listening();
        forge.rename(old, new);
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        assert!(forge.runners().is_empty(), "{:?}", forge.calls());
        container.assert_state_empty();
        let said = container.lines_with(" WARN ");
        assert!(said.iter().any(|line| line.contains(name)), "{said:#?}");
    });
}

#[test]
fn what_is_left_where_a_name_was_is_removed_before_and_after_the_setting_is_corrected() {
    let cases = RENAMED.map(|case| [(case, false), (case, true)]).concat();
    each(&cases, |((what, name), corrected)| {
        let forge = Forge::start();
        let (mut container, old, new, settings) = to_be_renamed(&forge, what);
        container.start();
        let (first, _) = forge.listening();
        container.signal(Signal::SIGKILL);
        container.exit_code();
        assert!(forge.let_go(first));
        forge.rename(old, new);
        if !corrected {
            container.start();
            let line = told(&container);
            assert!(line.contains("has moved to") && line.contains(name), "{line}");
            assert!(line.contains(settings[0].0), "{line}");
            assert_eq!(container.status()["phase"], "denied");
            assert!(forge.runners().is_empty(), "{:?}", forge.calls());
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code(), 0);
        }
        for (setting, value) in &settings {
            container.set(setting, value);
        }
        container.start();
        let (second, _) = forge.listening();
        assert!(second != first && forge.runners().len() == 1, "{:#?}", forge.runners());
    });
}

#[test]
fn no_redirect_takes_a_credential_to_another_origin_and_the_log_says_where_it_led() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        for status in [301, 302, 307, 308] {
            let (forge, elsewhere) = (Forge::start(), Forge::start());
            let mut container = container(*kind, &forge);
            container.start();
            let (id, _) = forge.listening();
            let path = match kind {
                Kind::GitHub => format!("/repositories/1000/actions/runners/{id}"),
                Kind::Azure => format!("/new/_apis/distributedtask/pools/1/agents/{id}"),
            };
            let location = format!("{}{path}?secret={ODD}", elsewhere.url());
            let matching = Match { method: Some("DELETE".to_owned()), ..Match::default() };
            forge.fault("", Fault { matching, ..refusal(status, &[("location", &location)], says("Moved")) });
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code(), 0);
            assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
            assert_eq!(forge.runners().len(), 1);
            let lines = container.lines_with("the registration cannot be removed");
            let signs_in = *kind == Kind::Azure && status == 302;
            let place = format!("{}{path}", elsewhere.url());
            assert!(signs_in || lines.iter().any(|line| line.contains(&place)), "{:#?}", container.lines());
            assert!(container.lines_with(ODD).is_empty(), "{:#?}", container.lines_with(ODD));
        }
    });
}
