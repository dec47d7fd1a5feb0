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
    if head.starts_with(b"POST ") && !String::from_utf8_lossy(&head).to_lowercase().contains("\r\ncontent-length: ") {
        return stream.write_all(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n").ok();
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
    container.set("NO_PROXY", "10.0.0.0/8,other.example:443");
    container.start();
    forge.listening();
    let published = forge.runners().remove(0).capabilities.system;
    for (name, value) in &published {
        assert!(!name.to_lowercase().contains("proxy"), "{name}: {published:?}");
        assert!(!value.contains("word") && !value.contains("forge.example:"), "{name}: {published:?}");
    }
    let job = forge.wait_job(forge.job("env | sort; cat \"$AGENT_HOMEDIRECTORY/.proxybypass\""), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    // As patterns, what it would not understand in the variable.
    for pattern in [r"//10\.\d+\.\d+\.\d+$", r"^https://other\.example$"] {
        assert!(job.log.contains(&format!("{pattern}\n")), "{pattern}: {}", job.log);
    }
    assert!(job.log.contains("no_proxy=10.0.0.0/8,other.example:443\n"), "{}", job.log);
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

/// What `doctor` says in its lines about proxies, with their verdicts.
fn doctors_words(container: &Container<'_>) -> (i32, String) {
    let (code, out, _) = container.ask(&["doctor"]);
    let about = |line: &&str| line.split_whitespace().nth(1) == Some("proxy");
    (code, out.lines().filter(about).collect::<Vec<_>>().join("\n"))
}

#[test]
fn doctor_says_whether_this_forge_is_asked_by_way_of_a_proxy() {
    for azure in [false, true] {
        let forge = Forge::start();
        let (mut container, setting) = match azure {
            true => (Container::azure(&forge), "ADO_ORG_URL"),
            false => (Container::new(&forge), "GITHUB_HOST"),
        };
        let near = container.setting(setting).to_owned();
        behind(&mut container, &forge, setting);
        let proxy = container.setting("HTTP_PROXY").replace(IN_ADDRESS, "***");
        let (_, said) = doctors_words(&container);
        assert!(
            said.starts_with("ok") && said.contains(&format!("forge.example is asked by way of {proxy} (HTTP_PROXY)")),
            "{said}"
        );
        // Its own machine, whatever is set.
        container.set(setting, &near);
        let (_, said) = doctors_words(&container);
        assert!(said.starts_with("ok") && said.contains("is this machine, and is asked without a proxy"), "{said}");
        container.set(setting, &near.replace(&forge.address().ip().to_string(), "forge.example"));
        container.set("NO_PROXY", "other.example, .example:80, 2001:db8::/32");
        let (code, said) = doctors_words(&container);
        assert!(said.contains("forge.example is asked without a proxy: .example:80 in NO_PROXY is for it"), "{said}");
        assert!(said.contains("warn") && said.contains("2001:db8::/32"), "{said}");
        assert_eq!(code, 1, "nothing knows its name");
    }
}

#[test]
fn doctor_tells_what_answers_in_the_forges_place() {
    for (answer, words) in [
        ("407 Who", "wants to know who asks (407)"),
        ("403 No", "something that is not forge.example answers in its place: 403 with a page for people, \"Blocked\""),
        ("200 OK", "something that is not forge.example answers in its place: 200 with a page for people, \"Blocked\""),
    ] {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        behind(&mut container, &forge, "GITHUB_HOST");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        container.set("HTTP_PROXY", &format!("http://{}", listener.local_addr().expect("it is bound")));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let page = "<html><title>Blocked</title></html>";
                let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
            }
        });
        let (code, said) = doctors_words(&container);
        assert_eq!(code, 1);
        assert!(said.starts_with("FAIL") && said.contains(words), "{said}");
    }
}

#[test]
fn a_list_in_both_cases_is_no_fault_and_what_the_agent_passes_over_is_said() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    behind(&mut container, &forge, "GITHUB_HOST");
    container.set("NO_PROXY", "10.0.0.0/8,b.example");
    container.set("no_proxy", "b.example,10.0.0.0/8");
    let notes = ["no_proxy is used: NO_PROXY says something else", "GitHub's runner passes over 10.0.0.0/8,"];
    let (code, out, error) = container.ask(&["check"]);
    assert_eq!(code, 0, "{error}");
    assert!(notes.iter().all(|note| out.contains(note)), "{out}");
    container.start();
    notes.iter().for_each(|note| drop(container.wait_line(note)));
    let job = forge.wait_job(forge.job("env"), LIMIT);
    for name in ["NO_PROXY", "no_proxy"] {
        assert!(job.log.contains(&format!("{name}=b.example,10.0.0.0/8\n")), "{}", job.log);
    }
}

#[test]
fn a_proxy_that_cannot_be_used_is_refused_before_anything_is_asked() {
    for (setting, address, words) in [
        ("HTTP_PROXY", "http://me:hidden#word@proxy:3128", "%23 for #"),
        ("https_proxy", "http://me:hidden@word@proxy:3128", "%40 for @"),
        ("HTTPS_PROXY", "http://me:hidden/word@proxy:3128", "%2F for /"),
        ("HTTPS_PROXY", "socks5://me:hidden-word@proxy:1080", "SOCKS"),
        ("HTTP_PROXY", "http://me:hidden-word@", "names no host"),
        ("HTTP_PROXY", "http://me:hidden-word@proxy:70000", "no port"),
        ("VSTS_HTTP_PROXY", "http://me:hidden-word@:3128", "names no host"),
    ] {
        let forge = Forge::start();
        let azure = setting.starts_with("VSTS");
        let mut container = if azure { Container::azure(&forge) } else { Container::new(&forge) };
        container.set(setting, address);
        let (code, out, error) = container.ask(&["check"]);
        assert_eq!(code, 78, "{address}");
        container.start();
        assert_eq!(container.exit_code(), 78, "{address}");
        let said = container.lines().join("\n");
        for text in [&error, &said] {
            assert!(text.contains(words), "{address}: {text}");
            assert!(!text.contains("hidden") && !out.contains("hidden"), "{address}: {text}");
        }
        assert!(forge.calls().is_empty(), "{:?}", forge.calls());
    }
}
