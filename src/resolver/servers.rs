//! Asking name servers for one name: in their order, the next only after silence or a server's failure.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::conf::Conf;

/// How long one question waits for its answer at most, whatever the file says: somebody who is silent must leave time for
/// whoever comes after them.
const TRY: Duration = Duration::from_secs(2);

/// The largest answer by UDP.
const LARGEST: usize = 65_535;

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The name is there, with these addresses or with none.
    Found(Vec<IpAddr>),
    /// There is no such name, or nothing at it.
    Unknown,
    /// Servers failed for this name.
    Failed(String),
    /// Servers answered that they will not.
    Refused(String),
    /// Nobody answered.
    Silent,
}

/// One name, and whom to ask for it.
pub(super) struct Round<'a> {
    conf: &'a Conf,
    name: Name,
    /// The questions, as they are sent: one for each kind of address. One that is put again is the same, so that a late answer
    /// to the first is one to the second.
    questions: Vec<(RecordType, Vec<u8>)>,
    id: u16,
    time: Duration,
    ends: Instant,
    /// How long a question waits for its answer.
    patience: Duration,
}

/// What a server said of each kind of address.
type Replies = BTreeMap<RecordType, Message>;

impl<'a> Round<'a> {
    /// Prepares to ask for a name for as long as the file says, and no longer than `most`.
    pub(super) fn new(conf: &'a Conf, name: Name, most: Duration) -> Self {
        // Nobody who has not seen the question should be able to answer it.
        let id = u16::try_from(getrandom::u32().unwrap_or_default() & 0xffff).unwrap_or_default();
        let kinds =
            [RecordType::AAAA, RecordType::A].into_iter().filter(|kind| !conf.no_ipv6 || *kind == RecordType::A);
        let questions = kinds.filter_map(|kind| {
            let mut message = Message::new(id ^ u16::from(kind), MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(name.clone(), kind));
            Some((kind, message.to_vec().ok()?))
        });
        let servers = u32::try_from(conf.servers.len()).unwrap_or(1);
        let time = most.min(conf.timeout * conf.attempts * servers);
        // Each server has its turn.
        let patience = TRY.min(conf.timeout).min(time / servers);
        Self { conf, questions: questions.collect(), name, id, time, ends: Instant::now() + time, patience }
    }

    /// Asks until somebody answers or the time is over.
    pub(super) async fn ask(&self) -> Outcome {
        let servers = &self.conf.servers;
        let count = servers.len();
        let first = if self.conf.rotate { usize::from(self.id) % count } else { 0 };
        let mut sockets: Vec<Option<UdpSocket>> = servers.iter().map(|_| None).collect();
        let mut worst = Outcome::Silent;
        for _ in 0..self.conf.attempts.max(u32::try_from(self.time.as_secs() / TRY.as_secs()).unwrap_or(1)) {
            let mut silent = false;
            for at in (0..count).map(|at| (first + at) % count) {
                if self.ends <= Instant::now() {
                    return worst;
                }
                let answers = match self.conf.by_tcp {
                    true => Ok(self.by_tcp(servers[at]).await),
                    false => self.by_udp(servers[at], &mut sockets[at]).await,
                };
                silent |= answers.as_ref().is_ok_and(BTreeMap::is_empty);
                match judged(&self.name, &answers.unwrap_or_default(), self.questions.len()) {
                    Outcome::Silent => {}
                    Outcome::Failed(said) => worst = Outcome::Failed(format!("{} {said}", servers[at].ip())),
                    Outcome::Refused(said) => worst = Outcome::Refused(format!("{} {said}", servers[at].ip())),
                    told => return told,
                }
            }
            // Whoever failed at once would do so again.
            if !silent && worst != Outcome::Silent {
                return worst;
            }
        }
        worst
    }

    /// Puts the questions by UDP, and once more by TCP where an answer had no room.
    async fn by_udp(&self, server: SocketAddr, socket: &mut Option<UdpSocket>) -> io::Result<Replies> {
        let socket = match socket {
            Some(socket) => socket,
            None => {
                let any =
                    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
                let made = UdpSocket::bind((any, 0)).await?;
                made.connect(server).await?;
                socket.insert(made)
            }
        };
        let mut answers = Replies::new();
        let mut buffer = vec![0; LARGEST];
        let until = self.until();
        let half = until.duration_since(Instant::now()) / 2;
        // What has no answer is asked for once more: it may have been lost, and some servers drop the second of two questions.
        for until in [until - half, until] {
            for (_, question) in self.questions.iter().filter(|(kind, _)| !answers.contains_key(kind)) {
                socket.send(question).await?;
            }
            while answers.len() < self.questions.len() {
                let Ok(length) = timeout_at(until, socket.recv(&mut buffer)).await else { break };
                let length = match length {
                    Ok(length) => length,
                    // Nobody is there, or nobody any more.
                    Err(error) if answers.is_empty() => return Err(error),
                    Err(_) => return Ok(answers),
                };
                let Some((kind, answer)) = self.understood(&buffer[..length]) else { continue };
                if answer.metadata.truncation {
                    return Ok(self.by_tcp(server).await);
                }
                answers.insert(kind, answer);
            }
        }
        Ok(answers)
    }

    /// Until when a question that is put now waits.
    fn until(&self) -> Instant {
        self.ends.min(Instant::now() + self.patience)
    }

    /// Puts the questions by TCP, each by a connection of its own.
    async fn by_tcp(&self, server: SocketAddr) -> Replies {
        let until = self.until();
        let ask = async |question: Option<&(RecordType, Vec<u8>)>| {
            let (_, question) = question?;
            let answer = async {
                let mut stream = TcpStream::connect(server).await?;
                let length = u16::try_from(question.len()).map_err(io::Error::other)?;
                stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
                let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
                stream.read_exact(&mut buffer).await?;
                Ok::<_, io::Error>(buffer)
            };
            self.understood(&timeout_at(until, answer).await.ok()?.ok()?)
        };
        let (one, other) = tokio::join!(ask(self.questions.first()), ask(self.questions.get(1)));
        one.into_iter().chain(other).collect()
    }

    /// An answer to one of the questions, and to which.
    fn understood(&self, bytes: &[u8]) -> Option<(RecordType, Message)> {
        let message = Message::from_vec(bytes).ok()?;
        let about = &message.metadata;
        let (kind, _) = self.questions.iter().find(|(kind, _)| about.id == self.id ^ u16::from(*kind))?;
        let ours = match message.queries.as_slice() {
            [query] => query.query_type == *kind && query.name == self.name,
            // Who could not read the question cannot repeat it.
            [] => about.response_code != ResponseCode::NoError,
            _ => false,
        };
        (ours && about.message_type == MessageType::Response).then_some((*kind, message))
    }
}

/// What the answers of one server come to: what it knows of one kind of address counts, whatever it says of the other.
fn judged(name: &Name, answers: &Replies, questions: usize) -> Outcome {
    let mut addresses = Vec::new();
    let (mut found, mut unknown, mut failure) = (false, false, Outcome::Silent);
    for message in answers.values() {
        let about = &message.metadata;
        match about.response_code {
            // Somebody who neither knows it nor would ask others.
            ResponseCode::NoError
                if message.answers.is_empty()
                    && !about.authoritative
                    && !about.recursion_available
                    && message.additionals.is_empty() =>
            {
                failure = Outcome::Refused("does not look names up for others".to_owned());
            }
            // Nothing of this kind; what there is of the other is known once there is an answer about it.
            ResponseCode::NoError if message.answers.is_empty() => unknown |= answers.len() == questions,
            ResponseCode::NoError => {
                found = true;
                addresses.extend(addresses_of(name, message));
            }
            ResponseCode::NXDomain => unknown = true,
            ResponseCode::ServFail => failure = Outcome::Failed("failed (SERVFAIL)".to_owned()),
            ResponseCode::Refused => failure = Outcome::Refused("refuses to say (REFUSED)".to_owned()),
            code => failure = Outcome::Refused(format!("does not understand the question ({code})")),
        }
    }
    match (found, unknown) {
        (true, _) => Outcome::Found(addresses),
        (false, true) => Outcome::Unknown,
        (false, false) => failure,
    }
}

/// The addresses of a name in an answer, along the other names that it has.
fn addresses_of(name: &Name, message: &Message) -> Vec<IpAddr> {
    let mut owner = name.clone();
    let mut addresses = Vec::new();
    for record in message.answers.iter().take(LARGEST) {
        if record.name != owner {
            continue;
        }
        match &record.data {
            RData::CNAME(other) => owner = other.0.clone(),
            data => addresses.extend(data.ip_addr()),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_answers() {
        let conf = Conf::read(b"", None);
        let name = Name::from_ascii("forge.test.").unwrap();
        let round = Round { id: 0x1234, ..Round::new(&conf, name.clone(), TRY) };
        crate::fuzz::run("answers", |bytes| {
            let answer = round.understood(bytes);
            let truncated = answer.as_ref().is_some_and(|(_, message)| message.metadata.truncation);
            let outcome = judged(&name, &answer.into_iter().collect(), 1);
            let (said, found) = match &outcome {
                Outcome::Failed(said) | Outcome::Refused(said) => (said.as_str(), 0),
                Outcome::Found(addresses) => ("", addresses.len()),
                _ => ("", 0),
            };
            crate::fuzz::assert_plain(said);
            (std::mem::discriminant(&outcome), found, truncated)
        });
    }
}
