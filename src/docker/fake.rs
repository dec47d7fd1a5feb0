//! A daemon for tests: it answers by a rule, and notes what it was asked.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Docker, Endpoint};

/// What it was asked: method and path, and what was sent with it.
#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Vec<String>>>);

impl Fake {
    /// Listens at a socket. The rule is given the method and the path, and gives a status and a body.
    pub(super) fn at(socket: &Path, rule: impl Fn(&str) -> (u16, &'static str) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let fake = Self::default();
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.answer(stream, &rule).await;
            }
        });
        fake
    }

    /// One with whom a client is connected, and the folder that has its socket.
    pub(super) fn with_client(
        rule: impl Fn(&str) -> (u16, &'static str) + Send + Sync + 'static,
    ) -> (tempfile::TempDir, Self, Docker) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let fake = Self::at(&socket, rule);
        let docker = Docker::at(&Endpoint::Socket(socket)).unwrap().unwrap();
        (directory, fake, docker)
    }

    async fn answer(&self, mut stream: UnixStream, rule: &(impl Fn(&str) -> (u16, &'static str) + Sync)) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut sent = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut sent).await.unwrap();
        let asked = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let (status, body) = rule(&asked);
        self.0.lock().unwrap().push(format!("{asked} {}", String::from_utf8(sent).unwrap()).trim_end().to_owned());
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
