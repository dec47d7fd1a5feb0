//! A GitHub App instead of a person's token. The forge verifies every proof, and the tokens that it gives are good for no more
//! than they were asked for.

use oscr_sim::forge::app::{AppOrders, KEY, KEY_PKCS8, OTHER_KEY};
use oscr_sim::forge::{Fault, Orders};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each, write};

const SECRET: &str = "run/secrets/app_key";

fn forge(change: impl FnOnce(&mut AppOrders)) -> Forge {
    let forge = Forge::start();
    let mut app = AppOrders::default();
    change(&mut app);
    forge.order(|orders| orders.app = Some(app));
    forge
}

/// A container whose credential is the App of this forge.
pub fn container(forge: &Forge) -> Container<'_> {
    let mut container = Container::new(forge);
    container.unset("GITHUB_PAT_FILE");
    std::fs::remove_file(container.path(crate::harness::SECRET)).expect("it was there");
    write(&container.path(SECRET), KEY, 0o400);
    container.set("GITHUB_APP_ID", "4711");
    container.set("GITHUB_APP_PRIVATE_KEY_FILE", &container.text(SECRET));
    container
}

/// Other settings than these; `key` is what the private key's file holds.
fn give(container: &mut Container<'_>, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        match *name {
            "key" => write(&container.path(SECRET), value, 0o400),
            name => container.set(name, value),
        }
    }
}

fn tokens(forge: &Forge) -> Vec<String> {
    let minted = forge.events().into_iter().filter(|event| event.kind == "app_token");
    minted.filter_map(|event| event.detail).collect()
}

#[test]
fn each_phase_has_a_fresh_token_for_one_repository_and_one_permission() {
    let forge = forge(|_| ());
    let mut container = container(&forge);
    container.start();
    forge.listening();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(
        forge.calls(),
        [
            "GET repos/o/r/installation 200",
            "POST app/installations/77/access_tokens 201",
            "POST registration-token 201",
            "POST app/installations/77/access_tokens 201",
            "DELETE ID 404",
        ]
    );
    assert_eq!(tokens(&forge), ["administration:write for r"; 2]);
    container.assert_state_empty();
}

#[test]
fn an_organisations_runner_gets_a_token_for_runners_alone_by_client_id_and_given_installation() {
    let forge = forge(|_| ());
    let mut container = container(&forge);
    container.unset("GITHUB_REPO");
    container.unset("GITHUB_APP_ID");
    container.unset("GITHUB_APP_PRIVATE_KEY_FILE");
    // As other containers call them, in one line as variables are written.
    container.set("APP_ID", "Iv1.0123456789abcdef");
    container.set("APP_LOGIN", "o");
    container.set("APP_PRIVATE_KEY", &KEY_PKCS8.replace('\n', "\\n"));
    container.set("GITHUB_APP_INSTALLATION_ID", "77");
    container.set("OSCR_REGISTRATION", "jit");
    container.start();
    forge.listening();
    assert_eq!(
        forge.calls(),
        ["POST app/installations/77/access_tokens 201", "POST orgs/o/actions/runners/generate-jitconfig 201"]
    );
    assert_eq!(tokens(&forge), ["organization_self_hosted_runners:write for all"]);
    container.wait_line("APP_PRIVATE_KEY is a plain variable");
    for line in container.lines() {
        for part in KEY_PKCS8.lines().filter(|line| line.len() > 40) {
            assert!(!line.contains(part), "a piece of the key is in the log: {line}");
        }
    }
}

#[test]
fn every_refusal_is_a_denial_that_names_its_cure() {
    type Case = (&'static str, fn(&mut Orders), &'static [(&'static str, &'static str)], &'static [&'static str]);
    fn app(orders: &mut Orders) -> &mut AppOrders {
        orders.app.as_mut().expect("an App")
    }
    let cases: [Case; 8] = [
        ("another key", |_| (), &[("key", OTHER_KEY)], &["could not be decoded", "GITHUB_APP_ID=4711"]),
        ("no such App", |_| (), &[("GITHUB_APP_ID", "4712")], &["Integration not found", "check"]),
        (
            "not installed",
            |orders| app(orders).account = "p".into(),
            &[],
            &["not installed for o/r", "install it there"],
        ),
        ("another repository", |orders| app(orders).repositories = vec!["q".into()], &[], &["not installed for o/r"]),
        (
            "a repository that the installation does not have",
            |orders| app(orders).repositories = vec!["q".into()],
            &[("GITHUB_APP_INSTALLATION_ID", "77")],
            &["not accessible to the parent installation", "Repository access"],
        ),
        (
            "no permission",
            |orders| app(orders).permissions.clear(),
            &[],
            &["permissions requested", "Administration (read and write)", "accept it"],
        ),
        ("suspended", |orders| app(orders).suspended = true, &[], &["suspended", "unsuspend"]),
        (
            "another installation",
            |_| (),
            &[("GITHUB_APP_INSTALLATION_ID", "78")],
            &["GITHUB_APP_INSTALLATION_ID=78", "unset it"],
        ),
    ];
    each(&cases, |(what, order, settings, said)| {
        let forge = forge(|_| ());
        forge.order(order);
        let mut container = container(&forge);
        give(&mut container, settings);
        container.start();
        let line = container.wait_line("trying again in");
        for part in *said {
            assert!(line.contains(part), "{what}: {line}");
        }
        assert_eq!(container.status()["phase"], "denied", "{what}");
        assert_eq!(forge.runners().len(), 0, "{what}");
    });
}

#[test]
fn a_key_that_is_corrected_in_its_file_counts_at_once() {
    let forge = forge(|_| ());
    let mut container = container(&forge);
    write(&container.path(SECRET), OTHER_KEY, 0o400);
    container.start();
    container.wait_line("could not be decoded");
    write(&container.path(SECRET), KEY, 0o400);
    forge.listening();
}

#[test]
fn a_wrong_clock_is_reported_and_does_not_matter() {
    each(&[("behind", 3 * 3600), ("ahead of", -3 * 3600)], |(word, offset)| {
        let forge = forge(|_| ());
        forge.order(|orders| orders.clock_offset_s = *offset);
        let mut container = container(&forge);
        container.start();
        forge.listening();
        let line = container.wait_line("this machine's clock is");
        assert!(line.contains("h") && line.contains(&format!(" {word} the forge's")), "{line}");
        let refused = forge.calls().iter().filter(|call| call.ends_with(" 401")).count();
        assert_eq!(refused, 1, "{:?}", forge.calls());
    });
}

#[test]
fn a_token_is_renewed_before_it_ends_and_when_it_ended_early() {
    // With a group to look up there are two requests in a row.
    let with_group = |forge: &Forge| {
        let mut container = Container::new(forge);
        container.unset("GITHUB_PAT_FILE");
        container.unset("GITHUB_REPO");
        write(&container.path(SECRET), KEY, 0o400);
        let secret = container.text(SECRET);
        container.set_all(&[
            ("GITHUB_APP_ID", "4711"),
            ("GITHUB_APP_INSTALLATION_ID", "77"),
            ("GITHUB_APP_PRIVATE_KEY_FILE", &secret),
            ("GITHUB_RUNNER_GROUP", "default"),
            ("OSCR_REGISTRATION", "jit"),
        ]);
        container.start();
        forge.listening();
    };
    let short = forge(|app| app.token_lifetime_s = 299);
    with_group(&short);
    assert_eq!(tokens(&short).len(), 2, "one for each request: {:?}", short.calls());
    let long = forge(|app| app.token_lifetime_s = 3600);
    with_group(&long);
    assert_eq!(tokens(&long).len(), 1, "{:?}", long.calls());
    let revoked = forge(|_| ());
    revoked.fault("runner-groups", Fault { status: Some(401), times: Some(1), ..Fault::default() });
    with_group(&revoked);
    assert_eq!(tokens(&revoked).len(), 2, "{:?}", revoked.calls());
}

#[test]
fn mistakes_about_the_app_are_found_before_anybody_is_asked() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 5] = [
        ("GITHUB_APP_ID", &[("GITHUB_APP_ID", "")], "is not set, but the private key"),
        ("GITHUB_APP_ID", &[("GITHUB_APP_ID", "my app")], "neither an id nor a client id"),
        ("GITHUB_APP_PRIVATE_KEY", &[("GITHUB_APP_PRIVATE_KEY_FILE", "")], "is not set, but GITHUB_APP_ID is"),
        ("GITHUB_APP_INSTALLATION_ID", &[("GITHUB_APP_INSTALLATION_ID", "o")], "is no number"),
        ("GITHUB_APP_PRIVATE_KEY_FILE", &[("key", "ghp_0123456789")], "no private key in PEM form"),
    ];
    each(&cases, |(setting, settings, said)| {
        let forge = forge(|_| ());
        let mut container = container(&forge);
        give(&mut container, settings);
        container.start();
        assert_eq!(container.exit_code(), 78);
        let lines = container.lines_with(&format!("- {setting}: "));
        assert!(lines.iter().any(|line| line.contains(said)), "{setting}: {:#?}", container.lines());
        assert_eq!(forge.requests().len(), 0);
    });
}
