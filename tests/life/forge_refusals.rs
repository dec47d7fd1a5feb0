//! What a forge says with a refusal counts, and not its number alone: whose limit it is, and what cures it.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::app::AppOrders;
use oscr_sim::forge::{Fault, Match, Orders};
use serde_json::{Value, json};

use crate::harness::{Container, Forge, SECRET, each, write};

/// Nothing that a forge ever gave out; a test looks for it in the log.
pub const ODD: &str = "SECRETTHATNOBODYMAYREADINALOG";

pub fn container(kind: Kind, forge: &Forge) -> Container<'_> {
    match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    }
}

/// The request that a life begins with.
fn first(kind: Kind) -> &'static str {
    match kind {
        Kind::GitHub => "registration-token",
        Kind::Azure => "/pools",
    }
}

pub fn refusal(status: u16, headers: &[(&str, &str)], body: Value) -> Fault {
    let headers: BTreeMap<_, _> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault { status: Some(status), headers, body: Some(body), ..Fault::default() }
}

pub fn says(words: &str) -> Value {
    json!({"message": words, "documentation_url": "https://docs.github.com/rest/about-this"})
}

/// An agent's own request is refused.
fn of_agents(forge: &Forge, method: &str, path: &str, fault: Fault) {
    let matching = Match {
        method: Some(method.to_owned()),
        path_contains: Some(path.to_owned()),
        agent: Some(true),
        ..Match::default()
    };
    forge.add_fault(Fault { matching, ..fault });
}

/// What is told of a wait, which is the only one.
#[track_caller]
pub fn told(container: &Container<'_>) -> String {
    container.wait_line("trying again in");
    let lines = container.lines_with("trying again in");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].clone()
}

/// Somebody puts another credential into the secret's file.
fn replace_secret(container: &Container<'_>, secret: &str) {
    let new = container.path("run/secrets/new");
    write(&new, secret, 0o400);
    std::fs::rename(&new, container.path(SECRET)).expect("the same directory");
}

fn asked(forge: &Forge, path: &str) -> usize {
    forge.api_requests().iter().filter(|request| request.path.ends_with(path)).count()
}

#[test]
fn a_limit_that_words_alone_tell_is_waited_out_for_a_minute_and_no_right_is_asked_for() {
    let limits: [(Kind, u16, &str); 6] = [
        (
            Kind::GitHub,
            403,
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        ),
        (Kind::GitHub, 403, "You have triggered an abuse detection mechanism. Please wait a few minutes."),
        (Kind::GitHub, 403, "API rate limit exceeded for installation ID 77."),
        (Kind::GitHub, 403, "Maximum number of login attempts exceeded. Please try again later."),
        (
            Kind::Azure,
            403,
            "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource 'X'.",
        ),
        (
            Kind::Azure,
            503,
            "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource 'X'.",
        ),
    ];
    each(&limits, |(kind, status, words)| {
        let forge = Forge::start();
        // GitHub's answers carry these, whatever they say.
        let counted = [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4990")];
        forge.fault(first(*kind), refusal(*status, &counted, says(words)));
        let mut container = container(*kind, &forge);
        container.start();
        let line = told(&container);
        assert!(line.contains("limits our requests") && line.contains(words), "{line}");
        assert!(!line.contains("needs") && !line.contains("ermission"), "{line}");
        let status = container.status();
        assert_eq!(status["phase"], "backing-off", "{status}");
        assert!(container.pause(&status) >= Duration::from_secs(60), "{status}");
        assert_eq!(forge.api_requests().len(), 1, "{:?}", forge.calls());
    });
}

#[test]
fn a_refusal_is_told_in_the_forges_words_with_its_address_and_the_cure_that_they_ask_for() {
    const ADDRESS: &str = "https://docs.github.com/rest/about-this";
    const SIGN_ON: &str = "https://github.com/orgs/o/sso?authorization_request=A1B2C3";
    let required = format!("required; url={SIGN_ON}");
    let signs_on = [("x-github-sso", required.as_str())];
    let decoded = [("x-tfs-serviceerror", "TF400813%3A+The+user+%27x%27+is+not+authorized+to+access+this+resource.")];
    type Case<'a> = (Kind, u16, &'a [(&'a str, &'a str)], Value, &'a [&'a str]);
    // Words that ask for a right have one; others do not.
    let cases: [Case<'_>; 15] = [
        (
            Kind::GitHub,
            403,
            &signs_on,
            says("Resource protected by organization SAML enforcement."),
            &["SAML enforcement", SIGN_ON, "single sign-on"],
        ),
        (
            Kind::GitHub,
            403,
            &[],
            says(
                "Although you appear to have the correct authorization credentials, the `o` organization has an IP allow list enabled, and 192.0.2.7 is not permitted to access this resource.",
            ),
            &["192.0.2.7", "IP allow list", ADDRESS],
        ),
        (Kind::GitHub, 403, &[], says("This installation has been suspended"), &["unsuspend", ADDRESS]),
        (Kind::GitHub, 403, &[], says("Sorry. Your account was suspended."), &["account behind", ADDRESS]),
        (
            Kind::GitHub,
            403,
            &[],
            says("`o` forbids access via a personal access token (classic). Please use a GitHub App."),
            &["no classic tokens", ADDRESS],
        ),
        (Kind::GitHub, 403, &[], says("Unicorns are angry"), &["Unicorns are angry", ADDRESS]),
        (
            Kind::GitHub,
            451,
            &[],
            json!({"message": "Repository access blocked", "block": {"html_url": "https://github.com/github/dmca"}}),
            &["451", "Repository access blocked", "https://github.com/github/dmca"],
        ),
        (
            Kind::GitHub,
            403,
            &[],
            says("Resource not accessible by personal access token"),
            &["Resource not accessible", "needs", "Administration"],
        ),
        (Kind::GitHub, 403, &[], says("Resource not accessible by integration"), &["needs", "Administration"]),
        (Kind::GitHub, 403, &[], says("Must have admin rights to Repository."), &["needs", "Administration"]),
        (Kind::GitHub, 401, &[], says("Bad credentials"), &["Bad credentials", "wrong, expired or revoked"]),
        (Kind::GitHub, 401, &[], says("The personal access token has expired"), &["has expired: replace it"]),
        (
            Kind::Azure,
            403,
            &[],
            says("VS403463: The conditional access policy defined by your administrator has failed."),
            &["VS403463", "conditional access policy"],
        ),
        (Kind::Azure, 401, &decoded, json!(""), &["TF400813: The user 'x'", "needs", "ADO_ORG_URL"]),
        (
            Kind::Azure,
            401,
            &[],
            says("VS30063: You are not authorized to access https://dev.azure.com."),
            &["VS30063", "wrong, expired or revoked", "needs"],
        ),
    ];
    each(&cases, |(kind, status, headers, body, words)| {
        let forge = Forge::start();
        forge.fault(first(*kind), refusal(*status, headers, body.clone()));
        let mut container = container(*kind, &forge);
        container.start();
        let line = told(&container);
        for word in *words {
            assert!(line.contains(word), "{word:?} is not in {line}");
        }
        let asks_for_rights = words.contains(&"needs");
        assert_eq!(line.contains("needs"), asks_for_rights, "{line}");
        assert_eq!(container.status()["phase"], "denied");
    });
}

#[test]
fn a_moment_that_is_past_is_no_reason_to_ask_each_second() {
    let past = httpdate_of_long_ago();
    type Limit<'a> = (Kind, u16, &'a [(&'a str, &'a str)]);
    let limits: [Limit<'_>; 5] = [
        (Kind::GitHub, 429, &[("retry-after", "0")]),
        (Kind::GitHub, 403, &[("retry-after", &past)]),
        (Kind::GitHub, 403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000000000")]),
        (Kind::Azure, 429, &[("retry-after", "0")]),
        (Kind::Azure, 503, &[("retry-after", "0")]),
    ];
    each(&limits, |(kind, status, headers)| {
        let forge = Forge::start();
        let fault = Fault { times: Some(2), ..refusal(*status, headers, says("no")) };
        forge.fault(first(*kind), fault);
        let mut container = container(*kind, &forge);
        container.start();
        forge.listening();
        let at: Vec<_> = forge.api_requests().iter().map(|request| request.at).collect();
        let gaps: Vec<i128> = at.windows(2).map(|two| two[1].duration_since(two[0]).as_millis()).collect();
        assert!(gaps[0] >= 2000 && gaps[1] >= 4000, "{gaps:?}");
    });
}

fn httpdate_of_long_ago() -> String {
    "Sun, 09 Sep 2001 01:46:40 GMT".to_owned()
}

#[test]
fn an_idle_runner_that_is_stopped_asks_a_forge_whose_moment_is_past_with_pauses() {
    let kinds = [(Kind::GitHub, "/runners/"), (Kind::Azure, "/agents/")];
    each(&kinds, |(kind, path)| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        container.start();
        forge.listening();
        let matching = Match { method: Some("DELETE".to_owned()), ..Match::default() };
        forge.fault(path, Fault { matching, ..refusal(429, &[("retry-after", "0")], says("no")) });
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        let removals = forge.api_requests().into_iter().filter(|request| request.method == "DELETE").count();
        assert!((2..=6).contains(&removals), "{removals} in ten seconds");
    });
}

#[test]
fn a_corrected_credential_ends_a_limits_wait() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        let limit = || Fault { times: Some(1), ..refusal(429, &[("retry-after", "3000")], says("no")) };
        forge.fault(first(*kind), limit());
        let mut container = container(*kind, &forge);
        container.start();
        told(&container);
        forge.order(|orders| orders.pats.push("ghp_another_one".to_owned()));
        replace_secret(&container, "ghp_another_one");
        forge.listening();
        assert_eq!(forge.api_requests().len(), 2, "{:?}", forge.calls());
        assert_eq!(container.lines_with("the secret's file has changed").len(), 1);
    });
}

#[test]
fn another_registration_token_ends_the_wait_for_a_limit_that_the_agent_met() {
    let forge = Forge::start();
    let limit = Fault { times: Some(1), ..refusal(429, &[], says("Too many requests")) };
    of_agents(&forge, "POST", "runner-registration", limit.clone());
    // It would try again by itself.
    of_agents(&forge, "POST", "runner-registration", limit.clone());
    of_agents(&forge, "POST", "runner-registration", limit);
    let mut container = Container::new(&forge);
    container.unset("GITHUB_PAT_FILE");
    replace_secret(&container, &forge.registration_token());
    container.set("RUNNER_TOKEN_FILE", &container.text(SECRET));
    container.start();
    let line = told(&container);
    assert!(line.contains("limits our requests") && container.status()["phase"] == "backing-off", "{line}");
    replace_secret(&container, &forge.registration_token());
    forge.listening();
    assert_eq!(container.lines_with("trying again in").len(), 1, "{:#?}", container.lines());
}

#[test]
fn a_limits_wait_outlives_a_restart_and_a_credential_that_was_corrected_meanwhile_does_not_keep_it() {
    each(
        &[(Kind::GitHub, true), (Kind::GitHub, false), (Kind::Azure, true), (Kind::Azure, false)],
        |(kind, in_file)| {
            let forge = Forge::start();
            let limit = || Fault { times: Some(1), ..refusal(429, &[("retry-after", "3000")], says("no")) };
            forge.fault(first(*kind), limit());
            let mut container = container(*kind, &forge);
            container.start();
            told(&container);
            // Whatever ends it.
            container.signal(Signal::SIGKILL);
            container.exit_code();
            let state = container.state().to_string();
            assert!(!state.contains(&forge.pat()), "{state}");
            container.start();
            told(&container);
            assert_eq!(forge.api_requests().len(), 1, "{:?}", forge.calls());
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code(), 0);
            forge.order(|orders| orders.pats.push("ghp_another_one".to_owned()));
            if *in_file {
                replace_secret(&container, "ghp_another_one");
            } else {
                let name = if *kind == Kind::GitHub { "GITHUB_PAT" } else { "ADO_PAT" };
                container.unset(&format!("{name}_FILE"));
                container.set(name, "ghp_another_one");
            }
            container.start();
            forge.listening();
            assert!(container.lines_with("trying again in").is_empty(), "{:#?}", container.lines());
        },
    );
}

fn in_a_group(forge: &Forge) -> Container<'_> {
    let mut container = Container::new(forge);
    container.unset("GITHUB_REPO");
    container.set("GITHUB_RUNNER_GROUP", "builders");
    container
}

#[test]
fn a_group_that_is_missing_is_found_out_before_a_token_is_asked_for() {
    let forge = Forge::start();
    let mut container = in_a_group(&forge);
    container.start();
    let line = told(&container);
    assert!(line.contains("no runner group \"builders\"") && line.contains("GITHUB_RUNNER_GROUP"), "{line}");
    assert_eq!(container.status()["phase"], "denied");
    assert_eq!(forge.calls(), ["GET orgs/o/actions/runner-groups 200"]);
    forge.order(|orders| orders.runner_groups.push("builders".to_owned()));
    replace_secret(&container, &forge.pat());
    forge.listening();
    assert_eq!(asked(&forge, "registration-token"), 1);
}

#[test]
fn who_may_not_list_the_groups_may_register_and_the_agents_words_tell_of_one_that_is_missing() {
    for status in [403, 404] {
        let forge = Forge::start();
        forge.fault("/runner-groups", refusal(status, &[], says("Resource not accessible by personal access token")));
        let mut container = in_a_group(&forge);
        container.start();
        let line = told(&container);
        assert!(line.contains("Could not find any self-hosted runner group named \"builders\""), "{line}");
        assert!(line.contains("GITHUB_RUNNER_GROUP"), "{line}");
        assert_eq!(container.status()["phase"], "denied");
        // Nothing is wrong with the token.
        forge.order(|orders: &mut Orders| orders.runner_groups.push("builders".to_owned()));
        replace_secret(&container, &forge.pat());
        forge.listening();
        assert_eq!(asked(&forge, "registration-token"), 1, "{:?}", forge.calls());
    }
}

#[test]
fn what_the_forge_refuses_the_agents_configure_step_is_read_as_if_we_were_refused() {
    type Case = (Kind, &'static str, &'static str, u16, &'static str, &'static [&'static str], &'static str);
    let cases: [Case; 7] = [
        (
            Kind::GitHub,
            "POST",
            "/runners/register",
            403,
            "The runner group is full: 10000 runners",
            &["group is full", "GITHUB_RUNNER_GROUP"],
            "denied",
        ),
        (
            Kind::GitHub,
            "POST",
            "runner-registration",
            403,
            "You have exceeded a secondary rate limit.",
            &["limits our requests", "secondary rate limit"],
            "backing-off",
        ),
        (
            Kind::GitHub,
            "POST",
            "runner-registration",
            429,
            "Too many requests",
            &["limits our requests"],
            "backing-off",
        ),
        (
            Kind::GitHub,
            "POST",
            "runner-registration",
            403,
            "the `o` organization has an IP allow list enabled",
            &["IP allow list", "owner of the organisation"],
            "denied",
        ),
        (
            Kind::GitHub,
            "POST",
            "/runners/register",
            422,
            "Labels are silly",
            &["Labels are silly", "settings that the message names"],
            "denied",
        ),
        (
            Kind::Azure,
            "POST",
            "/agents",
            403,
            "Access denied. Somebody needs Manage permissions for pool Default.",
            &["Access denied", "administrator of the pool"],
            "denied",
        ),
        (
            Kind::Azure,
            "POST",
            "/agents",
            429,
            "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource 'X'.",
            &["limits our requests", "TF400733"],
            "backing-off",
        ),
    ];
    each(&cases, |(kind, method, path, status, says_so, words, phase)| {
        let forge = Forge::start();
        of_agents(&forge, method, path, refusal(*status, &[], says(says_so)));
        let mut container = container(*kind, &forge);
        container.start();
        let line = told(&container);
        for word in *words {
            assert!(line.contains(word), "{word:?} is not in {line}");
        }
        let seen = container.status();
        assert_eq!(seen["phase"], *phase, "{seen}");
        let least = if *phase == "denied" { 25 } else { 60 };
        assert!(container.pause(&seen) >= Duration::from_secs(least), "{seen}");
        let before = forge.api_requests().len();
        forge.clear_faults();
        if *phase == "denied" {
            replace_secret(&container, &forge.secret());
            forge.listening();
            let tokens = asked(&forge, "registration-token");
            assert_eq!(tokens, usize::from(*kind == Kind::GitHub), "{:?}", forge.calls());
        } else {
            // Nothing is asked while it lasts, by a stop neither.
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code(), 0);
            assert_eq!(forge.api_requests().len(), before, "{:?}", forge.calls());
        }
    });
}

#[test]
fn what_an_odd_success_holds_is_in_no_log() {
    type Prepare = fn(&Forge, &mut Container<'_>);
    let requests: [(Kind, &str, Prepare); 4] = [
        (Kind::GitHub, "registration-token", |_, _| ()),
        (Kind::GitHub, "generate-jitconfig", |_, container| container.set("OSCR_REGISTRATION", "jit")),
        (Kind::GitHub, "access_tokens", |forge, container| {
            forge.order(|orders| orders.app = Some(AppOrders::default()));
            container.unset("GITHUB_PAT_FILE");
            write(&container.path("run/secrets/key"), oscr_sim::forge::app::KEY, 0o400);
            container.set("GITHUB_APP_ID", "4711");
            container.set("GITHUB_APP_PRIVATE_KEY_FILE", &container.text("run/secrets/key"));
        }),
        (Kind::Azure, "/pools", |_, _| ()),
    ];
    let bodies = [
        json!({"token": ODD, "access_token": ODD, "encoded_jit_config": ODD}),
        json!({"message": ODD, "documentation_url": format!("https://{ODD}")}),
        json!({"token": {"value": ODD}, "expires_at": ODD, "value": ODD, "runner": ODD, "encoded_jit_config": [ODD]}),
        json!(ODD),
    ];
    let mut cases = Vec::new();
    for request in requests {
        for status in [200, 201, 202] {
            cases.push((request, status));
        }
    }
    each(&cases, |((kind, path, prepare), status)| {
        for body in &bodies {
            let forge = Forge::start();
            let mut container = container(*kind, &forge);
            prepare(&forge, &mut container);
            forge.fault(path, refusal(*status, &[], body.clone()));
            container.start();
            let odd_token = *status == 201 && body["token"] == ODD;
            match odd_token {
                // It is a token as it should be, and what happens to it is another matter.
                true => container.wait_line("trying again in"),
                false => told(&container),
            };
            container.signal(Signal::SIGKILL);
            container.exit_code();
            assert!(container.lines_with(ODD).is_empty(), "{path} {status}: {:#?}", container.lines_with(ODD));
        }
    });
}
