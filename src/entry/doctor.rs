//! `oscr-entry doctor`: everything that a runner of this configuration needs, looked at in the order in which it needs it.
//!
//! Nothing is changed at the forge. Each line says what was found, and how to mend it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::prctl;

use super::by_proxy::{by_proxy, remarks};
use super::docker_findings;
use super::judge::{Judged, judge};
use super::proof::{invisible, out_of_reach};
use super::silent::configure_in_time;
use super::space::space;
use super::update;
use crate::agent::directory;
use crate::agent::worker::WorkerWatch;
use crate::config::{Common, Environment, Network, Problem};
use crate::encode::seconds;
use crate::init::account::Account;
use crate::log;
use crate::os::Identity;
use crate::provider::finding::{Finding, Verdict};
use crate::provider::http::{Obstacle, Reached};
use crate::provider::{Fault, Forges, Provider};
use crate::resource::Locks;
use crate::workspace::space::{shortage, shown};
use crate::workspace::{RootsLock, Spare, wipe};

/// A clock that differs by more makes tokens fail; by more than the first number of seconds it is worth a word.
const SKEW_REMARKABLE: u64 = 30;
const SKEW_HARMFUL: u64 = 120;
/// How long the agent may take to say its version.
const AGENT: Duration = Duration::from_secs(30);
/// After so many days there is most likely a next release that is 30 days old.
const HUNGRY: u64 = 55;
/// With less memory not even the agent works well.
const LITTLE_MEMORY: u64 = 512 << 20;

/// Looks at everything, and gives 1 if something must be mended.
///
/// # Errors
/// When standard output is gone.
pub fn doctor(forges: Forges, out: &mut dyn Write) -> io::Result<ExitCode> {
    // The secrets are read here too.
    let _ = prctl::set_dumpable(false);
    let environment = Environment::new(std::env::vars_os());
    let mut worst = Verdict::Ok;
    let mut failed = 0;
    let mut say = |finding: Finding| {
        worst = worst.max(finding.verdict);
        failed += usize::from(finding.verdict == Verdict::Fail);
        writeln!(out, "{}", log::redacted(&finding.to_string()))?;
        out.flush()
    };
    match configure_in_time(forges, &environment) {
        Err(problems) => problems.into_iter().map(of_problem).try_for_each(&mut say)?,
        Ok(configured) => {
            let common = &configured.common;
            let Judged { account, identity, problems, warnings, .. } =
                judge(forges, &environment, common, configured.provider.as_ref());
            let scope = configured.provider.scope();
            if problems.is_empty() {
                say(Finding::ok("settings", format!("complete; registers with {scope}")))?;
            }
            problems.into_iter().map(of_problem).try_for_each(&mut say)?;
            warnings.into_iter().map(of_warning).try_for_each(&mut say)?;
            configured.warnings.iter().map(|words| Finding::warning("settings", words)).try_for_each(&mut say)?;
            remarks(&configured.notes).into_iter().try_for_each(&mut say)?;
            let version = version(common, configured.provider.as_ref(), &account, identity.as_ref());
            let remote = remote(common, configured.provider.as_ref(), version.as_ref().ok().map(String::as_str))?;
            remote.into_iter().try_for_each(&mut say)?;
            if let Err(finding) = version {
                say(finding)?;
            }
            say(worker(identity.as_ref()))?;
            say(age(common, configured.provider.as_ref()))?;
            hardware(common, identity.as_ref()).into_iter().try_for_each(&mut say)?;
            disk(common).into_iter().try_for_each(&mut say)?;
            cgroup(&common.places.cgroup()).into_iter().try_for_each(&mut say)?;
            let docker = docker_findings::examine(common, configured.provider.as_ref(), identity.as_ref())?;
            docker.into_iter().try_for_each(&mut say)?;
        }
    }
    let verdict = match worst {
        Verdict::Fail => format!("{failed} of these must be mended before a job can run."),
        Verdict::Warn => "Jobs can run; see the warnings.".to_owned(),
        Verdict::Ok | Verdict::Skip => "All is well.".to_owned(),
    };
    writeln!(out, "{verdict}")?;
    Ok(if worst == Verdict::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn of_problem(problem: Problem) -> Finding {
    Finding::fail("settings", format!("{}: {}", problem.setting, problem.what), problem.cure)
}

fn of_warning(warning: Problem) -> Finding {
    Finding::warn("settings", format!("{}: {}", warning.setting, warning.what), warning.cure)
}

/// The way to the forge, and what it says.
fn remote(common: &Common, provider: &dyn Provider, version: Option<&str>) -> io::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let url = provider.open_url();
        let reached = provider.http().reach(&url).await;
        let mut found = way(&common.network, &url, &reached);
        if reached.is_ok() {
            found.extend(provider.examine(version).await);
        } else {
            let why = "the forge was not reached";
            found.extend(["credential", "scope", "labels", "agent"].map(|topic| Finding::skip(topic, why)));
        }
        found
    }))
}

/// DNS, TLS, proxy and clock, as one request found them.
fn way(network: &Network, url: &str, reached: &Result<Reached, Obstacle>) -> Vec<Finding> {
    let parsed = reqwest::Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| url.host_str()).unwrap_or(url);
    let encrypted = url.starts_with("https://");
    let through = network.proxy_to(url);
    let skip = |topic| Finding::skip(topic, "the forge was not reached");
    let dns = match reached {
        Err(Obstacle::Name(why)) => Finding::fail(
            "dns",
            format!("{host} is not found: {why}"),
            match &through {
                Some((setting, proxy)) => {
                    format!("check the name in {setting} ({proxy}), and the container's name server")
                }
                None => "check the host's spelling and the container's name server (docker run --dns, dns: in Compose)"
                    .to_owned(),
            },
        ),
        Err(Obstacle::Client(_)) => skip("dns"),
        Err(Obstacle::Connection(why)) if through.is_none() => Finding::fail(
            "dns",
            format!("{host} has an address, but no connection comes about: {why}"),
            "check the firewall, or set HTTPS_PROXY if there is a proxy",
        ),
        Err(_) => Finding::ok("dns", format!("{host} or its proxy has an address")),
        Ok(reached) => {
            let peer = reached.peer.map(|peer| format!(" at {}", peer.ip())).unwrap_or_default();
            Finding::ok("dns", format!("{host} was reached{peer}"))
        }
    };
    let tls = match reached {
        Err(Obstacle::Client(Fault::Denied { what, cure })) => Finding::fail("tls", what, cure),
        Err(Obstacle::Client(fault)) => Finding::fault("tls", fault),
        Err(Obstacle::Trust { why, cure }) => Finding::fail("tls", format!("{host} cannot be trusted: {why}"), cure),
        Err(_) => skip("tls"),
        Ok(_) if encrypted => Finding::ok(
            "tls",
            match &network.ca_file {
                Some(file) => format!("trusted, by the system's certificates and {}", file.display()),
                None => "trusted, by the system's certificates".to_owned(),
            },
        ),
        Ok(_) => Finding::warn("tls", format!("{url} is not encrypted: tokens can be read on the way"), "use https://"),
    };
    let proxy = by_proxy(network, url, host, reached);
    let clock = match reached {
        Err(_) => skip("clock"),
        Ok(reached) => match reached.clock_offset {
            None => Finding::skip("clock", "the forge does not say what time it is"),
            Some(offset) => {
                let direction = if offset > 0 { "behind" } else { "ahead of" };
                let text = format!("this machine's clock is {} s {direction} the forge's", offset.unsigned_abs());
                let cure = "set the host's clock: timedatectl set-ntp true";
                match offset.unsigned_abs() {
                    skew if skew <= SKEW_REMARKABLE => Finding::ok("clock", text),
                    skew if skew <= SKEW_HARMFUL => Finding::warn("clock", text, cure),
                    _ => Finding::fail("clock", format!("{text}: tokens fail with misleading errors"), cure),
                }
            }
        },
    };
    vec![dns, tls, proxy, clock]
}

/// The agent's version, in its own words: whoever can say it has all its libraries.
fn version(
    common: &Common,
    provider: &dyn Provider,
    account: &Account,
    identity: Option<&Identity>,
) -> Result<String, Finding> {
    let facts = provider.agent();
    let cure = "use an image made for this CI_PROVIDER, with the libraries that the agent needs";
    let fail = |what: String| Finding::fail("agent", what, cure);
    let (in_use, _) = update::age(common, provider);
    directory::check(&in_use.place, facts.listener).map_err(|error| fail(error.to_string()))?;
    // It writes into its root, so it gets one, as for a job; and while it has it, PID 1 does not empty that place.
    let _held = RootsLock::below(&common.places.run()).hold();
    let name = format!("doctor-{}", std::process::id());
    let made = directory::make(&in_use.place, &common.places.agent_directories(), &name, &account.identity);
    let made = made.map_err(|error| fail(error.to_string()))?;
    let said = ask_version(&made, &made.join(facts.listener), account, identity);
    if wipe(&made, &Spare::default()).is_ok() {
        let _ = fs::remove_dir(&made);
    }
    said.map_err(|why| fail(format!("the {} cannot run here: {why}", facts.title)))
}

/// How old the agent is, and what is done about it.
fn age(common: &Common, provider: &dyn Provider) -> Finding {
    let topic = "age";
    let (_, age) = update::age(common, provider);
    let text = format!("the agent is {}; OSCR_AGENT_UPDATE is {}", age.shown(), age.update);
    let days = age.released_at().map(|at| seconds(SystemTime::now()).saturating_sub(at) / (24 * 60 * 60));
    let cure = "pull a newer image, or let OSCR_AGENT_UPDATE fetch a newer agent";
    if let Some(trouble) = age.trouble {
        return Finding::warn(topic, format!("{text}; the last fetch failed: {trouble}"), cure);
    }
    if provider.starves_old_agents() && days.is_some_and(|days| days > HUNGRY) {
        let text = format!("{text}; 30 days after the next release no jobs come, and nothing says so");
        return Finding::warn(topic, text, cure);
    }
    Finding::ok(topic, text)
}

fn ask_version(root: &Path, listener: &Path, account: &Account, identity: Option<&Identity>) -> Result<String, String> {
    let mut command = Command::new(listener);
    command.arg("--version").current_dir(root).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &account.home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(identity) = identity {
        command.gid(identity.gid.as_raw()).uid(identity.uid.as_raw());
    }
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let until = Instant::now() + AGENT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not say its version within {} s", AGENT.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let mut text = String::new();
    // A version fits into a pipe, so it did not have to wait for us; more than that is none.
    for stream in [
        child.stdout.take().map(|out| Box::new(out) as Box<dyn Read>),
        child.stderr.take().map(|err| Box::new(err) as _),
    ]
    .into_iter()
    .flatten()
    {
        let _ = stream.take(4096).read_to_string(&mut text);
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let version = first.chars().all(|c| c.is_ascii_digit() || c == '.') && !first.is_empty();
    match (status.success(), version) {
        (true, true) => Ok(first.to_owned()),
        _ => Err(format!("asked for its version it ended with {status} and said {first:?}")),
    }
}

/// Whether it can be told when a job runs.
fn worker(identity: Option<&Identity>) -> Finding {
    match invisible(identity) {
        Some(problem) => Finding::fail("worker", format!("{} {}", problem.setting, problem.what), problem.cure),
        None => Finding::ok("worker", format!("watched: {}", WorkerWatch::here())),
    }
}

/// The directory of locks, and who has what.
fn hardware(common: &Common, identity: Option<&Identity>) -> Vec<Finding> {
    let topic = "lock";
    let Some(hardware) = &common.hardware else {
        return vec![Finding::ok(topic, "no shared hardware is set (RUNNER_RESOURCE_ID)")];
    };
    let locks = match Locks::open(&hardware.place) {
        Ok(locks) => locks,
        Err(error) => return vec![Finding::fail(topic, error.to_string(), "see docs/shared-hardware.md")],
    };
    if let Some(identity) = identity {
        let problems = out_of_reach(&locks, hardware, identity);
        if !problems.is_empty() {
            return problems.into_iter().map(|problem| Finding::fail(topic, problem.what, problem.cure)).collect();
        }
    }
    let ids = hardware.wanted.ids();
    ids.iter()
        .map(|id| {
            let survey = locks.look(id);
            let (holder, waiting) = (survey.holder_line(), survey.queue.len());
            Finding::ok(topic, format!("{id} in {locks} is {holder}; {waiting} wait"))
        })
        .collect()
}

fn disk(common: &Common) -> Vec<Finding> {
    // Places that a start makes may not be there yet: their file system is the one above.
    let rooms = space(common).or_above().look();
    if let Some(why) = shortage(&rooms) {
        return vec![Finding::fail("disk", why, "docker system df shows what Docker keeps")];
    }
    rooms
        .iter()
        .map(|room| {
            let text = format!(
                "{} has {} free; a job is taken with {}",
                room.place.display(),
                shown(room.free),
                shown(room.least)
            );
            Finding::ok("disk", text)
        })
        .collect()
}

/// The limits of the container, by either version of the kernel's interface.
fn cgroup(place: &Path) -> Vec<Finding> {
    let topic = "cgroup";
    let read = |files: [&str; 2]| {
        let text = files.iter().find_map(|file| fs::read_to_string(place.join(file)).ok())?;
        Some(text.trim().to_owned())
    };
    let memory = read(["memory.max", "memory/memory.limit_in_bytes"]);
    let processes = read(["pids.max", "pids/pids.max"]);
    let (Some(memory), Some(processes)) = (memory, processes) else {
        return vec![Finding::skip(topic, format!("{} does not say what the limits are", place.display()))];
    };
    // The older interface says a number near the largest for none.
    let memory = memory.parse::<u64>().ok().filter(|bytes| *bytes < 1 << 60);
    let memory = match memory {
        None => Finding::warn(
            topic,
            "memory is not limited: a job can take all that the machine has",
            "set OSCR_MEMORY in .env, or docker run --memory",
        ),
        Some(bytes) if bytes < LITTLE_MEMORY => Finding::warn(
            topic,
            format!("memory is limited to {}: the agent alone needs some hundred MiB", shown(bytes)),
            "raise OSCR_MEMORY, or docker run --memory",
        ),
        Some(bytes) => Finding::ok(topic, format!("memory is limited to {}", shown(bytes))),
    };
    let processes = match processes.parse::<u64>() {
        Ok(most) => Finding::ok(topic, format!("processes are limited to {most}")),
        Err(_) => Finding::warn(
            topic,
            "processes are not limited: a fork bomb takes the machine down",
            "set OSCR_PIDS in .env, or docker run --pids-limit 4096",
        ),
    };
    vec![memory, processes]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: &[(&str, &str)]) -> Vec<(Verdict, String)> {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        cgroup(directory.path()).into_iter().map(|finding| (finding.verdict, finding.what)).collect()
    }

    #[test]
    fn limits_are_read_by_either_interface() {
        let verdicts = |files: &[(&str, &str)]| limits(files).into_iter().map(|found| found.0).collect::<Vec<_>>();
        assert_eq!(verdicts(&[("memory.max", "4294967296\n"), ("pids.max", "4096\n")]), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(&[("memory.max", "max\n"), ("pids.max", "max\n")]), [Verdict::Warn, Verdict::Warn]);
        assert_eq!(verdicts(&[("memory.max", "104857600\n"), ("pids.max", "9\n")]), [Verdict::Warn, Verdict::Ok]);
        let older = [("memory/memory.limit_in_bytes", "9223372036854771712\n"), ("pids/pids.max", "100\n")];
        assert_eq!(verdicts(&older), [Verdict::Warn, Verdict::Ok]);
        assert_eq!(verdicts(&[]), [Verdict::Skip]);
    }

    #[test]
    fn each_obstacle_on_the_way_has_its_own_line() {
        let proxied = Network { https_proxy: Some("http://me:secret@proxy:3128".to_owned()), ..Network::default() };
        let plain = Network::default();
        let url = "https://api.github.com";
        let topic = |network: &Network, obstacle: Obstacle| {
            let found = way(network, url, &Err(obstacle));
            assert!(found.iter().all(|finding| !finding.to_string().contains("secret")), "{found:?}");
            let failed: Vec<&str> =
                found.iter().filter(|finding| finding.verdict == Verdict::Fail).map(|finding| finding.topic).collect();
            failed.join(" ")
        };
        assert_eq!(topic(&plain, Obstacle::Name(String::new())), "dns");
        assert_eq!(topic(&plain, Obstacle::Connection(String::new())), "dns");
        assert_eq!(topic(&proxied, Obstacle::Connection(String::new())), "proxy");
        assert_eq!(topic(&plain, Obstacle::Trust { why: String::new(), cure: String::new() }), "tls");
        let reached = |clock_offset| Ok(Reached { peer: None, clock_offset });
        for (offset, verdict) in [
            (Some(0), Verdict::Ok),
            (Some(-30), Verdict::Ok),
            (Some(100), Verdict::Warn),
            (Some(-4000), Verdict::Fail),
            (None, Verdict::Skip),
        ] {
            let found = way(&plain, url, &reached(offset));
            assert_eq!(found[3].verdict, verdict, "{:?}", found[3]);
        }
        let unused = Network { http_proxy: Some("http://proxy".to_owned()), ..Network::default() };
        assert_eq!(way(&unused, url, &reached(None))[2].verdict, Verdict::Warn);
    }
}
