//! When which program begins and ends in which container: the kernel says so to whoever asks for its process events.
//!
//! It needs nothing of the programs, so it is as true of a shell script as of ours, and it is exact to the microsecond.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, recv, send, socket, sockopt};
use rustix::time::{ClockId, clock_gettime};

/// `PROC_EVENT_EXEC` and `PROC_EVENT_EXIT`.
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// Which of a runner's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Whatever the container began with.
    Init,
    /// The agent, registering.
    Configure,
    /// The agent, on its way to a session.
    Listener,
    /// The agent, in a job.
    Worker,
}

/// A program begins (`execve`) or ends.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Seconds of the wall clock.
    pub at: f64,
    pub program: Program,
    pub begins: bool,
    /// What the kernel calls its control group, which has the container's id in it.
    group: String,
}

/// All that was seen so far.
#[derive(Clone)]
pub struct Moments(Arc<Mutex<Vec<Moment>>>);

impl Moments {
    /// Begins to watch; the reason if the kernel does not let us.
    pub fn watch() -> Result<Self, String> {
        let socket = socket_or_why()?;
        let moments = Self(Arc::default());
        let theirs = moments.clone();
        // Ends with the program.
        thread::spawn(move || theirs.follow(&socket));
        Ok(moments)
    }

    /// What this container's programs did since then.
    pub fn of(&self, container: &str, since: f64) -> Vec<Moment> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|moment| moment.at >= since && moment.group.contains(container)).cloned().collect()
    }

    fn follow(&self, socket: &OwnedFd) {
        // The kernel counts from its start.
        let offset = now() - seconds(ClockId::Monotonic);
        let mut known: HashMap<u32, Vec<Moment>> = HashMap::new();
        let mut buffer = [0; 256];
        loop {
            let Ok((_, length)) = recv(socket, &mut buffer, RecvFlags::empty()) else {
                // More happened at once than the buffer holds: a turn that misses a moment is repeated.
                continue;
            };
            let word = |at: usize| buffer[..length].get(at..at + 4).map(|b| u32::from_ne_bytes(b.try_into().unwrap()));
            // 16 bytes of netlink's, 20 of the connector's; then what, which processor, when, thread and process.
            let (Some(what), Some(low), Some(high)) = (word(36), word(44), word(48)) else { continue };
            let (Some(thread), Some(process)) = (word(52), word(56)) else { continue };
            let at = offset + ((u64::from(high) << 32) | u64::from(low)) as f64 / 1e9;
            match what {
                EXEC => {
                    let Some((programs, group)) = identify(process) else { continue };
                    let been = known.entry(process).or_default();
                    for program in programs {
                        // PID 1 stays PID 1, whatever it becomes.
                        if !been.iter().any(|moment| moment.program == program) {
                            let moment = Moment { at, program, begins: true, group: group.clone() };
                            self.0.lock().unwrap().push(moment.clone());
                            been.push(moment);
                        }
                    }
                }
                EXIT if thread == process => {
                    for moment in known.remove(&process).unwrap_or_default() {
                        self.0.lock().unwrap().push(Moment { at, begins: false, ..moment });
                    }
                }
                _ => {}
            }
        }
    }
}

/// What a process just became, and its control group; nothing if it is none of ours.
fn identify(process: u32) -> Option<(Vec<Program>, String)> {
    let read = |what: &str| fs::read_to_string(format!("/proc/{process}/{what}")).ok();
    let status = read("status")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    // In each of its namespaces it has another number: outside of a container only one.
    let numbers: Vec<&str> = field("NSpid:").split_whitespace().collect();
    let [_, .., inner] = numbers.as_slice() else { return None };
    let mut programs = Vec::new();
    if *inner == "1" {
        programs.push(Program::Init);
    }
    match field("Name:") {
        "Runner.Worker" => programs.push(Program::Worker),
        "Runner.Listener" => {
            let line = read("cmdline")?;
            let configures = line.split('\0').any(|argument| argument == "configure");
            programs.push(if configures { Program::Configure } else { Program::Listener });
        }
        _ => {}
    }
    let group = read("cgroup")?;
    (!programs.is_empty()).then_some((programs, group))
}

/// Whether the kernel lets us watch.
pub fn allowed() -> Result<(), String> {
    socket_or_why().map(drop)
}

fn socket_or_why() -> Result<OwnedFd, String> {
    subscribe().map_err(|error| {
        format!("the kernel does not tell of processes ({error}): this needs root, and CONFIG_PROC_EVENTS")
    })
}

/// A socket on which the kernel tells of every process.
fn subscribe() -> rustix::io::Result<OwnedFd> {
    let socket = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(CONNECTOR))?;
    sockopt::set_socket_recv_buffer_size(&socket, 8 << 20)?;
    // The group of process events (`CN_IDX_PROC`).
    bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    // A netlink message of 40 bytes (`NLMSG_DONE`), in it one of the connector's of 4, in it the wish to listen.
    let mut message = Vec::new();
    for word in [40, 3, 0, 0, 1, 1, 0, 0, 4, 1_u32] {
        message.extend(word.to_ne_bytes());
    }
    send(&socket, &message, SendFlags::empty())?;
    Ok(socket)
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds of the wall clock.
pub fn now() -> f64 {
    seconds(ClockId::Realtime)
}
