//! The just-in-time configuration: base64 of a JSON object that maps a file's name to the base64 of its content.
//!
//! The agent can take it as an argument or a variable, but a variable stays readable for the job in `/proc`, so the files
//! are written by us, exactly as the agent would.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::encode::hex;
use crate::plain::disturbs;
use crate::provider::agents::read_json;
use crate::provider::registration::Files;

/// Base64 without the ends of lines and the blanks that mail, editors and `base64` itself put into it.
fn dense(encoded: &str) -> Zeroizing<String> {
    let mut dense = Zeroizing::new(String::with_capacity(encoded.len()));
    dense.extend(encoded.chars().filter(|c| !c.is_whitespace()));
    dense
}

/// Decodes the files. Only plain dot files are accepted: the content comes from the network and ends up on disk.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn decode(encoded: &str) -> Result<Files, String> {
    let json = Zeroizing::new(STANDARD.decode(&*dense(encoded)).map_err(|_| "it is not base64".to_owned())?);
    let files: BTreeMap<String, Secret> =
        serde_json::from_slice(&json).map_err(|_| "it is not a JSON object of strings".to_owned())?;
    let mut decoded = Vec::new();
    for (name, content) in files {
        let plain = name.starts_with('.') && name.len() > 2 && !name.contains(['/', '\0']) && name != "..";
        if !plain || matches!(name.as_str(), ".env" | ".path") {
            return Err("it holds a file with an unexpected name".to_owned());
        }
        let content =
            STANDARD.decode(content.expose()).map_err(|_| "the content of a file of it is not base64".to_owned())?;
        decoded.push((name, Zeroizing::new(content)));
    }
    if !decoded.iter().any(|(name, _)| name == ".runner") {
        return Err("it holds no .runner file".to_owned());
    }
    Ok(decoded)
}

/// Has the runner tell the forge to send it no update: it would obey one, and fetch, unpack and copy in vain what it cannot put
/// in its place. A `.runner` that cannot be read is the runner's to complain of.
pub(super) fn without_updates(mut files: Files) -> Files {
    for (_, content) in files.iter_mut().filter(|(name, _)| name == ".runner") {
        let Ok(mut runner) = read_json::<BTreeMap<String, Value>>(content) else { continue };
        set(&mut runner, "DisableUpdate", "True");
        if let Ok(written) = serde_json::to_vec(&runner) {
            *content = Zeroizing::new(written);
        }
    }
    files
}

/// The members of a `.runner`.
fn runner_of(content: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    read_json(content).map_err(|_| "its .runner is not a JSON object".to_owned())
}

fn member<'a>(runner: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a Value> {
    runner.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Whose page the runner of a configuration belongs to, if that says so.
///
/// # Errors
/// What is wrong with the configuration, in words.
pub(super) fn page(encoded: &str) -> Result<Option<String>, String> {
    let mut page = None;
    for (_, content) in decode(encoded)?.iter().filter(|(name, _)| name == ".runner") {
        page = member(&runner_of(content)?, "GitHubUrl").and_then(Value::as_str).map(str::to_owned);
    }
    Ok(page)
}

/// Gives a member of a `.runner` this text, as all members there are texts. The runner takes their names in any case.
fn set(runner: &mut BTreeMap<String, Value>, name: &str, text: &str) {
    runner.retain(|known, _| !known.eq_ignore_ascii_case(name));
    runner.insert(name.to_owned(), text.into());
}

/// What a configuration that was made elsewhere says about its runner.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The runner's id, if the configuration names it.
    pub id: Option<u64>,
    /// Its name, likewise.
    pub name: Option<String>,
    /// The agent's files.
    pub files: Files,
    /// Differs from that of any other configuration.
    pub fingerprint: String,
}

/// Decodes a configuration that was made elsewhere, has its jobs work in `work_directory`, because whoever made it cannot know
/// which places are wiped here, and has its runner ask for no updates.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn given(encoded: &str, work_directory: &Path) -> Result<Given, String> {
    let mut files = decode(encoded)?;
    let (mut id, mut name) = (None, None);
    for (file, content) in &mut files {
        if file == ".runner" {
            let mut runner = runner_of(content)?;
            let take = |key: &str| member(&runner, key).cloned();
            id = take("AgentId").and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
            name = take("AgentName").and_then(|name| name.as_str().map(str::to_owned));
            set(&mut runner, "WorkFolder", &work_directory.display().to_string());
            *content = Zeroizing::new(serde_json::to_vec(&runner).map_err(|error| error.to_string())?);
        }
    }
    let files = without_updates(files);
    let name = name.map(|name| name.chars().filter(|c| !disturbs(*c)).take(64).collect());
    let fingerprint = hex(digest(&SHA256, dense(encoded).as_bytes()).as_ref());
    Ok(Given { id, name, files, fingerprint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(json: &str) -> String {
        STANDARD.encode(json)
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        let content = STANDARD.encode("{}");
        let files = decode(&encode(&format!(r#"{{".runner":"{content}",".credentials":"{content}"}}"#))).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".credentials", ".runner"]);
        assert_eq!(*files[0].1, b"{}");
        let broken = encode(&format!(r#"{{".runner":"{content}",".credentials":"{content}"}}"#));
        let broken = format!(" {}\r\n{}\n", &broken[..20], &broken[20..]);
        assert_eq!(decode(&broken).unwrap(), files, "lines are no part of Base64");
    }

    #[test]
    fn a_configuration_made_elsewhere_works_where_this_container_is_wiped() {
        let runner = r#"{"AgentId":"12","AgentName":"theirs","WorkFolder":"/elsewhere","Ephemeral":"True"}"#;
        let config =
            |runner: &str| encode(&format!(r#"{{".runner":"{}",".credentials":"e30="}}"#, STANDARD.encode(runner)));
        let one = given(&format!("{}\n", config(runner)), Path::new("/work")).unwrap();
        assert_eq!((one.id, one.name.as_deref()), (Some(12), Some("theirs")));
        let written: Value = serde_json::from_slice(&one.files[1].1).unwrap();
        assert_eq!((&written["WorkFolder"], &written["Ephemeral"]), (&"/work".into(), &"True".into()));
        let same = given(&config(runner), Path::new("/work")).unwrap();
        let other = given(&config(&runner.replace("12", "13")), Path::new("/work")).unwrap();
        assert_eq!(one.fingerprint, same.fingerprint);
        assert_ne!(one.fingerprint, other.fingerprint);
        assert_eq!(other.id, Some(13));
        let in_lines = config(runner).replacen('I', "\nI", 3);
        assert_eq!(one.fingerprint, given(&in_lines, Path::new("/work")).unwrap().fingerprint);
        assert!(given(&config("[]"), Path::new("/work")).unwrap_err().contains(".runner"));
        assert!(page(&config("[]")).unwrap_err().contains(".runner"), "told before it is used");
        assert_eq!(page(&config(runner)), Ok(None));
        let page_of = page(&config(r#"{"gitHubUrl":"https://ghes.example/o"}"#));
        assert_eq!(page_of, Ok(Some("https://ghes.example/o".to_owned())));
    }

    #[test]
    fn a_runner_asks_for_no_updates_and_nothing_else_of_it_changes() {
        let files = |runner: &str| -> Files {
            [(".credentials", "{\"a\": 1}"), (".runner", runner)]
                .map(|(name, text)| (name.to_owned(), Zeroizing::new(text.as_bytes().to_vec())))
                .into()
        };
        for before in ["", r#","DisableUpdate":"False""#, r#","disableUpdate":false"#] {
            let text = format!("\u{feff}{{\"AgentId\":\"7\",\"Ephemeral\":\"True\",\"GitHubUrl\":null{before}}}");
            let changed = without_updates(files(&text));
            let runner: Value = serde_json::from_slice(&changed[1].1).unwrap();
            let expected =
                serde_json::json!({"AgentId": "7", "Ephemeral": "True", "GitHubUrl": null, "DisableUpdate": "True"});
            assert_eq!(runner, expected, "{text}");
            assert_eq!(*changed[0].1, b"{\"a\": 1}");
        }
        for unreadable in ["", "[]", "{", "\"DisableUpdate\""] {
            assert_eq!(without_updates(files(unreadable)), files(unreadable));
        }
    }

    #[test]
    fn names_that_would_reach_elsewhere_are_refused() {
        for name in ["../.runner", "/etc/passwd", "..", ".", "bin", ".env", ".path", ".a/b"] {
            let json = format!(r#"{{".runner":"e30=","{name}":"e30="}}"#);
            assert!(decode(&encode(&json)).unwrap_err().contains("unexpected name"), "{name}");
        }
        assert!(decode("%%%").unwrap_err().contains("base64"));
        assert!(decode(&encode("[]")).is_err());
        assert!(decode(&encode("{}")).unwrap_err().contains(".runner"));
    }

    #[test]
    fn fuzz_jit() {
        crate::fuzz::run("jit", |bytes| {
            let texts = [encode(&String::from_utf8_lossy(bytes)), String::from_utf8_lossy(bytes).into_owned()];
            texts.map(|text| match decode(&text) {
                Err(why) => crate::fuzz::kind(&why),
                Ok(files) => {
                    for (name, _) in &files {
                        let path = std::path::Path::new(name);
                        assert_eq!(path.components().count(), 1, "{name:?}");
                        assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))), "{name:?}");
                        assert!(name != ".env" && name != ".path");
                    }
                    format!("{} files", files.len().min(4))
                }
            })
        });
    }
}
