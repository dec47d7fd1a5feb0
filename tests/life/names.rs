//! Names of hosts: what `/etc/hosts` says, and name servers that do not answer.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use oscr_sim::agent::Kind;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each, write};

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

/// A name server that knows one name, or fails for all; and what it was asked for.
fn name_server(known: Option<(&'static str, Ipv4Addr)>) -> (Ipv4Addr, Arc<Mutex<Vec<String>>>) {
    let socket = silent_name_server();
    let std::net::IpAddr::V4(own) = socket.local_addr().expect("it is bound").ip() else { unreachable!() };
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    // Ends with the test program.
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
            let query = question.queries[0].clone();
            heard.lock().expect("nobody panicked").push(query.name.to_ascii());
            let mut answer = question.into_response();
            answer.metadata.recursion_available = true;
            match known {
                None => answer.metadata.response_code = ResponseCode::ServFail,
                Some((name, address)) if query.name.to_ascii() == format!("{name}.") => {
                    if query.query_type == RecordType::A {
                        answer.add_answer(Record::from_rdata(query.name, 60, RData::A(A(address))));
                    }
                }
                Some(_) => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            let _ = socket.send_to(&answer.to_vec().expect("a message"), from);
        }
    });
    (own, asked)
}

#[test]
fn name_servers_are_asked_in_their_order_and_what_cannot_be_read_is_passed_over() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        let std::net::IpAddr::V4(address) = forge.address().ip() else { unreachable!() };
        let (fails, failed) = name_server(None);
        let (knows, _) = name_server(Some(("our_forge.example", address)));
        let conf = format!("nonsense\nsearch b..ad example\nnameserver x\nnameserver {fails}\nnameserver {knows}\n");
        write(&container.path("resolv.conf"), &conf, 0o644);
        container.mount(&container.path("resolv.conf"), Path::new("/etc/resolv.conf"));
        let url = forge.url().replace(&address.to_string(), "our_forge.example");
        match kind {
            Kind::GitHub => container.set("GITHUB_HOST", &url),
            Kind::Azure => container.set("ADO_ORG_URL", &format!("{url}/acme")),
        }
        container.start();
        forge.listening();
        assert!(!failed.lock().expect("nobody panicked").is_empty(), "the first was asked");
        container.stop();
    });
}
