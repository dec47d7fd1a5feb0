//! Files and servers, and what both the C library's `getent` and we make of them.

mod rows;
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rows::TABLE;
use server::serve;

/// Set in the namespaces that the table is tried in.
const INSIDE: &str = "OSCR_TEST_RESOLVER_INSIDE";
const THIS: &str = "resolver::against_getent::files_and_servers_mean_what_they_mean_to_the_c_library";

/// Where servers listen. Nobody does at 127.0.0.9.
const SERVERS: [&str; 5] = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"];

/// Each row in one world: `getent` (ahosts) and we read the same files there and ask the same servers.
///
/// Not in the table: musl, which asks all servers at once and takes the first answer, so that it may find what either of two
/// servers knows; `nsswitch.conf` and `host.conf`, which are Debian's here (`files dns`, `multi on`) and are not read by us.
#[test]
fn files_and_servers_mean_what_they_mean_to_the_c_library() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let this = std::env::current_exe().unwrap();
    command.args(["--mount", "--net", "--"]).arg(this).args([THIS, "--exact", "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("unshare of util-linux");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn run(command: &str) {
    assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
}

fn inside() {
    // Addresses beyond the loopback's, or the C library takes it that there is no network.
    run(
        "mount -t tmpfs none /etc; ip link set lo up; ip address add 10.9.9.9/32 dev lo; ip address add fd00::9/128 dev lo nodad; \
         ip address add fe80::53/64 dev lo nodad; echo hosts: files dns >/etc/nsswitch.conf; echo multi on >/etc/host.conf",
    );
    let zones = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    for address in SERVERS.into_iter().chain(["fe80::53%lo"]) {
        serve(address, &zones, &asked);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut wrong = Vec::new();
    for row in TABLE {
        zones.lock().unwrap().clear();
        zones.lock().unwrap().extend(row.zones);
        fs::write("/etc/resolv.conf", row.conf).unwrap();
        fs::write("/etc/hosts", row.hosts).unwrap();
        let getent = Command::new("getent").args(["ahosts", row.name]).output().expect("getent of libc-bin");
        let lines = String::from_utf8_lossy(&getent.stdout).into_owned();
        let theirs: BTreeSet<String> =
            lines.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
        asked.lock().unwrap().clear();
        let ours = runtime.block_on(super::addresses(row.name));
        let found: BTreeSet<String> = ours.clone().unwrap_or_default().iter().map(IpAddr::to_string).collect();
        let set = |wanted: &[&str]| wanted.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
        let asked = asked.lock().unwrap();
        if found != set(row.found) || theirs != set(row.theirs.unwrap_or(row.found)) {
            wrong.push(format!(
                "{}: wanted {:?}, getent {theirs:?}, we {ours:?}, asked {asked:?}",
                row.about, row.found
            ));
        }
        for server in row.unasked.iter().filter(|server| asked.contains(**server)) {
            wrong.push(format!("{}: {server} was asked", row.about));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
