//! PID 1's end of the socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Pid, Uid};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::WriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;

use super::{Board, Event, HookAnswer, Job, Phase, Request};

/// The largest request, in bytes.
const LARGEST: u64 = 16 * 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many clients are served at once.
const CLIENTS: usize = 32;

/// What a client asks of the incarnation.
#[derive(Debug)]
pub enum Order {
    /// Drain, then stay or leave.
    Drain {
        /// Leave.
        exit: bool,
    },
    /// A hook runs and waits for an answer.
    Hook(Hooked),
}

/// A hook that waits for an answer.
#[derive(Debug)]
pub struct Hooked {
    /// Which.
    pub event: Event,
    /// Around which job.
    pub job: Job,
    /// The process that asks.
    pub peer: Option<Pid>,
    /// Where the answers go. Closed when the client is gone.
    pub answers: mpsc::UnboundedSender<HookAnswer>,
    /// Told when the job's log has been told that the job has failed.
    pub told: Rc<Notify>,
}

/// Binds the socket, replacing one that an earlier incarnation left.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Everybody may connect; what they may ask depends on who the kernel says they are.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves clients until the incarnation ends. Only so many of a job's clients are served at once, and more are turned away;
/// the places of our own user's are never taken by a job.
pub async fn serve(listener: UnixListener, board: Board, orders: mpsc::UnboundedSender<Order>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; those in use are given back in time.
                tracing::warn!("the control socket cannot accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let peer = Peer::of(&stream);
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if peer.ours => None,
            Err(_) => continue,
        };
        let (board, orders) = (board.clone(), orders.clone());
        tokio::task::spawn_local(async move {
            answer(stream, &peer, &board, &orders).await;
            drop(place);
        });
    }
}

/// Who asks, as the kernel says.
struct Peer {
    pid: Option<Pid>,
    /// Root, or the user that we run as.
    ours: bool,
}

impl Peer {
    fn of(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let ours = |uid| uid == 0 || uid == Uid::effective().as_raw();
        Self {
            ours: credentials.as_ref().is_some_and(|peer| ours(peer.uid())),
            pid: credentials.and_then(|peer| peer.pid()).map(Pid::from_raw),
        }
    }
}

async fn answer(mut stream: UnixStream, peer: &Peer, board: &Board, orders: &mpsc::UnboundedSender<Order>) {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(LARGEST));
    if !matches!(timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await, Ok(Ok(_))) {
        return;
    }
    let reply = match serde_json::from_slice(&line) {
        Err(error) => json!({ "error": format!("no request: {error}") }),
        Ok(Request::Status) => json!(board.status()),
        Ok(Request::Hook { event, job }) => {
            let (answers, received) = mpsc::unbounded_channel();
            let told = Rc::new(Notify::new());
            let job = job.sanitised();
            let _ = orders.send(Order::Hook(Hooked { event, job, peer: peer.pid, answers, told: Rc::clone(&told) }));
            answer_hook(reader, writer, received, &told).await;
            return;
        }
        Ok(Request::Drain { .. }) if !peer.ours => {
            json!({ "error": "only the user that PID 1 runs as may drain the runner" })
        }
        Ok(Request::Drain { exit }) => {
            let _ = orders.send(Order::Drain { exit });
            board.reached(&[Phase::Drained, Phase::Resting]).await;
            json!({ "ok": true })
        }
    };
    let _ = write_line(&mut writer, &reply.to_string()).await;
}

/// Passes answers on until the last, or until the client is gone, which whoever answers sees by the closed channel.
async fn answer_hook(
    mut reader: impl AsyncReadExt + Unpin,
    mut writer: WriteHalf<'_>,
    mut answers: mpsc::UnboundedReceiver<HookAnswer>,
    told: &Notify,
) {
    loop {
        let mut more = [0; 64];
        tokio::select! {
            answer = answers.recv() => {
                let Some(answer) = answer else { return };
                let last = !matches!(answer, HookAnswer::Wait { .. } | HookAnswer::Failed { .. });
                if write_line(&mut writer, &json!(answer).to_string()).await.is_err() || last {
                    return;
                }
            }
            read = reader.read(&mut more) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                told.notify_one();
            }
        }
    }
}

async fn write_line(writer: &mut WriteHalf<'_>, line: &str) -> io::Result<()> {
    timeout(PATIENCE, writer.write_all(format!("{line}\n").as_bytes())).await?
}
