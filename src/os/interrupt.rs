//! A thread that blocks in `flock(2)`, and that another thread can have give up.
//!
//! A signal breaks a blocked call off, but one that comes just before the call would be lost. So its handler, which runs on the
//! thread itself, also puts a descriptor that cannot be locked in the place of the one that is about to be: the call that the
//! thread then makes fails at once. One signal is enough, whenever it comes.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, compiler_fence};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::signal::{SignalSet, set_mask};

/// Of no use to anybody else: whom it is sent to ignores it, unless it asked for urgent data of sockets.
const SIGNAL: i32 = libc::SIGURG;
/// Enough for a few paths, a directory's entries and the frame of a signal. A thread may sleep on it for days.
const STACK: usize = 64 * 1024;
const NONE: RawFd = -1;

thread_local! {
    /// Whether this thread was asked to give up.
    static ASKED: AtomicBool = const { AtomicBool::new(false) };
    /// The descriptor whose lock this thread waits for, or is about to.
    static AWAITED: AtomicI32 = const { AtomicI32::new(NONE) };
    /// One that cannot be locked.
    static DEAD_END: Cell<RawFd> = const { Cell::new(NONE) };
}

/// A thread that can be asked to give up.
#[derive(Debug)]
pub(crate) struct Interruptible(JoinHandle<()>);

impl Interruptible {
    /// Begins `body` on a thread of its own, with all signals blocked but the one that asks it to give up.
    ///
    /// # Errors
    /// When there is no room for a thread, or no descriptor left.
    pub(crate) fn begin(body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        listen()?;
        let dead_end = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let begun = thread::Builder::new().name("lock-wait".to_owned()).stack_size(STACK).spawn(move || {
            DEAD_END.set(dead_end.as_raw_fd());
            // It cannot fail. What was sent before comes now.
            let _ = set_mask(SignalSet::all_but(SIGNAL));
            body();
        });
        begun.map(Self)
    }

    /// Asks it to give up: the lock that it waits for, and any that it would wait for later.
    pub(crate) fn interrupt(&self) {
        // SAFETY: the thread is neither joined nor detached as long as its handle is there, so it can be named, be it over or not.
        unsafe { libc::pthread_kill(self.0.as_pthread_t() as libc::pthread_t, SIGNAL) };
    }
}

/// Whether this thread was asked to give up.
pub(crate) fn asked() -> bool {
    ASKED.with(|asked| asked.load(Ordering::Relaxed))
}

/// Waits for a lock on the file, exclusive or shared. Where the thread was asked to give up, be it in the moment in which the lock
/// was had, the error is of the kind `Interrupted`, and the file is one that cannot be used any more.
///
/// # Errors
/// When the file cannot be locked, and when the thread was asked to give up.
pub(crate) fn lock(file: &File, shared: bool) -> io::Result<()> {
    let operation = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
    AWAITED.with(|awaited| awaited.store(file.as_raw_fd(), Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
    let result = loop {
        if asked() {
            break Err(io::ErrorKind::Interrupted.into());
        }
        #[cfg(test)]
        tests::before_the_call();
        // SAFETY: flock takes two integers, and the descriptor is open as long as `file` is.
        if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
            break Ok(());
        }
        let error = io::Error::last_os_error();
        // A signal of somebody else's asks for nothing.
        if error.kind() != io::ErrorKind::Interrupted && !asked() {
            break Err(error);
        }
    };
    compiler_fence(Ordering::SeqCst);
    AWAITED.with(|awaited| awaited.store(NONE, Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
    if asked() { Err(io::ErrorKind::Interrupted.into()) } else { result }
}

/// Sleeps, but not on where the thread was asked to give up.
///
/// # Errors
/// Of the kind `Interrupted` when it was.
pub(crate) fn sleep(duration: Duration) -> io::Result<()> {
    let until = std::time::Instant::now() + duration;
    while let left = until.saturating_duration_since(std::time::Instant::now())
        && !left.is_zero()
        && !asked()
    {
        let time = libc::timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        // SAFETY: the time lives through the call, and what is left of it is not asked for.
        unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
    }
    if asked() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Has the handler called for the signal, from now on.
fn listen() -> io::Result<()> {
    static LISTENS: OnceLock<Option<i32>> = OnceLock::new();
    let failed = LISTENS.get_or_init(|| {
        // SAFETY: a set of actions that is all zeros is valid, and means no flag: above all none that has calls begin anew.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_flags = libc::SA_SIGINFO;
        action.sa_sigaction = give_up as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        // SAFETY: the structure lives through the call, and the handler is one that takes three arguments, as the flag says.
        let result = unsafe { libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut()) };
        if result == 0 { None } else { io::Error::last_os_error().raw_os_error() }
    });
    failed.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

/// Runs on the thread that was asked. It calls only what is async-signal-safe, and what it reads needs no construction.
extern "C" fn give_up(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid structure, which has the sender in it if a thread was named.
    let ours = unsafe { (*info).si_code == libc::SI_TKILL && (*info).si_pid() == libc::getpid() };
    if !ours {
        return;
    }
    ASKED.with(|asked| asked.store(true, Ordering::Relaxed));
    let awaited = AWAITED.with(|awaited| awaited.load(Ordering::Relaxed));
    let dead_end = DEAD_END.get();
    if awaited == NONE || dead_end == NONE {
        return;
    }
    // SAFETY: `dup3` takes integers. The descriptor is open, because the thread is in `lock`, whose caller lends it the file; what is
    // put in its place is closed with it. The place of the error belongs to the thread, and the code that was interrupted may
    // be about to read it.
    unsafe {
        let place = libc::__errno_location();
        let error = *place;
        libc::dup3(dead_end, awaited, libc::O_CLOEXEC);
        *place = error;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    thread_local! {
        static BEFORE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    /// What a test wants done between the last look at whether to give up and the call.
    pub(super) fn before_the_call() {
        if let Some(before) = BEFORE.take() {
            before();
        }
    }

    struct Lab {
        path: std::path::PathBuf,
        holder: File,
        _folder: tempfile::TempDir,
    }

    fn lab() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holder = File::create(&path).unwrap();
        holder.lock().unwrap();
        Lab { path, holder, _folder: folder }
    }

    /// A thread that waits for the lock after `before`, and then tells how that ended.
    fn waits(lab: &Lab, before: impl FnOnce() + Send + 'static) -> (Interruptible, Receiver<io::Result<()>>) {
        let (tell, told) = channel();
        let file = File::open(&lab.path).unwrap();
        let thread = Interruptible::begin(move || {
            BEFORE.set(Some(Box::new(before)));
            let result = lock(&file, false);
            drop(file);
            tell.send(result).unwrap();
        });
        (thread.unwrap(), told)
    }

    fn gave_up(told: &Receiver<io::Result<()>>) -> bool {
        told.recv().unwrap().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
    }

    /// What has a thread come so far and no further, and lets it go on.
    fn barrier() -> (impl FnOnce() + Send + 'static, Receiver<()>, Sender<()>) {
        let ((here, arrived), (go, on)) = (channel(), channel::<()>());
        let hold = move || {
            here.send(()).unwrap();
            on.recv().unwrap();
        };
        (hold, arrived, go)
    }

    #[test]
    fn one_that_was_not_in_the_call_yet_gives_up() {
        let lab = lab();
        let (hold, arrived, go) = barrier();
        let (thread, told) = waits(&lab, hold);
        arrived.recv().unwrap();
        thread.interrupt();
        go.send(()).unwrap();
        assert!(gave_up(&told));
    }

    #[test]
    fn one_that_is_blocked_gives_up_and_another_signal_is_not_for_it() {
        let lab = lab();
        let (tell, told_id) = channel();
        let (thread, told) = waits(&lab, move || tell.send(nix::unistd::gettid()).unwrap());
        let id = told_id.recv().unwrap();
        let call = format!("{} ", libc::SYS_flock);
        let blocked = || {
            while !std::fs::read_to_string(format!("/proc/self/task/{id}/syscall"))
                .is_ok_and(|now| now.starts_with(&call))
            {
                thread::yield_now();
            }
        };
        blocked();
        let stranger = format!("kill -URG {id}");
        assert!(std::process::Command::new("sh").args(["-c", &stranger]).status().unwrap().success());
        blocked();
        assert!(told.try_recv().is_err());
        thread.interrupt();
        assert!(gave_up(&told));
    }

    #[test]
    fn one_that_wins_in_the_same_moment_keeps_nothing() {
        let lab = lab();
        let (hold, arrived, go) = barrier();
        let (thread, told) = waits(&lab, hold);
        arrived.recv().unwrap();
        lab.holder.unlock().unwrap();
        thread.interrupt();
        go.send(()).unwrap();
        assert!(gave_up(&told));
        lab.holder.try_lock().unwrap();
    }

    #[test]
    fn one_that_is_asked_too_late_keeps_what_it_has() {
        let lab = lab();
        lab.holder.unlock().unwrap();
        let (thread, told) = waits(&lab, || {});
        told.recv().unwrap().unwrap();
        thread.interrupt();
    }
}
