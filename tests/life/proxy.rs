//! A proxy that wants to know who asks.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT};

/// The user `me` and the password `pass@word`, as a proxy is told of them.
const KNOWN: &str = "proxy-authorization: basic bwu6cgfzc0b3b3jk";
/// As they stand in an address.
const IN_ADDRESS: &str = "me:pass%40word";

/// A proxy that leads everything to the forge, if it is asked by whom it knows.
fn proxy(forge: &Forge) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, to) = (listener.local_addr().expect("it is bound"), forge.address());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || pass(stream, to));
        }
    });
    address
}

/// One connection; whatever breaks ends it.
fn pass(mut stream: TcpStream, to: SocketAddr) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    // Base64 tells capitals from others, but no other user of these tests is so close to this one.
    if !String::from_utf8_lossy(&head).to_lowercase().lines().any(|line| line == KNOWN) {
        return stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let mut forge = TcpStream::connect(to).ok()?;
    if head.starts_with(b"CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    } else {
        forge.write_all(&head).ok()?;
    }
    let (mut from, mut back) = (stream.try_clone().ok()?, forge.try_clone().ok()?);
    thread::spawn(move || std::io::copy(&mut back, &mut stream).and_then(|_| stream.shutdown(Shutdown::Write)));
    std::io::copy(&mut from, &mut forge).ok()?;
    forge.shutdown(Shutdown::Write).ok()
}

/// Behind such a proxy, where nothing else knows the forge's name.
fn behind(container: &mut Container<'_>, forge: &Forge, setting: &str) {
    let far = container.setting(setting).replace(&forge.address().ip().to_string(), "forge.example");
    container.set(setting, &far);
    container.set("HTTP_PROXY", &format!("http://{IN_ADDRESS}@{}", proxy(forge)));
}

#[test]
fn azures_agent_asks_a_proxy_with_the_user_and_password_of_its_address_and_publishes_none_of_it() {
    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    behind(&mut container, &forge, "ADO_ORG_URL");
    container.start();
    forge.listening();
    let published = forge.runners().remove(0).capabilities.system;
    for (name, value) in &published {
        assert!(!name.to_lowercase().contains("proxy"), "{name}: {published:?}");
        assert!(!value.contains("word") && !value.contains("forge.example:"), "{name}: {published:?}");
    }
    let job = forge.wait_job(forge.job("env | sort"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let address = container.setting("HTTP_PROXY").replace(&format!("{IN_ADDRESS}@"), "");
    assert!(job.log.contains(&format!("VSTS_HTTP_PROXY={address}\n")), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    let told: Vec<String> = container.lines().into_iter().filter(|line| line.contains("pass@word")).collect();
    assert!(told.is_empty(), "{told:#?}");
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn githubs_runner_asks_a_proxy_with_the_user_and_password_of_its_address() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    behind(&mut container, &forge, "GITHUB_HOST");
    container.start();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}
