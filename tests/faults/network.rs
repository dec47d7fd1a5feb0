//! Faults between us and the forge: names, ports, proxies, TLS, and servers that are no forge.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::harness::{Container, Forge, write};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_denied, be_a_principal, first_request, listens, restart};

/// What answers at the forge's address.
type Answer = fn(TcpStream);

/// A server that is no forge, and how often it was asked.
struct Impostor {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Impostor {
    fn start(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, answer) = (Arc::clone(&asked), Arc::new(answer));
        // Ends with the test program; its port is nobody else's until then.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, asked }
    }
}

/// Reads the request, as far as it comes at once.
fn request(stream: &mut impl Read) {
    let _ = stream.read(&mut [0; 4096]);
}

fn say(stream: &mut impl Write, text: &str) {
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}

/// Writes a byte now and then, until nobody reads any more.
fn trickle(stream: &mut impl Write) {
    while stream.write_all(b" ").and_then(|()| stream.flush()).is_ok() {
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Name, what answers, words that the line must have.
const PLAIN: [(&str, Answer, &[&str]); 6] = [
    (
        "the server accepts and says nothing",
        |stream| {
            std::thread::sleep(Duration::from_secs(120));
            drop(stream);
        },
        &["timed out"],
    ),
    (
        "the answer comes a byte at a time",
        |mut stream| {
            request(&mut stream);
            say(&mut stream, "HTTP/1.1 201 Created\r\ncontent-length: 100000\r\n\r\n{");
            trickle(&mut stream);
        },
        &["timed out"],
    ),
    (
        "something that is not HTTP answers",
        |mut stream| {
            request(&mut stream);
            say(&mut stream, "SSH-2.0-OpenSSH_9.2\r\n");
        },
        &["invalid HTTP"],
    ),
    (
        "the answer never ends",
        |mut stream| {
            request(&mut stream);
            say(&mut stream, "HTTP/1.1 201 Created\r\n\r\n");
            while stream.write_all(&[b' '; 65536]).is_ok() {}
        },
        &["answered with more than"],
    ),
    (
        "headers without end",
        |mut stream| {
            request(&mut stream);
            say(&mut stream, "HTTP/1.1 201 Created\r\n");
            while stream.write_all(b"x-more: and more, and more, and more, and more, and more\r\n").is_ok() {}
        },
        &["127.0.0.1"],
    ),
    ("the connection is closed at once", drop, &["127.0.0.1"]),
];

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/certificates").join(name)
}

/// Serves TLS with a certificate of ours; what is asked gets an answer without sense, because nobody should get so far.
fn tls(name: &'static str, success: &'static str) -> impl Fn(TcpStream) + Send + Sync {
    // Fails only when there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_file(certificate(name)).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificate("leaf.key")).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let config = Arc::new(config.expect("they belong together"));
    move |mut stream| {
        let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
        let mut stream = rustls::Stream::new(&mut connection, &mut stream);
        request(&mut stream);
        say(&mut stream, &format!("HTTP/1.1 {success}\r\ncontent-length: 2\r\n\r\n{{}}"));
    }
}

/// Name, certificate, what is named in `OSCR_CA_FILE`, words that the line must have.
type Tls = (&'static str, &'static str, Option<&'static str>, &'static [&'static str]);

const TLS: [Tls; 8] = [
    ("TLS: an authority that nobody trusts", "good.pem", None, &["nobody whom this image trusts", "OSCR_CA_FILE"]),
    ("TLS: an expired certificate", "expired.pem", Some("ca.pem"), &["expired on 2020-", "clock"]),
    ("TLS: a certificate that is not valid yet", "early.pem", Some("old-ca.pem"), &["not valid before 2125-", "clock"]),
    ("TLS: another server's certificate", "other.pem", Some("ca.pem"), &["not valid for this host, but for"]),
    (
        "TLS: a certificate without a host",
        "without-names.pem",
        Some("old-ca.pem"),
        &["names no host", "subjectAltName"],
    ),
    ("TLS: a certificate signed by itself", "own.pem", None, &["signed by itself", "OSCR_CA_FILE"]),
    (
        "TLS: a certificate signed by itself and named in OSCR_CA_FILE, of no forge",
        "own.pem",
        Some("own-trusted.pem"),
        &["not the expected JSON"],
    ),
    ("TLS: a trusted server that is no forge", "good.pem", Some("ca.pem"), &["not the expected JSON"]),
];

const MUST: &str =
    "`backing-off`: one line that names it, healthy at first, tried again ever more slowly; a stop ends it at once";

/// The client is the same for both forges: here is what is different about their addresses, and a little of the rest.
const AT_AZURE_TOO: [&str; 6] = [
    "something that is not HTTP answers",
    "the connection is closed at once",
    "TLS: an authority that nobody trusts",
    "TLS: a certificate signed by itself",
    "TLS: a certificate signed by itself and named in OSCR_CA_FILE, of no forge",
    "TLS: a trusted server that is no forge",
];

pub fn rows(kind: Kind) -> Vec<Row> {
    let step = first_request(kind).step;
    let mut rows = without_an_answer(kind, step);
    rows.extend(PLAIN.map(|(name, answer, words)| {
        Row::new(kind, step, name, MUST, move |forge, container| {
            let server = Impostor::start(answer);
            backs_off(forge, container, step, &format!("http://{}", server.address), words);
            assert!(server.asked.load(Ordering::Relaxed) <= 4, "{}", server.asked.load(Ordering::Relaxed));
        })
    }));
    rows.extend(TLS.map(|tls| untrusted(kind, step, tls)));
    match kind {
        Kind::GitHub => rows.extend(proxies()),
        Kind::Azure => {
            rows.retain(|row| {
                row.fault.contains("refused") || row.fault.contains("DNS") || AT_AZURE_TOO.contains(&row.fault.as_str())
            });
            rows.extend(without_an_answer(kind, Step::Principal));
            rows.push(untrusted(kind, Step::Principal, TLS[0]));
        }
    }
    rows.push(wants_a_password(kind, step));
    rows.push(no_certificates(kind));
    rows.extend(tunnels(kind, step));
    rows
}

/// Nobody is there.
fn without_an_answer(kind: Kind, step: Step) -> Vec<Row> {
    vec![
        Row::new(kind, step, "DNS: a name that does not exist", MUST, move |forge, container| {
            backs_off(forge, container, step, "http://no-such-forge.invalid", &["no-such-forge.invalid"]);
        }),
        Row::new(kind, step, "DNS: every name server fails", MUST, move |forge, container| {
            asks(container, &[name_server(Some(SERVFAIL)), name_server(Some(SERVFAIL))]);
            backs_off(forge, container, step, "http://forge.example", &["forge.example", "SERVFAIL"]);
        }),
        Row::new(kind, step, "DNS: no name server answers", MUST, move |forge, container| {
            asks(container, &[name_server(None), name_server(None)]);
            let words = ["no name server of /etc/resolv.conf answered", "forge.example"];
            backs_off(forge, container, step, "http://forge.example", &words);
        }),
        Row::new(kind, step, "connection refused", MUST, move |forge, container| {
            backs_off(forge, container, step, &format!("http://{}", nobody()), &["refused"]);
        }),
    ]
}

/// The code of an answer that says that the server failed.
const SERVFAIL: u8 = 2;

/// The address of a name server that answers everything with this code, or nothing.
fn name_server(code: Option<u8>) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    // Other rows look for an address that is free, too.
    let free = (1..255).find_map(|n| UdpSocket::bind((Ipv4Addr::new(127, high, low, n), 53)).ok());
    let socket = free.expect("port 53 of a loopback address");
    let address = socket.local_addr().expect("bound").ip();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut message) {
            let Some(code) = code else { continue };
            // A question with the bit of an answer, and its code.
            message[2] |= 0x80;
            message[3] = message[3] & 0xf0 | code;
            let _ = socket.send_to(&message[..length], from);
        }
    });
    address
}

/// Has the container ask these name servers.
fn asks(container: &mut Container<'_>, servers: &[IpAddr]) {
    let conf: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    write(&container.path("resolv.conf"), &format!("{conf}options timeout:1 attempts:1\n"), 0o644);
    container.mount(&container.path("resolv.conf"), Path::new("/etc/resolv.conf"));
}

/// `OSCR_CA_FILE` names something else than certificates.
fn no_certificates(kind: Kind) -> Row {
    let must = "exit 78 with the cure, before any request; `check` says the same";
    Row::new(kind, Step::Start, "OSCR_CA_FILE has no certificate in it", must, |forge, container| {
        let file = container.path("ca.pem");
        container.set("OSCR_CA_FILE", &file.display().to_string());
        let broken = "-----BEGIN CERTIFICATE-----\nb25l\n-----END CERTIFICATE-----\n";
        let chain = "-----BEGIN PKCS7-----\nb25l\n-----END PKCS7-----\n";
        for (content, cure) in [("", "is empty"), ("\u{feff}", "DER"), (broken, "DER"), (chain, "openssl pkcs7")] {
            write(&file, content, 0o644);
            container.start();
            assert_eq!(container.exit_code(), 78);
            let said = container.lines_with("- OSCR_CA_FILE: ");
            assert!(said.len() == 1 && container.lines().concat().contains(cure), "{:#?}", container.lines());
            let (code, _, error) = container.ask(&["check"]);
            assert!(code == 78 && error.contains(cure), "{error}");
        }
        assert!(forge.calls().is_empty(), "{:?}", forge.calls());
        container.unset("OSCR_CA_FILE");
    })
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound")
}

/// Somebody is there who proves less than is asked.
fn untrusted(kind: Kind, step: Step, (name, file, named, words): Tls) -> Row {
    Row::new(kind, step, name, MUST, move |forge, container| {
        let server = Impostor::start(tls(file, first_request(container.kind).success));
        if let Some(named) = named {
            container.set("OSCR_CA_FILE", &certificate(named).display().to_string());
        }
        backs_off(forge, container, step, &format!("https://{}", server.address), words);
    })
}

fn proxies() -> [Row; 6] {
    [
        Row::new(
            Kind::GitHub,
            Step::Start,
            "the address names a port that the agent drops",
            "exit 78 with the cure, before any request",
            |forge, container| {
                let right = container.setting("GITHUB_HOST").to_owned();
                container.set("GITHUB_HOST", &format!("{right}:8080"));
                container.start();
                assert_eq!(container.exit_code(), 78);
                let said = container.lines_with("drops the port 8080");
                assert!(said.len() == 1 && said[0].contains("OSCR_REGISTRATION=jit"), "{:#?}", container.lines());
                assert!(forge.calls().is_empty(), "{:?}", forge.calls());
                container.set("GITHUB_HOST", &right);
            },
        ),
        Row::new(Kind::GitHub, Step::Grant, "TLS: a server that speaks plain HTTP", MUST, |forge, container| {
            let server = Impostor::start(|mut stream| say(&mut stream, "HTTP/1.1 400 Bad Request\r\n\r\n"));
            let address = format!("https://{}", server.address);
            backs_off(forge, container, Step::Grant, &address, &["speaks no TLS", "port"]);
        }),
        Row::new(
            Kind::GitHub,
            Step::Grant,
            "TLS: a certificate signed by itself and one of the system's, of no forge",
            MUST,
            |forge, container| {
                let server = Impostor::start(tls("own.pem", "201 Created"));
                container.set("SSL_CERT_FILE", &certificate("own.pem").display().to_string());
                let address = format!("https://{}", server.address);
                backs_off(forge, container, Step::Grant, &address, &["not the expected JSON"]);
                container.unset("SSL_CERT_FILE");
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Grant,
            "TLS: an image without CA certificates",
            "`denied`: one line that names the package and the setting, unhealthy, slow",
            |forge, container| {
                let right = container.setting("GITHUB_API_URL").to_owned();
                container.set("SSL_CERT_FILE", "/no/such/file");
                container.set("GITHUB_HOST", "https://127.0.0.1");
                container.set("GITHUB_API_URL", &format!("https://{}", nobody()));
                container.start();
                assert_denied(forge, container, &["ca-certificates", "OSCR_CA_FILE"]);
                container.unset("SSL_CERT_FILE");
                container.set("GITHUB_HOST", &forge.url());
                match right.as_str() {
                    "" => container.unset("GITHUB_API_URL"),
                    right => container.set("GITHUB_API_URL", right),
                }
            },
        ),
        Row::new(Kind::GitHub, Step::Grant, "TLS: no version in common", MUST, |forge, container| {
            // protocol_version
            let server = Impostor::start(|mut stream| {
                request(&mut stream);
                let _ = stream.write_all(b"\x15\x03\x01\x00\x02\x02\x46");
            });
            let address = format!("https://{}", server.address);
            backs_off(forge, container, Step::Grant, &address, &["no version of TLS is common", "1.2 or 1.3"]);
        }),
        Row::new(Kind::GitHub, Step::Grant, "the proxy refuses connections", MUST, |forge, container| {
            container.set("HTTP_PROXY", &format!("http://{}", nobody()));
            backs_off(forge, container, Step::Grant, "http://forge.invalid", &["refused"]);
        }),
    ]
}

/// A proxy that lets nobody through who does not say who asks.
fn wants_a_password(kind: Kind, step: Step) -> Row {
    let must = "`denied`: one line that names the setting, unhealthy, slow";
    Row::new(kind, step, "the proxy wants a password", must, |forge, container| {
        let proxy = Impostor::start(|mut stream| {
            request(&mut stream);
            say(&mut stream, "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
        });
        denied_by_proxy(forge, container, &proxy, "http", &["407", "wants to know who asks", "HTTP_PROXY"]);
    })
}

/// A proxy for TLS that makes no tunnel: what it answers to CONNECT, what must happen, and words that the line must have.
fn tunnels(kind: Kind, step: Step) -> Vec<Row> {
    let refuses = |name, head: &'static str, words: &'static [&'static str]| {
        Row::new(kind, step, name, MUST, move |forge, container| {
            let proxy = Impostor::start(move |mut stream| {
                request(&mut stream);
                let page = "<html><title>Not for you</title></html>";
                say(&mut stream, &format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{page}", page.len()));
            });
            container.set("HTTPS_PROXY", &format!("http://me:hidden-word@{}", proxy.address));
            backs_off(forge, container, step, "https://forge.example", words);
            let said = container.lines_with("makes no tunnel");
            assert!(said.iter().all(|line| line.contains(&proxy.address)), "{said:#?}");
            assert!(container.lines_with("hidden-word").is_empty(), "{:#?}", container.lines());
            // Once by the client, and once to learn what it keeps to itself.
            assert!(proxy.asked.load(Ordering::Relaxed) <= 8, "{}", proxy.asked.load(Ordering::Relaxed));
        })
    };
    let wrong = Row::new(
        kind,
        step,
        "the proxy refuses the user and the password for a tunnel (407)",
        "`denied`: one line that names the setting, unhealthy, slow; asked once",
        |forge, container| {
            let proxy = Impostor::start(|mut stream| {
                request(&mut stream);
                say(&mut stream, "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
            });
            denied_by_proxy(forge, container, &proxy, "https", &["407", "does not take the user", "HTTPS_PROXY"]);
        },
    );
    vec![
        refuses(
            "the proxy refuses a tunnel (403)",
            "403 Forbidden",
            &["it answered 403", "Not for you", "forge.example:443"],
        ),
        refuses("the proxy reaches nobody (503)", "503 Service Unavailable", &["it answered 503", "forge.example:443"]),
        wrong,
    ]
}

/// The container waits for a person, and has asked that proxy once on the way to a far forge.
fn denied_by_proxy(forge: &Forge, container: &mut Container<'_>, proxy: &Impostor, scheme: &str, words: &[&str]) {
    let (setting, far) = match container.kind {
        Kind::GitHub => ("GITHUB_API_URL", format!("{scheme}://forge.example")),
        Kind::Azure => ("ADO_ORG_URL", format!("{scheme}://forge.example/acme")),
    };
    let right = container.setting(setting).to_owned();
    container.set(setting, &far);
    if container.kind == Kind::GitHub {
        container.set("GITHUB_HOST", &far);
    }
    let (variable, who) = match scheme {
        "https" => ("HTTPS_PROXY", "me:hidden-word@"),
        _ => ("HTTP_PROXY", ""),
    };
    container.set(variable, &format!("http://{who}{}", proxy.address));
    container.start();
    assert_denied(forge, container, words);
    assert!(container.lines_with("hidden-word").is_empty(), "{:#?}", container.lines());
    assert_eq!(proxy.asked.load(Ordering::Relaxed), 1);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(STOP), 0);
    container.unset(variable);
    match right.as_str() {
        "" => container.unset(setting),
        right => container.set(setting, right),
    }
    if container.kind == Kind::GitHub {
        container.set("GITHUB_HOST", &forge.url());
    }
}

/// Whatever is at that address, it is tried again and no harm comes of it.
fn backs_off(forge: &Forge, container: &mut Container<'_>, step: Step, host: &str, words: &[&str]) {
    let (setting, wrong) = match (container.kind, step) {
        // The way of our own requests: by token, the runner's has no port. Both are one server's.
        (Kind::GitHub, _) => {
            let (scheme, name) = host.split_once("://").expect("a URL");
            container.set("GITHUB_HOST", &format!("{scheme}://{}", name.split(':').next().unwrap_or(name)));
            ("GITHUB_API_URL", format!("{host}/api/v3"))
        }
        (Kind::Azure, Step::Principal) => {
            be_a_principal(forge, container);
            ("ADO_AUTHORITY_URL", host.to_owned())
        }
        (Kind::Azure, _) => ("ADO_ORG_URL", format!("{host}/acme")),
    };
    let right = container.setting(setting).to_owned();
    container.set(setting, &wrong);
    container.start();
    container.wait_line("trying again in");
    let status = container.status();
    assert_eq!(status["phase"], "backing-off", "{status}");
    assert_eq!(container.ask(&["health"]).0, 0, "a short outage is no illness");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(STOP), 0);
    let said = container.lines_with("trying again in");
    assert!(words.iter().all(|word| said[0].contains(word)), "{words:?}: {said:#?}");
    assert!(said.len() <= 3, "{said:#?}");
    for setting in ["HTTP_PROXY", "HTTPS_PROXY", "OSCR_CA_FILE"] {
        container.unset(setting);
    }
    container.set(setting, &right);
    if container.kind == Kind::GitHub {
        container.set("GITHUB_HOST", &forge.url());
    }
    // Once the address is corrected, what may have been registered at the wrong one hinders nobody.
    restart(forge, container);
    listens(container);
    let left = container.lines_with("tried again later");
    assert!(left.len() <= 1, "{left:#?}");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(STOP), 0);
    // Nobody will ever answer for it.
    let mut state = container.state();
    state["leftovers"] = serde_json::json!([]);
    write(&container.path("var/lib/oscr/state.json"), &state.to_string(), 0o600);
}
