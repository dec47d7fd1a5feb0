//! `configure` and `remove`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client;
use crate::agent::arguments::Arguments;
use crate::agent::client::Refusal;
use crate::agent::kind::Kind;
use crate::agent::listener::TERMINATED;
use crate::agent::trace::Trace;
use crate::agent::{delete_config_files, host_name, read_json, write_json};
use crate::forge::Scope;
use crate::protocol::{RegisterAnswer, RegisterRequest, RemoveRequest};

/// Where `--url` leads: the forge's base address, and the scope.
fn target(url: &str) -> Option<(String, Scope)> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, path) = rest.split_once('/')?;
    let scope = Scope::from_url_path(path)?;
    Some((format!("{scheme}://{host}"), scope))
}

/// A token from `--token`, or fetched with `--pat`.
fn token(arguments: &Arguments, base: &str, scope: &Scope, kind: &str) -> Result<String, String> {
    if let Some(token) = arguments.value("token") {
        return Ok(token);
    }
    let Some(pat) = arguments.value("pat") else {
        return arguments.required("token");
    };
    let answer: Value = client(&format!("{base}/api/v3"), &pat)
        .post(&format!("/{scope}/actions/runners/{kind}"), None::<&()>)
        .map_err(|refusal| refusal.to_string())?;
    Ok(answer["token"].as_str().unwrap_or_default().to_owned())
}

/// Three tries as upstream, except for what another try cannot change.
fn tried<T>(trace: &Trace, mut request: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut left = 3;
    loop {
        left -= 1;
        match request() {
            Err(refusal) if left > 0 && !matches!(refusal.status(), Some(400..500)) => {
                trace.info("ConfigurationManager", &format!("Retrying after: {refusal}"));
                std::thread::sleep(Duration::from_secs(1));
            }
            other => return other,
        }
    }
}

/// Registers the agent and writes its files.
pub(super) fn configure(root: &Path, trace: &Trace, arguments: &Arguments) -> i32 {
    trace.say("\n# Authentication\n");
    crate::agent::configure(Kind::GitHub, root, trace, || register(root, trace, arguments))
}

fn register(root: &Path, trace: &Trace, arguments: &Arguments) -> Result<(), String> {
    let url = arguments.required("url")?;
    let (base, scope) = target(&url).ok_or_else(|| {
        format!("Invalid configuration provided for url: {url}. Terminating unattended configuration.")
    })?;
    let token = token(arguments, &base, &scope, "registration-token")?;
    let split = |text: String| -> Vec<String> {
        text.split(',').map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
    };
    let name = arguments.value("name").unwrap_or_else(host_name);
    let ask = RegisterRequest {
        scope: scope.to_string(),
        token,
        name: name.clone(),
        labels: arguments.value("labels").map(split).unwrap_or_default(),
        no_default_labels: arguments.flag("no-default-labels"),
        group: arguments.value("runnergroup"),
        ephemeral: arguments.flag("ephemeral"),
        replace: arguments.flag("replace"),
        version: crate::AGENT_VERSION.into(),
    };
    let client = client(&base, "");
    let answer: RegisterAnswer =
        tried(trace, || client.post("/_agent/register", Some(&ask))).map_err(|refusal| match refusal.status() {
            Some(404) => format!(
                "Http response code: NotFound from 'POST {base}/actions/runner-registration'\nResponse status code does \
                 not indicate success: 404 (Not Found)."
            ),
            Some(409 | 422) => match refusal {
                Refusal::Status { message, .. } => message,
                Refusal::Broken(why) => why,
            },
            _ => refusal.to_string(),
        })?;
    trace.say("√ Connected to GitHub");
    trace.say("\n# Runner Registration\n");
    trace.say(if answer.replaced { "√ Successfully replaced the runner" } else { "√ Runner successfully added" });
    trace.say("\n# Runner settings\n");
    let work = arguments.value("work").unwrap_or_else(|| "_work".into());
    write_settings(root, arguments, &answer, &base, &url, &work).map_err(|error| error.to_string())?;
    trace.say("√ Settings Saved.\n");
    Ok(())
}

fn write_settings(
    root: &Path,
    arguments: &Arguments,
    answer: &RegisterAnswer,
    base: &str,
    url: &str,
    work: &str,
) -> io::Result<()> {
    let settings = json!({
        "agentId": answer.id,
        "agentName": answer.name,
        "poolId": 1,
        "poolName": answer.group,
        "disableUpdate": arguments.flag("disableupdate"),
        "ephemeral": arguments.flag("ephemeral"),
        "serverUrl": base,
        "gitHubUrl": url,
        "workFolder": work,
        "useV2Flow": true,
        "serverUrlV2": base,
    });
    let credentials = json!({
        "scheme": "OAuth",
        "data": {"clientId": answer.id.to_string(), "authorizationUrl": format!("{base}/_agent/sessions")},
    });
    let key = json!({"d": answer.secret});
    let files =
        [(".credentials_rsaparams", &key, 0o600), (".credentials", &credentials, 0o644), (".runner", &settings, 0o644)];
    write_json(root, &files)?;
    let service = root.join("svc.sh");
    fs::write(&service, "#!/bin/bash\necho 'the stand-in has no service' >&2\nexit 1\n")?;
    fs::set_permissions(&service, fs::Permissions::from_mode(0o755))
}

/// Takes the registration away, and the files.
pub(super) fn remove(root: &Path, trace: &Trace, arguments: &Arguments) -> i32 {
    trace.say("\n# Runner removal\n");
    let settings = read_json(&root.join(".runner"));
    if !arguments.flag("local") {
        match &settings {
            Err(_) => trace.say(
                "Cannot connect to server, because config files are missing. Skipping removing runner from the server.",
            ),
            Ok(settings) => {
                if let Err(why) = remove_at_forge(trace, arguments, settings) {
                    trace.complain(&why);
                    return TERMINATED;
                }
            }
        }
    }
    delete_config_files(Kind::GitHub, root, trace);
    0
}

fn remove_at_forge(trace: &Trace, arguments: &Arguments, settings: &Value) -> Result<(), String> {
    // A JIT configuration has no address to remove from (AR#2920).
    let url = settings["gitHubUrl"].as_str().ok_or("Value cannot be null. (Parameter 'url')")?;
    let (base, scope) = target(url).ok_or("Invalid URI")?;
    let token = token(arguments, &base, &scope, "remove-token")?;
    let id = settings["agentId"].as_u64().unwrap_or_default();
    let ask = RemoveRequest { scope: scope.to_string(), token, id };
    match tried(trace, || client(&base, "").post_raw("/_agent/remove", Some(&ask))) {
        Ok(_) => {
            trace.say("√ Runner removed successfully");
            Ok(())
        }
        Err(Refusal::Status { message, .. }) => Err(format!("Failed: Removing runner from the server\n{message}")),
        Err(refusal) => Err(refusal.to_string()),
    }
}
