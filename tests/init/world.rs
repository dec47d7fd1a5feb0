//! Starting an init in a namespace of its own, with or without a terminal, and watching it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::unistd::Pid;
use oscr::os::signal;
use oscr_sim::patience::{LIMIT, patient};

use crate::helper;
use crate::inits::{Init, Options};

/// How long anything may take that must happen. Shorter with other inits: what they do not keep shows when it is over.
pub fn limit() -> Duration {
    let others = std::env::var_os("INIT_UNDER_TEST").is_some_and(|chosen| chosen != "oscr");
    patient(if others { LIMIT / 6 } else { LIMIT })
}

/// Where the init runs. Either way all is in a PID namespace, which takes everything with it at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is PID 1.
    First,
    /// A shell is PID 1 and starts it.
    Below,
}

/// An init and its child, about to be started.
pub struct World<'a> {
    init: &'a Init,
    program: OsString,
    place: Place,
    options: Options,
    before: Vec<OsString>,
    terminal: bool,
    command: Vec<OsString>,
}

/// Words of a command.
pub fn words<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(words: I) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

impl<'a> World<'a> {
    /// The init as PID 1 over a command.
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(init: &'a Init, command: I) -> Self {
        Self {
            init,
            program: init.program.into(),
            place: Place::First,
            options: Options::default(),
            before: Vec::new(),
            terminal: false,
            command: words(command),
        }
    }

    /// Over a shell's script.
    pub fn script(init: &'a Init, script: &str) -> Self {
        Self::new(init, ["sh", "-c", script])
    }

    /// Over one of our own helpers.
    pub fn helper(init: &'a Init, arguments: &[&str]) -> Self {
        Self::new(init, helper::line(arguments))
    }

    /// Not as PID 1.
    pub fn below(mut self) -> Self {
        self.place = Place::Below;
        self
    }

    /// With these options.
    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Executed by this command, such as `env` or `setpriv`.
    pub fn after<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, command: I) -> Self {
        self.before.extend(words(command));
        self
    }

    /// At this path.
    pub fn at(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = program.as_ref().to_owned();
        self
    }

    /// With a terminal, as its session's leader.
    pub fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// The command line of the init, for a shell that is to start it.
    pub fn line(&self) -> Vec<OsString> {
        let mut line = self.before.clone();
        line.push(self.program.clone());
        line.extend(self.init.options(&self.options));
        line.extend(self.command.iter().cloned());
        line
    }

    /// Starts it all.
    pub fn start(self) -> Running {
        let mut line = self.line();
        if self.place == Place::Below {
            // The second command keeps the shell from executing the first in its own place.
            let shell = ["sh", "-c", "\"$@\"; exit $?", "sh"];
            line.splice(0..0, words(shell));
        }
        Running::start(line, self.place, self.terminal)
    }

    /// Starts it, and waits for its end.
    pub fn finish(self) -> Finished {
        self.start().finish()
    }
}

/// A running init.
pub struct Running {
    process: Child,
    place: Place,
    master: Option<File>,
    stdin: Option<std::process::ChildStdin>,
    out: Stream,
    err: Option<Stream>,
}

/// How it ended, and all that it wrote.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, or 128 + n, as `unshare` reports it.
    pub code: i32,
    /// Standard output, or all that the terminal showed.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Running {
    /// Starts a command line as the first process of a namespace. `place` says where below it the init is.
    pub fn start(mut line: Vec<OsString>, place: Place, terminal: bool) -> Self {
        if terminal {
            line.splice(0..0, words(["setsid", "--ctty"]));
        }
        let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"];
        line.splice(0..0, words(namespace));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env("TERM", "dumb").env("LC_ALL", "C");
        let mut master = None;
        if terminal {
            let (ours, theirs) = terminal_pair();
            for stream in [Command::stdin, Command::stdout, Command::stderr] {
                stream(&mut command, Stdio::from(theirs.try_clone().unwrap()));
            }
            master = Some(ours);
        } else {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let (out, err) = match &master {
            Some(master) => (Stream::new(master.try_clone().unwrap()), None),
            None => (
                Stream::new(File::from(OwnedFd::from(process.stdout.take().unwrap()))),
                Some(Stream::new(File::from(OwnedFd::from(process.stderr.take().unwrap())))),
            ),
        };
        let stdin = process.stdin.take();
        Self { process, place, master, stdin, out, err }
    }

    /// Waits until standard output (or the terminal) has shown `text` since the last call, and returns all up to its end.
    pub fn expect(&mut self, text: &str) -> String {
        self.out.expect(text).unwrap_or_else(|seen| {
            let err = self.err.as_mut().map(|err| err.drain()).unwrap_or_default();
            panic!("{text:?} never came, but: {seen:?}, and on standard error: {err:?}")
        })
    }

    /// The rest of the line whose beginning is awaited.
    pub fn expect_value(&mut self, key: &str) -> String {
        self.expect(key);
        self.expect("\n").trim().to_owned()
    }

    /// Types on the terminal, or writes to standard input.
    pub fn write(&mut self, text: &str) {
        match (&mut self.master, &mut self.stdin) {
            (Some(master), _) => master.write_all(text.as_bytes()).unwrap(),
            (None, Some(stdin)) => stdin.write_all(text.as_bytes()).unwrap(),
            (None, None) => panic!("nothing to write to"),
        }
    }

    /// The terminal.
    pub fn terminal(&self) -> &File {
        self.master.as_ref().expect("there is no terminal")
    }

    /// Hangs up the terminal.
    pub fn hang_up(&mut self) {
        self.master = None;
        self.out.stop();
    }

    /// The init's process id out here. Only once something has been heard of its child.
    pub fn init(&self) -> Pid {
        let first = only_child(Pid::from_raw(self.process.id() as i32));
        match self.place {
            Place::First => first,
            Place::Below => only_child(first),
        }
    }

    /// The main child's, likewise.
    pub fn main(&self) -> Pid {
        only_child(self.init())
    }

    /// Sends the init a signal.
    pub fn signal(&self, number: i32) {
        signal::kill(self.init().as_raw(), number).unwrap();
    }

    /// Waits for the end of it all.
    pub fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(
                begun.elapsed() < limit(),
                "it does not end; standard output: {:?}, standard error: {:?}",
                self.out.drain(),
                self.err.as_mut().map(|err| err.drain())
            );
            pause();
        };
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        let out = self.out.rest();
        let err = self.err.take().map(|mut err| err.rest()).unwrap_or_default();
        Finished { code, out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `unshare --kill-child` takes the namespace along.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Both ends of a new terminal. No process inherits them by accident, or it would never hang up.
fn terminal_pair() -> (File, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = posix_openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(ptsname_r(&ours).unwrap());
    (File::from(OwnedFd::from(ours)), theirs.unwrap())
}

/// A breath between two looks at something that no descriptor tells of.
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

/// Looks until `what` is true.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit(), "never: {what}");
        pause();
    }
}

/// Direct children of a process, zombies included.
pub fn children(pid: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

fn only_child(pid: Pid) -> Pid {
    let children = children(pid);
    assert!(!children.is_empty(), "{pid} has no child");
    children[0]
}

/// The state of a process: `R`, `S`, `T`, `Z`, …; `-` when it is gone.
pub fn state(pid: Pid) -> char {
    oscr::init::process::Stat::read(pid).map_or('-', |stat| stat.state)
}

/// A field of `/proc/<pid>/status`, or of a copy of such a file.
pub fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status:?}")).trim().to_owned()
}

/// A file's content, once it has one.
pub fn content_of(path: &std::path::Path) -> String {
    let mut text = String::new();
    until(&format!("content of {}", path.display()), || {
        text = fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text
}

/// A place for files of a case.
pub fn scratch() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    (directory, path)
}

/// What a process writes, read by a thread so that waiting for it can end.
struct Stream {
    chunks: Receiver<Vec<u8>>,
    seen: String,
    stopped: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn new(mut source: File) -> Self {
        let (sender, chunks) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let readable = poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], 20u8);
                if readable == Ok(0) {
                    continue;
                }
                match source.read(&mut buffer) {
                    Ok(count @ 1..) if sender.send(buffer[..count].to_vec()).is_ok() => {}
                    // The end; for a terminal without another side that is EIO.
                    _ => return,
                }
            }
        });
        Self { chunks, seen: String::new(), stopped, reader: Some(reader) }
    }

    fn expect(&mut self, text: &str) -> Result<String, String> {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return Ok(std::mem::replace(&mut self.seen, rest));
            }
            match self.chunks.recv_timeout(limit().saturating_sub(begun.elapsed())) {
                Ok(chunk) => self.seen.push_str(&String::from_utf8_lossy(&chunk)),
                Err(_) => return Err(self.seen.clone()),
            }
        }
    }

    /// What has come until now.
    fn drain(&mut self) -> String {
        while let Ok(chunk) = self.chunks.try_recv() {
            self.seen.push_str(&String::from_utf8_lossy(&chunk));
        }
        self.seen.clone()
    }

    /// What comes until the writers are gone.
    fn rest(&mut self) -> String {
        while let Ok(chunk) = self.chunks.recv_timeout(limit()) {
            self.seen.push_str(&String::from_utf8_lossy(&chunk));
        }
        std::mem::take(&mut self.seen)
    }

    /// Closes our side.
    fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}
