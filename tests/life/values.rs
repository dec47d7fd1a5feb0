//! What people write is read as they mean it, from variables and from files, or called what it is.

use std::fs;

use oscr_sim::agent::Kind;

use crate::config::assert_refused;
use crate::harness::{Container, Forge, SECRET, allow, each, write};

#[test]
fn values_are_read_as_people_write_them() {
    type Settings = fn(&Forge, &Container<'_>) -> Vec<(&'static str, String)>;
    let cases: [(Kind, Settings); 3] = [
        (Kind::GitHub, |forge, container| {
            vec![
                ("GITHUB_HOST", format!("\"{}/\"", forge.url())),
                ("GITHUB_OWNER", " 'o'\r".to_owned()),
                ("GITHUB_REPO", format!("{}/o/r.git?tab=readme#top", forge.url())),
                ("GITHUB_PAT_FILE", format!("\"{}\"\r", container.text(SECRET))),
                ("EPHEMERAL", " 1\r".to_owned()),
                ("RUNNER_LABELS", "[\"gpu\", 'jtag']".to_owned()),
                ("OSCR_STOP_TIMEOUT", "1h 30m".to_owned()),
                ("OSCR_MIN_FREE", "1.0 KiB".to_owned()),
            ]
        }),
        (Kind::GitHub, |forge, _| {
            let address = format!("{}/o/r/settings/actions/runners/new?arch=x64", forge.url());
            ["GITHUB_OWNER", "GITHUB_REPO", "GITHUB_HOST"]
                .map(|name| (name, String::new()))
                .into_iter()
                .chain([("REPO_URL", address)])
                .collect()
        }),
        (Kind::Azure, |forge, container| {
            vec![
                ("ADO_ORG_URL", format!("'{}/acme/_settings/agentpools?poolId=1'", forge.url())),
                ("ADO_PAT_FILE", format!(" {}\r", container.text(SECRET))),
                ("ADO_POOL", "\"Default\"".to_owned()),
                ("AGENT_LABELS", "\"gpu\",java=17".to_owned()),
            ]
        }),
    ];
    each(&cases, |(kind, settings)| {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        let settings = settings(&forge, &container);
        for (name, value) in &settings {
            container.set(name, value);
        }
        container.start();
        forge.listening();
        for (name, _) in
            settings.iter().filter(|(name, value)| !name.ends_with("LABELS") && value.contains(['"', '\'']))
        {
            container.wait_line(&format!("{name} stands in quotes"));
        }
        if *kind == Kind::GitHub && settings.len() > 5 {
            let labels = &forge.runners()[0].labels;
            assert!(labels.contains(&"gpu".to_owned()) && labels.contains(&"jtag".to_owned()), "{labels:?}");
        }
    });
}

#[test]
fn a_file_that_holds_no_secret_is_called_what_it_is() {
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n";
    let wrong: [(&[u8], &str, &str); 7] = [
        (b"/run/secrets/other\n", "the path of a file", "NAME_FILE"),
        (b"{\"token\": \"abcdefgh\"}", "JSON", "alone"),
        (key.as_bytes(), "in PEM form", "GITHUB_APP_PRIVATE_KEY_FILE"),
        (b"A=1\nB=2\n", "several lines", "alone"),
        (b"${GITHUB_PAT}", "a placeholder", "alone"),
        (b"\xff\xfea\0b\0", "not text in UTF-8", "UTF-8"),
        (b"directory", "is a directory", "missing"),
    ];
    let cases: Vec<_> =
        [Kind::GitHub, Kind::Azure].into_iter().flat_map(|kind| wrong.map(|wrong| (kind, wrong))).collect();
    each(&cases, |(kind, (content, what, cure))| {
        let forge = Forge::start();
        let (mut container, setting) = match kind {
            Kind::GitHub => (Container::new(&forge), "GITHUB_PAT_FILE"),
            Kind::Azure => (Container::azure(&forge), "ADO_PAT_FILE"),
        };
        fs::remove_file(container.path(SECRET)).expect("it was there");
        if *content == b"directory" {
            fs::create_dir(container.path(SECRET)).expect("a directory");
        } else {
            fs::write(container.path(SECRET), content).expect("a file");
            allow(&container.path(SECRET), 0o400);
        }
        assert_refused(&forge, &mut container, &[&format!("{setting}: names "), what, cure]);
        assert_eq!(forge.requests().len(), 0);
    });
}

#[test]
fn a_secret_is_read_from_files_as_editors_and_orchestrators_make_them() {
    let forms: [fn(&str) -> String; 4] = [
        |pat| format!("\u{feff}{pat}\r\n"),
        |pat| format!("\"{pat}\"\n"),
        |pat| format!("TOKEN={pat}\n"),
        |pat| format!("# ours\nexport GITHUB_PAT='{pat}'\nADO_PAT={pat}\n"),
    ];
    let cases: Vec<_> =
        [Kind::GitHub, Kind::Azure].into_iter().flat_map(|kind| forms.map(|form| (kind, form))).collect();
    each(&cases, |(kind, form)| {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        write(&container.path(SECRET), &form(&forge.pat()), 0o400);
        container.start();
        forge.listening();
        assert!(!container.lines().concat().contains(&forge.pat()));
    });
}

#[test]
fn a_token_of_one_server_is_never_sent_to_another() {
    for registration in ["token", "jit"] {
        let (forge, other) = (Forge::start(), Forge::start());
        let mut container = Container::new(&forge);
        container
            .set_all(&[("OSCR_REGISTRATION", registration), ("GITHUB_API_URL", &format!("{}/api/v3", other.url()))]);
        assert_refused(
            &forge,
            &mut container,
            &["GITHUB_API_URL: leads to ", "would be sent to the other", "unset it"],
        );
        assert_eq!((forge.requests().len(), other.requests().len()), (0, 0));
        // By itself it says where the pages are, too.
        container.unset("GITHUB_HOST");
        container.restart();
        other.listening();
        assert_eq!(forge.requests().len(), 0);
    }
}

#[test]
fn labels_that_no_job_asks_for_are_told_of_by_every_program() {
    for (kind, setting) in [(Kind::GitHub, "RUNNER_LABELS"), (Kind::Azure, "AGENT_LABELS")] {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        container.set(setting, "gpu;linux");
        let words = format!("{setting}: \"gpu;linux\" is one label");
        let ((_, out, _), (_, report, _)) = (container.ask(&["check"]), container.ask(&["doctor"]));
        assert!(out.contains(&words) && report.contains(&words), "{out}{report}");
        container.start();
        forge.listening();
        container.wait_line(&words);
    }
}

#[test]
fn names_of_other_containers_are_understood_and_said() {
    let names: [&[(&str, &str)]; 4] = [
        &[("REPO_URL", "/o/r"), ("RUNNER_SCOPE", "repo")],
        &[("REPO", "o/r")],
        &[("REPO", "o/r"), ("LABELS", "gpu"), ("EPHEMERAL", "1")],
        &[("ORG_NAME", "o"), ("RUNNER_SCOPE", "org")],
    ];
    each(&names, |settings| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        for name in ["GITHUB_OWNER", "GITHUB_REPO", "GITHUB_PAT_FILE"] {
            container.unset(name);
        }
        container.set("ACCESS_TOKEN", &forge.pat());
        for (name, value) in *settings {
            if *name == "REPO_URL" {
                container.unset("GITHUB_HOST");
                container.set(name, &format!("{}{value}", forge.url()));
            } else {
                container.set(name, value);
            }
        }
        container.start();
        forge.listening();
        container.wait_line("ACCESS_TOKEN was read as GITHUB_PAT");
        for (name, _) in *settings {
            container.wait_line(name);
        }
        let scope = if settings[0].0 == "ORG_NAME" { "orgs/o" } else { "repos/o/r" };
        assert_eq!(forge.runners()[0].scope, scope);
    });
}
