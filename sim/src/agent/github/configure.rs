//! `configure` and `remove`, by a token of the scheme `RemoteAuth`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::chatter::{Names, Phase, banner, chatter, heading, success};
use super::identity::client;
use crate::agent::arguments::Arguments;
use crate::agent::client::{Client, Refusal};
use crate::agent::kind::Kind;
use crate::agent::listener::{TERMINATED, number};
use crate::agent::trace::Trace;
use crate::agent::{ARCH_LABEL, credential, deleted, host_name, read_json, side, write_json};
use crate::forge::Scope;
use crate::protocol::Address;

/// Where `--url` leads.
struct Target {
    /// The address of the API.
    api: String,
    scope: Scope,
    address: Option<Address>,
}

impl Target {
    /// The runner takes scheme and host of the address, and no port but the scheme's own.
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (_, path) = rest.split_once('/')?;
        let scope = Scope::from_url_path(path)?;
        let whole = side::origin(url);
        let address = side::address(Kind::GitHub, whole);
        let (host, port) = match whole.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (whole, None),
        };
        let own = if scheme == "https" { 443 } else { 80 };
        let counts = address.and_then(|address| address.default_port);
        let kept = port.is_none_or(|port| port == own || Some(port) == counts);
        let api = format!("{}/api/v3", if kept { whole } else { host });
        Some(Self { api, scope, address })
    }

    fn wait(&self, real_ms: u64) -> Duration {
        self.address.map(|address| address.scale).unwrap_or_default().ms(real_ms)
    }

    /// Three tries, 3 to 6 s apart, but for what is not there. Each that fails is said as the runner says it.
    fn tried<T>(
        &self,
        trace: &Trace,
        what: &str,
        mut request: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, String> {
        let mut left = 2;
        loop {
            let refusal = match request() {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            let why = match &refusal {
                Refusal::Status { status, body, .. } => {
                    trace.complain(&format!("Http response code: {} from '{what}'", word(*status)));
                    trace.complain(body);
                    format!("Response status code does not indicate success: {status} ({}).", reason(*status))
                }
                Refusal::Broken(why) => why.clone(),
            };
            if left == 0 || refusal.status() == Some(404) {
                return Err(why);
            }
            left -= 1;
            std::thread::sleep(self.wait(4_500));
        }
    }
}

/// A status as .NET calls it.
fn word(status: u16) -> String {
    reason(status).replace(' ', "")
}

fn reason(status: u16) -> String {
    ureq::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map_or_else(|| status.to_string(), str::to_owned)
}

/// A client with the token from `--token`, or one fetched with `--pat`.
fn authorized(arguments: &Arguments, target: &Target, kind: &str) -> Result<Client, String> {
    let token = match (arguments.value("token"), arguments.value("pat")) {
        (Some(token), _) => token,
        (None, None) => arguments.required("token")?,
        (None, Some(pat)) => {
            let answer: Value = client(&target.api, "Bearer", &pat)
                .post(&format!("{}/actions/runners/{kind}", target.scope), None::<&()>)
                .map_err(|refusal| refusal.to_string())?;
            answer["token"].as_str().unwrap_or_default().to_owned()
        }
    };
    Ok(client(&target.api, "RemoteAuth", &token))
}

/// Registers the agent and writes its files.
pub(super) fn configure(root: &Path, trace: &Trace, arguments: &Arguments) -> i32 {
    let names = names(root, arguments);
    chatter(trace, Phase::Configure, &names);
    banner(trace);
    chatter(trace, Phase::Configuring, &names);
    heading(trace, "Authentication");
    crate::agent::configure(Kind::GitHub, root, trace, || register(root, trace, arguments, &names))
}

/// What is told of the step is filled with what it is called with.
fn names(root: &Path, arguments: &Arguments) -> Names {
    let value = |name: &str| arguments.value(name).unwrap_or_default();
    let url = value("url");
    Names {
        name: arguments.value("name").unwrap_or_else(host_name),
        forge: side::origin(&url).to_owned(),
        url,
        labels: value("labels"),
        by_token: true,
        once: arguments.flag("ephemeral"),
        ..Names::of(root, &root.join(work(arguments)))
    }
}

fn work(arguments: &Arguments) -> String {
    arguments.value("work").unwrap_or_else(|| "_work".into())
}

fn target(url: &str) -> Result<Target, String> {
    Target::of(url)
        .ok_or_else(|| format!("Invalid configuration provided for url: {url}. Terminating unattended configuration."))
}

/// Where the services are: the first request of a registration and of a removal.
fn tenant(trace: &Trace, target: &Target, client: &Client, url: &str, event: &str) -> Result<Value, String> {
    let ask = json!({"url": url, "runner_event": event});
    let what = format!("POST {}/actions/runner-registration", target.api);
    target.tried(trace, &what, || client.post("actions/runner-registration", Some(&ask)))
}

fn register(root: &Path, trace: &Trace, arguments: &Arguments, names: &Names) -> Result<(), String> {
    let tell = |phase| chatter(trace, phase, names);
    let url = arguments.required("url")?;
    let target = target(&url)?;
    let client = authorized(arguments, &target, "registration-token")?;
    let tenant = tenant(trace, &target, &client, &url, "register")?;
    tell(Phase::Authenticating);
    success(trace, "Connected to GitHub");
    tell(Phase::Connected);
    heading(trace, "Runner Registration");
    let scope = &target.scope;
    let get = |path: String| {
        let what = format!("GET {}/{path}", target.api);
        target.tried(trace, &what, || client.get::<Value>(&path)).map(Option::unwrap_or_default)
    };
    let groups = get(format!("{scope}/actions/runner-groups"))?;
    let (group_id, group) = group(&groups, arguments.value("runnergroup").as_deref())?;
    let name = arguments.value("name").unwrap_or_else(host_name);
    let known = get(format!("{scope}/actions/runners?name={name}"))?;
    let old = known["runners"].as_array().into_iter().flatten().find(|r| r["name"] == name.as_str());
    let replaces = old.is_some() && arguments.flag("replace");
    let mut ask = json!({
        "url": url,
        "group_id": group_id,
        "name": name,
        "version": crate::AGENT_VERSION,
        "updates_disabled": arguments.flag("disableupdate"),
        "ephemeral": arguments.flag("ephemeral"),
        "labels": labels(arguments),
        "public_key": public_key(),
    });
    if let Some(old) = old.filter(|_| replaces) {
        ask["runner_id"] = old["id"].clone();
        ask["replace"] = json!(true);
    }
    let what = format!("POST {}/actions/runners/register", target.api);
    let answer: Value = target.tried(trace, &what, || client.post("actions/runners/register", Some(&ask)))?;
    tell(Phase::Registering);
    success(trace, if replaces { "Successfully replaced the runner" } else { "Runner successfully added" });
    tell(Phase::Registered);
    heading(trace, "Runner settings");
    let services = (&answer, tenant["url"].as_str().unwrap_or_default());
    write_settings(root, arguments, services, &group, &url).map_err(|error| error.to_string())?;
    tell(Phase::Settings);
    success(trace, "Settings Saved.");
    tell(Phase::ConfigureEnd);
    Ok(())
}

/// The id and the name of the group asked for, or of the default one.
fn group(groups: &Value, wanted: Option<&str>) -> Result<(u64, String), String> {
    let all = groups["runner_groups"].as_array().into_iter().flatten();
    let found = all.clone().find(|group| match wanted {
        Some(wanted) => group["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(wanted)),
        None => group["default"] == true,
    });
    let found = found.and_then(|group| Some((group["id"].as_u64()?, group["name"].as_str()?.to_owned())));
    let missing = || {
        let wanted = wanted.unwrap_or("Default");
        format!("Could not find any self-hosted runner group named \"{wanted}\".")
    };
    found.ok_or_else(missing)
}

/// The public half, as .NET writes it.
fn public_key() -> String {
    let [modulus, exponent] = credential::public_key();
    format!("<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>{exponent}</Exponent></RSAKeyValue>")
}

fn labels(arguments: &Arguments) -> Value {
    let system = if arguments.flag("no-default-labels") { vec![] } else { vec!["self-hosted", "Linux", ARCH_LABEL] };
    let system = system.into_iter().map(|name| json!({"id": 0, "name": name, "type": "system"}));
    let own = arguments.value("labels").unwrap_or_default();
    let own = own.split(',').map(str::trim).filter(|name| !name.is_empty());
    system.chain(own.map(|name| json!({"id": 0, "name": name, "type": "user"}))).collect()
}

fn write_settings(
    root: &Path,
    arguments: &Arguments,
    (answer, server): (&Value, &str),
    group: &str,
    url: &str,
) -> io::Result<()> {
    let authorization = &answer["authorization"];
    let settings = json!({
        "agentId": answer["id"],
        "agentName": answer["name"],
        "poolId": 1,
        "poolName": group,
        "disableUpdate": arguments.flag("disableupdate"),
        "ephemeral": arguments.flag("ephemeral"),
        "serverUrl": server,
        "gitHubUrl": url,
        "workFolder": work(arguments),
        "useV2Flow": true,
        "useRunnerAdminFlow": true,
        "serverUrlV2": authorization["server_url"],
    });
    let credentials = json!({
        "scheme": "OAuth",
        "data": {
            "clientId": authorization["client_id"],
            "authorizationUrl": authorization["authorization_url"],
            "requireFipsCryptography": "False",
        },
    });
    let key = crate::forge::runner_key();
    let files =
        [(".credentials_rsaparams", &key, 0o600), (".credentials", &credentials, 0o644), (".runner", &settings, 0o644)];
    write_json(root, &files)?;
    let service = root.join("svc.sh");
    fs::write(&service, "#!/bin/bash\necho 'the stand-in has no service' >&2\nexit 1\n")?;
    fs::set_permissions(&service, fs::Permissions::from_mode(0o755))
}

/// Takes the registration away, and the files.
pub(super) fn remove(root: &Path, trace: &Trace, arguments: &Arguments) -> i32 {
    heading(trace, "Runner removal");
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
    forget(root, trace)
}

/// Makes a runner unconfigured. What cannot be deleted is said, and stays.
pub(super) fn forget(root: &Path, trace: &Trace) -> i32 {
    for name in [".credentials", ".credentials_rsaparams", ".runner"] {
        match deleted(&root.join(name)) {
            Ok(true) if name != ".credentials_rsaparams" => success(trace, &format!("Removed {name}")),
            Ok(true) => {}
            Ok(false) => trace.info("ConfigurationManager", &format!("Does not exist. Skipping {name}")),
            Err(why) => trace.complain(&why),
        }
    }
    0
}

fn remove_at_forge(trace: &Trace, arguments: &Arguments, settings: &Value) -> Result<(), String> {
    // A JIT configuration has no address to remove from (AR#2920).
    let url = settings["gitHubUrl"].as_str().ok_or("Value cannot be null. (Parameter 'url')")?;
    let target = target(url)?;
    let client = authorized(arguments, &target, "remove-token")?;
    let failed = |why: String| format!("Failed: Removing runner from the server\n{why}");
    tenant(trace, &target, &client, url, "remove").map_err(failed)?;
    let path = format!("{}/actions/runners/{}", target.scope, number(settings, "agentId"));
    match target.tried(trace, &format!("DELETE {}/{path}", target.api), || client.delete(&path)) {
        Ok(()) => {
            success(trace, "Runner removed successfully");
            Ok(())
        }
        Err(why) => Err(failed(why)),
    }
}
