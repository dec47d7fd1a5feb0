//! PID 1's end of the socket.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt};
use nix::unistd::{Pid, Uid, getpid};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Interest, Take};
use tokio::net::unix::WriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;

use super::board::Board;
use super::job::Job;
use super::protocol::{HookAnswer, HookEvent, HookRequest, PayloadHead, Request};
use super::status::Phase;
use crate::os::memory;
use crate::policy::{Evidence, LARGEST_PAYLOAD};

/// What is read of a request at once: most are shorter.
const BUFFER: usize = 512;
/// The largest request, in bytes.
const LARGEST: u64 = 16 * 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a hook may take to send its event's payload.
const PAYLOAD_PATIENCE: Duration = Duration::from_secs(30);
/// How many clients are served at once.
const CLIENTS: usize = 32;

/// What a client asks of the incarnation.
#[derive(Debug)]
pub(crate) enum Order {
    /// Drain, then stay or leave.
    Drain {
        /// Leave.
        exit: bool,
    },
    /// A hook runs and waits for an answer.
    Hook(Box<Hooked>),
}

/// A hook that waits for an answer.
#[derive(Debug)]
pub(crate) struct Hooked {
    /// Which.
    pub event: HookEvent,
    /// Around which job.
    pub job: Job,
    /// It has failed, and wants nothing.
    pub failed: bool,
    /// What the job is judged by.
    pub evidence: Evidence,
    /// The process that asks.
    pub peer: Option<Pid>,
    /// Its user.
    pub user: Option<Uid>,
    /// Where the answers go. Closed when the client is gone.
    pub answers: mpsc::UnboundedSender<HookAnswer>,
    /// Told when the job's log has been told that the job has failed.
    pub told: Rc<Notify>,
}

/// Binds the socket, replacing one that an earlier incarnation left.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
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
pub(crate) async fn serve(listener: UnixListener, board: Board, orders: mpsc::UnboundedSender<Order>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    // Payloads are large, and a runner has one job at a time.
    let payloads = Arc::new(Semaphore::new(1));
    let served = Rc::new(Notify::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // What it took is free by now, as it is not within its own task.
            () = served.notified() => {
                memory::give_back();
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; those in use are given back in time.
                tracing::warn!("the control socket cannot accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let peer = Peer::named(&stream);
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if peer.as_ref().is_some_and(|peer| peer.ours) => None,
            Err(_) => continue,
        };
        let (board, orders, payloads) = (board.clone(), orders.clone(), Arc::clone(&payloads));
        let served = Rc::clone(&served);
        tokio::task::spawn_local(async move {
            let peer = match peer {
                Some(peer) => peer,
                None => Peer::of_message(&stream).await,
            };
            answer(stream, &peer, &board, &orders, &payloads).await;
            drop(place);
            served.notify_one();
        });
    }
}

/// Who asks, as the kernel says.
struct Peer {
    pid: Option<Pid>,
    user: Option<Uid>,
    /// Root, or the user that we run as.
    ours: bool,
}

impl Peer {
    fn new(uid: u32, pid: Option<i32>) -> Self {
        let pid = pid.filter(|pid| *pid > 0).map(Pid::from_raw);
        let user = Uid::from_raw(uid);
        Self { pid, user: Some(user), ours: user.is_root() || user == Uid::effective() }
    }

    /// Who connected. `None` where the kernel names ourselves, who never do: gVisor names whoever asks it.
    fn named(stream: &UnixStream) -> Option<Self> {
        let credentials = stream.peer_cred().ok()?;
        let ourselves = credentials.pid() == Some(getpid().as_raw());
        (!ourselves).then(|| Self::new(credentials.uid(), credentials.pid()))
    }

    /// Who sent the first byte, which is left to be read. Somebody unknown, who may do nothing but look, when it does not say.
    async fn of_message(stream: &UnixStream) -> Self {
        let look = || {
            let mut byte = [0];
            let mut parts = [IoSliceMut::new(&mut byte)];
            // Room for nothing else: descriptors that somebody sends along must not become ours.
            let mut space = nix::cmsg_space!(UnixCredentials);
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
            let sender = message.cmsgs()?.find_map(|part| match part {
                ControlMessageOwned::ScmCredentials(sender) => Some(Self::new(sender.uid(), Some(sender.pid()))),
                _ => None,
            });
            sender.ok_or(io::Error::from(io::ErrorKind::InvalidData))
        };
        let sender = async {
            setsockopt(stream, PassCred, &true)?;
            stream.async_io(Interest::READABLE, look).await
        };
        match timeout(PATIENCE, sender).await {
            Ok(Ok(peer)) => peer,
            Ok(Err(_)) | Err(_) => Self { pid: None, user: None, ours: false },
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    peer: &Peer,
    board: &Board,
    orders: &mpsc::UnboundedSender<Order>,
    payloads: &Semaphore,
) {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(BUFFER, reader.take(LARGEST));
    if !matches!(timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await, Ok(Ok(_))) {
        return;
    }
    let reply = match serde_json::from_slice(&line) {
        Err(error) => json!({ "error": format!("no request: {error}") }),
        Ok(Request::Status) => json!(board.status()),
        Ok(Request::Hook(request)) => {
            let HookRequest { event, job, facts, failed, payload } = *request;
            let payload = match payload {
                PayloadHead::None => None,
                PayloadHead::Unreadable(why) => Some(Err(why)),
                PayloadHead::Bytes(length) => Some(read_payload(&mut reader, length, payloads).await),
            };
            let evidence = Evidence { facts, payload };
            let (answers, received) = mpsc::unbounded_channel();
            let told = Rc::new(Notify::new());
            let job = job.sanitised();
            let _ = orders.send(Order::Hook(Box::new(Hooked {
                event,
                job,
                failed,
                evidence,
                peer: peer.pid,
                user: peer.user,
                answers,
                told: Rc::clone(&told),
            })));
            answer_hook(reader, writer, received, &told).await;
            return;
        }
        Ok(Request::Drain { .. }) if !peer.ours => {
            json!({ "error": "only the user that PID 1 runs as may drain the runner" })
        }
        Ok(Request::Drain { exit }) => {
            let _ = orders.send(Order::Drain { exit });
            board.reached(&[Phase::Drained, Phase::Tainted, Phase::Resting]).await;
            json!({ "ok": true })
        }
    };
    let _ = write_line(&mut writer, &reply.to_string()).await;
}

/// Reads the payload that follows a hook's request: `length` bytes, and no more than one payload at a time.
async fn read_payload<R: AsyncRead + Unpin>(
    reader: &mut BufReader<Take<R>>,
    length: u64,
    payloads: &Semaphore,
) -> Result<Vec<u8>, String> {
    if length > LARGEST_PAYLOAD {
        return Err(format!("has {length} bytes, and more than {LARGEST_PAYLOAD} are not read"));
    }
    let Ok(_turn) = payloads.try_acquire() else {
        return Err("came while another one was being read".to_owned());
    };
    // What is in the buffer has been counted already; a few bytes may follow, by which the client says that it has told its job.
    reader.get_mut().set_limit(length + LARGEST);
    let mut bytes = Vec::new();
    let mut part = reader.take(length);
    match timeout(PAYLOAD_PATIENCE, part.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) if bytes.len() as u64 == length => Ok(bytes),
        Ok(Ok(_)) => Err("was cut short".to_owned()),
        Ok(Err(error)) => Err(format!("did not arrive: {error}")),
        Err(_) => Err("did not arrive in time".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Client;

    /// What `client` makes the server hand on as the evidence of a hook.
    fn evidence(client: impl FnOnce(&mut Client) + Send + 'static) -> Evidence {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = bind(&path).unwrap();
            let (sender, mut orders) = mpsc::unbounded_channel();
            tokio::task::spawn_local(serve(listener, Board::new("github", "o/r"), sender));
            let thread = std::thread::spawn(move || {
                let mut stream = Client::connect(&path).unwrap();
                client(&mut stream);
                let mut rest = String::new();
                let _ = stream.read_to_string(&mut rest);
            });
            let Some(Order::Hook(hooked)) = orders.recv().await else { panic!("no hook") };
            let evidence = hooked.evidence.clone();
            drop(hooked);
            tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
            evidence
        })
    }

    fn ask(stream: &mut Client, payload: &str) {
        writeln!(
            stream,
            r#"{{"request":"hook","event":"job-started","job":{{}},"facts":{{"event":"push"}},"payload":{payload}}}"#
        )
        .unwrap();
    }

    #[test]
    fn where_the_kernel_names_ourselves_only_who_says_so_is_somebody() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for says in [true, false] {
                let (client, server) = Client::pair().unwrap();
                server.set_nonblocking(true).unwrap();
                let mut server = UnixStream::from_std(server).unwrap();
                assert!(Peer::named(&server).is_none(), "both ends are this process");
                if says {
                    setsockopt(&client, PassCred, &true).unwrap();
                }
                (&client).write_all(b"hello").unwrap();
                let peer = Peer::of_message(&server).await;
                assert_eq!((peer.pid, peer.ours), (says.then(getpid), says));
                let mut first = [0; 5];
                server.read_exact(&mut first).await.unwrap();
                assert_eq!(&first, b"hello");
            }
        });
    }

    #[test]
    fn a_payload_of_any_size_up_to_the_limit_follows_the_request() {
        for length in [0, 1, 20_000, 3_000_000] {
            let seen = evidence(move |stream| {
                ask(stream, &format!(r#"{{"bytes":{length}}}"#));
                stream.write_all(&vec![b'x'; length]).unwrap();
            });
            assert_eq!(seen.facts.event.as_deref(), Some("push"));
            assert!(seen.payload == Some(Ok(vec![b'x'; length])), "{length}");
        }
    }

    #[test]
    fn a_payload_that_is_too_large_or_cut_short_is_none_and_says_why() {
        let said = |seen: Evidence| seen.payload.unwrap().unwrap_err();
        let large = evidence(|stream| ask(stream, &format!(r#"{{"bytes":{}}}"#, LARGEST_PAYLOAD + 1)));
        assert!(said(large).contains("are not read"));
        let short = evidence(|stream| {
            ask(stream, r#"{"bytes":100}"#);
            stream.write_all(b"only this").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert!(said(short).contains("cut short"));
        let unreadable = evidence(|stream| ask(stream, r#"{"unreadable":"it is gone"}"#));
        assert_eq!(said(unreadable), "it is gone");
        assert_eq!(evidence(|stream| ask(stream, r#""none""#)).payload, None);
    }
}
