//! Name servers that say what they are told to.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// What a server does when it is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Say {
    /// These addresses, of the kind that is asked for.
    Have(&'static [&'static str]),
    /// Another name, and the addresses of that one.
    Alias(&'static str, &'static [&'static str]),
    /// No room by UDP, these addresses by TCP.
    TooLong(&'static [&'static str]),
    /// Addresses of a name that nobody asked for.
    Astray(&'static [&'static str]),
    /// Nothing but this code.
    Code(ResponseCode),
    /// This code, and the question is not repeated.
    Unread(ResponseCode),
    /// Nothing at that name, from somebody who would not ask others either.
    Lame,
    /// Addresses of IPv4; about IPv6 nothing at all.
    Half(&'static [&'static str]),
    /// A word that is no message, and then the answer.
    Noise(&'static [&'static str]),
    Nothing,
}

/// What a server says of names, the first that fits; `*` is any.
pub(super) type Zone = &'static [(&'static str, Say)];

pub(super) type Zones = Arc<Mutex<Vec<(&'static str, Zone)>>>;

/// Answers at an address for as long as the program lives.
pub(super) fn serve(address: &'static str, zones: &Zones, asked: &Arc<Mutex<BTreeSet<&'static str>>>) {
    let socket = match address.split_once('%') {
        Some((host, _)) => {
            let scope =
                fs::read_to_string("/sys/class/net/lo/ifindex").map_or(1, |index| index.trim().parse().unwrap());
            std::net::SocketAddrV6::new(host.parse().unwrap(), 53, 0, scope).into()
        }
        None => std::net::SocketAddr::new(address.parse().unwrap(), 53),
    };
    let address = address.split('%').next().unwrap();
    let say = {
        let (zones, asked) = (Arc::clone(zones), Arc::clone(asked));
        move |question: &[u8], by_tcp: bool| {
            asked.lock().unwrap().insert(address);
            let zones = zones.lock().unwrap();
            let zone = zones.iter().find(|(server, _)| *server == address).map(|(_, zone)| *zone);
            answers(question, zone.unwrap_or_default(), by_tcp)
        }
    };
    let udp = UdpSocket::bind(socket).unwrap();
    let over_udp = say.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            for answer in over_udp(&buffer[..length], false) {
                let _ = udp.send_to(&answer, from);
            }
        }
    });
    let tcp = TcpListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut question).is_err() {
                    break;
                }
                for answer in say(&question, true) {
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    let _ = stream.write_all(&[length.as_slice(), &answer].concat());
                }
            }
        }
    });
}

use Say::{Alias, Astray, Code, Half, Have, Lame, Noise, Nothing, TooLong, Unread};

/// What is sent when a question comes.
fn answers(question: &[u8], zone: Zone, by_tcp: bool) -> Vec<Vec<u8>> {
    let Ok(question) = Message::from_vec(question) else { return Vec::new() };
    let query = &question.queries[0];
    let name = query.name.to_ascii().to_ascii_lowercase();
    let rule = zone.iter().find(|(of, _)| *of == "*" || *of == name.trim_end_matches('.'));
    let Some((_, say)) = rule else { return Vec::new() };
    let mut answer = question.clone().into_response();
    answer.additionals.clear();
    answer.edns = None;
    answer.metadata.recursion_available = true;
    let fill = |answer: &mut Message, owner: &Name, addresses: &[&str]| {
        for address in addresses {
            let data = match address.parse().unwrap() {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            if data.record_type() == query.query_type {
                answer.add_answer(Record::from_rdata(owner.clone(), 60, data));
            }
        }
    };
    match *say {
        Nothing => return Vec::new(),
        Half(_) if query.query_type == RecordType::AAAA => return Vec::new(),
        Have(addresses) | Half(addresses) | Noise(addresses) => fill(&mut answer, &query.name, addresses),
        TooLong(_) if !by_tcp => answer.metadata.truncation = true,
        TooLong(addresses) => fill(&mut answer, &query.name, addresses),
        Astray(addresses) => fill(&mut answer, &Name::from_ascii("elsewhere.test.").unwrap(), addresses),
        Alias(other, addresses) => {
            let other = Name::from_ascii(format!("{other}.")).unwrap();
            answer.add_answer(Record::from_rdata(query.name.clone(), 60, RData::CNAME(CNAME(other.clone()))));
            fill(&mut answer, &other, addresses);
        }
        Code(code) => answer.metadata.response_code = code,
        Unread(code) => {
            answer.metadata.response_code = code;
            answer.queries.clear();
        }
        Lame => answer.metadata.recursion_available = false,
    }
    let answer = answer.to_vec().unwrap();
    match say {
        Noise(_) => {
            let mut other = answer.clone();
            other[0] ^= 0xff;
            vec![b"noise".to_vec(), other, answer]
        }
        _ => vec![answer],
    }
}
