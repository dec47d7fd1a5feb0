//! Faults that the forge can be told to have, and the stream that cuts a connection where a fault says.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Which requests a fault is for; what is absent matches everything outside the control plane.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `GET`, `POST`, `DELETE`.
    pub method: Option<String>,
    /// Start of the path, without `/api/v3`.
    pub path_prefix: Option<String>,
    /// Any part of the path.
    pub path_contains: Option<String>,
    /// Only requests of agents, stand-ins or GitHub's own (true), or only those of others (false).
    pub agent: Option<bool>,
}

impl Match {
    /// Whether a request is meant. `path` comes without `/api/v3`; `agent` says whether a stand-in agent sent it.
    #[must_use]
    pub fn hits(&self, method: &str, path: &str, agent: bool) -> bool {
        self.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
            && self.path_prefix.as_deref().is_none_or(|p| path.starts_with(p))
            && self.path_contains.as_deref().is_none_or(|p| path.contains(p))
            && self.agent.is_none_or(|a| a == agent)
    }
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Before the request has any effect.
    Before,
    /// After its effect, without a byte of an answer.
    After,
    /// After its effect, within the answer's headers.
    Headers,
    /// After its effect, within the answer's body.
    Body,
}

/// A fault. With `status` the request has no effect; with `delay_ms` alone it is only late.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Which requests.
    #[serde(rename = "match")]
    pub matching: Match,
    /// How many requests; all of them when absent.
    pub times: Option<u32>,
    /// So many requests that match go through first.
    pub skip: u32,
    /// The status to answer with.
    pub status: Option<u16>,
    /// Headers to add to the answer.
    pub headers: std::collections::BTreeMap<String, String>,
    /// The body to answer with: a string as it is, anything else as JSON.
    pub body: Option<serde_json::Value>,
    /// Wait before anything else.
    pub delay_ms: u64,
    /// Cut the connection.
    pub cut: Option<Cut>,
    /// The whole answer arrives, but its JSON ends in the middle.
    pub truncate: bool,
}

const PASS: u8 = 0;
const NOTHING: u8 = 1;
const IN_HEADERS: u8 = 2;
const IN_BODY: u8 = 3;
const DEAD: u8 = 4;

/// Arms the cut of one connection; reaches handlers as connect info.
#[derive(Debug, Clone, Default)]
pub(crate) struct CutSwitch(Arc<AtomicU8>);

impl CutSwitch {
    /// From now on the connection dies at this place of the next answer.
    pub(crate) fn arm(&self, cut: Cut) {
        let mode = match cut {
            Cut::Before | Cut::After => NOTHING,
            Cut::Headers => IN_HEADERS,
            Cut::Body => IN_BODY,
        };
        self.0.store(mode, Ordering::Relaxed);
    }
}

/// A listener whose connections can be cut.
pub(crate) struct CuttableListener(pub(crate) TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Without it small answers wait for the peer's delayed acknowledgement; a failure costs only time.
        let _ = stream.set_nodelay(true);
        let stream = CuttableStream { stream, switch: CutSwitch::default() };
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for CutSwitch {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().switch.clone()
    }
}

/// A TCP stream that writes up to the armed cut and fails from there on.
pub(crate) struct CuttableStream {
    stream: TcpStream,
    switch: CutSwitch,
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Head and body come in one buffer, because `is_write_vectored` is left false and answers are small.
        let keep = match self.switch.0.load(Ordering::Relaxed) {
            PASS => return Pin::new(&mut self.stream).poll_write(cx, buf),
            IN_HEADERS => buf.len().min(20),
            IN_BODY => {
                let head = buf.windows(4).position(|w| w == b"\r\n\r\n").map_or(buf.len(), |at| at + 4);
                head + (buf.len() - head) / 2
            }
            _ => 0,
        };
        if keep > 0 {
            match Pin::new(&mut self.stream).poll_write(cx, &buf[..keep]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(_)) => {}
            }
        }
        self.switch.0.store(DEAD, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
