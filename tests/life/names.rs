//! Names of hosts: what `/etc/hosts` says, and name servers that do not answer.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, write};

/// A name server that hears everything and says nothing.
fn silent_name_server() -> UdpSocket {
    let [.., high, low] = std::process::id().to_be_bytes();
    // Tests of the same process look for an address that is free.
    let free = (1..255).find_map(|n| UdpSocket::bind((Ipv4Addr::new(127, high, low, n), 53)).ok());
    free.expect("port 53 of a loopback address")
}

/// A container that knows the forge by another name, with a name server that does not answer.
fn asks_in_vain<'f>(forge: &'f Forge, hosts: &str, server: &UdpSocket) -> Container<'f> {
    let mut container = Container::new(forge);
    let address = server.local_addr().expect("it is bound").ip();
    write(&container.path("hosts"), hosts, 0o644);
    write(&container.path("resolv.conf"), &format!("nameserver {address}\n"), 0o644);
    for file in ["hosts", "resolv.conf"] {
        container.mount(&container.path(file), &Path::new("/etc").join(file));
    }
    container.set("GITHUB_HOST", &forge.url().replace(&forge.address().ip().to_string(), "forge.example"));
    container
}

#[test]
fn a_name_of_the_hosts_file_needs_no_name_server() {
    let (forge, server) = (Forge::start(), silent_name_server());
    let hosts = format!("{} forge.example\n", forge.address().ip());
    let mut container = asks_in_vain(&forge, &hosts, &server);
    container.start();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    server.set_nonblocking(true).expect("a socket");
    assert!(server.recv(&mut [0; 512]).is_err(), "nobody was asked for what the file says");
}

#[test]
fn a_name_server_that_does_not_answer_is_named_as_the_cause() {
    let (forge, server) = (Forge::start(), silent_name_server());
    let mut container = asks_in_vain(&forge, "127.0.0.1 localhost\n", &server);
    container.start();
    container.wait_line("no name server of /etc/resolv.conf answered the lookup of forge.example");
}
