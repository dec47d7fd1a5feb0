//! Refusals of the settings' own reader, row by row; and no problem that it can tell is without a row.

mod azure;
mod common;
mod github;
mod secrets;
#[path = "../../../house/source.rs"]
#[allow(dead_code, reason = "what the house is asked beside its files")]
mod source;
mod words;

use std::fs;
use std::sync::Mutex;

use oscr_sim::agent::Kind;
use oscr_sim::forge::ServicePrincipal;
use oscr_sim::forge::app::{AppOrders, KEY};

use super::walk_with;
use crate::harness::{Container, Forge, each, write};

/// Settings to make. An empty value unsets one; a name that begins with `/` is a file below the root.
type Given = &'static [(&'static str, &'static str)];

/// Settings that are refused, and those that their cures say.
struct Row {
    wrong: Given,
    /// The settings that are told.
    told: &'static [&'static str],
    /// What is told of them: what is wrong, and the cure.
    words: &'static [&'static str],
    cure: Given,
}

const fn row(wrong: Given, told: &'static [&'static str], words: &'static [&'static str], cure: Given) -> Row {
    Row { wrong, told, words, cure }
}

/// Of a GitHub runner alone, of an Azure agent alone, or of both.
fn rows() -> Vec<(&'static Row, Kind)> {
    let both = common::ROWS.iter().chain(secrets::ROWS).flat_map(|row| [(row, Kind::GitHub), (row, Kind::Azure)]);
    let github = github::ROWS.iter().map(|row| (row, Kind::GitHub));
    let azure = azure::ROWS.iter().map(|row| (row, Kind::Azure));
    both.chain(github).chain(azure).collect()
}

/// A row's text with what differs from container to container.
fn expand(container: &Container<'_>, forge: &Forge, text: &str) -> String {
    let host = forge.url().trim_start_matches("http://").to_owned();
    let (credential, provider) = match container.kind {
        Kind::GitHub => ("GITHUB_PAT", "github"),
        Kind::Azure => ("ADO_PAT", "azure-devops"),
    };
    let mut text = text.replace("ROOT", &container.text("")).replace("FORGE", &forge.url()).replace("HOST:", &host);
    text = text.replace("CREDENTIAL", credential).replace("PROVIDER_HERE", provider);
    // Whoever asks for one has it made.
    for (word, make) in [
        ("THE_PAT", (&|| forge.pat()) as &dyn Fn() -> String),
        ("THE_KEY", &|| KEY.to_owned()),
        ("THE_CA", &|| include_str!("../../../faults/certificates/ca.pem").to_owned()),
        ("EMPTY", &String::new),
        ("THE_TOKEN", &|| forge.registration_token()),
        // As `base64` breaks it into lines.
        ("JIT_IN_LINES", &|| {
            let whole = forge.jit_config("given");
            let (first, second) = whole.split_at(76);
            format!("{first}\n{second}\r\n")
        }),
        ("THE_JIT", &|| forge.jit_config("given")),
        ("LONG_LABEL", &|| "x".repeat(257)),
        ("LONG_PATTERN", &|| "x".repeat(1025)),
        ("LONG_SECRET", &|| "x".repeat(64 * 1024 + 1)),
        ("MANY_LABELS", &|| (0..101).map(|at| format!("l{at},")).collect()),
        ("MANY_BOARDS", &|| (0..100).map(|at| format!("b{at}")).collect::<Vec<_>>().join(",")),
    ] {
        if text.contains(word) {
            text = text.replace(word, &make());
        }
    }
    text
}

/// What the rows name there must be there.
fn set_up(forge: &Forge) {
    forge.order(|orders| {
        orders.app = Some(AppOrders::default());
        orders.service_principals = vec![ServicePrincipal {
            tenant: "11111111-2222-3333-4444-555555555555".to_owned(),
            client_id: "99999999-8888-7777-6666-555555555555".to_owned(),
            client_secret: "principal~secret".to_owned(),
        }];
    });
}

fn give(container: &mut Container<'_>, forge: &Forge, given: Given) -> String {
    let mut script = String::new();
    for (name, given) in given {
        let (name, value) = (expand(container, forge, name), expand(container, forge, given));
        if let Some(bytes) = value.strip_prefix("BYTES ") {
            // A variable of ours is text.
            script = format!("export {name}=\"$(printf '{bytes}')\"");
        } else if let Some(file) = name.strip_prefix('/') {
            let file = container.path(file);
            if file.is_dir() {
                fs::remove_dir_all(&file).expect("ours");
            }
            let _ = fs::remove_file(&file);
            match value.as_str() {
                _ if given.is_empty() => {}
                "DIRECTORY" => fs::create_dir_all(file).expect("ours"),
                text => write(&file, text, 0o400),
            }
        } else if value.is_empty() {
            container.unset(&name);
        } else {
            container.set(&name, &value);
        }
    }
    script
}

#[test]
fn each_problem_with_settings_is_told_and_its_cure_starts_the_runner() {
    let said = Mutex::new(Vec::new());
    for some in rows().chunks(6) {
        each(some, |(row, kind)| {
            let lines = walk_with(
                &row.words.join(" … "),
                *kind,
                |container, forge| (set_up(forge), give(container, forge, row.wrong)).1,
                row.told,
                row.words,
                |container, forge| give(container, forge, row.cure),
            );
            said.lock().expect("nobody failed").extend(lines);
        });
    }
    words::assert_all_said(&said.into_inner().expect("nobody failed"));
}
