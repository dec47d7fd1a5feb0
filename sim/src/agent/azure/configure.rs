//! `configure` and `remove`.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::capabilities;
use crate::agent::arguments::Arguments;
use crate::agent::client::{Client, Refusal};
use crate::agent::kind::Kind;
use crate::agent::listener::{TERMINATED, text};
use crate::agent::trace::{Trace, now};
use crate::agent::{credential, deleted, host_name, read_json, version, write_json};

/// The resource for which service principals ask a token: Azure DevOps itself.
const RESOURCE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";

/// Registers the agent and writes its files.
pub(super) fn configure(root: &Path, trace: &Trace, arguments: &Arguments) -> i32 {
    crate::agent::configure(Kind::Azure, root, trace, || register(root, trace, arguments))
}

/// The forge's client with what `--auth` names.
fn authenticated(arguments: &Arguments, url: &str) -> Result<Client, String> {
    let auth = arguments.value("auth").unwrap_or_else(|| "PAT".into());
    match auth.to_uppercase().as_str() {
        "PAT" => Ok(super::client(url, &super::basic(&arguments.required("token")?))),
        "SP" => {
            let token = service_principal(arguments, url)?;
            Ok(super::client(url, &format!("Bearer {token}")))
        }
        _ => Err(format!("Invalid configuration provided for auth: {auth}. Terminating unattended configuration.")),
    }
}

/// Asks the authority, which lies at the forge's own host here, for a token.
fn service_principal(arguments: &Arguments, url: &str) -> Result<String, String> {
    let (client, tenant) = (arguments.required("clientid")?, arguments.required("tenantid")?);
    let secret = encoded(&arguments.required("clientsecret")?);
    let host = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let form = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}&scope={RESOURCE}");
    let answer: Value = super::client(&host, "")
        .post_form(&format!("/{tenant}/oauth2/v2.0/token"), form)
        .map_err(|refusal| format!("A configuration issue is preventing authentication: {refusal}"))?;
    Ok(text(&answer, "access_token").to_owned())
}

/// What a refusal means for who reads the output.
fn words(refusal: Refusal, url: &str) -> String {
    match refusal {
        Refusal::Status { status: 203 | 302 | 401, .. } => {
            format!("VS30063: You are not authorized to access {url}.")
        }
        Refusal::Status { message, .. } => message,
        Refusal::Broken(why) => why,
    }
}

/// An answer of the API; the page for people that a wrong credential may get with 203 is none.
fn ask(client: &Client, path: &str) -> Result<Value, Refusal> {
    let found = client.get::<Value>(path)?;
    found.ok_or_else(|| Refusal::Broken("an empty answer".into()))
}

fn register(root: &Path, trace: &Trace, arguments: &Arguments) -> Result<(), String> {
    let url = arguments.required("url")?;
    let url = url.trim_end_matches('/');
    // The one place where the agent says its version, below its name in large letters.
    trace.say(&format!("        agent v{:<10}          |_|          (commit 5115afe)", version(Kind::Azure, root)));
    trace.say("\n>> Connect:\n");
    let client = authenticated(arguments, url)?;
    trace.say("Connecting to server ...");
    let told = |refusal: Refusal| words(refusal, url);
    ask(&client, "/_apis/connectionData?connectOptions=1&api-version=5.1-preview").map_err(told)?;

    trace.say("\n>> Register Agent:\n");
    let pool = arguments.value("pool").unwrap_or_else(|| "default".into());
    let pools =
        ask(&client, &format!("/_apis/distributedtask/pools?poolName={}&api-version=5.1-preview.1", encoded(&pool)));
    let pools = pools.map_err(told)?;
    let pool_id = pools["value"][0]["id"].as_u64().ok_or_else(|| format!("Agent pool not found: '{pool}'"))?;

    let name = arguments.value("agent").unwrap_or_else(host_name);
    let own = version(Kind::Azure, root);
    trace.say("Scanning for tool capabilities.");
    let [modulus, exponent] = credential::public_key();
    let agent = json!({
        "name": name,
        "version": own,
        "osDescription": "Linux",
        "maxParallelism": 1,
        "enabled": true,
        "systemCapabilities": capabilities::system(root, &name, &own),
        "userCapabilities": capabilities::user(root),
        "authorization": {"publicKey": {"exponent": exponent, "modulus": modulus}},
    });
    trace.say("Connecting to the server.");
    let agents = format!("/_apis/distributedtask/pools/{pool_id}/agents");
    let listed = ask(&client, &format!("{agents}?agentName={}&api-version=5.1-preview.1", encoded(&name)));
    let answer: Value = match listed.map_err(told)?["value"][0]["id"].as_u64() {
        Some(_) if !arguments.flag("replace") => {
            return Err(format!("Pool {pool_id} already contains an agent with name {name}."));
        }
        Some(id) => {
            let answer = client.json("PUT", &format!("{agents}/{id}?api-version=5.1-preview.1"), &agent);
            let answer = answer.map_err(told)?;
            trace.say("Successfully replaced the agent");
            answer
        }
        None => {
            let answer = client.json("POST", &format!("{agents}?api-version=5.1-preview.1"), &agent);
            let answer = answer.map_err(told)?;
            trace.say("Successfully added the agent");
            answer
        }
    };
    trace.say("Testing agent connection.");
    save(root, arguments, &answer, (pool_id, &pool), url).map_err(|error| error.to_string())?;
    trace.say(&format!("{}: Settings Saved.", now()));
    Ok(())
}

fn save(root: &Path, arguments: &Arguments, agent: &Value, pool: (u64, &str), url: &str) -> io::Result<()> {
    let credentials = json!({
        "scheme": "OAuth",
        "data": {
            "clientId": agent["authorization"]["clientId"],
            "authorizationUrl": agent["authorization"]["authorizationUrl"],
        },
    });
    let key = crate::forge::runner_key();
    let settings = json!({
        "acceptTeeEula": arguments.flag("acceptteeeula"),
        "agentId": agent["id"],
        "agentName": agent["name"],
        "alwaysExtractTask": arguments.flag("alwaysextracttask"),
        "gitUseSecureChannel": false,
        "poolId": pool.0,
        "poolName": pool.1,
        "serverUrl": url,
        "workFolder": arguments.value("work").unwrap_or_else(|| "_work".into()),
    });
    let files =
        [(".credentials_rsaparams", &key, 0o600), (".credentials", &credentials, 0o644), (".agent", &settings, 0o644)];
    write_json(root, &files)
}

/// For a query: what is not plain is written as a percent sign and two digits.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Takes the registration away, and the files.
pub(super) fn remove(root: &Path, trace: &Trace, arguments: &Arguments) -> i32 {
    trace.say("Removing agent from the server");
    match read_json(&root.join(".agent")) {
        Err(_) => trace.say(
            "Cannot connect to server, because config files are missing. Skipping removing agent from the server.",
        ),
        Ok(settings) => {
            if let Err(why) = remove_at_forge(trace, arguments, &settings) {
                trace.complain("Failed: Removing agent from the server");
                trace.complain(&why);
                return TERMINATED;
            }
        }
    }
    forget(root, trace)
}

/// Makes an agent unconfigured; what cannot be deleted ends that.
pub(super) fn forget(root: &Path, trace: &Trace) -> i32 {
    for names in [[".credentials", ".credentials_rsaparams"].as_slice(), &[".agent"]] {
        let action = format!("Removing {}", names[0]);
        trace.say(&action);
        let gone: Result<Vec<bool>, String> = names.iter().map(|name| deleted(&root.join(name))).collect();
        match gone {
            Ok(gone) if gone[0] => trace.say(&format!("Succeeded: {action}")),
            Ok(_) => trace.say(&format!("Does not exist. Skipping {action}")),
            Err(why) => {
                trace.complain(&format!("Failed: {action}"));
                trace.complain(&why);
                return TERMINATED;
            }
        }
    }
    0
}

fn remove_at_forge(trace: &Trace, arguments: &Arguments, settings: &Value) -> Result<(), String> {
    let url = text(settings, "serverUrl");
    let client = authenticated(arguments, url)?.patient(Duration::from_secs(60));
    let agents = format!("/_apis/distributedtask/pools/{}/agents", settings["poolId"]);
    let name = encoded(text(settings, "agentName"));
    let listed = ask(&client, &format!("{agents}?agentName={name}&api-version=5.1-preview.1"));
    let Some(id) = listed.map_err(|refusal| words(refusal, url))?["value"][0]["id"].as_u64() else {
        trace.say("Does not exist. Skipping Removing agent from the server");
        return Ok(());
    };
    client.delete(&format!("{agents}/{id}?api-version=5.1-preview.1")).map_err(|refusal| words(refusal, url))?;
    trace.say("Succeeded: Removing agent from the server");
    Ok(())
}
