//! Who comes first when there is too little processor time or disk for all.

use rustix::process::setpriority_process;

/// Makes the calling thread, and those that it starts from now on, the last to be given processor time and the disk. It cannot
/// be taken back without the capability SYS_NICE. Where the kernel refuses, or the disk's scheduler knows no classes, the thread goes
/// on as before.
pub(crate) fn step_back() {
    const LOWEST: i32 = 19;
    // From the kernel's `include/uapi/linux/ioprio.h`.
    const WHO_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    let _ = setpriority_process(None, LOWEST);
    // SAFETY: the call takes integers alone; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_steps_back_and_no_other() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
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
