//! A password or a token that stands where none belongs: no program of ours says it again, and the refusal says what to do.

use nix::sys::signal::Signal;
use oscr::config::table::{COMMON, SettingKind};
use oscr::provider::FORGES;
use oscr_sim::agent::Kind;

use crate::harness::{Container, Forge, each};

/// What nobody may read again.
const WORD: &str = "hidden1word";
/// Names of other containers that are read and stand in no table: for every forge, and for GitHub.
const OTHERS: [&str; 5] = ["EPHEMERAL", "AZP_WORK", "AZP_AGENT_NAME", "AGENT_TOOLSDIRECTORY", "RUNNER_WORK_DIRECTORY"];
const OTHERS_FOR_GITHUB: [&str; 5] =
    ["REPO_URL", "APP_LOGIN", "RUNNER_SCOPE", "RUNNER_ORGANIZATION_URL", "RUNNER_PRINCIPAL"];

/// A container of a forge, with a credential that is given as a file.
fn container(kind: Kind, forge: &Forge) -> Container<'_> {
    match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    }
}

/// What `check` and `doctor` print, and how they end.
fn asked(container: &Container<'_>) -> (String, [i32; 2]) {
    let (checked, out, error) = container.ask(&["check"]);
    let (examined, report, more) = container.ask(&["doctor"]);
    (format!("{out}{error}{report}{more}"), [checked, examined])
}

#[test]
fn no_program_says_a_secret_again_whichever_setting_it_stands_in() {
    let values = [format!("https://somebody:{WORD}@host.example/acme/x"), format!("ghp_{WORD}")];
    let cases: Vec<(Kind, String)> = [Kind::GitHub, Kind::Azure]
        .into_iter()
        .flat_map(|kind| values.iter().map(move |value| (kind, value.clone())))
        .collect();
    each(&cases, |(kind, value)| {
        let forge = Forge::start();
        let named = FORGES.named(if *kind == Kind::GitHub { "github" } else { "azure-devops" }).expect("a forge");
        let settings = COMMON.iter().chain(named.settings).filter(|setting| setting.name != "OSCR_ROOT");
        let files = settings.clone().filter(|setting| setting.kind == SettingKind::Secret);
        let files = files.flat_map(|setting| setting.names().map(|name| format!("{name}_FILE")));
        let plain = settings.clone().filter(|setting| setting.kind != SettingKind::Secret);
        let plain = plain.flat_map(|setting| setting.names().map(str::to_owned));
        let others = match kind {
            Kind::GitHub => [&OTHERS[..], &OTHERS_FOR_GITHUB].concat(),
            Kind::Azure => OTHERS.to_vec(),
        };
        let others = others.into_iter().map(str::to_owned);
        let names: Vec<String> = files.chain(plain).chain(others).collect();
        assert!(names.len() > 50, "{names:?}");
        for name in names.iter().filter(|name| !name.to_ascii_lowercase().starts_with("http")) {
            let mut container = container(*kind, &forge);
            container.set(name, value);
            let (said, codes) = asked(&container);
            assert!(!said.contains(WORD), "{name}={value}: {said}");
            assert_eq!(codes, [78, 1], "{name}={value}: {said}");
            container.start();
            assert_eq!(container.exit_code(), 78, "{name}={value}: {:#?}", container.lines());
            let lines = container.lines_with(&format!("- {name}: "));
            assert!(
                !lines.is_empty() && !container.lines().concat().contains(WORD),
                "{name}: {:#?}",
                container.lines()
            );
        }
        assert_eq!(forge.requests().len(), 0);
    });
}

#[test]
fn a_password_in_use_is_not_said_by_a_runner_that_lives() {
    let proxy = format!("http://somebody:{WORD}@127.0.0.1:1");
    let wrong = format!("{WORD}-in-a-token");
    let cases = [
        (Kind::GitHub, "HTTP_PROXY", &proxy, "backing-off"),
        (Kind::Azure, "http_proxy", &proxy, "backing-off"),
        (Kind::GitHub, "GITHUB_PAT", &wrong, "denied"),
        (Kind::Azure, "AZP_TOKEN", &wrong, "denied"),
    ];
    each(&cases, |(kind, name, value, phase)| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        if *phase == "denied" {
            container.unset("GITHUB_PAT_FILE");
            container.unset("ADO_PAT_FILE");
        }
        if *phase == "backing-off" {
            // No proxy is asked for what is on this machine.
            match kind {
                Kind::GitHub => container.set("GITHUB_HOST", "http://forge.example"),
                Kind::Azure => container.set("ADO_ORG_URL", "http://forge.example/acme"),
            }
        }
        container.set(name, value);
        let (said, _) = asked(&container);
        assert!(!said.contains(WORD), "{said}");
        container.start();
        container.wait_line(&format!(" {phase} "));
        let status = container.wait_phase(phase).to_string();
        container.signal(Signal::SIGTERM);
        container.exit_code();
        let lines = container.lines();
        assert!(!status.contains(WORD) && !lines.concat().contains(WORD), "{status} {lines:#?}");
    });
}
