//! A filter that lets system calls fail, as an engine's does for those that it does not know, or as an old kernel itself.

use std::io;

/// A filter against one system call.
#[derive(Clone)]
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Lets `call` fail with `error`; only with a certain first argument, if one is given.
    pub fn new(call: u32, argument: Option<u32>, error: u32) -> Self {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        // `struct seccomp_data`: the call's number at 0, the lower half of its first argument at 16.
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut filter = vec![step(LOAD, 0, 0, 0), step(EQUAL, 0, 3, call)];
        filter.extend(match argument {
            Some(value) => [step(LOAD, 0, 0, 16), step(EQUAL, 0, 1, value)],
            None => [step(LOAD, 0, 0, 0), step(EQUAL, 0, 1, call)],
        });
        filter
            .extend([step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | error), step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)]);
        Self(filter)
    }

    /// Puts it on this process and all that it starts. Allocates nothing, so that it serves between `fork` and `exec` too.
    pub fn install(&self) -> io::Result<()> {
        // The kernel only reads the filter.
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the program and the filter that it points to live through the call, which copies them.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
