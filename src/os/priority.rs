//! Who comes first when there is too little processor time or disk for all.

/// Makes the calling thread, and those that it starts from now on, the last to be given processor time and the disk. It cannot
/// be taken back without the capability SYS_NICE. Where the kernel refuses, or the disk's scheduler knows no classes, the thread goes
/// on as before.
pub(crate) fn step_back() {
    const LOWEST: libc::c_int = 19;
    // From the kernel's `include/uapi/linux/ioprio.h`.
    const WHO_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: both calls take integers alone; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST);
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_steps_back_and_no_other() {
        let nice = || {
            // SAFETY: it takes integers alone.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let before = nice();
        std::thread::spawn(move || {
            step_back();
            assert_eq!(nice(), 19);
        })
        .join()
        .unwrap();
        assert_eq!(nice(), before);
    }
}
